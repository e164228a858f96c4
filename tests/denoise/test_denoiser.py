"""Files and arrays through a denoiser: layout, receipts, warnings, refusals, and files that are whole or absent."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

import auricle
from auricle.audio.limits import Limits
from auricle.denoise import SpeechDenoiser
from auricle.denoise.guard import Guard, has_speech
from auricle.errors import AudioError, BrokenAudio, ConfigError, LimitExceeded, OutputError

from .networks import FIXTURE, noise

SPEECH = Path(__file__).parents[1] / "fixtures" / "midashenglm" / "wav"


@pytest.fixture(scope="module")
def denoiser() -> SpeechDenoiser:
    return auricle.load_denoiser(FIXTURE, device="cpu")


def write(path: Path, seconds: float, rate: int, channels: int, subtype: str | None = None) -> np.ndarray:
    samples = noise(seconds, rate, channels).numpy()
    soundfile.write(path, samples, rate, subtype=subtype)
    return samples


@pytest.mark.parametrize(
    ("rate", "channels", "suffix"),
    [(8_000, 1, ".wav"), (16_000, 2, ".flac"), (44_100, 2, ".wav"), (48_000, 1, ".ogg"), (96_000, 6, ".wav")],
)
def test_layout_is_kept(denoiser: SpeechDenoiser, tmp_path: Path, rate: int, channels: int, suffix: str) -> None:
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    write(source, 1.2345, rate, channels)
    done = denoiser.denoise_file(source, target, residual=tmp_path / f"rest{suffix}")
    before, after, rest = (soundfile.info(file) for file in (source, target, tmp_path / f"rest{suffix}"))
    for found in (after, rest):
        assert (found.samplerate, found.channels, found.frames) == (before.samplerate, before.channels, before.frames)
        assert found.subtype == before.subtype
    assert done.receipt.complete and done.receipt.sample_rate == rate
    assert any("above 8,000 Hz" in note for note in done.receipt.notes) == (rate > 16_000)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_depth_is_kept_and_the_residual_is_the_difference(
    denoiser: SpeechDenoiser, tmp_path: Path, subtype: str
) -> None:
    samples = write(tmp_path / "in.wav", 0.7, 16_000, 1, subtype)
    denoiser.denoise_file(tmp_path / "in.wav", tmp_path / "out.wav", residual=tmp_path / "rest.wav")
    assert soundfile.info(tmp_path / "out.wav").subtype == subtype
    total = soundfile.read(tmp_path / "out.wav")[0] + soundfile.read(tmp_path / "rest.wav")[0]
    step = {"PCM_16": 2.0**-15, "PCM_24": 2.0**-23, "FLOAT": 1e-6}[subtype]
    assert np.abs(total - samples[:, 0]).max() <= 2 * step


@pytest.mark.parametrize("count", [1, 2, 639, 641, 161_280, 161_281])
@pytest.mark.parametrize("rate", [8_000, 96_000])
def test_any_length(denoiser: SpeechDenoiser, count: int, rate: int) -> None:
    samples = noise(count / rate, rate).numpy()[:, 0][:count]
    found = denoiser.denoise((samples, rate))
    assert found.waveform.shape == found.residual.shape == samples.shape
    assert np.isfinite(found.waveform).all()


def test_arrays_keep_their_shape(denoiser: SpeechDenoiser) -> None:
    for shape in ((8_000,), (2, 8_000), (8_000, 2), (1, 8_000)):
        samples = noise(1.0, 16_000).numpy()[:8_000].repeat(2, axis=1)
        given = samples.T[:1] if shape == (1, 8_000) else samples.T if shape[0] == 2 else samples
        given = given[:, 0] if len(shape) == 1 else given
        assert given.shape == shape
        found = denoiser.denoise(given)
        assert found.waveform.shape == shape
        assert np.abs(found.waveform + found.residual - given).max() < 1e-6


def test_windows_are_in_the_receipt(denoiser: SpeechDenoiser) -> None:
    receipt = denoiser.denoise(noise(20.01).numpy()[:, 0]).receipt
    assert [(span.start_s, span.stop_s) for span in receipt.read] == [(0.0, 9.08), (9.08, 18.16), (18.16, 20.01)]
    assert [(span.start_s, span.stop_s) for span in receipt.overlaps] == [(9.08, 10.08), (18.16, 19.16)]
    assert receipt.complete and receipt.padded_s == pytest.approx(0.03) and receipt.audio_tokens > 500


def test_the_guard_speaks(denoiser: SpeechDenoiser) -> None:
    rng = np.random.default_rng(0)
    time_s = np.arange(5 * 16_000) / 16_000
    chord = sum(np.sin(2 * np.pi * f * time_s) for f in (262, 330, 392)).astype(np.float32) / 6
    for waveform in (chord, 0.1 * rng.standard_normal(80_000).astype(np.float32)):
        (warning,) = denoiser.denoise(waveform).receipt.warnings
        assert "speech was found in 0 of 5 s with sound; the model was trained on speech alone" in warning
    (warning,) = denoiser.denoise(np.zeros(16_000, np.float32)).receipt.warnings
    assert warning.startswith("nothing exceeds -60 dB of full scale")


def test_lost_speech_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule that tells speech is in place of a detector here: what is loud is speech."""
    monkeypatch.setattr(
        "auricle.denoise.guard.has_speech", lambda seconds: [float(np.abs(each).max()) > 0.5 for each in seconds]
    )
    loud, soft = np.full((1, 16_000), 0.9, np.float32), np.full((1, 16_000), 0.1, np.float32)
    guard = Guard()
    for wet in (loud, soft, soft):
        guard.compare(loud, wet)
    (warning,) = guard.warnings()
    assert warning.startswith("speech may be lost: in 2 of 3 s with speech")
    fine = Guard()
    for _ in range(25):
        fine.compare(loud, loud)
    assert fine.warnings() == []


def test_speech_is_told_from_noise() -> None:
    rng = np.random.default_rng(1)
    assert has_speech(tuple(0.1 * rng.standard_normal((4, 16_000)).astype(np.float32))) == [False] * 4


def test_not_finite_samples_are_replaced_and_told(denoiser: SpeechDenoiser, tmp_path: Path) -> None:
    samples = noise(1.0).numpy()
    samples[100:110] = np.nan
    soundfile.write(tmp_path / "in.wav", samples, 16_000, subtype="FLOAT")
    done = denoiser.denoise_file(tmp_path / "in.wav", tmp_path / "out.wav")
    assert np.isfinite(soundfile.read(tmp_path / "out.wav")[0]).all()
    assert any("10 samples that were not finite" in warning for warning in done.receipt.warnings)
    soundfile.write(tmp_path / "all.wav", np.full(1000, np.nan), 16_000, subtype="FLOAT")
    with pytest.raises(BrokenAudio, match="all 1,000 samples"):
        denoiser.denoise_file(tmp_path / "all.wav", tmp_path / "none.wav")
    assert not (tmp_path / "none.wav").exists()


def test_nothing_is_overwritten_or_half_written(denoiser: SpeechDenoiser, tmp_path: Path) -> None:
    write(tmp_path / "in.wav", 1.0, 16_000, 1)
    target = tmp_path / "out.wav"
    target.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists and is not overwritten"):
        denoiser.denoise_file(tmp_path / "in.wav", target)
    assert target.read_bytes() == b"precious"
    (tmp_path / "bad.wav").write_bytes(b"RIFF no audio")
    with pytest.raises(AudioError):
        denoiser.denoise_file(tmp_path / "bad.wav", target, force=True)
    assert target.read_bytes() == b"precious"
    with pytest.raises(ConfigError, match="name two files"):
        denoiser.denoise_file(tmp_path / "in.wav", tmp_path / "x.wav", residual=tmp_path / "x.wav")
    denoiser.denoise_file(tmp_path / "in.wav", target, force=True)
    assert soundfile.info(target).frames == 16_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.wav", "in.wav", "out.wav"]


def test_in_place(denoiser: SpeechDenoiser, tmp_path: Path) -> None:
    write(tmp_path / "in.wav", 1.0, 16_000, 2)
    before = (tmp_path / "in.wav").read_bytes()
    denoiser.denoise_file(tmp_path / "in.wav", tmp_path / "in.wav", force=True)
    assert soundfile.info(tmp_path / "in.wav").frames == 16_000
    assert (tmp_path / "in.wav").read_bytes() != before


def test_formats_that_cannot_hold_it(denoiser: SpeechDenoiser, tmp_path: Path) -> None:
    write(tmp_path / "in.wav", 0.2, 96_000, 6)
    with pytest.raises(ConfigError, match=r"\.mp3 cannot hold 6 channels at 96,000 Hz"):
        denoiser.denoise_file(tmp_path / "in.wav", tmp_path / "out.mp3")
    with pytest.raises(ConfigError, match="expected a name that ends in"):
        denoiser.denoise_file(tmp_path / "in.wav", tmp_path / "out.xyz")
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]


def test_limits_hold(tmp_path: Path) -> None:
    write(tmp_path / "in.wav", 2.0, 16_000, 1)
    strict = auricle.load_denoiser(FIXTURE, device="cpu", limits=Limits(max_seconds=1.0))
    with pytest.raises(LimitExceeded):
        strict.denoise_file(tmp_path / "in.wav", tmp_path / "out.wav")
    assert not (tmp_path / "out.wav").exists()


def test_samples_beyond_full_scale_are_cut_and_told(tmp_path: Path) -> None:
    from auricle.denoise.writing import open_writer

    write(tmp_path / "in.wav", 0.1, 16_000, 1)
    with open_writer(tmp_path / "out.wav", auricle.audio.probe(tmp_path / "in.wav")) as writer:
        writer.write(np.array([[0.5], [1.5], [-2.0]], np.float32))
    assert writer.num_cut == 2
    assert soundfile.read(tmp_path / "out.wav")[0][2] == -1.0


_SLOWLY = """
import sys, time, auricle
denoiser = auricle.load_denoiser(sys.argv[1], device="cpu")
denoiser.denoise_file(sys.argv[2], sys.argv[3], on_progress=lambda s: (print(s, flush=True), time.sleep(60)))
"""


def test_killed_half_way_leaves_no_file(tmp_path: Path) -> None:
    write(tmp_path / "in.wav", 120.0, 16_000, 1)
    command = [sys.executable, "-c", _SLOWLY, FIXTURE, tmp_path / "in.wav", tmp_path / "out.wav"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline()
        process.kill()
    assert len(list(tmp_path.iterdir())) == 2  # what it wrote so far lies beside
    assert not (tmp_path / "out.wav").exists()
    denoiser = auricle.load_denoiser(FIXTURE, device="cpu")
    write(tmp_path / "short.wav", 1.0, 16_000, 1)
    denoiser.denoise_file(tmp_path / "short.wav", tmp_path / "out.wav")  # and the rest of the dead one goes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.wav", "out.wav", "short.wav"]


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files of at most 100 kB, as on a disk that gets full."""
    import signal

    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_no_file(denoiser: SpeechDenoiser, tmp_path: Path, small_files: None) -> None:
    samples = noise(5.0).numpy()[:, 0]
    with pytest.raises(OutputError, match=r"out\.wav: cannot be written"):
        denoiser.denoise_file(samples, tmp_path / "out.wav")
    assert list(tmp_path.iterdir()) == []
