"""Ogg, walked page by page: a chain of links one behind the other, of which decoders may read only the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

_BEGINS, _ENDS = 2, 4  # flags of a page: first and last of its stream; RFC 3533 §6
_HEADER = 27  # bytes of a page before its table of segments
_CHUNK = 1 << 16  # bytes read at once
_MOST_PAGES = 8_000_000  # of one file; 12 hours in packets of 20 ms, each in a page of its own, are fewer
_MOST_LINKS = 4096  # of a chain


@dataclass(frozen=True, slots=True)
class Walk:
    """The links of a file."""

    links: tuple[tuple[int, int], ...]  # first and last byte of each
    is_cut: bool  # the last page is incomplete or not the last of its stream
    is_whole: bool  # False: given up after too many pages or links


def walk(file: BinaryIO, size: int) -> Walk:
    """Find the links of ``size`` bytes; the file position is undefined afterwards.

    A link begins with the first pages of all its streams (RFC 3533 §4), so that one behind another page begins a link,
    whatever its serial number.
    """
    starts: list[int] = []
    in_head = is_cut = False
    at = pages = 0
    base, data = 0, b""
    while at < size:
        if not base <= at <= base + len(data) - _HEADER - 255:
            file.seek(at)
            base, data = at, file.read(_CHUNK)
        header = data[at - base : at - base + _HEADER + 255]
        if header[:5] != b"OggS\0" or len(header) < _HEADER:
            found = data.find(b"OggS\0", at - base + 1)
            at = base + found if found >= 0 else max(base + len(data) - 4, at + 1)
            continue
        begins = bool(header[5] & _BEGINS)
        if begins and not in_head:
            starts.append(at)
        in_head, is_cut = begins, not header[5] & _ENDS
        at += _HEADER + header[26] + sum(header[_HEADER : _HEADER + header[26]])
        pages += 1
        if pages > _MOST_PAGES or len(starts) > _MOST_LINKS:
            return _links(starts, size, is_cut=True, is_whole=False)
    return _links(starts, size, is_cut=is_cut or at > size, is_whole=True)


def _links(starts: list[int], size: int, *, is_cut: bool, is_whole: bool) -> Walk:
    starts = [0, *starts[1:]]
    return Walk(tuple(zip(starts, [*starts[1:], size], strict=True)), is_cut, is_whole)
