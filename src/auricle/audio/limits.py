"""Limits on every decoded source, so that a hostile file ends in an error and not in a crash."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from auricle.errors import ClipTooShort, ConfigError, LimitExceeded, check_number

MAX_S = 1e9  # largest number that is taken for a time in seconds: 31 years
MIN_S = 0.1  # of a clip that anything is said of
_ADVICE = "Read a range with start_s and stop_s, or pass larger Limits."


def check_seconds(seconds: float, name: str) -> None:
    """Refuse a clip that is too short for any model to say something of it.

    Raises:
        ClipTooShort: shorter than 0.1 s.
    """
    if seconds < MIN_S:
        raise ClipTooShort(f"{name}: lasts {seconds:.4f} s, too short to describe; expected at least {MIN_S:g} s")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits of one source; `LimitExceeded` is raised for anything larger.

    Time and decoded bytes count the range that is read, not the whole source, and are checked twice: by the header
    before decoding, and by the samples while decoding, because headers can be wrong.
    """

    max_bytes: int = 4 << 30  # encoded size of the source, bytes
    max_seconds: float = 12 * 3600.0  # length of the range read, s
    max_channels: int = 64  # 7.1.4 beds and 32-channel microphone arrays fit
    min_sample_rate: int = 100  # Hz; infrasound and seismic recorders start here
    max_sample_rate: int = 768_000  # Hz; the fastest converters sold
    max_decoded_bytes: int = 64 << 30  # frames x channels x 4 of the range read; work, not memory: blocks are small
    isolate: bool = False  # decode in a process of its own, whose memory and time the system bounds; 0.3 s a file

    def __post_init__(self) -> None:
        """Check that something can fit."""
        for name in ("max_bytes", "max_seconds", "max_channels", "min_sample_rate", "max_decoded_bytes"):
            check_number(f"Limits.{name}", getattr(self, name), least=sys.float_info.min, expected="a number above 0")
        check_number("Limits.max_sample_rate", self.max_sample_rate)
        if self.max_sample_rate < self.min_sample_rate:
            raise ConfigError(
                f"Limits.max_sample_rate ({self.max_sample_rate}) is below min_sample_rate ({self.min_sample_rate})"
            )

    def check_bytes(self, name: str, num_bytes: int) -> None:
        """Raise `LimitExceeded` for an encoded source of more than ``max_bytes``."""
        if num_bytes > self.max_bytes:
            raise LimitExceeded(
                f"{name}: holds {num_bytes:,} bytes or more; the limit is {self.max_bytes:,}. "
                "Split the file, or pass larger Limits."
            )

    def check_layout(self, name: str, sample_rate: int, channels: int) -> None:
        """Raise `LimitExceeded` for a sample rate (Hz) or channel count outside the limits."""
        if not self.min_sample_rate <= sample_rate <= self.max_sample_rate:
            raise LimitExceeded(
                f"{name}: declares a sample rate of {sample_rate:,} Hz; expected "
                f"{self.min_sample_rate:,} to {self.max_sample_rate:,} Hz. Correct the header, or pass other Limits."
            )
        if channels > self.max_channels:
            raise LimitExceeded(
                f"{name}: declares {channels} channels; the limit is {self.max_channels}. "
                "Extract the channels you need, or pass larger Limits."
            )

    def check_frames(self, name: str, frames: int, sample_rate: int, channels: int) -> None:
        """Raise `LimitExceeded` when ``frames`` samples per channel exceed the limit of time or of decoded bytes."""
        if frames > self.max_seconds * sample_rate:
            raise LimitExceeded(
                f"{name}: lasts {frames / sample_rate:,.1f} s or more; limit: {self.max_seconds:,.1f} s. {_ADVICE}"
            )
        if frames * channels * 4 > self.max_decoded_bytes:
            raise LimitExceeded(
                f"{name}: decodes to {frames * channels * 4:,} bytes or more; "
                f"the limit is {self.max_decoded_bytes:,}. {_ADVICE}"
            )


DEFAULT_LIMITS = Limits()
