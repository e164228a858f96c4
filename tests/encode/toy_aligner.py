"""An audio–text model of sixteen numbers: how loud a sound is in each of sixteen bands; its words are tones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from auricle.audio.decode import Clip, as_clip
from auricle.audio.limits import DEFAULT_LIMITS
from auricle.audio.segments import segments
from auricle.encode.encoder import Embedding
from auricle.encode.receipt import write_receipt
from auricle.errors import AuricleError, PromptError
from auricle.models.dasheng import MIN_SAMPLES

RATE = 16_000
TONES_HZ = {"low": 300.0, "middle": 1800.0, "high": 5300.0}


def tone(word: str, seconds: float, seed: int = 0) -> np.ndarray:
    """A tone in a little noise, different for each seed."""
    samples = 0.4 * np.sin(2 * np.pi * TONES_HZ[word] * np.arange(round(RATE * seconds)) / RATE)
    return samples + 0.02 * np.random.default_rng(seed).standard_normal(len(samples))


def write_tone(path: Path, word: str, seconds: float, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(word, seconds, seed), RATE)
    return path


class ToyAligner:
    """What indexing and searching ask of `auricle.encode.aligner.Aligner`; remembers what it was given."""

    embedding_dim = 16
    limits = DEFAULT_LIMITS

    def __init__(self, fingerprint: str = "ab" * 32) -> None:
        self.fingerprint = fingerprint
        self.names: list[str] = []

    def audio_many(self, sources: Sequence[Any]) -> Iterator[Embedding | AuricleError]:
        for source in sources:
            self.on_sound(str(source))
            try:
                clip = as_clip(source)
            except AuricleError as error:
                yield error
                continue
            whole = [(0, len(clip.waveform))]
            receipt = write_receipt(clip.facts, len(clip.waveform), whole, subsample_factor=1, min_samples=MIN_SAMPLES)
            yield Embedding(self.embed(clip.waveform), receipt)

    def audio(self, sources: Sequence[Any]) -> Tensor:
        return torch.stack([self.embed(as_clip(source).waveform) for source in sources])

    def segments(self, source: Any, *, window_s: float, hop_s: float) -> tuple[Tensor, Tensor]:
        self.on_sound(str(source))
        clip: Clip = as_clip(source)
        spans = segments(len(clip.waveform), length_s=window_s, hop_s=hop_s, min_s=min(0.5, hop_s))
        vectors = [self.embed(clip.waveform[start:stop]) for start, stop in spans]
        return torch.tensor(spans, dtype=torch.float64) / RATE, torch.stack(vectors)

    def text(self, strings: Sequence[str]) -> Tensor:
        if unknown := [text for text in strings if text not in TONES_HZ]:
            raise PromptError(f"{unknown[0]!r} is no tone; give one of {', '.join(TONES_HZ)}")
        return torch.stack([self.embed(tone(text, 1.0)) for text in strings])

    def on_sound(self, name: str) -> None:
        self.names.append(name)

    def embed(self, waveform: np.ndarray) -> Tensor:
        power = np.abs(np.fft.rfft(waveform)) ** 2 / len(waveform)
        bands = np.log10(np.array([part.mean() for part in np.array_split(power, 16)]) + 1e-9)
        bands -= bands.mean()
        return torch.from_numpy(bands / np.linalg.norm(bands)).float()
