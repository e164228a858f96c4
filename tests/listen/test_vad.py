import sys

import numpy as np
import pytest
import torch

from auricle.errors import MissingExtra
from auricle.listen import vad
from auricle.listen.model import AudioLM

from .test_model import NEW, noise


class Loudness:
    """Takes loud frames for speech."""

    def reset_states(self) -> None:
        pass

    def __call__(self, frame: torch.Tensor, sample_rate: int) -> torch.Tensor:
        assert frame.shape == (512,) and sample_rate == 16_000
        return frame.abs().max().clamp(max=1)


def test_windows_without_speech_are_not_transcribed(model: AudioLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vad, "_load", Loudness)
    waveform = noise(6) * 0.1
    waveform[: 2 * 16_000] = np.sign(waveform[: 2 * 16_000])
    short = AudioLM(model.loaded, max_audio_s=2.0)
    found = short.transcribe(waveform, vad=True, overlap_s=0.0, max_new_tokens=NEW)
    by_rule = [segment.start_s for segment in found.segments if segment.mean_logprob is None]
    assert found.segments[0].mean_logprob is not None and by_rule == [segment.start_s for segment in found.segments[1:]]
    assert "silero-vad finds no speech: 2-6 s" in found.receipt.notes[-1] and found.receipt.complete


def test_the_real_detector_knows_silence_and_noise_and_changes_nothing() -> None:
    pytest.importorskip("silero_vad")
    threads = torch.get_num_threads()
    detector = vad.SpeechDetector()
    assert torch.get_num_threads() == threads
    assert not detector.has_speech(np.zeros(8_000, np.float32)) and not detector.has_speech(noise(1))
    assert not detector.has_speech(np.zeros(0, np.float32))


def test_without_silero_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    with pytest.raises(MissingExtra, match=r"auricle\[vad\]"):
        vad.SpeechDetector()
