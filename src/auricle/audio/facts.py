"""Facts about a source, found while it is read and kept with every waveform."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

_BLOCK_SAMPLES = 1 << 20  # frames x channels decoded at once: 4 MiB
_BLOCK_SECONDS = 60  # and not longer than this, so that low sample rates do not grow when resampled
SILENCE = 2.0**-15  # one step of 16-bit PCM, -90 dB below full scale
_ABSURD = 1e10  # full scale is 1; a float sample beyond this is damage, and would overflow the down-mix
_FULL_SCALE = 1 - 2.0**-15  # the largest positive 16-bit sample
_FULL_SCALE_8 = 1 - 2.0**-7  # the largest positive 8-bit sample


class Block(NamedTuple):
    """Decoded samples of one layout."""

    sample_rate: int  # Hz
    samples: Samples  # (frames, channels)


def block_frames(sample_rate: int, channels: int) -> int:
    """Samples per channel to decode at once."""
    return max(1, min(_BLOCK_SAMPLES // channels, _BLOCK_SECONDS * sample_rate))


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Facts of one source; None is what `probe` cannot know without decoding."""

    name: str  # path or description of the source, for messages and receipts
    container: str  # sniffed from the content: "wav", "ogg", "mp4", …; "array" for waveforms
    codec: str  # "PCM_16", "VORBIS", "aac", …; the dtype for arrays
    sample_rate: int  # Hz, of the source
    channels: int  # of the source
    duration_s: float | None  # of the source as its header states, or as decoded if longer; None: unknown
    start_s: float  # start of the range read
    stop_s: float  # end of the range read, counted from decoded samples
    truncated: bool  # the source ends before its header or container structure says it should
    damaged: int = 0  # places the decoder could not read; what they held is missing from the waveform
    non_finite: int | None = None  # source samples that were NaN, infinite or beyond ±1e10, replaced by 0
    clipped: float | None = None  # share of source samples at or above full scale, 0 to 1
    peak: float | None = None  # largest |sample| of the source in the range read, before down-mix and resampling
    silent: bool | None = None  # nothing in the 16 kHz mono waveform exceeds -90 dB of full scale
    notes: tuple[str, ...] = ()  # what else was found or done: holes, a late start, other tracks

    def as_dict(self) -> dict[str, Any]:
        """Give the facts as a JSON-able dict."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Clip:
    """A waveform, float32 (num_samples,) mono at 16 kHz, with the facts of its source."""

    waveform: Samples
    facts: Facts


class SampleStats:
    """Peak, clipped and non-finite samples over the blocks of one source, which it also cleans."""

    def __init__(self, *, eight_bit: bool = False) -> None:
        """Start with no samples; ``eight_bit`` sources have a lower full scale."""
        self._full_scale = _FULL_SCALE_8 if eight_bit else _FULL_SCALE
        self._clipped = 0
        self._samples = 0
        self._loudest = 0.0
        self.frames = 0
        self.non_finite = 0
        self.peak = 0.0

    @property
    def clipped(self) -> float:
        """Share of samples at full scale, 0 to 1."""
        return self._clipped / max(self._samples, 1)

    @property
    def silent(self) -> bool:
        """Whether every down-mixed block stayed under -90 dB of full scale."""
        return self._loudest <= SILENCE

    @property
    def all_unusable(self) -> bool:
        """Whether there were samples, and none of them was a finite number."""
        return 0 < self._samples == self.non_finite

    def clean(self, block: Samples) -> Samples:
        """Count over a block (frames, channels) and return it with unusable samples set to 0, in place."""
        self.frames += len(block)
        self._samples += block.size
        if not block.size:
            return block
        low, high = float(block.min()), float(block.max())
        if not (low > -_ABSURD and high < _ABSURD):
            bad = ~(np.abs(block) < _ABSURD)
            self.non_finite += int(np.count_nonzero(bad))
            block[bad] = 0.0
            low, high = float(block.min()), float(block.max())
        self.peak = max(self.peak, -low, high)
        if max(-low, high) >= self._full_scale:
            self._clipped += int(np.count_nonzero(np.abs(block) >= self._full_scale))
        return block

    def measure(self, waveform: Samples) -> Samples:
        """Note the peak of 16 kHz mono output, (num_samples,), and return it."""
        if waveform.size:
            self._loudest = max(self._loudest, -float(waveform.min()), float(waveform.max()))
        return waveform
