"""Whisper's log-mel against the front end of transformers."""

import numpy as np
import pytest
import torch
from torch import Tensor

from auricle.audio.whisper_mel import slaney_filterbank, whisper_log_mel

LENGTH = 30 * 16_000


def clip(seconds: float, level: float, seed: int = 0) -> Tensor:
    samples = level * torch.randn(int(seconds * 16_000), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.pad(samples, (0, LENGTH - len(samples)))


@pytest.mark.parametrize("num_mels", [80, 128])
@pytest.mark.parametrize(("seconds", "level"), [(0.3, 0.1), (7.7, 1e-4), (30.0, 1.0)])
def test_equals_transformers(num_mels: int, seconds: float, level: float) -> None:
    from transformers import WhisperFeatureExtractor

    waveform = clip(seconds, level)
    theirs = WhisperFeatureExtractor(feature_size=num_mels)(
        waveform[: int(seconds * 16_000)].numpy(), sampling_rate=16_000
    )
    ours = whisper_log_mel(waveform[None], num_mels)[0].numpy()
    assert ours.shape == (num_mels, 3_000)
    assert np.abs(ours - theirs["input_features"][0]).max() <= 1e-5


@pytest.mark.parametrize("num_mels", [80, 128])
def test_the_filterbank_is_slaneys(num_mels: int) -> None:
    from transformers.audio_utils import mel_filter_bank

    theirs = mel_filter_bank(201, num_mels, 0.0, 8_000.0, 16_000, norm="slaney", mel_scale="slaney")
    assert np.abs(slaney_filterbank(num_mels).numpy() - theirs.T).max() <= 1e-8


def test_the_floor_is_each_clips_own() -> None:
    loud, quiet = clip(2, 1.0, 1), clip(2, 1e-5, 2)
    together = whisper_log_mel(torch.stack([loud, quiet]))
    assert torch.allclose(together[1], whisper_log_mel(quiet[None])[0], atol=1e-6)
    assert not torch.allclose(together[0].amin(), together[1].amin(), atol=0.1)
    assert together[0].amax() - together[0].amin() <= 2.0 + 1e-6  # eight powers of ten, a quarter of each
