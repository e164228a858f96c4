"""Where a sound ends: not where a tag, a header, an estimate or another stream says."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import soundfile

from auricle.audio.decode import decode, probe, stream
from auricle.audio.limits import Limits
from auricle.errors import BrokenAudio, ClipTooShort, MissingExtra

from .conftest import Encode

av = pytest.importorskip("av", reason="PyAV (extra media) is not installed")


def put(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def total_of_flac(data: bytes, total: int) -> bytes:
    return put(data, 21, bytes([data[21] & 0xF0]) + total.to_bytes(4, "big"))


# --- A: joined, tagged, changing


def test_a_flac_that_understates_is_read_whole(tone, encode: Encode) -> None:
    data = total_of_flac(encode(tone(3.0), fmt="FLAC"), 44_100)
    assert soundfile.info(io.BytesIO(data)).duration == 1
    facts = decode(data).facts
    assert (facts.duration_s, facts.stop_s, facts.truncated) == (3.0, 3.0, False)
    assert "states 44,100 samples; 132,300 were found" in facts.notes[0]
    assert probe(data).duration_s == 3.0
    part = decode(data, start_s=2.0, stop_s=2.5)
    np.testing.assert_allclose(part.waveform[400:-400], decode(data).waveform[32_400:39_600], atol=1e-4)


@pytest.mark.parametrize("rates", [(44_100, 48_000), (48_000, 16_000), (16_000, 44_100)])
@pytest.mark.parametrize("seconds", [2.0, 0.2])
def test_a_flac_that_changes_its_rate_without_a_header(
    tone, encode: Encode, rates: tuple[int, int], seconds: float
) -> None:
    first, second = (encode(tone(seconds, rate, seed=rate), rate, "FLAC") for rate in rates)
    frames = second[second.index(b"\xff\xf8") :]
    clip = decode(first + frames)
    assert clip.facts.stop_s == pytest.approx(2 * seconds, abs=1e-4)
    assert not clip.facts.truncated
    assert any(f"{rates[1]} Hz" in note for note in clip.facts.notes)
    np.testing.assert_allclose(clip.waveform[round(16_000 * seconds) :], decode(second).waveform, atol=1e-6)
    late = decode(first + frames, start_s=1.5 * seconds)
    np.testing.assert_allclose(late.waveform[400:], clip.waveform[round(24_000 * seconds) + 400 :], atol=1e-3)


def test_flac_frames_without_any_header_are_recognised(tone, encode: Encode) -> None:
    data = encode(tone(2.0, 48_000), 48_000, "FLAC")
    facts = decode(data[data.index(b"\xff\xf8") :]).facts
    assert (facts.container, facts.stop_s) == ("flac", 2.0)


def test_every_link_of_a_chain_has_its_own_layout(tone, encode: Encode) -> None:
    layouts = [(44_100, 1), (48_000, 2), (16_000, 1)]
    links = [encode(tone(2.0, rate, channels), rate, "OGG", "VORBIS") for rate, channels in layouts]
    clip = decode(b"".join(links))
    assert clip.facts.duration_s == pytest.approx(6.0, abs=1e-6)
    assert "44100 Hz, 1 ch → 48000 Hz, 2 ch → 16000 Hz, 1 ch" in clip.facts.notes[0]
    for place, link in enumerate(links):
        start = 32_000 * place
        np.testing.assert_allclose(clip.waveform[start : start + 32_000], decode(link).waveform, atol=1e-6)
    late = decode(b"".join(links), start_s=4.5, stop_s=5.0)
    np.testing.assert_allclose(late.waveform[400:-400], clip.waveform[72_400:79_600], atol=1e-3)
    assert late.facts.start_s == 4.5
    blocks = stream(b"".join(links), block_s=0.3)
    np.testing.assert_array_equal(np.concatenate(list(blocks)), clip.waveform)
    with pytest.raises(ClipTooShort, match=r"lasts 6\.000 s"):
        decode(b"".join(links), start_s=7)


@pytest.mark.parametrize("order", [(0, 0), (0, 1, 0), (0, 0, 0)])
def test_links_count_by_their_first_pages_and_not_by_serial_numbers(tone, encode: Encode, order) -> None:
    sounds = [encode(tone(2.0), fmt="OGG", subtype="VORBIS"), encode(tone(1.0, seed=2), fmt="OGG", subtype="VORBIS")]
    assert decode(b"".join(sounds[place] for place in order)).facts.stop_s == sum((2.0, 1.0)[place] for place in order)


def test_without_pyav_what_it_would_read_on_is_named(tone, encode: Encode, encode_av, monkeypatch) -> None:
    varying = encode_av(tone(2.0), 44_100, "mp2", "mp2")
    slow = mp2_at(tone(2.0), 32_000)
    assert decode(varying + slow).facts.stop_s == pytest.approx(4.0, abs=0.06)
    mp3 = encode(tone(2.0), fmt="MP3")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    assert decode(mp3 + b"TAG" + bytes(125) + mp3).facts.stop_s == pytest.approx(4.0, abs=0.06)
    facts = decode(varying + slow).facts
    assert facts.truncated or facts.stop_s == pytest.approx(4.0, abs=0.06)


def mp2_at(waveform: np.ndarray, bits: int) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp2") as output:
        track = output.add_stream("mp2", rate=44_100, layout="mono")
        track.bit_rate = bits
        frame = av.AudioFrame.from_ndarray((waveform[None] * 32767).astype(np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 44_100, 0
        for part in av.AudioResampler(format="s16", layout="mono", rate=44_100, frame_size=1152).resample(frame):
            output.mux(track.encode(part))
        output.mux(track.encode(None))
    return buffer.getvalue()


def test_junk_among_frames_is_mentioned_and_a_tag_is_not(tone, encode: Encode) -> None:
    mp3 = encode(tone(1.0), fmt="MP3")
    assert decode(mp3 + b"TAG" + bytes(125) + mp3).facts.notes == ()
    (note,) = decode(mp3 + bytes(range(1, 200)) + mp3).facts.notes
    assert note.startswith("199 bytes")


ID3V1 = b"TAG" + b"Title".ljust(125, b"\0")


def ape_tag(with_header: bool) -> bytes:
    item = struct.pack("<II", 4, 0) + b"Title\0" + b"Rain"
    size, flags = len(item) + 32, 1 << 31 if with_header else 0
    footer = struct.pack("<8sIIIIQ", b"APETAGEX", 2000, size, 1, flags, 0)
    header = struct.pack("<8sIIIIQ", b"APETAGEX", 2000, size, 1, flags | 1 << 29, 0)
    return (header if with_header else b"") + item + footer


@pytest.mark.parametrize("tags", [ID3V1, ape_tag(False), ape_tag(True), ape_tag(True) + ID3V1, ID3V1 + ape_tag(False)])
@pytest.mark.parametrize(("muxer", "codec"), [("flac", "flac"), ("wv", "wavpack"), ("tta", "tta")])
def test_tags_behind_the_audio_are_no_damage(tone, encode: Encode, encode_av, tags, muxer: str, codec: str) -> None:
    sound = tone(1.0)
    data = encode(sound, fmt="FLAC") if codec == "flac" else encode_av(sound, 44_100, muxer, codec)
    plain, tagged = decode(data), decode(data + tags)
    np.testing.assert_array_equal(tagged.waveform, plain.waveform)
    facts = tagged.facts
    assert (facts.duration_s, facts.damaged, facts.truncated, facts.notes) == (plain.facts.duration_s, 0, False, ())


def test_a_cut_before_a_tag_is_found(tone, encode: Encode) -> None:
    assert decode(encode(tone(1.0), fmt="FLAC")[:-9000] + ID3V1).facts.truncated


@pytest.mark.parametrize("length", [0, 31, 1 << 31, (1 << 32) - 1])
def test_a_tag_of_an_impossible_length_is_left_in_place(tone, encode: Encode, length: int) -> None:
    footer = struct.pack("<8sIIIIQ", b"APETAGEX", 2000, length, 1, 0, 0)
    assert decode(encode(tone(1.0), fmt="FLAC") + footer).facts.stop_s == 1.0


# --- B: estimates are not declarations


def test_an_estimate_neither_refuses_nor_makes_a_sound_incomplete(tone, encode_av) -> None:
    quiet = np.concatenate([np.zeros(20 * 16_000, np.float32), tone(1.0, 16_000)])
    data = encode_av(quiet, 16_000, "adts", "aac")
    with av.open(io.BytesIO(data), format="aac") as opened:
        assert opened.duration / 1e6 > 60, "FFmpeg's estimate is better now"
    facts = decode(data, limits=Limits(max_seconds=25)).facts
    assert (facts.stop_s, facts.truncated) == (pytest.approx(21.0, abs=0.13), False)
    assert probe(data).duration_s == facts.duration_s == facts.stop_s


@pytest.mark.parametrize("muxer", ["matroska", "flv", "avi", "mp4", "mpegts"])
def test_a_picture_longer_than_the_sound(tone, muxer: str) -> None:
    facts = decode(film(muxer, tone(2.0, 44_100), seconds=5.0)).facts
    assert facts.stop_s == pytest.approx(2.0, abs=0.1)
    assert not facts.truncated
    assert facts.duration_s == facts.stop_s


@pytest.mark.parametrize("codec", ["libmp3lame", "mp2"])
def test_the_slack_of_mpeg_is_that_of_the_codec(tone, encode_av, codec: str) -> None:
    facts = decode(encode_av(tone(2.0), 44_100, "wav", codec)).facts
    assert not facts.truncated
    assert facts.duration_s == facts.stop_s == pytest.approx(2.0, abs=0.06)


@pytest.mark.parametrize("behind", [b"", b"TAG" + bytes(125), bytes(5000)])
@pytest.mark.parametrize("bits", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("has_info", [True, False])
def test_a_counted_mp3_is_neither_longer_nor_shorter(behind: bytes, bits: str, has_info: bool) -> None:
    swelling = np.linspace(0, 0.9, 5 * 44_100) * np.random.default_rng(0).uniform(-1, 1, 5 * 44_100)
    buffer = io.BytesIO()
    soundfile.write(buffer, swelling, 44_100, format="MP3", bitrate_mode=bits, compression_level=0.5)
    data = buffer.getvalue()
    facts = decode((data if has_info else data[data.index(b"\xff\xfb", 4) :]) + behind).facts
    assert not facts.truncated
    assert facts.duration_s == facts.stop_s == pytest.approx(5.0, abs=0.06)


def film(
    muxer: str,
    waveform: np.ndarray,
    *,
    seconds: float = 4.0,
    starts_s: float = 0.0,
    hole: tuple[float, float] | None = None,
    tracks: int = 1,
    codec: str = "aac",
) -> bytes:
    """Moving pictures of some seconds with audio at 44.1 kHz that starts later, or lacks a part."""
    buffer = io.BytesIO()
    rate = 48_000 if codec == "libopus" else 44_100
    with av.open(buffer, "w", format=muxer) as output:
        picture = output.add_stream("vp8" if muxer == "webm" else "flv1" if muxer == "flv" else "mpeg4", rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
        sounds = [output.add_stream(codec, rate=rate, layout="mono") for _ in range(tracks)]
        packets = []
        for number in range(round(seconds * 10)):
            frame = av.VideoFrame(64, 64, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            packets += picture.encode(frame)
        packets += picture.encode(None)
        for sound in sounds:
            sound.codec_context.open()
            size = sound.codec_context.frame_size
            for at in range(0, len(waveform) - size + 1, size):
                if hole and hole[0] <= at / rate < hole[1]:
                    continue
                kind = sound.codec_context.format.name
                samples = waveform[None, at : at + size]
                samples = samples if kind.startswith("flt") else (samples * 32767).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format=kind, layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = rate, at + round(starts_s * rate), Fraction(1, rate)
                packets += sound.encode(frame)
            packets += sound.encode(None)
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            output.mux(packet)
    return buffer.getvalue()


# --- C: lengths left open by writers to a pipe

LENGTHS: list[tuple[str, Callable[[bytes], int], str, tuple[int, ...]]] = [
    ("WAV", lambda data: data.index(b"data") + 4, "<I", (0, 2_000_000_000, 0x7F000000, 0x7FFFFFFF, 2**31, 2**32 - 1)),
    ("AIFF", lambda data: data.index(b"SSND") + 4, ">I", (0, 8, 0x7F000008, 2**32 - 1)),
    ("AU", lambda data: 8, ">I", (0, 2**32 - 1)),
    ("CAF", lambda data: data.index(b"data") + 4, ">Q", (0, 4, 2**63 - 1, 2**64 - 1)),
    ("W64", lambda data: data.index(b"data\xf3\xac") + 16, "<Q", (0, 24, 2**40, 2**63 - 1, 2**64 - 1)),
    ("RF64", lambda data: 28, "<Q", (0, 2**63, 2**64 - 1)),
]


@pytest.mark.parametrize(("fmt", "place", "width", "values"), LENGTHS, ids=[row[0] for row in LENGTHS])
def test_a_length_left_open_is_what_the_file_holds(tone, encode: Encode, fmt, place, width, values) -> None:
    data = encode(tone(2.0), fmt=fmt)
    wanted = decode(data).waveform
    for value in values:
        clip = decode(put(data, place(data), struct.pack(width, value)))
        assert not clip.facts.truncated, value
        assert clip.facts.duration_s == pytest.approx(2.0, abs=0.001), value
        np.testing.assert_array_equal(clip.waveform[:31_000], wanted[:31_000])


def test_an_empty_file_is_empty_and_a_cut_one_cut(tone, encode: Encode) -> None:
    empty = encode(np.zeros(0, np.float32))
    for data in (empty, empty + b"LIST" + struct.pack("<I", 4) + b"INFO"):
        with pytest.raises(BrokenAudio, match="without one readable sample"):
            decode(data)
    whole = encode(tone(2.0))
    with_list = whole + b"LIST" + struct.pack("<I", 20_000) + bytes(20_000)
    assert decode(with_list).facts.stop_s == 2.0
    assert decode(put(whole, 40, struct.pack("<I", 10**9))).facts.truncated
    doubtful = decode(put(whole, 40, struct.pack("<I", 2_000_000_000))).facts
    assert "2,000,000,000" in doubtful.notes[0]


# --- D: what libsndfile cannot open


@pytest.mark.parametrize(
    ("muxer", "codec", "rate"),
    [("wav", "ac3", 48_000), ("wav", "mp2", 44_100), ("wav", "adpcm_yamaha", 44_100), ("wav", "wmav2", 44_100),
     ("ogg", "flac", 44_100), ("caf", "alac", 44_100)],
)  # fmt: skip
def test_a_foreign_codec_is_read_by_ffmpeg_or_its_extra_is_named(
    tone, encode_av, monkeypatch, muxer: str, codec: str, rate: int
) -> None:
    data = encode_fitting(tone(2.0, rate), rate, muxer, codec)
    assert decode(data).facts.stop_s == pytest.approx(2.0, abs=0.1)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingExtra, match=r"auricle\[media\]"):
        decode(data)


def encode_fitting(waveform: np.ndarray, rate: int, muxer: str, codec: str) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=muxer) as output:
        track = output.add_stream(codec, rate=rate, layout="mono")
        track.bit_rate = 64_000
        track.codec_context.open()
        frame = av.AudioFrame.from_ndarray((waveform[None] * 32767).astype(np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        context = track.codec_context
        fitting = av.AudioResampler(
            format=context.format.name, layout="mono", rate=rate, frame_size=context.frame_size or 1024
        )
        for part in [*fitting.resample(frame), *fitting.resample(None)]:
            output.mux(track.encode(part))
        output.mux(track.encode(None))
    return buffer.getvalue()


def test_bw64(tone, encode: Encode) -> None:
    data = b"BW64" + encode(tone(2.0), fmt="RF64")[4:]
    assert (decode(data).facts.stop_s, decode(data).facts.truncated) == (2.0, False)
    assert decode(data[: len(data) // 2]).facts.truncated


@pytest.mark.parametrize("before", [bytes(100), bytes(50_000), bytes(range(1, 251)) * 20, b"\xff" * 30_000])
def test_zeros_or_junk_before_the_first_frame(tone, encode: Encode, encode_av, before: bytes) -> None:
    mp3, aac = encode(tone(2.0), fmt="MP3"), encode_av(tone(2.0), 44_100, "adts", "aac")
    for name, data in (("mp3", mp3), ("aac", aac)):
        facts = decode(before + data).facts
        assert (facts.container, facts.stop_s) == (name, decode(data).facts.stop_s)


def test_a_frame_beyond_the_end_is_no_first_frame(tone, encode: Encode) -> None:
    mp3 = encode(tone(0.3), fmt="MP3")
    aac_header = b"\xff\xf1\x50\x83\xff\xff\x00"  # of a frame of 8191 bytes, more than the file holds
    assert len(mp3) < 8000
    facts = decode(b"\x96\x54" + aac_header + bytes(range(100, 150)) + mp3).facts
    assert (facts.container, facts.stop_s) == ("mp3", decode(mp3).facts.stop_s)


def musepack(frames: int) -> bytes:
    """Digital silence as Musepack of stream version 7: frames of 12 bits, each behind 20 bits for its length."""
    bits = "0" * 8 + (f"{12:020b}" + "0" * 12) * frames
    bits += "0" * (-len(bits) % 32)
    words = [int(bits[at : at + 32], 2) for at in range(0, len(bits), 32)]
    return b"MP+\x07" + struct.pack("<I", frames) + bytes(16) + struct.pack(f"<{len(words)}I", *words)


def test_musepack_is_recognised_by_its_content() -> None:
    facts = decode(musepack(40)).facts
    assert (facts.container, facts.sample_rate, facts.channels, facts.truncated) == ("musepack", 44_100, 2, False)
    assert facts.stop_s == pytest.approx(40 * 1152 / 44_100, abs=0.03)
    assert decode(musepack(40)[:100]).facts.truncated
    assert decode(musepack(40) + ape_tag(True)).facts == replace(facts, name="<bytes>")


@pytest.mark.parametrize("start_s", [0.0, 1.0])
def test_a_range_between_two_samples_is_too_short(tone, encode: Encode, start_s: float) -> None:
    with pytest.raises(ClipTooShort, match=r"the range at .* holds no sample at 44100 Hz; give a longer range"):
        decode(encode(tone(2.0)), start_s=start_s, stop_s=start_s + 1e-9)


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "RF64"])
@pytest.mark.parametrize("num_samples", [1600, 1601])
def test_bytes_behind_the_chunks_are_noted(kind: str, num_samples: int) -> None:
    file, other = io.BytesIO(), io.BytesIO()
    soundfile.write(file, np.full(num_samples, 0.1), 16_000, format=kind)
    soundfile.write(other, np.full(800, 0.1), 16_000, format=kind)
    whole = file.getvalue()
    chunk = b"note" + (4).to_bytes(4, "big" if kind == "AIFF" else "little") + b"text"
    for behind, is_noted in ((b"", False), (chunk, False), (other.getvalue(), True), (b"\xffjunk" * 20, True)):
        clip = decode(whole + behind)
        assert len(clip.waveform) == num_samples and not clip.facts.truncated
        notes = [note for note in clip.facts.notes if "behind the audio" in note]
        assert notes == ([f"{len(behind):,} bytes behind the audio are no part of it and were not read"] * is_noted)
