"""From the bytes to the decoders: the parts of a file, each opened by libsndfile or, where that cannot, by FFmpeg."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO, NamedTuple, Protocol

from auricle.audio import flac, mpeg, ogg
from auricle.audio.boxes import check_boxes
from auricle.audio.chains import ChainReader
from auricle.audio.containers import Container, audio_end, sniff
from auricle.audio.facts import Block
from auricle.audio.integrity import inspect
from auricle.audio.libsndfile import SoundFileReader
from auricle.audio.limits import Limits
from auricle.audio.pieces import Piece, Pieces, of_bytes, patched
from auricle.audio.sources import OpenSource
from auricle.errors import AudioError, BrokenAudio, MissingExtra, UnsupportedFormat


class Reader(Protocol):
    """An opened source: its layout, and its samples block by block."""

    container: str
    codec: str
    sample_rate: int  # Hz; positions count samples at this rate
    channels: int
    frames: int | None  # samples per channel as declared or counted, never as estimated; None: unknown
    slack: int  # samples per channel by which a correct length may be too high
    truncated: bool  # the container ends too early
    damaged: int  # places that could not be decoded so far
    notes: list[str]  # what was found so far

    def blocks(self, start: int, stop: int | None) -> Iterator[Block]:
        """Yield the samples from ``start`` to ``stop`` or to the end; where the layout changes, so do the blocks."""

    def close(self) -> None:
        """Free the decoder."""


class _Part(NamedTuple):
    """What one decoder can read to its end."""

    file: Any
    container: Container
    counted: tuple[int, int] | None = None  # samples per channel and their rate, by a walk


@dataclass(slots=True)
class _Plan:
    """The parts of a file, and what is known before decoding."""

    parts: list[_Part]
    is_cut: bool = False
    notes: list[str] = field(default_factory=list)


@contextmanager
def open_reader(source: OpenSource, limits: Limits) -> Iterator[Reader]:
    """Recognise ``source`` by its content and open it with the decoder that can read it.

    Raises:
        UnsupportedFormat: no audio, or a codec that neither decoder knows.
        BrokenAudio: audio, but its header cannot be read.
        LimitExceeded: sample rate or channels outside ``limits``.
        MissingExtra: PyAV is needed and not installed.
    """
    try:
        container, start = sniff(source.file, source.size, source.name)
        stop = audio_end(source.file, source.size, container)
        is_all = start == 0 and stop == source.size
        file: Any = source.file if is_all else Pieces([Piece(source.file, start, stop)])
        plan = _plan(file, stop - start, container, source.name)
    except OSError as error:
        raise AudioError(f"{source.name}: reading failed ({error}); check the disk or the connection") from None
    opens = [partial(_open, part, source.name) for part in plan.parts]
    reader: Reader = opens[0]() if len(opens) == 1 else ChainReader(opens)
    try:
        reader.truncated = plan.is_cut
        reader.notes += plan.notes
        limits.check_layout(source.name, reader.sample_rate, reader.channels)
        yield reader
    finally:
        reader.close()


def _plan(file: Any, size: int, container: Container, name: str) -> _Plan:
    match container.name:
        case "mp3" | "aac":
            return _plan_mpeg(file, size, container)
        case "flac":
            return _plan_flac(file, size, container)
        case "ogg":
            return _plan_ogg(file, size)
        case "mp4":
            check_boxes(file, size, name)
    found = inspect(file, size, container.name)
    whole = file if found.patch is None else patched(file, size, *found.patch)
    return _Plan([_Part(whole, container)], found.is_cut, [found.note] if found.note else [])


def _plan_mpeg(file: Any, size: int, container: Container) -> _Plan:
    """A part for each run of frames of one layout, behind an Info frame that counts them."""
    walk = mpeg.walk(file, size)
    plan = _Plan([], walk.is_cut or not walk.is_whole)
    if walk.skipped:
        plan.notes.append(f"{walk.skipped:,} bytes among the frames are no audio and were skipped")
    if not walk.is_whole:
        plan.notes.append("too many frames, changes or bytes that look like frames: the rest was not read")
    for run in walk.runs:
        counted = run.num_samples, run.first.sample_rate
        if len(walk.runs) == len(run.spans) == 1 and (walk.stated or 0) >= run.frames:
            plan.parts.append(_Part(file, container, None if walk.is_cut else counted))
            continue
        info = () if run.first.is_aac else (of_bytes(mpeg.info_frame(run)),)
        pieces = Pieces([*info, *(Piece(file, start, stop) for start, stop in run.spans)])
        plan.parts.append(_Part(pieces, _AAC if run.first.is_aac else _MP3, counted))
    return plan if plan.parts else _Plan([_Part(file, container)])


def _plan_flac(file: Any, size: int, container: Container) -> _Plan:
    """A part for each joined file or layout; a header that states another layout or fewer samples is corrected."""
    plan, parts = _Plan([]), flac.walk(file, size)
    if container.backend == "av" or not parts:  # frames without a header before them
        return _Plan([_Part(file, container)])
    for part in parts:
        piece: Any = Pieces([Piece(file, part.start, part.stop)]) if part.stop - part.start < size else file
        if header := part.corrected():
            if part.has_header:
                plan.notes.append(f"the header states {part.stated:,} samples; {part.counted:,} were found")
            skipped = len(header) if part.has_header else 0
            piece = Pieces([of_bytes(header), Piece(file, part.start + skipped, part.stop)])
        plan.parts.append(_Part(piece, container))
    if len(parts) >= flac.MOST_PARTS:
        plan.is_cut = True
        plan.notes.append("too many joined files: the rest was not read")
    return plan


def _plan_ogg(file: Any, size: int) -> _Plan:
    walk = ogg.walk(file, size)
    plan = _Plan([], walk.is_cut)
    if not walk.is_whole:
        plan.notes.append("too many pages: the rest was not read")
    for start, stop in walk.links:
        piece: Any = Pieces([Piece(file, start, stop)]) if len(walk.links) > 1 else file
        plan.parts.append(_Part(piece, sniff(piece, stop - start, "")[0]))
    return plan


_MP3 = Container("mp3", "soundfile", "mp3")
_AAC = Container("aac", "av", "aac")


def _open(part: _Part, name: str) -> Reader:
    reader = _open_uncounted(part, name)
    if part.counted is not None:
        num_samples, rate = part.counted
        counted = num_samples if rate == reader.sample_rate else round(num_samples * reader.sample_rate / rate)
        if reader.frames is None or abs(reader.frames - counted) > reader.slack:
            reader.frames = counted
    return reader


def _open_uncounted(part: _Part, name: str) -> Reader:
    container = part.container
    if container.backend == "av":
        return _open_av(part.file, container, name)
    try:
        reader = SoundFileReader(part.file, container.name, name)
    except BrokenAudio as error:
        return _open_after(error, part.file, container, name)
    if _stops_early(reader, part) and _has_av():
        reader.close()
        return _open_av(part.file, container, name)
    return reader


def _stops_early(reader: SoundFileReader, part: _Part) -> bool:
    """Whether libsndfile estimates fewer samples than were counted, and would read no further."""
    if part.counted is None or reader.frames is None:
        return False
    return reader.frames + reader.slack < part.counted[0]


def _open_after(error: BrokenAudio, file: BinaryIO, container: Container, name: str) -> Reader:
    """Open by FFmpeg what libsndfile refused with ``error``."""
    if container.demuxer and not _has_av():
        raise MissingExtra(f"{name}: {container.name} that libsndfile cannot read ({error})", "media") from None
    try:
        if container.demuxer:
            return _open_av(file, container, name)
    except (BrokenAudio, UnsupportedFormat):
        pass
    raise BrokenAudio(
        f"{name}: looks like {container.name}, but its header cannot be used ({error}); "
        "expected a complete file. Download or export it again"
    ) from None


def _has_av() -> bool:
    try:
        import av  # noqa: F401
    except ImportError:
        return False
    return True


def _open_av(file: Any, container: Container, name: str) -> Reader:
    if not _has_av():
        raise MissingExtra(f"{name}: {_KIND.get(container.name, container.name)} audio", "media")
    from auricle.audio.pyav import AvReader

    return AvReader(file, container, name)


_KIND = {"mp4": "m4a/aac", "aac": "m4a/aac", "matroska": "webm/mkv", "asf": "wma", "ogg": "this kind of ogg"}
