"""Noisy versions of clean speech: rooms, backgrounds, lost bands, clipping, codecs, level.

A pair is aligned to the sample: the direct sound of a room is its first sample, filters have no delay, and that of
codecs is removed. Both have the gain of the noisy one, since a model is to keep the level. The same generator state
gives the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from auricle.data import codecs, mixing
from auricle.data.mixing import SAMPLE_RATE, Waveform
from auricle.data.parts import Kind
from auricle.data.scenes import Pools
from auricle.errors import ConfigError

_EXPONENTS = (0.0, 0.5, 1.0, 1.5, 2.0)  # of steady noise, from white to brown
_TELEPHONE_HZ = (300.0, 3400.0)  # ITU-T G.712
_LOW_PASS_HZ = (2000.0, 7000.0)
_MP3_KBPS = (16.0, 24.0, 32.0, 48.0, 64.0)


class Degraded(NamedTuple):
    """Two waveforms of the same length (num_samples,) float32, 16 kHz, within [-1, 1]; and what was done."""

    noisy: Waveform
    clean: Waveform  # dry, whole band, at the level it has in `noisy`
    facts: dict[str, Any]  # as JSON holds it; a key is there where that was done


@dataclass(frozen=True, kw_only=True)
class DegradeConfig:
    """How speech is made noisy; shares are of clips, levels in decibels, a range is sampled evenly.

    The range of signal-to-noise ratios is that of the Deep Noise Suppression challenge widened downwards (arXiv
    2005.13981: 0 to 40 dB); the other figures are our own.
    """

    backgrounds: Sequence[float] = (0.04, 0.48, 0.32, 0.16)  # shares of clips with none, one, two, three
    kinds: Sequence[float] = (0.60, 0.20, 0.20)  # of backgrounds: recorded sounds, music, steady noise
    snr_db: tuple[float, float] = (-5.0, 20.0)  # active level of the speech in its room over all backgrounds together
    room_share: float = 0.5
    rt60_s: tuple[float, float] = (0.1, 0.9)  # time in which a room's sound falls by 60 dB
    reverberant_db: tuple[float, float] = (-18.0, 3.0)  # energy of the room over that of the direct sound
    band_share: float = 0.2
    clip_share: float = 0.1
    clipped: tuple[float, float] = (0.001, 0.1)  # share of samples that are cut off
    codec_share: float = 0.15
    level_db: tuple[float, float] = (-38.0, -14.0)  # active level of the noisy waveform

    def __post_init__(self) -> None:
        for name in ("backgrounds", "kinds"):
            shares = getattr(self, name)
            if not len(shares) or min(shares) < 0 or not sum(shares) > 0:
                raise ConfigError(f"{name} are {list(shares)}; expected shares, none below 0 and not all 0")
        if len(self.kinds) != len(_KINDS):
            raise ConfigError(f"kinds are {list(self.kinds)}; expected a share each of sound, music, steady noise")
        for name in ("snr_db", "rt60_s", "reverberant_db", "clipped", "level_db"):
            ends = tuple(getattr(self, name))
            if len(ends) != 2 or not ends[0] <= ends[1] or not np.isfinite(ends).all():
                raise ConfigError(f"{name} is {list(ends)}; expected the lowest and the highest value")
        for name in ("room_share", "band_share", "clip_share", "codec_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a share of 0 … 1")
        if not (self.rt60_s[0] > 0 and self.clipped[0] >= 0 and self.clipped[1] < 1):
            raise ConfigError(
                f"rt60_s is {list(self.rt60_s)} and clipped {list(self.clipped)}; expected above 0 s, and 0 to below 1"
            )


_KINDS: tuple[Kind | None, ...] = ("sound", "music", None)  # None: steady noise, which is made


def degrade(
    clean: Waveform, backgrounds: Sequence[Waveform], rng: np.random.Generator, config: DegradeConfig | None = None
) -> Degraded:
    """Make clean speech noisy.

    Args:
        clean: (num_samples,) float32, mono at 16 kHz.
        backgrounds: each is looped or cut to the length of the speech; silent ones are left out.
        rng: decides everything that is random.
        config: how.

    Returns:
        The pair. Facts: ``rt60_s`` and ``reverberant_db`` of the room, ``snr_db``, ``band_hz``, ``clipped`` (share of
        samples), ``codec`` and ``kbps``, ``level_db``. Digital silence as speech stays the clean one; backgrounds are
        then as loud as they are.

    Raises:
        ConfigError: this installation of libsndfile lacks a codec.

    Source: Polack 1988, "La transmission de l'énergie sonore dans les salles" (a room as decaying Gaussian noise).
    """
    config = config or DegradeConfig()
    facts: dict[str, Any] = {}
    speech, behind = clean, [mixing.loop(each, clean.size) for each in backgrounds if each.any()]
    if rng.random() < config.room_share:
        rt60_s, wet_db = (float(rng.uniform(*ends)) for ends in (config.rt60_s, config.reverberant_db))
        speech, *behind = (_in_room(each, rng, rt60_s, wet_db) for each in (speech, *behind))
        facts |= {"rt60_s": rt60_s, "reverberant_db": wet_db}
    noisy = speech
    if behind:
        facts["snr_db"] = float(rng.uniform(*config.snr_db))
        noisy = mixing.mix(speech, _together(behind, rng), facts["snr_db"])
    noisy = _recorded(noisy, rng, config, facts)
    return _levelled(noisy, clean, rng, config, facts)


def make_pair(
    pools: Pools, rng: np.random.Generator, num_samples: int, config: DegradeConfig | None = None
) -> Degraded:
    """Speech of the pools, one clip after the other until it is ``num_samples`` long, made noisy by their sounds.

    Where the pools have no music or no sounds, backgrounds are of the other kinds. Facts have the ``backgrounds`` too.

    Raises:
        DataError: the pools have no speech.
        ConfigError: this installation of libsndfile lacks a codec.
    """
    config = config or DegradeConfig()
    clean = make_speech(pools, rng, num_samples)
    counts = np.asarray(config.backgrounds, dtype=float)
    names, behind = [], []
    for _ in range(int(rng.choice(len(counts), p=counts / counts.sum()))):
        name, waveform = make_background(pools, rng, num_samples, config)
        names.append(name)
        behind.append(waveform)
    noisy, clean, facts = degrade(clean, behind, rng, config)
    return Degraded(noisy, clean, {"backgrounds": names, **facts})


def make_speech(pools: Pools, rng: np.random.Generator, num_samples: int) -> Waveform:
    """Clips of speech at similar levels with short pauses between, and a part of a long one, ``num_samples`` in all.

    Raises:
        DataError: the pools have no speech.
    """
    speech = np.zeros(num_samples, np.float32)
    start = int(rng.integers(SAMPLE_RATE // 5))
    while start < num_samples:
        waveform, _, _ = pools.read(pools.sample("speech", rng))
        piece = mixing.fade(mixing.crop_energetic(waveform, rng, num_samples - start))
        piece = mixing.limit_peak(mixing.to_level(piece, float(rng.uniform(-29, -23))))
        speech[start : start + piece.size] = piece
        start += piece.size + int(rng.uniform(0.1, 0.6) * SAMPLE_RATE)
    return speech


def make_background(
    pools: Pools, rng: np.random.Generator, num_samples: int, config: DegradeConfig
) -> tuple[str, Waveform]:
    """Name and waveform of a sound behind speech, at most ``num_samples`` long, of the kinds that the pools have."""
    shares = np.asarray([s * (kind is None or pools.has(kind)) for s, kind in zip(config.kinds, _KINDS, strict=True)])
    if not shares.sum() > 0:  # the pools have none of the wanted kinds
        shares = np.asarray([0.0, 0.0, 1.0])
    kind = _KINDS[int(rng.choice(len(_KINDS), p=shares / shares.sum()))]
    if kind is None:
        return "steady noise", mixing.noise(num_samples, rng, float(rng.choice(_EXPONENTS)))
    waveform, part, _ = pools.read(pools.sample(kind, rng))
    if rng.random() < 0.5:
        waveform = mixing.change_speed(waveform, float(np.exp(rng.uniform(-0.3, 0.3))))
    waveform = mixing.fade(mixing.crop_energetic(waveform, rng, num_samples))
    if waveform.size and waveform.size < num_samples and rng.random() < 0.5:  # at its own pace, not on and on
        waveform = mixing.place(waveform, int(rng.integers(num_samples - waveform.size + 1)), num_samples)
    return part.event or kind, waveform


def _in_room(waveform: Waveform, rng: np.random.Generator, rt60_s: float, reverberant_db: float) -> Waveform:
    """From a place of its own in a room of that reverberation."""
    return mixing.colour(waveform, room=mixing.room_response(rng, rt60_s, wet=float(10 ** (reverberant_db / 20))))


def _together(waveforms: Sequence[Waveform], rng: np.random.Generator) -> Waveform:
    """The sum of backgrounds whose active levels differ by up to 10 dB."""
    total = np.zeros_like(waveforms[0])
    for waveform in waveforms:
        total += mixing.to_level(waveform, float(rng.uniform(-30, -20)))
    return total


def _recorded(noisy: Waveform, rng: np.random.Generator, config: DegradeConfig, facts: dict[str, Any]) -> Waveform:
    """What a microphone, an amplifier and a line do to the sound in the room, in that order."""
    if rng.random() < config.band_share:
        low_hz, high_hz = _TELEPHONE_HZ if rng.random() < 0.3 else (0.0, float(rng.uniform(*_LOW_PASS_HZ)))
        noisy = mixing.colour(noisy, band_hz=(low_hz, high_hz))
        facts["band_hz"] = [low_hz, high_hz]
    if rng.random() < config.clip_share and noisy.any():
        facts["clipped"] = float(rng.uniform(*config.clipped))
        limit = float(np.quantile(np.abs(noisy), 1 - facts["clipped"]))
        noisy = np.clip(noisy, -limit, limit) if limit > 0 else noisy
    if rng.random() < config.codec_share and noisy.any():
        noisy = _coded(mixing.limit_peak(noisy), rng, facts)
    return noisy


def _coded(noisy: Waveform, rng: np.random.Generator, facts: dict[str, Any]) -> Waveform:
    if rng.random() < 0.6:
        facts |= {"codec": "opus", "kbps": float(np.exp(rng.uniform(np.log(8), np.log(64))))}
        return codecs.opus(noisy, facts["kbps"])
    facts |= {"codec": "mp3", "kbps": float(rng.choice(_MP3_KBPS))}
    return codecs.mp3(noisy, facts["kbps"])


def _levelled(
    noisy: Waveform, clean: Waveform, rng: np.random.Generator, config: DegradeConfig, facts: dict[str, Any]
) -> Degraded:
    """Both by one gain, by which the noisy one is at a random level and neither is beyond full scale."""
    level_db = float(rng.uniform(*config.level_db))
    rms = mixing.active_rms(noisy)
    gain = 10 ** (level_db / 20) / rms if rms > mixing.SILENCE_RMS else 1.0
    peak = max(float(np.abs(each).max(initial=0.0)) for each in (noisy, clean))
    gain = min(gain, 0.99 / peak) if peak * gain > 0.99 else gain
    if rms > mixing.SILENCE_RMS:
        facts["level_db"] = float(20 * np.log10(rms * gain))
    return Degraded(noisy * np.float32(gain), clean * np.float32(gain), facts)
