import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.data import mixing
from auricle.data.degrade import DegradeConfig, Degraded, degrade, make_pair, make_speech
from auricle.data.scenes import Pools
from auricle.errors import ConfigError, DataError

NOTHING = {"room_share": 0.0, "band_share": 0.0, "clip_share": 0.0, "codec_share": 0.0}
ALL = {"room_share": 1.0, "band_share": 1.0, "clip_share": 1.0, "codec_share": 1.0}


def voice(seed: int = 0, num_samples: int = 16_000) -> mixing.Waveform:
    """Noise in syllables: it has pauses, and its own place in time."""
    rng = np.random.default_rng(seed)
    syllables = np.repeat(rng.random(num_samples // 800 + 1) > 0.4, 800)[:num_samples]
    band = mixing.colour(mixing.noise(num_samples, rng), band_hz=(150, 3000))
    return (0.1 * band * syllables).astype(np.float32)


def hum(seed: int = 9, num_samples: int = 9_000) -> mixing.Waveform:
    return mixing.noise(num_samples, np.random.default_rng(seed), 1.0)


class ToyClips:
    """Two of each kind, of half a second and of two."""

    FACTS = (
        {"kind": "speech", "set": "toy"},
        {"kind": "sound", "event": "rain"},
        {"kind": "music", "instruments": ["piano"]},
    )

    def __init__(self, kinds: tuple[int, ...] = (0, 1, 2)) -> None:
        self.rows = [(self.FACTS[kind], length) for kind in kinds for length in (8_000, 32_000)]

    def __len__(self) -> int:
        return len(self.rows)

    def read_meta(self, i: int) -> Mapping[str, Any]:
        return self.rows[i][0]

    def read(self, i: int) -> Any:
        return SimpleNamespace(waveform=voice(i, self.rows[i][1]))


configs = st.builds(
    lambda shares, low, wide: DegradeConfig(
        **dict(zip(ALL, shares, strict=True)), snr_db=(low, low + wide), backgrounds=(1, 1, 1, 1)
    ),
    st.tuples(*[st.sampled_from([0.0, 0.5, 1.0])] * 4),
    st.floats(-15, 20),
    st.floats(0, 10),
)


@settings(max_examples=40, deadline=None)
@given(config=configs, seed=st.integers(0, 2**32), num_samples=st.integers(1, 40_000))
def test_a_pair_is_what_it_says(config: DegradeConfig, seed: int, num_samples: int) -> None:
    speech, backgrounds = voice(1, num_samples), [hum(2), hum(3, 100)]
    before = [each.copy() for each in (speech, *backgrounds)]
    noisy, clean, facts = degrade(speech, backgrounds, np.random.default_rng(seed), config)
    assert noisy.shape == clean.shape == speech.shape and noisy.dtype == clean.dtype == np.float32
    assert np.isfinite(noisy).all() and max(np.abs(noisy).max(), np.abs(clean).max()) <= 0.9901
    assert all(map(np.array_equal, before, (speech, *backgrounds)))
    if speech.any():  # the clean one is the speech times one gain
        at = np.abs(speech).argmax()
        np.testing.assert_allclose(clean, speech * (clean[at] / speech[at]), rtol=1e-5, atol=1e-8)
    assert json.loads(json.dumps(facts)) == facts
    assert config.snr_db[0] <= facts["snr_db"] <= config.snr_db[1]
    for share, fact in (("room_share", "rt60_s"), ("band_share", "band_hz"), ("codec_share", "codec")):
        if getattr(config, share) in (0.0, 1.0) and (fact != "codec" or speech.any()):
            assert (fact in facts) == bool(getattr(config, share))
    if "level_db" in facts:
        level = 20 * np.log10(mixing.active_rms(noisy))
        assert level == pytest.approx(facts["level_db"], abs=0.01) and level < config.level_db[1] + 0.01


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_equal_seeds_give_equal_bytes(seed: int) -> None:
    pools = Pools(ToyClips())
    config = DegradeConfig(**ALL)
    found = [make_pair(pools, np.random.default_rng(seed), 24_000, config) for _ in range(2)]
    assert found[0].noisy.tobytes() == found[1].noisy.tobytes()
    assert found[0].clean.tobytes() == found[1].clean.tobytes()
    assert found[0].facts == found[1].facts
    other = make_pair(pools, np.random.default_rng(seed + 1), 24_000, config)
    assert other.noisy.tobytes() != found[0].noisy.tobytes()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), snr_db=st.floats(-10, 30))
def test_the_ratio_is_that_of_active_levels(seed: int, snr_db: float) -> None:
    config = DegradeConfig(**NOTHING, snr_db=(snr_db, snr_db))
    noisy, clean, facts = degrade(voice(), [hum()], np.random.default_rng(seed), config)
    ratio = 20 * np.log10(mixing.active_rms(clean) / mixing.active_rms(noisy - clean))
    assert ratio == pytest.approx(snr_db, abs=0.1) and facts["snr_db"] == snr_db


def lag(noisy: mixing.Waveform, clean: mixing.Waveform) -> int:
    """Samples by which the noisy one is late, from the cross-correlation of both."""
    size = 2 * noisy.size
    product = np.fft.irfft(np.fft.rfft(noisy, size) * np.conj(np.fft.rfft(clean, size)))
    at = int(product.argmax())
    return at if at < size // 2 else at - size


@pytest.mark.parametrize("only", [*ALL, "snr_db"])
@pytest.mark.parametrize("seed", range(6))
def test_pairs_are_aligned(only: str, seed: int) -> None:
    config = DegradeConfig(**{**NOTHING, **({only: 1.0} if only in ALL else {})})
    backgrounds = [hum()] if only == "snr_db" else []
    noisy, clean, facts = degrade(voice(seed, 32_000), backgrounds, np.random.default_rng(seed), config)
    assert abs(lag(noisy, clean)) <= 1, facts


def test_what_was_done_can_be_measured() -> None:
    rng = np.random.default_rng
    speech = voice(num_samples=48_000)
    clipped = degrade(speech, [], rng(0), DegradeConfig(**{**NOTHING, "clip_share": 1.0}, clipped=(0.05, 0.05)))
    peak = np.abs(clipped.noisy).max()
    assert np.mean(np.abs(clipped.noisy) > 0.999 * peak) == pytest.approx(0.05, abs=0.005)
    low = degrade(hum(num_samples=48_000), [], rng(3), DegradeConfig(**{**NOTHING, "band_share": 1.0}))
    power = np.abs(np.fft.rfft(low.noisy)) ** 2
    edge_hz = low.facts["band_hz"][1]
    kept, lost = (np.abs(np.fft.rfft(low.clean)) ** 2, power)
    beyond = slice(int(1.5 * edge_hz * 3), None)  # bins of a third of a hertz
    assert lost[beyond].sum() / lost.sum() < 0.1 * kept[beyond].sum() / kept.sum()
    config = DegradeConfig(**{**NOTHING, "room_share": 1.0}, rt60_s=(0.5, 0.5), reverberant_db=(0.0, 0.0))
    impulse = mixing.place(np.full(1, 0.5, np.float32), 0, 16_000)
    decay = np.cumsum(degrade(impulse, [], rng(1), config).noisy[1:][::-1] ** 2)[::-1]  # Schroeder's integral
    fall_db = 10 * np.log10(decay[[800, 4_000]] / decay[0])
    assert fall_db[1] - fall_db[0] == pytest.approx(-60 * 0.2 / 0.5, abs=3)  # 24 dB in 0.2 s of 0.5 s


def test_speech_fills_the_pair_and_backgrounds_are_named() -> None:
    pools = Pools(ToyClips())
    pairs = [make_pair(pools, np.random.default_rng(seed), 48_000) for seed in range(40)]
    counts = [len(pair.facts["backgrounds"]) for pair in pairs]
    assert set(counts) >= {1, 2} and max(counts) <= 3
    names = {name for pair in pairs for name in pair.facts["backgrounds"]}
    assert names == {"rain", "music", "steady noise"}
    assert all(np.mean(pair.clean != 0) > 0.2 for pair in pairs)
    alone = Pools(ToyClips((0,)))
    names = {name for s in range(9) for name in make_pair(alone, np.random.default_rng(s), 8_000).facts["backgrounds"]}
    assert names == {"steady noise"}
    with pytest.raises(DataError, match="no speech clips"):
        make_speech(Pools(ToyClips((1,))), np.random.default_rng(0), 8_000)


def test_silence_stays_clean() -> None:
    silence = np.zeros(4_000, np.float32)
    noisy, clean, facts = degrade(silence, [], np.random.default_rng(0), DegradeConfig(**ALL))
    assert not noisy.any() and not clean.any() and "level_db" not in facts
    noisy, clean, _ = degrade(silence, [hum()], np.random.default_rng(0), DegradeConfig(**NOTHING))
    assert noisy.any() and not clean.any()
    empty = degrade(silence[:0], [hum()], np.random.default_rng(0), DegradeConfig(**ALL))
    assert isinstance(empty, Degraded) and empty.noisy.size == empty.clean.size == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backgrounds": ()}, "backgrounds are"),
        ({"kinds": (1, -1, 1)}, "kinds are"),
        ({"kinds": (1, 1)}, "a share each of sound, music"),
        ({"snr_db": (5, 0)}, "snr_db is"),
        ({"rt60_s": (0, 1)}, "rt60_s is"),
        ({"clipped": (0.1, 1.0)}, "clipped"),
        ({"codec_share": 1.5}, "codec_share is 1.5"),
        ({"level_db": (float("nan"), 0.0)}, "level_db is"),
    ],
)
def test_settings_out_of_range_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DegradeConfig(**changes)
