"""Corruptions, measured on their results."""

import io
from hashlib import sha256

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from auricle.audio.decode import decode
from auricle.data.mixing import active_rms
from auricle.errors import AudioError, ConfigError
from auricle.evaluate.corruptions import (
    CORRUPTIONS,
    clipping_limit,
    corrupt,
    corrupted_file,
    corrupted_questions,
    find_corruption,
    wav_bytes,
)
from auricle.evaluate.questions import Question
from auricle.evaluate.sources import AudioFile

Waveform = NDArray[np.float32]
CODECS = ("opus", "mp3")  # slow, so tested less often


def tone(seconds: float = 1.0, seed: int = 0) -> Waveform:
    """A chirp that comes and goes, with a little noise: no two places are alike."""
    at = np.arange(int(16_000 * seconds)) / 16_000
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * 3 * at)
    clean = 0.2 * swell * np.sin(2 * np.pi * (200 + 400 * at) * at)
    return (clean + 0.01 * np.random.default_rng(seed).standard_normal(at.size)).astype(np.float32)


def audio_of(waveform: Waveform, name: str = "a.wav") -> AudioFile:
    return AudioFile(name, lambda: wav_bytes(waveform))


waveforms = st.builds(
    lambda size, seed, height, still: np.where(
        np.arange(size) < still * size, 0.0, height * np.random.default_rng(seed).standard_normal(size)
    ).astype(np.float32),
    size=st.integers(1, 4000),
    seed=st.integers(0, 99),
    height=st.sampled_from([0.0, 1e-6, 0.01, 0.5, 3.0]),
    still=st.sampled_from([0.0, 0.5, 0.95]),
)
corruptions = st.sampled_from([each for each in CORRUPTIONS.values() if each.name not in CODECS])


@settings(max_examples=150)
@given(waveforms, corruptions, st.integers(0, 5), st.integers(0, 2**64 - 1))
def test_length_type_and_finiteness_hold_for_any_waveform(waveform: Waveform, corruption, at: int, seed: int) -> None:
    level = corruption.levels[at % len(corruption.levels)]
    before = waveform.copy()
    found = corrupt(waveform, corruption, level, seed)
    assert found.dtype == np.float32 and found.ndim == 1 and np.isfinite(found).all()
    assert (waveform == before).all() and not np.shares_memory(found, waveform)
    assert (found == corrupt(waveform, corruption, level, seed)).all()
    expected = {"padding": waveform.size + 32_000 * level, "speed": waveform.size / level}.get(corruption.name)
    assert abs(found.size - (waveform.size if expected is None else expected)) <= (expected is not None)


@pytest.mark.parametrize("name", CODECS)
def test_codecs_keep_length_and_place_and_lose_more_at_lower_rates(name: str) -> None:
    clean = tone()
    corruption = CORRUPTIONS[name]
    errors = []
    for level in (corruption.levels[0], corruption.levels[-1]):
        found = corrupt(clean, corruption, level, 0)
        assert found.dtype == np.float32 and found.size == clean.size
        size = 1 << 16
        match = np.fft.irfft(np.fft.rfft(found, size) * np.conj(np.fft.rfft(clean, size)))
        assert min(int(match.argmax()), size - int(match.argmax())) <= 16  # 1 ms
        errors.append(float(np.sqrt(np.mean((found - clean) ** 2))))
    assert 0 < errors[0] < errors[1]
    for short in (1, 7, 200):
        assert corrupt(clean[:short], corruption, corruption.levels[-1], 0).size == short


@pytest.mark.parametrize("corruption", [each for each in CORRUPTIONS.values() if each.neutral is not None])
def test_the_neutral_level_is_the_clean_audio(corruption) -> None:
    clean = tone(0.2)
    assert (corrupt(clean, corruption, corruption.neutral, 1) == clean).all()
    file = audio_of(clean)
    assert corrupted_file(file, corruption, corruption.neutral) is file


@pytest.mark.parametrize("name", ["white-noise", "pink-noise"])
@pytest.mark.parametrize("level", [30.0, 5.0, -5.0])
def test_noise_has_the_given_signal_to_noise_ratio(name: str, level: float) -> None:
    clean = np.concatenate([np.zeros(8000, np.float32), tone()])  # pauses must not count
    noise = corrupt(clean, CORRUPTIONS[name], level, 3) - clean
    assert 20 * np.log10(active_rms(clean) / active_rms(noise)) == pytest.approx(level, abs=0.5)


def test_levels_of_noise_share_their_chance() -> None:
    clean = tone(0.5)
    loud, soft = (corrupt(clean, CORRUPTIONS["white-noise"], level, 3) - clean for level in (0.0, 20.0))
    assert loud == pytest.approx(soft * 10, abs=1e-4)
    assert not np.allclose(loud, corrupt(clean, CORRUPTIONS["white-noise"], 0.0, 4) - clean)


@given(st.integers(1, 50), st.integers(0, 20))
def test_the_given_share_of_samples_is_clipped(percent: int, seed: int) -> None:
    clean = np.concatenate([tone(0.25, seed), np.zeros(2000, np.float32)])
    limit = clipping_limit(clean, percent / 100)
    assert (np.abs(clean) > limit).sum() == round(percent / 100 * (clean != 0).sum())
    found = corrupt(clean, CORRUPTIONS["clipping"], float(percent), 0)
    # At the height of clipping, which the level match has moved, stand all that were cut and the one that was not.
    assert np.isclose(np.abs(found), np.abs(found).max(), rtol=1e-5).sum() >= (np.abs(clean) > limit).sum()
    assert active_rms(found) == pytest.approx(active_rms(clean), rel=1e-3)


def test_dropouts_take_their_share_in_whole_pieces_and_grow() -> None:
    clean = np.ones(16_000 * 4, np.float32)
    lost = [corrupt(clean, CORRUPTIONS["dropouts"], level, 2) == 0 for level in (10.0, 50.0, 100.0)]
    assert [each.mean() for each in lost] == pytest.approx([0.1, 0.5, 1.0])
    assert (lost[1][lost[0]]).all()
    pieces = lost[1].reshape(-1, 1600)
    assert (pieces.all(1) | ~pieces.any(1)).all()


def test_gain_keeps_what_exceeds_full_scale_and_overdrive_cuts_it() -> None:
    clean = tone(0.1)
    assert corrupt(clean, CORRUPTIONS["gain"], 20.0, 0) == pytest.approx(10 * clean)
    cut = corrupt(clean, CORRUPTIONS["overdrive"], 20.0, 0)
    assert np.abs(cut).max() == 1.0 and (np.abs(cut) == 1).mean() > 0.1


def test_reverberation_keeps_the_level_and_spreads_in_time() -> None:
    click = np.zeros(16_000, np.float32)
    click[2000:2400] = tone(0.025)
    short, long = (corrupt(click, CORRUPTIONS["reverb"], level, 1) for level in (0.2, 1.2))
    assert active_rms(short) == pytest.approx(active_rms(click), rel=1e-3)
    after = [float(np.square(each[4000:]).sum() / np.square(each).sum()) for each in (click, short, long)]
    assert after[0] == 0 < after[1] < 0.05 < after[2]


def test_a_telephone_passes_only_its_band() -> None:
    noise = (0.1 * np.random.default_rng(0).standard_normal(32_000)).astype(np.float32)
    received = corrupt(noise, CORRUPTIONS["telephone"], 1.0, 0)
    gain_db = 20 * np.log10(np.abs(np.fft.rfft(received)) / np.abs(np.fft.rfft(noise)))
    hz = np.fft.rfftfreq(noise.size, 1 / 16_000)
    assert np.median(gain_db[(hz > 600) & (hz < 3000)]) == pytest.approx(0, abs=1)
    assert np.median(gain_db[(hz > 20) & (hz < 120)]) < -20
    assert np.median(gain_db[hz > 4500]) < -20


def test_corrupted_files_are_the_same_bytes_each_time_and_read_as_they_were_made() -> None:
    first, again = (corrupted_file(audio_of(tone()), CORRUPTIONS["white-noise"], 10.0) for _ in range(2))
    assert first.read() == again.read() and first.name == "a.wav" and first.digest() == again.digest()
    seed = sha256(sha256(wav_bytes(tone())).digest() + b"white-noise").digest()[:8]
    expected = corrupt(tone(), CORRUPTIONS["white-noise"], 10.0, int.from_bytes(seed, "big"))
    clip = decode(first.read())
    assert (clip.waveform == expected).all() and not clip.facts.truncated
    samples, rate = soundfile.read(io.BytesIO(first.read()), dtype="float32")
    assert rate == 16_000 and (samples == expected).all()
    other = corrupted_file(audio_of(tone(seed=1)), CORRUPTIONS["white-noise"], 10.0)
    assert not np.allclose(decode(other.read()).waveform - tone(seed=1), expected - tone())


def test_questions_on_one_clip_stay_on_one_clip() -> None:
    files = [audio_of(tone(0.1), "a"), audio_of(tone(0.1), "b")]
    questions = [
        Question(audio=file, prompt=prompt, field="", row={"audio": file.name}) for file in files for prompt in "xy"
    ]
    found = corrupted_questions(questions, CORRUPTIONS["gain"], -10.0)
    assert found[0].audio is found[1].audio and found[2].audio is found[3].audio is not found[0].audio
    assert [(each.prompt, each.row) for each in found] == [(each.prompt, each.row) for each in questions]


def test_a_broken_file_is_named() -> None:
    broken = corrupted_file(AudioFile("deep/b.wav", lambda: b"no audio"), CORRUPTIONS["gain"], -10.0)
    with pytest.raises(AudioError, match=r"deep/b\.wav"):
        broken.read()


def test_corruptions_are_read_from_a_command_line() -> None:
    assert find_corruption("reverb") == (CORRUPTIONS["reverb"], CORRUPTIONS["reverb"].levels)
    assert find_corruption("white-noise=0,20,10,20")[1] == (20.0, 10.0, 0.0)
    assert find_corruption("padding=8,0,1")[1] == (1.0, 8.0)
    assert find_corruption("speed=1.2,1,0.8")[1] == (0.8, 1.2)
    for text, match in [
        ("white-nose", "Did you mean 'white-noise'"),
        ("reverb=deep", "expected numbers in s RT60"),
        ("reverb=nan", "expected 0 to 10"),
        ("clipping=91", "91 % of samples, expected 0 to 90"),
        ("gain=0", "no level that changes anything"),
        ("telephone=1.5", "expected a whole number"),
    ]:
        with pytest.raises(ConfigError, match=match):
            find_corruption(text)
