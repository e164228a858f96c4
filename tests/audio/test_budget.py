"""Work is bounded before it is done: headers that claim much, junk that looks like frames, hours at low rates."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
import torch

import auricle
from auricle.audio import flac, mpeg, ogg
from auricle.audio.boxes import check_boxes
from auricle.audio.decode import decode, probe
from auricle.encode import clips
from auricle.encode.encoder import Embedding
from auricle.errors import AuricleError, BrokenAudio


def within(seconds: float, work: Callable[[], object]) -> object:
    started = time.process_time()
    try:
        return work()
    except AuricleError as error:
        return error
    finally:
        assert time.process_time() - started < seconds


@pytest.mark.parametrize(
    "junk",
    [
        b"\xff",
        b"\xff\xfb\x90\x64",
        b"\xff\xf1\x50\x80\x00\x1f",
        b"\xff\xfb",
        b"\0\xff\xf3\x14\xc4",
        b"OggS\0",
        b"ID3\x04",
    ],
)
def test_megabytes_of_what_looks_like_frames(junk: bytes) -> None:
    head = (bytes([0xFF, 0xF3, 0x14, 0xC4]) + bytes(20)) * 4
    data = head + junk * (5 * 2**20 // len(junk))
    for read in (probe, decode):
        within(8.0, lambda: read(data))  # noqa: B023
    assert mpeg.walk(io.BytesIO(data), len(data)).runs


def test_what_is_left_unread_is_said(monkeypatch, tone, encode) -> None:
    mp3 = encode(tone(1.0), fmt="MP3")
    other = encode(tone(1.0, 48_000), 48_000, "MP3")
    monkeypatch.setattr(mpeg, "_MOST_STARTS", 10)
    junk = b"\xff\xfb\x90\x64" * 1000
    facts = decode(mp3 + junk + mp3).facts
    assert facts.truncated and "not read" in facts.notes[-1]
    monkeypatch.undo()
    for room, name, data in (
        (mpeg, "_MOST_RUNS", mp3 + other + mp3),
        (mpeg, "_MOST_FRAMES", mp3 + mp3),
        (ogg, "_MOST_LINKS", encode(tone(1.0), fmt="OGG", subtype="VORBIS") * 3),
        (ogg, "_MOST_PAGES", encode(tone(1.0), fmt="OGG", subtype="VORBIS") * 3),
        (flac, "MOST_PARTS", encode(tone(1.0), fmt="FLAC") * 3),
    ):
        assert not decode(data).facts.truncated
        with monkeypatch.context() as patch:
            patch.setattr(room, name, 2 if name != "_MOST_FRAMES" else 45)
            facts = decode(data).facts
            assert facts.truncated and "not read" in facts.notes[-1], name


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def in_track(table: bytes) -> bytes:
    for parent in (b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        table = box(parent, table)
    return box(b"ftyp", b"M4A \0\0\0\0") + table + bytes(300)


def entries(count: int) -> bytes:
    return struct.pack(">II", 0, count)


@pytest.mark.parametrize(
    "table",
    [
        box(b"stsz", struct.pack(">III", 0, 1, 88_000_000)),
        box(b"stsz", struct.pack(">III", 0, 0, 88_000_000) + bytes(100)),
        box(b"stz2", struct.pack(">III", 0, 4, 1 << 31) + bytes(100)),
        box(b"stts", entries(1 << 30) + bytes(80)),
        box(b"ctts", entries(1 << 30) + bytes(80)),
        box(b"stco", entries(1 << 30) + bytes(80)),
        box(b"co64", entries(20) + bytes(80)),
        box(b"stsc", entries(1 << 31) + bytes(80)),
        *(box(b"trun", entries(100)) * 5 for _ in range(1)),
    ],
)
def test_tables_that_claim_more_than_the_file_holds(table: bytes) -> None:
    data = in_track(table)
    with pytest.raises(BrokenAudio, match=r"upload: its .* table claims [\d,]+ entries, more than the file holds"):
        check_boxes(io.BytesIO(data), len(data), "upload")
    with pytest.raises(BrokenAudio, match="table claims"):
        probe(data)


@pytest.mark.parametrize("claim", [88_000_000, 2**32 - 1])
def test_a_claim_in_a_true_file(tone, encode_av, claim: int) -> None:
    data = encode_av(tone(1.0), 44_100, "ipod", "aac")
    check_boxes(io.BytesIO(data), len(data), "")
    at = data.index(b"stsz") + 8
    hostile = data[:at] + struct.pack(">II", 1, claim) + data[at + 8 :]
    tracemalloc.start()
    with pytest.raises(BrokenAudio, match="stsz"):
        decode(hostile)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_hours_at_a_low_rate_are_held_once(tmp_path) -> None:
    path = tmp_path / "hours.flac"
    soundfile.write(path, np.zeros(100 * 3600, np.int16), 100, format="FLAC")
    assert path.stat().st_size < 20_000
    tracemalloc.start()
    clip = decode(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(clip.waveform) == 3600 * 16_000
    assert peak < 1.6 * clip.waveform.nbytes


@pytest.mark.parametrize("layer", [None, 1])
@pytest.mark.parametrize("frames", [False, True])
def test_an_encoder_reads_long_clips_as_a_stream(tone, encode, layer, frames: bool, monkeypatch) -> None:
    waveform = tone(34.7, 16_000)
    waveform[: 15 * 16_000] *= 1e-4  # below the floor that the loud rest sets
    encoder = auricle.load_encoder(layer=layer)
    (whole,) = encoder.embed_many([encode(waveform, 16_000, "WAV", "FLOAT")], frames=frames)
    monkeypatch.setattr(clips, "LONG_SECONDS", 12.0)
    monkeypatch.setattr(clips, "BATCH_SECONDS", 12.0)
    monkeypatch.setattr(type(encoder), "_frames", None)  # which needs the clip in memory
    for source in (encode(waveform, 16_000, "WAV", "FLOAT"), waveform):
        (streamed,) = encoder.embed_many([source], frames=frames)
        assert isinstance(whole, Embedding) and isinstance(streamed, Embedding), streamed
        assert streamed.values.shape == whole.values.shape
        assert torch.allclose(streamed.values, whole.values, atol=2e-4)
        assert streamed.receipt.read == whole.receipt.read
        assert streamed.receipt.audio_tokens == whole.receipt.audio_tokens
