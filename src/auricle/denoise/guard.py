"""What the receipt warns of: input without speech, on which the model was not trained, and speech that was lost.

A linear rule on the mean frame of the embedded encoder over each second tells speech from other sound. Its weights and
how often it errs on clips it was not fitted on are in ``speech.json``; ``recipes/tiny/speech_guard.py`` fits them.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

import numpy as np
import torch
from torch import Tensor

from auricle.audio.facts import Samples
from auricle.audio.resample import SAMPLE_RATE
from auricle.models.dasheng import Dasheng
from auricle.models.frame_model import DashengFrames
from auricle.models.inference import inference
from auricle.weights import load_dasheng

_BATCH = 20  # seconds that are rated at once
_SILENT = 1e-3  # largest |sample| of a second without sound, 60 dB below full scale
_LEAST = SAMPLE_RATE // 2  # samples of an end that is still rated
_FEW = 0.1  # share of seconds; fewer with speech, or more in which it was lost, are worth a warning


class Guard:
    """Counts seconds of input and output, with and without speech."""

    def __init__(self) -> None:
        """Start with no seconds."""
        self.seconds = self.silent = self.speech = self.lost = 0
        self._waiting: list[tuple[Samples, Samples]] = []

    def compare(self, dry: Samples, wet: Samples) -> None:
        """A second (C, N) of input and output at 16 kHz; of several channels their mean is rated."""
        if dry.shape[1] < _LEAST and self.seconds:
            return
        self.seconds += 1
        if float(np.abs(dry).max(initial=0.0)) <= _SILENT:
            self.silent += 1
            return
        self._waiting.append((_second(dry), _second(wet)))
        if len(self._waiting) >= _BATCH:
            self._rate()

    def warnings(self) -> list[str]:
        """What a user should know, after the last second; empty where nothing is odd."""
        self._rate()
        sounding = self.seconds - self.silent
        if not sounding:
            return [
                "nothing exceeds -60 dB of full scale: there is no speech to enhance, and what the output has is made"
            ]
        found = []
        if self.speech <= _FEW * sounding:
            found.append(
                f"speech was found in {self.speech} of {sounding} s with sound; the model was trained on speech alone, "
                "and may remove or invent sound: compare the output with the input"
            )
        elif self.lost > _FEW * self.speech:
            found.append(
                f"speech may be lost: in {self.lost} of {self.speech} s with speech none was found in the output; "
                "compare it with the input, or choose a lower strength"
            )
        return found

    def _rate(self) -> None:
        if not self._waiting:
            return
        dry, wet = (has_speech(part) for part in zip(*self._waiting, strict=True))
        self._waiting.clear()
        self.speech += sum(dry)
        self.lost += sum(before and not after for before, after in zip(dry, wet, strict=True))


def has_speech(seconds: tuple[Samples, ...]) -> list[bool]:
    """Whether there is speech in waveforms (16000,) at 16 kHz; see the module for how it is told."""
    network, weight, bias = _rule()
    clips = [torch.from_numpy(waveform) for waveform in seconds]
    with inference():
        means = torch.stack([frames.mean(0) for frames in DashengFrames(network).frames(clips)])
        found: list[bool] = (means @ weight + bias > 0).tolist()
    return found


def _second(samples: Samples) -> Samples:
    """The mean over channels, filled with zeros to one second."""
    mono = samples.mean(0, dtype=np.float32)
    padded: Samples = np.pad(mono, (0, SAMPLE_RATE - len(mono)))
    return padded


@cache
def _rule() -> tuple[Dasheng, Tensor, float]:
    stated = json.loads((resources.files("auricle.denoise") / "speech.json").read_text("utf-8"))
    return load_dasheng(stated["encoder"], dtype="float32"), torch.tensor(stated["weight"]), float(stated["bias"])
