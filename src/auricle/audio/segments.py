"""Windows of long audio, as ranges of samples."""

from __future__ import annotations

from auricle.audio.limits import MAX_S
from auricle.audio.resample import SAMPLE_RATE
from auricle.errors import ConfigError, check_number


def segments(
    num_samples: int, *, length_s: float, hop_s: float | None = None, min_s: float = 0.0
) -> list[tuple[int, int]]:
    """Cut a 16 kHz waveform of ``num_samples`` into windows that together cover all of it.

    With ``hop_s`` equal to ``length_s`` every sample is in exactly one window. The last window ends at the end of
    the waveform: it is shorter than the others, or, where it would add less than ``min_s`` of new audio, is merged
    into the window before it, which then is longer. A waveform shorter than one window is one segment, however short.

    Args:
        num_samples: samples at 16 kHz, 0 or more.
        length_s: length of a window, s.
        hop_s: distance between the starts of windows, s, at most ``length_s``; None: ``length_s``.
        min_s: shortest last window, s.

    Returns:
        ``(start, stop)`` pairs in samples, ascending; empty for no samples.

    Raises:
        ConfigError: lengths that are not positive, or a hop that would skip samples.
    """
    for name, value in (("length_s", length_s), ("hop_s", hop_s), ("min_s", min_s)):
        if value is not None:
            check_number(name, value, most=MAX_S)
    length, hop = round(length_s * SAMPLE_RATE), round((length_s if hop_s is None else hop_s) * SAMPLE_RATE)
    if not 0 < hop <= length or num_samples < 0 or not 0 <= min_s <= length_s:
        raise ConfigError(
            f"cannot cut {num_samples} samples with length_s={length_s}, hop_s={hop_s}, min_s={min_s}; "
            "expected 0 < hop_s <= length_s and 0 <= min_s <= length_s"
        )
    if not num_samples:
        return []
    last = max(0, -(-(num_samples - length) // hop))
    windows = [(index * hop, min(index * hop + length, num_samples)) for index in range(last + 1)]
    if last and num_samples - windows[-2][1] < round(min_s * SAMPLE_RATE):
        windows[-2:] = [(windows[-2][0], num_samples)]
    return windows
