"""Parts of one file, one behind the other, each with its own decoder, rate and channels."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from auricle.audio.facts import Block, block_frames
from auricle.errors import BrokenAudio, UnsupportedFormat

if TYPE_CHECKING:
    from auricle.audio.readers import Reader

_PLACES = 3  # changes of rate or channels that a note names


class ChainReader:
    """Readers that are opened one after the other, as one; positions are samples at the rate of the first."""

    truncated = False

    def __init__(self, opens: Sequence[Callable[[], Reader]]) -> None:
        """Open every part once, for its layout and length.

        Args:
            opens: give the reader of each part. One behind the first that cannot be opened is counted as damage.
        """
        self.damaged = self.slack = 0
        self.notes: list[str] = []
        self._parts: list[tuple[Callable[[], Reader], int | None]] = []
        layouts: list[str] = []
        for index, open_part in enumerate(opens):
            try:
                reader = open_part()
            except (BrokenAudio, UnsupportedFormat):
                if not index:
                    raise
                self.damaged += 1
                continue
            try:
                if not index:
                    self.container, self.codec = reader.container, reader.codec
                    self.sample_rate, self.channels = reader.sample_rate, reader.channels
                frames = None if reader.frames is None else self._scaled(reader.frames, reader.sample_rate)
                self._parts.append((open_part, frames))
                self.slack += self._scaled(reader.slack, reader.sample_rate)
                layout = f"{reader.sample_rate} Hz, {reader.channels} ch"
                if not layouts or layouts[-1] != layout:
                    layouts.append(layout)
            finally:
                reader.close()
        lengths = [frames for _, frames in self._parts]
        self.frames = None if None in lengths else sum(frames or 0 for frames in lengths)
        if len(layouts) > 1:
            named = " → ".join(layouts[: _PLACES + 1]) + (" → …" if len(layouts) > _PLACES + 1 else "")
            self.notes.append(f"parts of several layouts were joined: {named}")

    def blocks(self, start: int, stop: int | None) -> Iterator[Block]:
        """Yield the samples from ``start`` to ``stop`` or to the end; each part has its own rate."""
        at = 0
        for index, (open_part, frames) in enumerate(self._parts):
            if stop is not None and at >= stop:
                return
            if frames is not None and at + frames <= start:
                at += frames
                continue
            reader = open_part()
            try:
                end = yield from self._of_part(reader, at, start, stop, can_seek=frames is not None)
            finally:
                self.damaged += reader.damaged
                self.notes += [note for note in reader.notes if note not in self.notes]
                reader.close()
            missing = 0 if frames is None or index + 1 == len(self._parts) else at + frames - end
            if missing > 0 and (stop is None or end < stop):  # so that the next part starts when it should
                self.damaged += missing > self._scaled(reader.slack, reader.sample_rate)
                most = missing if stop is None else min(missing, stop - end)
                yield from _zeros(most, self.sample_rate, self.channels)
            at = end + max(missing, 0)

    def _of_part(
        self, reader: Reader, at: int, start: int, stop: int | None, *, can_seek: bool
    ) -> Generator[Block, None, int]:
        """The samples of one part, which starts at ``at``; returns where it ends."""
        scale = reader.sample_rate / self.sample_rate
        first = round(max(0, start - at) * scale)
        position = first if can_seek else 0
        for rate, samples in reader.blocks(position, None if stop is None else round((stop - at) * scale)):
            kept = samples[max(0, first - position) :]
            position += round(len(samples) * reader.sample_rate / rate)
            if len(kept):
                yield Block(rate, kept)
        return at + self._scaled(position, reader.sample_rate)

    def _scaled(self, frames: int, sample_rate: int) -> int:
        return frames if sample_rate == self.sample_rate else round(frames * self.sample_rate / sample_rate)

    def close(self) -> None:
        """Do nothing: a part is closed when it has been read."""


def _zeros(frames: int, sample_rate: int, channels: int) -> Iterator[Block]:
    most = block_frames(sample_rate, channels)
    for left in range(frames, 0, -most):
        yield Block(sample_rate, np.zeros((min(left, most), channels), np.float32))
