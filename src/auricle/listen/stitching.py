"""Transcripts of overlapping windows → one text: words in the overlap are written once."""

from __future__ import annotations

import re
from collections.abc import Sequence

from auricle.metrics.tags import plain

_MOST_WORDS = 40  # of either side that may be in an overlap; fast speech has 5 words a second
# Scores of an alignment: of equal words, of a word the neighbour has differently, of a word the neighbour lacks.
_SAME, _OTHER, _ALONE = 3, -2, -1

# Scripts written without spaces; each character is aligned as a word.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_STARTS_UNSPACED = re.compile(rf"[{_UNSPACED}]")


def stitch(texts: Sequence[str], overlaps: Sequence[bool]) -> list[str]:
    """Divide the words of overlaps between the two windows.

    The last words of a window are aligned with the first of the next one. Both are cut behind the middle one of the
    words they agree on: a window is least reliable at its ends. Where they agree on nothing, nothing is left out.

    Returns:
        As many texts, which joined by `join_words` are the whole transcript.
    """
    pieces: list[list[str]] = [_WORD.findall(text) for text in texts]
    for index in range(1, len(pieces)):
        if overlaps[index]:
            left, right = pieces[index - 1], pieces[index]
            keep, skip = seam([_plain(word) for word in left], [_plain(word) for word in right])
            pieces[index - 1], pieces[index] = left[:keep], right[skip:]
    return [join_words(words) for words in pieces]


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
