"""Metrics of speech enhancement, each of one clip: waveforms (num_samples,) at 16 kHz in [-1, 1] in, numbers out.

Those that compare with the clean clip (PESQ, STOI, SI-SDR) are low for a vocoder that invents phases, however it
sounds; DNSMOS judges the clip alone. A metric that has no value, of silence or of a clip that is too short, is nan.
"""

import math
import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from auricle.errors import DataError, MissingExtra

SAMPLE_RATE = 16_000
EXTRA = "enhance"

# Of the GE2E voice encoder (arXiv 1710.10467) as Resemblyzer trained it.
_WIDTH, _LAYERS, _BANDS = 256, 3, 40
_WINDOW, _STEP = 160, 77  # frames of 10 ms: 1.6 s, 1.3 times a second
_COVERED = 0.75  # of the last window, or it is left out
_LEAST_DB = -30.0  # level to which quieter clips are raised


def si_sdr(estimate: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Scale-invariant signal-to-distortion ratio in dB: ``10 log10(|a s|² / |a s - ŝ|²)``, ``a = <ŝ, s> / |s|²``.

    Means are not removed. inf for an estimate that is the scaled reference, nan where one of both is silence.

    >>> round(si_sdr([1.0, 1.0], [1.0, 0.0]), 3)
    0.0

    Raises:
        DataError: the waveforms differ in length, or are empty.

    Source: Le Roux, Wisdom, Erdogan and Hershey 2019 (arXiv 1811.02508), equation 3.
    """
    made, clean = (each.astype(np.float64) for each in _pair(estimate, reference))
    energy = float(clean @ clean)
    if energy == 0 or not made.any():
        return math.nan
    target = (float(made @ clean) / energy) * clean
    error = float(np.sum(np.square(target - made)))
    kept = float(target @ target)
    if error == 0:
        return math.inf
    return 10 * math.log10(kept / error) if kept > 0 else -math.inf


def pesq_wb(estimate: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Wide-band PESQ, about 1.0 to 4.64; nan where no speech is found or the clip is shorter than 0.25 s.

    Raises:
        DataError: the waveforms differ in length, or are empty.
        MissingExtra: pesq is not installed.

    Source: ITU-T P.862.2, by the package pesq.
    """
    made, clean = _pair(estimate, reference)
    try:
        from pesq import PesqError, pesq
    except ImportError:
        raise MissingExtra("PESQ", EXTRA) from None
    if not made.any() or not clean.any():
        return math.nan
    try:
        return float(pesq(SAMPLE_RATE, clean, made, "wb"))
    except PesqError:
        return math.nan


def stoi(estimate: npt.ArrayLike, reference: npt.ArrayLike, *, extended: bool = False) -> float:
    """Short-time objective intelligibility, at most 1; nan where less than 0.4 s of the reference is no silence.

    Args:
        estimate: of the method.
        reference: the clean clip.
        extended: ESTOI, which also judges noise that changes over time.

    Raises:
        DataError: the waveforms differ in length, or are empty.
        MissingExtra: pystoi is not installed.

    Source: Taal, Hendriks, Heusdens and Jensen 2011; Jensen and Taal 2016; by the package pystoi.
    """
    made, clean = _pair(estimate, reference)
    try:
        from pystoi import stoi as measured
    except ImportError:
        raise MissingExtra("STOI", EXTRA) from None
    if not made.any() or not clean.any():
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # says that too little is left, and gives 1e-5
        try:
            return float(measured(clean, made, SAMPLE_RATE, extended=extended))
        except RuntimeWarning:
            return math.nan


def dnsmos(estimate: npt.ArrayLike) -> dict[str, float]:
    """What listeners would say, 1 to 5, as networks predict it: ``overall``, ``signal``, ``background`` and ``p808``.

    Clips shorter than 9.01 s are repeated, as the challenge does.

    Raises:
        DataError: the waveform is empty.
        MissingExtra: speechmos, librosa or onnxruntime is not installed.

    Source: DNSMOS P.835 (arXiv 2110.01763) and P.808 (arXiv 2010.15258), by the package speechmos.
    """
    made = np.clip(_pair(estimate, estimate)[0], -1, 1)
    try:
        from speechmos import dnsmos as networks
    except ImportError:
        raise MissingExtra("DNSMOS", EXTRA) from None
    found = networks.run(made, SAMPLE_RATE)
    names = {"overall": "ovrl_mos", "signal": "sig_mos", "background": "bak_mos", "p808": "p808_mos"}
    return {name: float(found[theirs]) for name, theirs in names.items()}


def speaker_similarity(estimate: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Cosine of two voices, 0 to 1; nan where one of both is silence.

    Differs from: Resemblyzer's own preparation, which first cuts pauses by a voice activity detector.

    Raises:
        DataError: the waveforms differ in length, or are empty.
        MissingExtra: Resemblyzer or librosa is not installed.

    Source: the GE2E voice encoder (arXiv 1710.10467) with the weights of Resemblyzer 0.1.4; its code is not run.
    """
    made, clean = _pair(estimate, reference)
    network = _voice_encoder()
    if not made.any() or not clean.any():
        return math.nan
    one, other = (_voice(network, each) for each in (made, clean))
    return float(one @ other)


def _pair(estimate: npt.ArrayLike, reference: npt.ArrayLike) -> tuple[npt.NDArray[np.float32], ...]:
    made, clean = (np.asarray(each, np.float32) for each in (estimate, reference))
    if made.shape != clean.shape or made.ndim != 1 or not made.size:
        raise DataError(f"waveforms of shapes {made.shape} and {clean.shape}; expected two of the same (num_samples,)")
    if not (np.isfinite(made).all() and np.isfinite(clean).all()):
        raise DataError("a waveform holds samples that are no numbers; expected finite ones")
    return made, clean


class _VoiceEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(_BANDS, _WIDTH, _LAYERS, batch_first=True)
        self.linear = nn.Linear(_WIDTH, _WIDTH)

    def forward(self, mels: Tensor) -> Tensor:
        """Windows (W, 160, 40) → embeddings (W, 256) of length 1."""
        last = self.lstm(mels)[1][0][-1]
        return nn.functional.normalize(self.linear(last).relu(), dim=-1)


@cache
def _voice_encoder() -> _VoiceEncoder:
    """With the weights that Resemblyzer's package holds; the package itself is not imported."""
    package = find_spec("resemblyzer")
    if package is None or package.origin is None:
        raise MissingExtra("speaker similarity", EXTRA)
    stored: dict[str, Any] = torch.load(
        Path(package.origin).parent / "pretrained.pt", map_location="cpu", weights_only=True
    )["model_state"]
    network = _VoiceEncoder()
    network.load_state_dict({name: stored[name] for name in network.state_dict()})
    return network.requires_grad_(False).eval()


def _voice(network: _VoiceEncoder, waveform: npt.NDArray[np.float32]) -> Tensor:
    """A clip's embedding (256,) of length 1: the mean over windows."""
    try:
        from librosa.feature import melspectrogram
    except ImportError:
        raise MissingExtra("speaker similarity", EXTRA) from None
    level_db = 20 * math.log10(float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))))
    raised = waveform * np.float32(10 ** (max(0.0, _LEAST_DB - level_db) / 20))
    hop = SAMPLE_RATE // 100
    num_frames = math.ceil((raised.size + 1) / hop)
    starts = list(range(0, max(1, num_frames - _WINDOW + _STEP + 1), _STEP))
    if len(starts) > 1 and raised.size - starts[-1] * hop < _COVERED * _WINDOW * hop:
        starts.pop()
    raised = np.pad(raised, (0, max(0, (starts[-1] + _WINDOW) * hop - raised.size)))
    mel = melspectrogram(y=raised, sr=SAMPLE_RATE, n_fft=400, hop_length=hop, n_mels=_BANDS).T.astype(np.float32)
    windows = torch.from_numpy(np.stack([mel[start : start + _WINDOW] for start in starts]))
    return nn.functional.normalize(network(windows).mean(0), dim=0)
