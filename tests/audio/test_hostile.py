"""Whatever the bytes: a clip with facts, or an error that says what to do. Never a crash, never silent loss."""

from __future__ import annotations

import io
import os
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auricle.audio.decode import Clip, decode, probe, stream
from auricle.audio.limits import Limits
from auricle.audio.mpeg import read_header
from auricle.errors import (
    AudioError,
    AuricleError,
    BrokenAudio,
    ClipTooShort,
    ConfigError,
    LimitExceeded,
    UnsupportedFormat,
)

FORMATS = [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None),
           ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("W64", "PCM_16"), ("RF64", "PCM_16")]  # fmt: skip
MEDIA = [("ipod", "aac", 44_100), ("adts", "aac", 44_100), ("webm", "libopus", 48_000)]


def patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (b"", BrokenAudio, "empty"),
        (b"\x00" * 10_000, UnsupportedFormat, "no known audio format"),
        (bytes(range(256)) * 40, UnsupportedFormat, "no known audio format"),
        (b"<!DOCTYPE html><html><body>404", UnsupportedFormat, "HTML"),
        (b'{"error": "not found"}', UnsupportedFormat, "JSON"),
        (b"hello there\n" * 100, UnsupportedFormat, "plain text"),
        (b"PK\x03\x04" + bytes(100), UnsupportedFormat, "zip"),
        (b"#EXTM3U\nfile:///etc/passwd\n", UnsupportedFormat, "playlist"),
        (b"version https://git-lfs.github.com/spec/v1\n", UnsupportedFormat, "Git LFS"),
        (b"RIFF", UnsupportedFormat, "plain text"),
        (b"RIFF\xff\xff\xff\xffWAVE", BrokenAudio, "header"),
        (b"fLaC", BrokenAudio, "header"),
        (b"OggS", BrokenAudio, "header"),
        (b"ID3\x04\x00\x00\x00\x00\x00\x00", BrokenAudio, "header"),
        (b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(50), BrokenAudio, "header"),
        (b"\xff\xfb\x90\x64", BrokenAudio, "header"),
        (b"FORM\x00\x00\x00\x00AIFF", BrokenAudio, "header"),
    ],
)
def test_not_audio(tmp_path, data, error, says):
    path = tmp_path / "upload.wav"
    path.write_bytes(data)
    for read in (decode, probe, lambda source: list(stream(source))):
        with pytest.raises(error, match=says) as caught:
            read(path)
        assert "upload.wav" in str(caught.value)


def test_what_cannot_be_opened(tmp_path):
    with pytest.raises(AudioError, match="folder"):
        decode(tmp_path)
    with pytest.raises(AudioError, match="no such file; check the path"):
        decode(tmp_path / "gone.wav")
    with pytest.raises(AudioError, match="download it first"):
        decode("https://example.org/a.wav")
    with pytest.raises(AudioError, match="cannot be opened"):
        decode("a\0b.wav")
    with pytest.raises(AudioError, match="cannot be opened"):
        decode("a" * 5000)
    with pytest.raises(UnsupportedFormat, match="expected a path"):
        decode(3.5)
    closed = io.BytesIO(b"x")
    closed.close()
    with pytest.raises(AudioError, match="cannot be read"):
        decode(closed)


@pytest.mark.parametrize("reads", [1, 3, 12, 30])
def test_a_failing_disk_is_an_error_and_not_half_a_sound(tone, encode, reads):
    class Failing(io.BytesIO):
        left = reads

        def read(self, size=-1):
            self.left -= 1
            if self.left < 0:
                raise OSError("the disk is on fire")
            return super().read(size)

    with pytest.raises(AudioError, match="on fire"):
        decode(Failing(encode(tone(5.0))))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_named_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AudioError, match="regular file"):
        decode(tmp_path / "pipe")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_no_permission(tmp_path, tone, encode):
    path = tmp_path / "secret.wav"
    path.write_bytes(encode(tone()))
    path.chmod(0)
    with pytest.raises(AudioError, match=r"secret\.wav.*permission"):
        decode(path)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
@pytest.mark.parametrize(("fmt", "subtype"), FORMATS)
def test_truncation_is_stated(tone, encode, fmt, subtype, share):
    data = encode(tone(4.0, 48_000), 48_000, fmt, subtype)
    cut = data[: int(len(data) * share) - 7]
    clip = decode(cut)
    assert clip.facts.truncated
    assert 0.1 < clip.facts.stop_s < 4.0
    assert len(clip.waveform) == pytest.approx(clip.facts.stop_s * 16_000, abs=2)
    blocks = stream(cut, block_s=0.5)
    assert sum(len(block) for block in blocks) == len(clip.waveform)
    assert blocks.facts.truncated
    if fmt != "FLAC":  # its header states no length in bytes: only decoding shows the loss
        assert probe(cut).truncated
    assert not decode(data).facts.truncated
    assert not probe(data).truncated


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize(("muxer", "codec", "rate"), MEDIA)
def test_truncation_of_ffmpeg_formats(tone, encode_av, muxer, codec, rate, share):
    data = encode_av(tone(4.0, rate), rate, muxer, codec)
    cut = data[: int(len(data) * share)]
    assert not decode(data).facts.truncated
    if muxer == "ipod":  # the table of contents came last and is gone
        with pytest.raises(BrokenAudio, match="header"):
            decode(cut)
        return
    facts = decode(cut).facts
    assert facts.truncated or facts.damaged
    assert 0.1 < facts.stop_s < 4.0


def test_a_flac_cut_after_its_header_keeps_what_was_decoded(tone, encode):
    data = encode(tone(4.0), fmt="FLAC")
    facts = decode(data[: len(data) // 2]).facts
    assert (facts.truncated, facts.damaged, facts.duration_s) == (True, 1, 4.0)
    assert 1.0 < facts.stop_s < 3.0


def mp3_without_info(data: bytes) -> bytes:
    info = read_header(data[:6])
    assert info is not None
    return data[info.length :]


def test_a_variable_rate_mp3_without_info_frame_is_read_to_its_end(encode):
    rng = np.random.default_rng(3)
    swelling = (np.linspace(0.01, 0.9, 220_500) * rng.uniform(-1, 1, 220_500)).astype(np.float32)
    data = mp3_without_info(encode(swelling, fmt="MP3"))
    assert soundfile.info(io.BytesIO(data)).duration < 3, "libsndfile alone now reads it all: the workaround can go"
    clip = decode(data)
    assert clip.facts.stop_s == pytest.approx(5.0, abs=0.06)
    assert not clip.facts.truncated


def test_joined_mp3_and_ogg_files_are_read_to_the_end(tone, encode):
    mp3 = encode(tone(2.0), fmt="MP3")
    assert decode(mp3 + mp3).facts.stop_s == pytest.approx(4.0, abs=0.1)
    pytest.importorskip("av", reason="PyAV (extra media) is not installed")
    chained = encode(tone(2.0), fmt="OGG", subtype="VORBIS") + encode(tone(1.0, seed=2), fmt="OGG", subtype="VORBIS")
    assert decode(chained).facts.stop_s == pytest.approx(3.0, abs=0.05)


def test_unusable_samples_are_counted_and_removed(tone, encode):
    waveform = tone(1.0)
    waveform[[100, 200, 300, 400]] = [np.nan, np.inf, -np.inf, 3e38]
    clip = decode(encode(waveform, subtype="FLOAT"))
    assert clip.facts.non_finite == 4
    assert np.isfinite(clip.waveform).all()
    assert clip.facts.peak < 1
    beyond_float32 = decode(encode(np.append(np.full(7999, 1e300), 0.1), subtype="DOUBLE")).facts
    assert beyond_float32.non_finite == 7999
    for unusable in (np.full(8000, np.nan), np.full(8000, 1e300)):
        with pytest.raises(BrokenAudio, match="all 8,000 samples are NaN or infinite"):
            decode(encode(unusable, subtype="DOUBLE"))


def test_lying_wav_headers(tone, encode):
    data = encode(tone(1.0))
    with pytest.raises(BrokenAudio, match="header"):
        decode(patched(data, 22, struct.pack("<H", 0)))
    with pytest.raises((LimitExceeded, BrokenAudio)):
        decode(patched(data, 22, struct.pack("<H", 1000)))
    with pytest.raises(LimitExceeded, match="sample rate of 1 Hz"):
        decode(patched(data, 24, struct.pack("<I", 1)))
    with pytest.raises(AudioError):
        decode(patched(data, 24, struct.pack("<I", 2**32 - 1)))
    with pytest.raises(AudioError):
        decode(patched(data, 24, struct.pack("<I", 0)))
    longer = decode(patched(data, 40, struct.pack("<I", 10**9))).facts
    assert (longer.truncated, longer.stop_s) == (True, 1.0)
    from_a_pipe = decode(patched(data, 40, b"\xff\xff\xff\xff")).facts
    assert (from_a_pipe.truncated, from_a_pipe.stop_s) == (False, 1.0)


def test_extreme_rates_and_channels_that_are_true(tone, encode):
    assert decode(encode(tone(0.5, 384_000), 384_000)).facts.sample_rate == 384_000
    assert decode(encode(tone(0.5, 44_100, 32))).facts.channels == 32
    slow = encode(np.float32([0.5, -0.5, 0.25]), 1)
    with pytest.raises(LimitExceeded, match="1 Hz"):
        decode(slow)
    allowed = decode(slow, limits=Limits(min_sample_rate=1))
    assert (allowed.facts.sample_rate, len(allowed.waveform)) == (1, 48_000)


def test_a_flac_that_declares_days_is_refused_and_hours_cost_nothing(tone, encode):
    data = encode(tone(1.0), fmt="FLAC")
    days = patched(data, 21, bytes([data[21] | 0x0F]) + b"\xff" * 4)
    with pytest.raises(LimitExceeded, match="limit: 43,200"):
        decode(days)
    hours = patched(data, 22, (40_000_000).to_bytes(4, "big"))
    facts = decode(hours).facts
    assert (facts.truncated, facts.stop_s) == (True, 1.0)
    unknown = patched(data, 21, bytes([data[21] & 0xF0]) + bytes(4))
    assert probe(unknown).duration_s is None
    facts = decode(unknown).facts
    assert (facts.truncated, facts.duration_s) == (False, 1.0)


def test_decompression_bomb(tmp_path):
    path = tmp_path / "bomb.flac"
    with soundfile.SoundFile(path, "w", 16_000, 1, format="FLAC") as file:
        for _ in range(180):
            file.write(np.zeros(960_000, np.int16))
    assert path.stat().st_size < 1_000_000
    for limits in (Limits(max_seconds=60), Limits(max_decoded_bytes=10 << 20)):
        with pytest.raises(LimitExceeded, match=r"bomb\.flac.*start_s and stop_s"):
            decode(path, limits=limits)
    assert probe(path, limits=Limits(max_seconds=60)).duration_s == 3 * 3600
    assert len(decode(path, start_s=9000, stop_s=9001, limits=Limits(max_seconds=60)).waveform) == 16_000
    lying = bytearray(path.read_bytes())
    lying[21] &= 0xF0
    lying[22:26] = bytes(4)  # the header states no length, so only the samples can exceed the budget
    with pytest.raises(LimitExceeded, match="bytes or more"):
        decode(bytes(lying), limits=Limits(max_decoded_bytes=10 << 20))


def test_bytes_limit(tone, encode, tmp_path):
    data = encode(tone(1.0))
    path = tmp_path / "big.wav"
    path.write_bytes(data)
    for source in (data, path, io.BytesIO(data)):
        with pytest.raises(LimitExceeded, match="bytes"):
            decode(source, limits=Limits(max_bytes=1000))
    assert decode(data, limits=Limits(max_bytes=len(data))).facts.stop_s == 1.0


@pytest.mark.parametrize(
    "wrong", [{"max_bytes": 0}, {"max_seconds": float("nan")}, {"min_sample_rate": 900, "max_sample_rate": 800}]
)
def test_limits_that_nothing_fits(wrong):
    with pytest.raises(ConfigError, match=r"Limits\."):
        Limits(**wrong)


def test_too_short_or_too_late(tone, encode):
    with pytest.raises(BrokenAudio, match="without one readable sample"):
        decode(encode(np.zeros(0, np.float32)))
    with pytest.raises(ClipTooShort, match="make none at 16 kHz"):
        decode(encode(np.zeros(1, np.float32)))
    for fmt in ("WAV", "FLAC", "MP3"):
        with pytest.raises(ClipTooShort, match=r"lasts 2\.000 s; the range starts at 3\.000 s"):
            decode(encode(tone(2.0), fmt=fmt), start_s=3)


def _damage(data: bytes, cut: float, flips: list[tuple[float, int]]) -> bytes:
    broken = bytearray(data[: max(1, int(len(data) * cut))])
    for place, value in flips:
        broken[int(place**2 * (len(broken) - 1))] = value  # squared: headers are hit more often
    return bytes(broken)


damage = st.tuples(
    st.sampled_from([0.01, 0.2, 0.7, 1.0, 1.0, 1.0]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12),
)
SMALL = Limits(max_bytes=1 << 20, max_seconds=120, max_decoded_bytes=64 << 20)


def _survives(data: bytes, start_s: float) -> None:
    try:
        clip = decode(data, start_s=start_s, limits=SMALL)
    except AuricleError as error:
        assert len(str(error)) > 20
        return
    assert isinstance(clip, Clip)
    assert clip.waveform.size
    assert np.isfinite(clip.waveform).all()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=damage, start_s=st.sampled_from([0.0, 0.0, 0.4]))
@pytest.mark.parametrize(("fmt", "subtype"), FORMATS)
def test_damaged_files(tone, encode, fmt, subtype, change, start_s):
    _survives(_damage(encode(tone(0.6, 48_000), 48_000, fmt, subtype), *change), start_s)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=damage, start_s=st.sampled_from([0.0, 0.0, 0.4]))
@pytest.mark.parametrize(("muxer", "codec", "rate"), MEDIA)
def test_damaged_ffmpeg_files(tone, encode_av, muxer, codec, rate, change, start_s):
    _survives(_damage(encode_av(tone(0.6, rate), rate, muxer, codec), *change), start_s)


@settings(max_examples=150)
@given(
    magic=st.sampled_from([b"RIFF\x24\x10\x00\x00WAVEfmt ", b"fLaC", b"OggS\x00\x02", b"\xff\xfb\x90\x64", b"ID3\x04",
                           b"FORM\x00\x00\x10\x00AIFF", b".snd", b"caff\x00\x01", b"\x00\x00\x00\x18ftypM4A ",
                           b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"\xff\xf1P@", b"NIST_1A\n",
                           b"Creative Voice File\x1a", b"FLV\x01", b"wvpk", b"#!AMR\n", b"\x0b\x77", b"TTA1", b"MAC "]),
    rest=st.binary(max_size=3000),
)  # fmt: skip
def test_a_signature_and_garbage(magic, rest):
    _survives(magic + rest, 0.0)
