"""Any source → windows that a model can hear, read as they are needed: hours cost no more memory than minutes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from auricle.audio.decode import Stream, as_clip, stream
from auricle.audio.facts import Clip, Facts
from auricle.audio.limits import Limits
from auricle.encode.receipt import Receipt, state_receipt
from auricle.errors import AudioError, AuricleError
from auricle.listen.silence import stream_sounding_windows
from auricle.listen.windows import Window, stream_quiet_windows
from auricle.models.midashenglm import MiDashengLMConfig


class Sound:
    """An opened sound: its windows, and facts that are final after the last of them."""

    def __init__(
        self, opened: Clip | Stream, max_samples: int, overlap_samples: int, *, silence_apart: bool = False
    ) -> None:
        """Take over an open stream, or a waveform, and read its first window."""
        self._opened = opened
        blocks = iter([opened.waveform]) if isinstance(opened, Clip) else opened
        cut = stream_sounding_windows if silence_apart else stream_quiet_windows
        windows = cut(blocks, max_samples, overlap_samples)
        try:
            # Read here, so that it happens in the thread that opens; a short sound is then done.
            self._windows = chain([next(windows)], windows)
        except BaseException:
            self.close()
            raise

    @property
    def facts(self) -> Facts:
        """Facts of the source and of what was read of it so far."""
        return self._opened.facts

    def __iter__(self) -> Iterator[Window]:
        """Iterate over the windows that are left; raises what shows only while decoding."""
        return self._windows

    def close(self) -> None:
        """Close the source."""
        if isinstance(self._opened, Stream):
            self._opened.close()


def open_sound(
    source: Any, *, max_samples: int, overlap_samples: int = 0, silence_apart: bool = False, limits: Limits
) -> Sound:
    """Open what `auricle.audio.decode.as_clip` takes; files are read as a stream, waveforms are held already.

    Args:
        source: one sound.
        max_samples: longest window.
        overlap_samples: see `stream_quiet_windows`.
        silence_apart: whether long digital silence gets windows of its own.
        limits: budgets.

    Raises:
        AudioError: the sound cannot be read.
        ConfigError: settings that leave no window.
    """
    is_held = isinstance(source, Clip | tuple) or hasattr(source, "__array__")
    opened = as_clip(source, limits=limits) if is_held else stream(source, limits=limits)
    return Sound(opened, max_samples, overlap_samples, silence_apart=silence_apart)


def try_open(source: Any, **settings: Any) -> Sound | AuricleError:
    """Open a sound as `open_sound`, or give the error: one hostile file must not end the work on all others."""
    try:
        return open_sound(source, **settings)
    except AuricleError as error:
        return error
    except Exception as error:
        return AudioError(f"{_name(source)}: cannot be read ({type(error).__name__}: {error}); give other audio")


class Coverage:
    """Notes which windows of a sound a model was given, for the receipt."""

    def __init__(self) -> None:
        """Start with none."""
        self.windows: list[tuple[int, int]] = []
        self._heard: list[tuple[int, int]] = []

    def add(self, window: Window) -> None:
        """Note a window."""
        self.windows.append((window.start, window.stop))
        self._heard.append((window.start - window.before, window.heard_stop))

    def overlaps(self, index: int) -> bool:
        """Whether a window shares sound with the one before it."""
        return index > 0 and self._heard[index][0] < self._heard[index - 1][1]

    def receipt(self, facts: Facts, config: MiDashengLMConfig) -> Receipt:
        """State what became of the sound.

        Args:
            facts: final ones.
            config: of the model that heard it.
        """
        return state_receipt(
            facts,
            self.windows[-1][1] if self.windows else 0,
            self.windows,
            heard=self._heard,
            subsample_factor=config.subsample_factor,
            whole_tokens=config.whole_tokens,
        )


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str) or hasattr(source, "__fspath__") else f"<{type(source).__name__}>"
