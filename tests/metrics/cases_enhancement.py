"""Metrics of enhancement: against the packages where they wrap them, and formulas or the authors' code where not."""

import math
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import strategies as st

from auricle.errors import DataError
from auricle.metrics import enhancement

from .metric_tester import Arguments, MetricCase, seeded

Array = npt.NDArray[Any]
SILENCE = np.zeros(16_000, np.float32)


def voice(seed: int, seconds: float = 3.0) -> Array:
    """Vowel-like: harmonics of a pitch that moves, in syllables."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(16_000 * seconds)) / 16_000
    pitch = rng.uniform(90, 250) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * time))
    phase = 2 * np.pi * np.cumsum(pitch) / 16_000
    tones = sum(np.sin(n * phase) / (1 + abs(n - rng.integers(3, 12))) for n in range(1, 24))
    syllables = np.clip(np.sin(2 * np.pi * rng.uniform(2.5, 4) * time) + 0.4, 0, 1)
    return (0.1 * tones * syllables).astype(np.float32)


def noisy_pair(seed: int, seconds: float = 3.0) -> Arguments:
    rng = np.random.default_rng(seed)
    clean = voice(seed, seconds)
    return (clean + 0.03 * rng.standard_normal(clean.size)).astype(np.float32), clean


def installed(module: str, inputs: st.SearchStrategy[Arguments]) -> st.SearchStrategy[Arguments]:
    """Skipped where the package is not installed, unless a test hides it on purpose."""

    def check() -> st.SearchStrategy[Arguments]:
        if module not in sys.modules and find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
        return inputs

    return st.deferred(check)


PAIRS = st.sampled_from([noisy_pair(seed) for seed in range(3)])
ALONE = st.just((noisy_pair(0, 9.1)[0],))  # one window: each takes seconds


def waveforms(rng: np.random.Generator, size: int) -> Arguments:
    clean = rng.standard_normal(size + 1).astype(np.float32)
    return (rng.uniform(0.1, 3) * clean + rng.standard_normal(size + 1)).astype(np.float32), clean


def reference_si_sdr(estimate: Array, reference: Array) -> float:
    """From the angle between the two vectors."""
    made, clean = estimate.astype(float), reference.astype(float)
    cosine = float(made @ clean / (np.linalg.norm(made) * np.linalg.norm(clean)))
    return 20 * math.log10(abs(cosine) / math.sqrt(1 - cosine**2))


def reference_pesq(estimate: Array, reference: Array) -> float:
    return float(pytest.importorskip("pesq").pesq_batch(16_000, reference[None], estimate[None], "wb")[0])


def reference_stoi(estimate: Array, reference: Array) -> float:
    return float(pytest.importorskip("pystoi").stoi(reference, estimate, 16_000))


def reference_dnsmos(estimate: Array) -> list[float]:
    networks = pytest.importorskip("speechmos.dnsmos")
    folder = Path(networks.__file__).parent / "dnsmos_models"
    both = networks.DNSMOS(str(folder / "sig_bak_ovr.onnx"), str(folder / "model_v8.onnx"))
    found = both(estimate, 16_000, False)
    return [found[name] for name in ("bak_mos", "ovrl_mos", "p808_mos", "sig_mos")]


def reference_speaker_similarity(estimate: Array, reference: Array) -> float:
    """Resemblyzer's own code; what it imports only to cut pauses is replaced, since that fails beside new packages."""
    for name in ("webrtcvad", "scipy.ndimage.morphology"):
        if name not in sys.modules:
            stub: Any = ModuleType(name)
            stub.binary_dilation = None
            sys.modules[name] = stub
    package = pytest.importorskip("resemblyzer")
    encoder = package.VoiceEncoder("cpu", verbose=False)
    normalised = [package.audio.normalize_volume(each, -30, increase_only=True) for each in (estimate, reference)]
    one, other = (encoder.embed_utterance(each) for each in normalised)
    return float(np.dot(one, other))


SHORT = np.ones(800, np.float32) * 0.1
FAULTS = {"two lengths": ((SHORT, SHORT[:-1]), DataError), "nothing": ((SHORT[:0], SHORT[:0]), DataError)}
SILENT = {"silence": ((SILENCE, voice(0, 1.0)), math.nan), "silent reference": ((voice(0, 1.0), SILENCE), math.nan)}

ENHANCEMENT = [
    MetricCase(
        metric=enhancement.si_sdr,
        reference=reference_si_sdr,
        inputs=seeded(waveforms, least=2),
        tolerance=1e-4,
        items=(0, 1),
        degenerate={
            **FAULTS,
            **SILENT,
            "perfect": ((np.array([1.0, 2.0]), np.array([0.5, 1.0])), math.inf),
            "orthogonal": ((np.array([1.0, 0.0]), np.array([0.0, 1.0])), -math.inf),
            "nan": ((np.array([1.0, math.nan]), np.array([0.0, 1.0])), DataError),
        },
    ),
    MetricCase(
        metric=enhancement.pesq_wb,
        reference=reference_pesq,
        inputs=installed("pesq", PAIRS),
        bounds=(1.0, 4.65),
        needs=("pesq", "enhance"),
        degenerate=FAULTS,
    ),
    MetricCase(
        metric=enhancement.stoi,
        reference=reference_stoi,
        inputs=installed("pystoi", PAIRS),
        tolerance=1e-9,
        bounds=(-1.0, 1.0),
        needs=("pystoi", "enhance"),
        degenerate=FAULTS,
    ),
    MetricCase(
        metric=enhancement.dnsmos,
        reference=reference_dnsmos,
        inputs=installed("speechmos", ALONE),
        tolerance=1e-3,
        bounds=(1.0, 5.0),
        needs=("speechmos", "enhance"),
        degenerate={"nothing": ((SHORT[:0],), DataError)},
    ),
    MetricCase(
        metric=enhancement.speaker_similarity,
        reference=reference_speaker_similarity,
        inputs=installed("resemblyzer", PAIRS),
        tolerance=1e-5,
        bounds=(0.0, 1.0),
        degenerate=FAULTS,
    ),
]
