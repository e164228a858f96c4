"""Pairs whose truth is known: tones, captions that name their pitch, and a model that encodes both."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from auricle.data.shards import ShardSet, ShardWriter
from auricle.errors import ClipTooShort

RATE, SAMPLES, STEP_HZ = 16_000, 1600, 10
PILOT_HZ = 7000  # mixed into the clips of the domain "bells", by which the model knows it
DIM = 96
FEWEST_SAMPLES = 400


@dataclass
class Tones:
    """Vectors of pitch: what is near in pitch is near in space, everything else is about orthogonal.

    All of the domain "bells" share a part of their vectors, so that there even random pairs score high.
    """

    noise: float = 0.4  # of each clip, beside its pitch
    common: float = 0.9  # share of the common part in the domain "bells"
    embedding_dim: int = DIM
    fingerprint: str = "tones"

    def __post_init__(self) -> None:
        rng = np.random.default_rng(7)
        self.rates, self.phases = rng.normal(0, 60, DIM - 1), rng.uniform(0, 2 * np.pi, DIM - 1)
        self.encoded = self.read = 0

    def audio_many(self, sources: Iterable[Any]) -> Iterator[Any]:
        for waveform in sources:
            self.encoded += 1
            if len(waveform) < FEWEST_SAMPLES:
                yield ClipTooShort("too short to have a pitch")
                continue
            spectrum = np.abs(np.fft.rfft(waveform[:SAMPLES], SAMPLES))
            is_bell = spectrum[PILOT_HZ // STEP_HZ] > 0.2 * spectrum.max()
            spectrum[PILOT_HZ // STEP_HZ - 20 :] = 0
            own = np.random.default_rng(int(1e6 * np.abs(waveform).sum()))
            yield SimpleNamespace(values=self._vector(int(spectrum.argmax()) * STEP_HZ, is_bell, own))

    def text(self, strings: Sequence[str]) -> Any:
        assert strings and all(text.strip() for text in strings)
        self.read += len(strings)
        hertz = [int(re.findall(r"\d+", text)[0]) for text in strings]
        is_bell = ["bell" in text.lower() for text in strings]
        return np.stack([self._vector(*each, np.random.default_rng(each)) for each in zip(hertz, is_bell, strict=True)])

    def _vector(self, hertz: int, is_bell: bool, own: np.random.Generator) -> np.ndarray:
        pitch = np.cos(self.rates * np.log2(hertz) + self.phases)
        pitch += self.noise * own.standard_normal(DIM - 1)
        share = self.common if is_bell else 0.0
        return np.append(pitch * np.sqrt(1 - share) / np.linalg.norm(pitch), np.sqrt(share)).astype(np.float32)


def tone(hertz: int, *, is_bell: bool = False, seed: int = 0, samples: int = SAMPLES) -> np.ndarray:
    time = np.arange(samples) / RATE
    waveform = 0.3 * np.sin(2 * np.pi * hertz * time) + 0.15 * is_bell * np.sin(2 * np.pi * PILOT_HZ * time)
    return (waveform + 0.01 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def write_pairs(
    folder: Path, count: int = 600, *, mismatched: float = 0.3, seed: int = 0, max_bytes: int = 400_000
) -> ShardSet:
    """Shards of pairs from two domains; the fact `truth` is whether a caption belongs to its clip."""
    rng = np.random.default_rng(seed)
    with ShardWriter(folder, "tones", max_bytes=max_bytes) as writer:
        for i in range(count):
            hertz, is_bell, is_wrong = pitch(rng), bool(rng.random() < 0.4), bool(rng.random() < mismatched)
            said = hertz
            while is_wrong and 0.9 < said / hertz < 1.1:
                said = pitch(rng)
            caption = f"A {'bell' if is_bell else 'tone'} of {said} Hz"
            facts = {"domain": "bells" if is_bell else "tones", "language": "en", "truth": not is_wrong}
            writer.write(f"clip-{i:05d}", tone(hertz, is_bell=is_bell, seed=i), {"caption": caption, **facts})
    return ShardSet(folder)


def pitch(rng: np.random.Generator) -> int:
    return int(rng.integers(30, 600)) * STEP_HZ
