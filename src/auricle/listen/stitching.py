"""Transcripts of overlapping windows → one text: words in the overlap are written once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from auricle.listen.outputs import Segment
from auricle.metrics.tags import plain

_MOST_WORDS = 40  # of either side that may be in an overlap; fast speech has 5 words a second
# Scores of an alignment: of equal words, of a word the neighbour has differently, of a word the neighbour lacks.
_SAME, _OTHER, _ALONE = 3, -2, -1

# Scripts written without spaces; each character is aligned as a word.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_STARTS_UNSPACED = re.compile(rf"[{_UNSPACED}]")


class Stitcher:
    """Divides the words of overlaps between two windows that come one after the other.

    The last words of a window are aligned with the first of the next one. Both are cut behind the middle one of the
    words they agree on: a window is least reliable at its ends. Where they agree on nothing, words that have times are
    cut in the middle of the overlap, and of others nothing is left out. Times of words never go back.
    """

    def __init__(self) -> None:
        """Start without a window."""
        self._held: list[Segment] = []
        self._until_s = 0.0  # end of the last word given out

    def add(self, segments: Sequence[Segment], overlaps: bool) -> list[Segment]:
        """Take the segments of the next window, and give those of the one before it, which are now final.

        Joined by `join_words`, the texts of all are the whole transcript.

        Args:
            segments: of one window; words with times have the space in front of them.
            overlaps: whether the window shares samples with the one before it.
        """
        left, right = self._held, list(segments)
        if overlaps:
            keep, skip = _seam(left, right)
            left, right = _part(left, 0, keep), _part(right, skip, None)
        self._held = right
        return [self._final(segment) for segment in left]

    def end(self) -> list[Segment]:
        """Give the segments of the last window."""
        return [self._final(segment) for segment in self._held]

    def _final(self, segment: Segment) -> Segment:
        if not segment.words:
            return replace(segment, text=join_words(_WORD.findall(segment.text)))
        words = []
        for word in segment.words:
            start = max(word.start_s, self._until_s)
            self._until_s = max(word.stop_s, start)
            words.append(replace(word, text=word.text.strip(), start_s=start, stop_s=self._until_s))
        start, stop = min(segment.start_s, words[0].start_s), max(segment.stop_s, self._until_s)
        return replace(segment, words=tuple(words), start_s=start, stop_s=stop)


def join_words(texts: Sequence[str]) -> str:
    """Join texts with spaces, except between characters of scripts that are written without."""
    joined = ""
    for text in texts:
        if not text:
            continue
        is_tight = bool(joined) and _STARTS_UNSPACED.match(joined[-1]) and _STARTS_UNSPACED.match(text)
        joined += text if not joined or is_tight else f" {text}"
    return joined


def seam(left: Sequence[str], right: Sequence[str]) -> tuple[int, int]:
    """Where to leave one word sequence and enter the next, which repeats some of its last words.

    The end of ``left`` is aligned with the start of ``right``: words before and after the overlap are free, words
    inside cost. Of equally good alignments the shortest is taken, since a word spoken twice must not be lost.

    Returns:
        Words of ``left`` to keep, and words of ``right`` to skip; ``(len(left), 0)`` where nothing agrees.
    """
    offset = max(0, len(left) - _MOST_WORDS)
    tail, head = left[offset:], right[:_MOST_WORDS]
    rows, columns = len(tail) + 1, len(head) + 1
    score = [[0] * columns for _ in range(rows)]
    for column in range(1, columns):
        score[0][column] = column * _ALONE  # words of the right one that the left one lacks
    for row in range(1, rows):
        for column in range(1, columns):
            match = _SAME if tail[row - 1] == head[column - 1] else _OTHER
            score[row][column] = max(
                score[row - 1][column - 1] + match,
                score[row - 1][column] + _ALONE,
                score[row][column - 1] + _ALONE,
            )
    last = len(tail)
    end = max(range(columns), key=lambda column: (score[last][column], -column))
    pairs = _agreements(tail, head, score, end)
    if not pairs or score[last][end] <= 0:
        return len(left), 0
    row, column = pairs[len(pairs) // 2]
    return offset + row + 1, column + 1


def _seam(left: Sequence[Segment], right: Sequence[Segment]) -> tuple[int, int]:
    """As `seam`, for segments; where nothing agrees, by the times of the words."""
    keep, skip = seam(*([_plain(word) for part in side for word in _texts(part)] for side in (left, right)))
    own, other = ([word for part in side for word in part.words] for side in (left, right))
    if skip or not own or not other or other[0].start_s >= own[-1].stop_s:
        return keep, skip
    middle = (other[0].start_s + own[-1].stop_s) / 2
    keep, skip = (sum(word.start_s + word.stop_s < 2 * middle for word in side) for side in (own, other))
    return keep, skip


def _part(segments: Sequence[Segment], first: int, last: int | None) -> list[Segment]:
    """The segments with only those words from ``first`` to before ``last``, counted over all of them."""
    found, before = [], 0
    for segment in segments:
        count = len(_texts(segment))
        start, stop = max(first - before, 0), count if last is None else min(last - before, count)
        before += count
        if start <= 0 and stop >= count:
            found.append(segment)
        elif not segment.words:
            found.append(replace(segment, text=join_words(_texts(segment)[start : max(stop, 0)])))
        elif words := segment.words[start : max(stop, 0)]:
            text = "".join(word.text for word in words).strip()
            found.append(replace(segment, text=text, words=words, start_s=words[0].start_s, stop_s=words[-1].stop_s))
    return found


def _texts(segment: Segment) -> list[str]:
    return [word.text for word in segment.words] if segment.words else _WORD.findall(segment.text)


def _agreements(tail: Sequence[str], head: Sequence[str], score: list[list[int]], column: int) -> list[tuple[int, int]]:
    """Places of the equal words on the best way back from the end of ``tail``."""
    pairs, row = [], len(tail)
    while row and column:
        is_same = tail[row - 1] == head[column - 1]
        if score[row][column] == score[row - 1][column - 1] + (_SAME if is_same else _OTHER):
            row, column = row - 1, column - 1
            if is_same:
                pairs.append((row, column))
        elif score[row][column] == score[row - 1][column] + _ALONE:
            row -= 1
        else:
            column -= 1
    return pairs[::-1]


def _plain(word: str) -> str:
    """A word without case and punctuation; punctuation alone stays itself."""
    return plain(word).replace(" ", "") or word
