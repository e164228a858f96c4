"""Decoding in a process of its own: the same result, and an end for what takes too much."""

from __future__ import annotations

import gzip
import io
import os
import sys

import numpy as np
import pytest
import soundfile

from auricle.audio import isolated
from auricle.audio.decode import as_clip, decode, probe, stream
from auricle.audio.limits import Limits
from auricle.errors import (
    AudioError,
    AuricleError,
    BrokenAudio,
    ClipTooShort,
    LimitExceeded,
    UnsupportedFormat,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the limits are those of POSIX")

APART = Limits(isolate=True)


@pytest.mark.parametrize(("fmt", "subtype"), [("WAV", "PCM_16"), ("OGG", "VORBIS")])
def test_all_is_as_in_this_process(tone, encode, tmp_path, fmt, subtype) -> None:
    data = encode(tone(2.0, 44_100, 2), 44_100, fmt, subtype)
    path = tmp_path / "ä.bin"
    path.write_bytes(data)
    for source in (path, io.BytesIO(data)):
        clip, wanted = decode(source, start_s=0.5, limits=APART), decode(source, start_s=0.5)
        np.testing.assert_array_equal(clip.waveform, wanted.waveform)
        assert clip.facts == wanted.facts
    assert probe(path, limits=APART) == probe(path)
    with stream(path, block_s=0.3, limits=APART) as blocks:
        np.testing.assert_array_equal(np.concatenate(list(blocks)), decode(path).waveform)
    assert blocks.facts == decode(path).facts


def test_a_file_object_is_what_it_reads_and_not_what_it_is_made_of(tone, encode, tmp_path) -> None:
    data = encode(tone(1.0))
    packed = tmp_path / "a.wav.gz"
    packed.write_bytes(gzip.compress(data))
    with gzip.open(packed) as file:
        np.testing.assert_array_equal(decode(file, limits=APART).waveform, decode(data).waveform)


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (b"hello there\n" * 100, UnsupportedFormat, "plain text"),
        (b"RIFF\xff\xff\xff\xffWAVE", BrokenAudio, "header"),
        (b"", BrokenAudio, "empty"),
    ],
)
def test_errors_keep_their_class(data: bytes, error: type[AuricleError], says: str) -> None:
    with pytest.raises(error, match=says):
        decode(data, limits=APART)


def test_ranges_and_arrays(tone, encode) -> None:
    with pytest.raises(ClipTooShort, match=r"lasts 2\.000 s"):
        decode(encode(tone(2.0)), start_s=3, limits=APART)
    assert len(as_clip(tone(1.0, 16_000), limits=APART).waveform) == 16_000
    with pytest.raises(AudioError, match="no such file"):
        decode("gone.wav", limits=APART)


def test_what_takes_too_much_memory_or_time_ends(tone, encode, monkeypatch) -> None:
    data = encode(tone(20.0, 48_000, 2), 48_000, "FLAC")
    monkeypatch.setattr(isolated, "_MEMORY_BYTES", 200 << 20)
    with pytest.raises((LimitExceeded, BrokenAudio), match="hostile"):
        decode(data, limits=APART)
    monkeypatch.undo()
    monkeypatch.setattr(isolated, "_CPU_S", 1)
    long = io.BytesIO()
    soundfile.write(long, np.zeros(3600 * 800, np.int16), 800, format="FLAC")
    with pytest.raises(LimitExceeded, match="1 s of the processor"):
        decode(long.getvalue() * 12, limits=APART)
    monkeypatch.undo()
    monkeypatch.setattr(isolated, "_WAIT_S", 0.001)
    with pytest.raises(LimitExceeded, match=r"no audio within 0\.001 s"):
        decode(data, limits=APART)


def test_modules_beside_a_file_are_not_run(tone, encode, tmp_path, monkeypatch) -> None:
    (tmp_path / "numpy.py").write_text("open('marker', 'w')")
    (tmp_path / "a.wav").write_bytes(encode(tone(0.5)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert decode("a.wav", limits=APART).facts.stop_s == 0.5
    assert not (tmp_path / "marker").exists()


def test_leaving_early_ends_the_process(tone, encode) -> None:
    blocks = stream(encode(tone(30.0)), block_s=0.1, limits=APART)
    next(blocks)
    blocks.close()
    assert list(blocks) == []
