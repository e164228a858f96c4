"""Every format, every kind of source: the same waveform, with its facts."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
import soundfile
import soxr
import torch

from auricle.audio.decode import SAMPLE_RATE, as_clip, decode, probe
from auricle.errors import AuricleError, ConfigError, MissingExtra, UnsupportedFormat

PLAIN = [
    ("WAV", "PCM_16", 44_100, "wav"),
    ("WAV", "FLOAT", 48_000, "wav"),
    ("WAV", "PCM_U8", 8_000, "wav"),
    ("WAV", "ULAW", 8_000, "wav"),
    ("RF64", "PCM_24", 96_000, "rf64"),
    ("W64", "PCM_16", 22_050, "w64"),
    ("FLAC", "PCM_16", 44_100, "flac"),
    ("OGG", "VORBIS", 44_100, "ogg"),
    ("OGG", "OPUS", 48_000, "ogg"),
    ("MP3", None, 44_100, "mp3"),
    ("AIFF", "PCM_16", 32_000, "aiff"),
    ("AU", "PCM_16", 11_025, "au"),
    ("CAF", "PCM_16", 16_000, "caf"),
]
MEDIA = [
    ("ipod", "aac", 44_100, "mp4"),
    ("adts", "aac", 44_100, "aac"),
    ("webm", "libopus", 48_000, "matroska"),
    ("matroska", "pcm_s16le", 44_100, "matroska"),
]


def bare(data: bytes) -> np.ndarray:
    """soundfile + soxr without us."""
    waveform, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return soxr.resample(waveform.mean(axis=1), rate, SAMPLE_RATE, quality="HQ")


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("fmt", "subtype", "rate", "container"), PLAIN)
def test_equals_soundfile_and_soxr(tone, encode, fmt, subtype, rate, container, channels):
    data = encode(tone(1.5, rate, channels), rate, fmt, subtype)
    clip = decode(data)
    assert clip.waveform.dtype == np.float32
    assert clip.waveform.ndim == 1
    np.testing.assert_allclose(clip.waveform, bare(data), atol=1e-6)
    facts = clip.facts
    assert (facts.container, facts.sample_rate, facts.channels) == (container, rate, channels)
    assert facts.duration_s == pytest.approx(1.5, abs=1e-3)
    assert (facts.start_s, facts.stop_s) == (0.0, facts.duration_s)
    assert (facts.truncated, facts.damaged, facts.non_finite, facts.silent) == (False, 0, 0, False)
    assert 0.4 < facts.peak < 0.8


@pytest.mark.parametrize(("muxer", "codec", "rate", "container"), MEDIA)
def test_ffmpeg_formats(tone, encode_av, muxer, codec, rate, container):
    original = tone(2.0, rate)
    clip = decode(encode_av(original, rate, muxer, codec))
    wanted = soxr.resample(original, rate, SAMPLE_RATE, quality="HQ")
    assert (clip.facts.container, clip.facts.sample_rate, clip.facts.channels) == (container, rate, 1)
    assert not clip.facts.truncated
    assert clip.facts.duration_s == pytest.approx(2.0, abs=0.1)
    # encoders add priming, so the audio may be a few ms later: find the best lag, then compare
    lags = range(0, 1600, 1)
    core = wanted[4000:12000]
    scores = [float(clip.waveform[4000 + lag : 12000 + lag] @ core) for lag in lags]
    found = clip.waveform[4000 + int(np.argmax(scores)) :][:8000]
    assert np.corrcoef(found, core)[0, 1] > 0.95


@pytest.mark.parametrize(("muxer", "codec", "rate", "container"), MEDIA)
def test_ffmpeg_range_is_where_it_should_be(tone, encode_av, muxer, codec, rate, container):
    rng = np.random.default_rng(1)
    bursts = tone(4.0, rate) * (rng.uniform(size=400).repeat(rate // 100) > 0.5)  # unlike itself at any other time
    data = encode_av(bursts, rate, muxer, codec)
    whole = decode(data).waveform
    part = decode(data, start_s=2.0, stop_s=3.0)
    assert len(part.waveform) == SAMPLE_RATE
    assert (part.facts.start_s, part.facts.stop_s) == (2.0, 3.0)
    core = part.waveform[800:-800]
    likeness = {
        lag: np.corrcoef(whole[32_800 + lag : 47_200 + lag], core)[0, 1] for lag in range(-800, 801)
    }  # not equality: AAC decoders draw noise bands at random
    best = max(likeness, key=likeness.__getitem__)
    assert likeness[best] > 0.98
    assert abs(best) <= 32, "more than the 1 to 2 ms to which matroska rounds its time stamps"


@pytest.mark.parametrize(("fmt", "subtype", "rate", "container"), PLAIN)
def test_a_range_equals_that_part_of_the_whole(tone, encode, fmt, subtype, rate, container):
    data = encode(tone(3.0, rate), rate, fmt, subtype)
    whole = decode(data).waveform
    clip = decode(data, start_s=1.0, stop_s=2.0)
    assert len(clip.waveform) == SAMPLE_RATE
    assert (clip.facts.start_s, clip.facts.stop_s) == (1.0, 2.0)
    assert clip.facts.duration_s == pytest.approx(3.0, abs=1e-3)
    edge = 400  # the resampler has no samples outside the range
    np.testing.assert_allclose(clip.waveform[edge:-edge], whole[16_000 + edge : 32_000 - edge], atol=1e-4)


def test_a_stop_behind_the_end_is_the_end_and_the_facts_say_so(tone, encode):
    clip = decode(encode(tone(2.0)), start_s=0.5, stop_s=60.0)
    assert clip.facts.stop_s == 2.0
    assert not clip.facts.truncated
    assert len(clip.waveform) == 24_000


@pytest.mark.parametrize(("layout", "channels"), [("stereo", 2), ("5.1", 6), ("7.1", 8)])
def test_surround_aac(layout, channels):
    av = pytest.importorskip("av", reason="PyAV (extra media) is not installed")
    at = np.arange(96_000) / 48_000
    waveform = np.stack([0.6 * np.sin(2 * np.pi * (300 + 100 * index) * at) for index in range(channels)], axis=1)
    packed = np.ascontiguousarray((waveform * 32767).astype(np.int16).reshape(1, -1))
    frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
    frame.sample_rate, frame.pts = 48_000, 0
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=48_000, layout=layout)
        for part in av.AudioResampler(format="fltp", frame_size=1024).resample(frame):
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    clip = decode(buffer.getvalue())
    assert clip.facts.channels == channels
    spectrum = np.abs(np.fft.rfft(clip.waveform[:16_000]))  # 1 Hz a bin
    low_frequency_channel = 3 if channels > 2 else None
    present = [index for index in range(channels) if spectrum[300 + 100 * index] > 0.2 * spectrum.max()]
    assert present == [index for index in range(channels) if index != low_frequency_channel]


def test_content_decides_not_the_name(tone, encode, tmp_path):
    path = tmp_path / "speech.raw"
    path.write_bytes(encode(tone(), fmt="FLAC"))
    clip = decode(path)
    assert clip.facts.container == "flac"
    assert clip.facts.name == str(path)


def test_all_kinds_of_source_agree(tone, encode, tmp_path):
    data = encode(tone(), fmt="OGG", subtype="VORBIS")
    path = tmp_path / "tön.ogg"
    path.write_bytes(data)

    class Pipe(io.RawIOBase):
        """A file that cannot seek."""

        def __init__(self):
            self.inner = io.BytesIO(data)

        def readable(self):
            return True

        def readinto(self, buffer):
            return self.inner.readinto(buffer)

    wanted = decode(path).waveform
    used = io.BytesIO(data)
    used.read(100)
    with path.open("rb") as file:
        for source in (str(path), data, bytearray(data), io.BytesIO(data), used, file, Pipe()):
            np.testing.assert_array_equal(decode(source).waveform, wanted)
        assert not file.closed


def test_text_mode_is_refused(tmp_path, tone, encode):
    path = tmp_path / "a.wav"
    path.write_text("RIFF")
    with path.open() as file, pytest.raises(UnsupportedFormat, match="binary"):
        decode(file)


def test_identity_at_16_khz(tone, encode):
    waveform = tone(1.0, SAMPLE_RATE)
    np.testing.assert_array_equal(decode(encode(waveform, SAMPLE_RATE, "WAV", "FLOAT")).waveform, waveform)


@pytest.mark.parametrize("channels", [3, 32])
def test_down_mix_is_the_mean(tone, encode, channels):
    waveform = tone(0.5, SAMPLE_RATE, channels)
    clip = decode(encode(waveform, SAMPLE_RATE, "WAV", "FLOAT"))
    np.testing.assert_allclose(clip.waveform, waveform.mean(axis=1), atol=1e-6)
    assert clip.facts.channels == channels


def test_probe_reads_headers_only(tone, encode):
    facts = probe(encode(tone(2.0, channels=2), fmt="FLAC"))
    assert (facts.container, facts.codec, facts.sample_rate, facts.channels) == ("flac", "PCM_16", 44_100, 2)
    assert facts.duration_s == 2.0
    assert (facts.start_s, facts.stop_s, facts.peak, facts.silent) == (0.0, 0.0, None, None)
    assert json.loads(json.dumps(facts.as_dict()))["channels"] == 2


def test_facts_of_loud_quiet_and_empty_sound(encode):
    loud = decode(encode(np.tile(np.float32([1, -1, 0, 0]), 4000), fmt="WAV", subtype="PCM_16")).facts
    assert loud.clipped == 0.5
    assert loud.peak == 1.0
    assert decode(encode(np.tile(np.float32([1, 0.5]), 4000), subtype="PCM_U8")).facts.clipped == 0.5
    silent = decode(encode(np.zeros(8000, np.float32))).facts
    assert (silent.silent, silent.peak, silent.clipped) == (True, 0.0, 0.0)


def test_channels_that_cancel_are_not_silence(tone, encode):
    waveform = tone(0.5)
    clip = decode(encode(np.stack([waveform, -waveform], axis=1), subtype="FLOAT"))
    assert not clip.facts.silent
    assert clip.facts.peak > 0.4
    np.testing.assert_allclose(clip.waveform, bare(encode(waveform, subtype="FLOAT")), atol=1e-6)
    assert "loudest" in clip.facts.notes[0]


@pytest.mark.parametrize("start_s, stop_s", [(-1, None), (2, 1), (1, 1), (float("nan"), None), (0, float("nan"))])
def test_a_range_must_be_one(tone, encode, start_s, stop_s):
    with pytest.raises(ConfigError, match=r"range|start_s|stop_s"):
        decode(encode(tone()), start_s=start_s, stop_s=stop_s)


@pytest.mark.parametrize(
    "waveform",
    [
        np.float32([0.5, -0.5, 0.25]),
        np.float64([0.5, -0.5, 0.25]),
        np.int16([16384, -16384, 8192]),
        np.int32([1 << 30, -(1 << 30), 1 << 29]),
        np.uint8([192, 64, 160]),
        torch.tensor([0.5, -0.5, 0.25]),
        torch.tensor([[0.5, -0.5, 0.25]], dtype=torch.bfloat16, requires_grad=True),
        torch.tensor([16384, -16384, 8192], dtype=torch.int16),
        np.float32([[0.75, 0.25], [-0.25, -0.75], [0.25, 0.25]]),
        np.float32([[0.75, -0.25, 0.25], [0.25, -0.75, 0.25]]),
    ],
)
def test_arrays(waveform):
    clip = as_clip(waveform)
    np.testing.assert_allclose(clip.waveform, [0.5, -0.5, 0.25])
    assert clip.waveform.dtype == np.float32
    assert clip.facts.container == "array"


def test_arrays_with_a_rate_are_resampled_and_left_alone(tone):
    waveform = tone(1.0, 44_100)
    waveform[5] = np.nan
    kept = waveform.copy()
    clip = as_clip((waveform, 44_100))
    assert len(clip.waveform) == SAMPLE_RATE
    assert clip.facts.non_finite == 1
    np.testing.assert_array_equal(waveform, kept)
    assert as_clip(clip) is clip
    assert len(as_clip((waveform, 44_100), start_s=0.25, stop_s=0.75).waveform) == 8000


@pytest.mark.parametrize(
    "source", [np.zeros((2, 3, 4)), np.zeros(0), np.array(["a"]), np.array([True]), (np.zeros(9), 0), 3, None, [0.1]]
)
def test_arrays_that_are_no_clip(source):
    with pytest.raises(AuricleError, match="expected"):
        as_clip(source)


def test_missing_pyav_names_the_extra(tone, encode_av, monkeypatch, tmp_path):
    path = tmp_path / "voice.m4a"
    path.write_bytes(encode_av(tone(0.5), 44_100, "ipod", "aac"))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match=r"voice\.m4a.*auricle\[media\]"):
        decode(path)


def test_masked_samples_are_no_audio() -> None:
    masked = np.ma.masked_array(np.zeros(16_000), mask=np.arange(16_000) < 3)
    with pytest.raises(UnsupportedFormat, match="3 samples are masked"):
        as_clip((masked, 16_000))
    assert as_clip((np.ma.masked_array(np.zeros(16_000)), 16_000)).waveform.size == 16_000
