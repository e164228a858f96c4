"""Voice activity by silero-vad, an extra: windows in which it finds no speech need not be transcribed."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from auricle.audio.facts import Samples
from auricle.audio.resample import SAMPLE_RATE
from auricle.errors import MissingExtra
from auricle.models.inference import inference

_FRAME = 512  # samples that silero-vad rates at once, 32 ms at 16 kHz
_LIKELY = 0.5  # its authors' default threshold
_FRAMES = 4  # so many likely frames in a row are speech: 0.13 s, less than the shortest word
_MARGIN = 8  # frames of silence put before and behind: a word at the very start would not be found


class SpeechDetector:
    """Finds out whether anybody speaks in a window."""

    def __init__(self) -> None:
        """Load the model that silero-vad ships.

        Raises:
            MissingExtra: silero-vad is not installed.
        """
        self._model = _load()

    def has_speech(self, waveform: Samples) -> bool:
        """Whether a waveform (N,) float32 at 16 kHz contains speech for at least 0.13 s."""
        length = -(-len(waveform) // _FRAME)
        frames = np.zeros((length + 2 * _MARGIN, _FRAME), np.float32)
        frames[_MARGIN:].reshape(-1)[: len(waveform)] = waveform
        self._model.reset_states()
        run = 0
        for frame in torch.from_numpy(frames):
            with inference():
                run = run + 1 if float(self._model(frame, SAMPLE_RATE)) >= _LIKELY else 0
            if run >= _FRAMES:
                return True
        return False


def _load() -> Any:
    threads = torch.get_num_threads()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the model is TorchScript, which is deprecated
            from silero_vad import load_silero_vad

            return load_silero_vad()
    except ImportError:
        raise MissingExtra("voice activity detection", "vad") from None
    finally:
        torch.set_num_threads(threads)  # importing the package sets one for the whole process
