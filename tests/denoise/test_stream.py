"""Chunks do not show, output is aligned and as long as the input, the loudness is kept."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.denoise.chunks import CleanFrames, Vocoding
from auricle.denoise.loudness import BLOCK, Loudness
from auricle.denoise.stream import DenoiseStream
from auricle.errors import ConfigError
from auricle.models.denoiser import Denoiser

from .networks import Echo, noise, random_denoiser


@pytest.fixture(scope="module")
def network() -> Denoiser:
    model: Denoiser = random_denoiser()
    return model


def run(stream: DenoiseStream, samples: np.ndarray, step: int) -> np.ndarray:
    parts = [stream.add(samples[at : at + step]) for at in range(0, len(samples), step)]
    return np.concatenate([*parts, stream.finish()])


def whole(network: Denoiser, waveform: np.ndarray, window: int = 252) -> tuple[np.ndarray, torch.Tensor]:
    """All frames of all windows at once, vocoded in one pass."""
    frames = CleanFrames(network, torch.device("cpu"), window)
    clean = torch.cat([*frames.add(waveform[None]), *frames.finish()], dim=1)
    with torch.inference_mode():
        return network.vocode(clean)[0].numpy(), clean


def test_pieces_of_the_vocoder_join_to_one_pass(network: Denoiser) -> None:
    frames = torch.randn(2, 200, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network.vocode(frames).numpy()
    for size in (1, 7, 60, 200):
        vocoding = Vocoding(network, network.config.context_tokens)
        parts = [vocoding.add(piece) for piece in frames.split(size, dim=1)] + [vocoding.finish()]
        joined = np.concatenate([part for part in parts if part is not None], axis=1)
        assert joined.shape == expected.shape
        assert np.abs(joined - expected).max() < 1e-6
    narrow = Vocoding(network, network.config.context_tokens - 2)  # without enough context the pieces show
    parts = [narrow.add(piece) for piece in frames.split(60, dim=1)] + [narrow.finish()]
    assert np.abs(np.concatenate([p for p in parts if p is not None], axis=1) - expected).max() > 1e-6


@pytest.mark.parametrize("step", [1_997, 16_000, 400_000])
def test_pieces_of_a_stream_do_not_show(network: Denoiser, step: int) -> None:
    samples = noise(14.0).numpy()
    expected, _ = whole(network, samples[:, 0])
    stream = DenoiseStream(network, network.config.context_tokens, 16_000)
    found = run(stream, samples, step)[:, 0]
    loudness = Loudness()
    for at in range(0, len(samples), BLOCK):
        levelled = loudness.apply(samples[None, at : at + BLOCK, 0], expected[None, at : at + BLOCK])[0]
        assert np.abs(found[at : at + BLOCK] - levelled).max() < 1e-5


def test_a_short_clip_is_the_plain_forward_pass(network: Denoiser) -> None:
    """Up to 10.08 s there is one window, and nothing is faded."""
    waveform = noise(10.0).numpy()[:, 0]
    made, _ = whole(network, waveform)
    with torch.inference_mode():
        expected = network([torch.from_numpy(waveform)])[0].numpy()
    assert np.abs(made - expected).max() < 1e-5


def test_borders_do_not_click(network: Denoiser) -> None:
    """Steps from sample to sample at the borders of windows are no larger than elsewhere."""
    made, _ = whole(network, noise(30.0).numpy()[:, 0])
    steps = np.abs(np.diff(made, n=2))
    blocks = steps[: len(steps) // 640 * 640].reshape(-1, 640).max(1)  # of each token
    is_border = np.zeros(len(blocks), bool)
    for start in (227, 454):
        is_border[start - 1 : start + 26] = True
    assert blocks[is_border].max() <= blocks[~is_border].max()
    assert blocks[is_border].mean() == pytest.approx(blocks[~is_border].mean(), rel=0.03)


def test_windows_that_disagree_are_faded() -> None:
    """Each window is louder than the last by 1: frames rise by a 26th a token, and never jump."""

    class Rising(Echo):
        def denoise_frames(self, frames: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            self.factor += 1
            return [torch.full_like(clip, self.factor) for clip in frames]

    made, _ = whole(Rising(0.0), np.zeros(30 * 16_000, np.float32))  # type: ignore[arg-type]
    assert np.abs(np.diff(made)).max() <= 1 / 26 + 1e-6
    assert made[0] == 1 and made[-1] == 4


def test_a_clip_is_far_from_its_start_what_it_is_alone(network: Denoiser) -> None:
    """Audio behind a border has no influence before it, beyond the context of the vocoder."""
    first, second = noise(22.0).numpy(), noise(22.0, seed=1).numpy()
    changed = np.concatenate([first[: 20 * 16_000], second[20 * 16_000 :]])
    one, _ = whole(network, first[:, 0])
    other, _ = whole(network, changed[:, 0])
    certain = (2 * 227 - network.config.context_tokens) * 640  # the third window holds the change
    assert np.abs(one - other)[:certain].max() < 1e-6
    assert np.abs(one - other)[certain:].max() > 1e-4


@settings(max_examples=25, deadline=None)
@given(
    rate=st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000]),
    channels=st.integers(1, 3),
    seconds=st.floats(0.0001, 3.0),
    window_s=st.sampled_from([0.32, 1.0, 10.08]),
)
def test_length_is_kept(rate: int, channels: int, seconds: float, window_s: float) -> None:
    samples = noise(max(seconds, 1 / rate), rate, channels).numpy()
    stream = DenoiseStream(Echo(), 3, rate, channels, window_s=window_s)
    assert run(stream, samples, 5_000).shape == samples.shape


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_output_is_aligned_with_the_input(rate: int) -> None:
    """A network that gives back its input gives back the input, resampled there and back."""
    time = np.arange(round(13.0 * rate)) / rate
    tones = np.stack([np.sin(2 * np.pi * 440 * time), np.sin(2 * np.pi * 1000 * time)], 1).astype(np.float32) * 0.3
    found = run(DenoiseStream(Echo(), 28, rate, 2), tones, 3_000)
    edge = rate // 10
    assert np.abs(found - tones)[edge:-edge].max() < 1e-3


def test_strength_mixes_with_the_input() -> None:
    samples = noise(3.0, 44_100, 2).numpy()
    dry = run(DenoiseStream(Echo(0.0), 3, 44_100, 2, strength=0.0), samples, 999)
    assert np.array_equal(dry, samples)
    half = run(DenoiseStream(Echo(0.0), 3, 44_100, 2, strength=0.5), samples, 999)
    assert np.abs(half - 0.5 * samples).max() < 1e-6


@pytest.mark.parametrize("window_s", [0.32, 1.0, 10.08])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_stated_latency_holds(window_s: float, rate: int) -> None:
    stream = DenoiseStream(Echo(), 28, rate, window_s=window_s)
    samples = noise(30.0, rate).numpy()
    step, late = rate // 20, 0
    for at in range(0, len(samples), step):
        stream.add(samples[at : at + step])
        late = max(late, stream.num_read - stream.num_written)
    assert late / rate <= stream.latency_s + step / rate
    assert late / rate > stream.latency_s - 2.0, "the bound is not far from what happens"


def test_loudness_of_speech_is_kept() -> None:
    """Noise that was removed does not raise the gain; a level that the network changed is restored."""
    rng = np.random.default_rng(0)
    time = np.arange(20 * BLOCK) / BLOCK
    syllables = np.sin(2 * np.pi * 4 * time) > 0
    speech = (0.3 * syllables * sum(np.sin(2 * np.pi * f * time) for f in (150, 300, 450, 600))).astype(np.float32)
    noisy = speech + 0.05 * rng.standard_normal(len(speech)).astype(np.float32)
    loudness = Loudness()
    for at in range(0, len(speech), BLOCK):
        found = loudness.apply(noisy[None, at : at + BLOCK], 0.4 * speech[None, at : at + BLOCK])
    rms = [float(np.sqrt(np.square(part).mean())) for part in (found[0], speech[-BLOCK:])]
    assert 20 * abs(np.log10(rms[0] / rms[1])) < 0.3
    silent = Loudness()
    silent.apply(noisy[None, :BLOCK], np.zeros((1, BLOCK), np.float32))
    assert silent.gain == 1.0
    removed = Loudness()  # 40 dB below the noise that it was: no speech, so no gain
    removed.apply(noisy[None, :BLOCK], 0.01 * noisy[None, :BLOCK])
    assert removed.gain == 1.0


def test_equal_channels_are_computed_once() -> None:
    network = Echo()
    samples = noise(2.0).numpy().repeat(4, axis=1)
    run(DenoiseStream(network, 3, 16_000, 4), samples, 8_000)
    assert network.lengths == [32_000]


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="strength"):
        DenoiseStream(Echo(), 3, 16_000, strength=1.5)
    with pytest.raises(ConfigError, match="window_s"):
        DenoiseStream(Echo(), 3, 16_000, window_s=20.0)
    stream = DenoiseStream(Echo(), 3, 16_000, 2)
    with pytest.raises(ConfigError, match=r"expected \(num_samples, 2\)"):
        stream.add(np.zeros((10, 1), np.float32))
    stream.add(np.zeros((10, 2), np.float32))
    stream.finish()
    with pytest.raises(ConfigError, match="finished"):
        stream.add(np.zeros((10, 2), np.float32))
