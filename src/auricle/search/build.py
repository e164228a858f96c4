"""Build and update an index of clips: nothing is encoded twice, even if the run was killed.

A file of the same size and time of change is taken as unchanged. Any other is hashed: files that are in the index under
their SHA-256 (moved, copied, touched) keep their vectors, the rest is encoded. New vectors are written to a journal
beside the index at once; the index is replaced when all files are done, and the journal removed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from auricle.audio.decode import probe
from auricle.audio.facts import Facts
from auricle.audio.limits import DEFAULT_LIMITS, Limits
from auricle.audio.sources import open_source
from auricle.encode.long_clips import check_windows
from auricle.errors import AudioError, AuricleError, ConfigError, DataError
from auricle.files import check_writable, locked, output_errors
from auricle.search.index import Entry, IndexFile, Settings, Times, Vectors, read_index, write_index
from auricle.search.journal import Journal, open_journal

if TYPE_CHECKING:
    from auricle.encode.aligner import Aligner
    from auricle.encode.encoder import Embedding

OnFile = Callable[[str, str | None], None]

_GROUP = 256  # files that are hashed, then encoded together
_REST_S = 0.5  # tolerance for the duration in a header, s
_HASH_BYTES = 1 << 22


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildReport:
    """The outcome for the files."""

    files: int  # in the index
    segments: int  # in the index
    encoded: int  # files encoded in this run
    reused: int  # files whose vectors were there
    removed: int  # files of the former index that are not in this one
    failed: dict[str, str] = field(default_factory=dict)  # name -> why; its former vectors stay where it was not read
    partial: dict[str, str] = field(default_factory=dict)  # name -> why it was encoded in part only

    def as_dict(self) -> dict[str, Any]:
        """Give the report as a JSON-able dict."""
        return asdict(self)


class _File(NamedTuple):
    """The current state of a file."""

    name: str
    size: int
    changed_ns: int
    digest: bytes = b""


class _Segments(NamedTuple):
    """The segments of one file."""

    times: Times  # (k, 2) s
    vectors: Vectors  # (k, D)
    missing: str | None  # why it is not all of the file


def build_index(
    aligner: Aligner,
    sources: Iterable[str | Path],
    path: str | Path,
    *,
    model: str = "",
    window_s: float = 10.0,
    hop_s: float = 5.0,
    rehash: bool = False,
    on_file: OnFile | None = None,
) -> BuildReport:
    """Build an index of exactly these files, or update the one that is there.

    Args:
        aligner: the model.
        sources: audio files; their names in the index are those given here.
        path: of the index. ``PATH.partial`` is beside it while files are encoded; a later run continues from there.
        model: name of the model, for messages.
        window_s: length of a segment, s; a shorter file is one segment.
        hop_s: distance of the segments' starts, s.
        rehash: read every file, even if size and time of change are unchanged.
        on_file: called with the name of each finished file, and the error or None.

    Returns:
        The outcome for the files. Those that failed are listed there; the index has the others, and of those that
        could not be opened (or are in a folder that could not be listed) what it had before.

    Raises:
        ConfigError: impossible windows, or the index was made with another model or other windows.
        DataError: ``path`` is not an index, or it is one and none of the sources can be opened.
        OutputError: another run is writing it, or it cannot be written.
    """
    check_windows(window_s, hop_s)
    settings = Settings(
        fingerprint=aligner.fingerprint,
        embedding_dim=aligner.embedding_dim,
        window_s=float(window_s),
        hop_s=float(hop_s),
        model=model,
    )
    path = Path(path)
    names = sorted({os.fspath(source) for source in sources}, key=os.fsencode)
    _former(path, settings)  # checked before the journal of a killed run is opened
    check_writable(path)
    partial = path.with_name(f"{path.name}.partial")
    with locked(path), output_errors(partial), open_journal(partial, settings) as journal:
        former = _former(path, settings)  # again, under the lock
        run = _Run(aligner, settings, journal, former, rehash=rehash, on_file=on_file)
        entries = run.collect(names)
        if former is None or not _same_files(former, entries):
            write_index(path, settings, entries)
    return run.report(entries)


class _Run:
    """One pass over all files."""

    def __init__(
        self,
        aligner: Aligner,
        settings: Settings,
        journal: Journal,
        former: IndexFile | None,
        *,
        rehash: bool,
        on_file: OnFile | None,
    ) -> None:
        self._aligner, self._settings, self._journal = aligner, settings, journal
        self._rehash, self._on_file = rehash, on_file or (lambda name, error: None)
        entries = list(former.entries()) if former else []
        self._by_name = {entry.name: entry for entry in entries}
        self._by_digest = {entry.digest: entry for entry in entries}
        self._encoded = 0
        self._unread = 0  # files that could not be opened
        self._failed: dict[str, str] = {}
        self._partial: dict[str, str] = {}

    def collect(self, names: list[str]) -> list[Entry]:
        """The entries of the index, in the order of their names.

        Raises:
            DataError: the index has entries, and none of the files can be opened.
        """
        found: dict[str, Entry] = {}
        for group in (names[at : at + _GROUP] for at in range(0, len(names), _GROUP)):
            fresh: dict[bytes, list[_File]] = {}
            for name in group:
                self._look_up(name, found, fresh)
            self._encode(fresh, found)
        if self._by_name and self._unread == len(names):
            why = next(iter(self._failed.values()), "none was given")
            raise DataError(
                f"none of the {len(names)} sources can be opened ({why}); the index of {len(self._by_name)} files "
                "stays as it is. To remove it, delete its file"
            )
        return [found[name] for name in sorted(found, key=os.fsencode)]

    def report(self, entries: list[Entry]) -> BuildReport:
        """The outcome for the files."""
        return BuildReport(
            files=len(entries),
            segments=sum(entry.segments for entry in entries),
            encoded=self._encoded,
            reused=len(entries) - self._encoded,
            removed=len(self._by_name.keys() - {entry.name for entry in entries}),
            failed=self._failed,
            partial=self._partial,
        )

    def _look_up(self, name: str, found: dict[str, Entry], fresh: dict[bytes, list[_File]]) -> None:
        """Find a file's vectors, or note it as fresh under its hash."""
        before = self._by_name.get(name)
        try:
            file = _stat(name)
            if before and not self._rehash and (before.size, before.changed_ns) == (file.size, file.changed_ns):
                self._keep(file, before, found)
                return
            file = file._replace(digest=_hash(name))
        except AuricleError as error:
            self._fail(name, error)
            self._unread += 1
            inside = os.path.join(name, "")
            found.update({old: entry for old, entry in self._by_name.items() if old == name or old.startswith(inside)})
            return
        known = self._by_digest.get(file.digest) or self._journal.find(file.digest)
        if known:
            self._keep(file, known, found)
        else:
            fresh.setdefault(file.digest, []).append(file)

    def _encode(self, fresh: dict[bytes, list[_File]], found: dict[str, Entry]) -> None:
        """Encode files, equal ones once, and write each to the journal."""
        for first, result in self._encoded_by([files[0] for files in fresh.values()]):
            if not isinstance(result, AuricleError) and _stat_or_none(first.name) != first._replace(digest=b""):
                result = AudioError(f"{first.name}: changed while it was read; run this again when it is complete")
            if isinstance(result, AuricleError):
                for file in fresh[first.digest]:
                    self._fail(file.name, result)
                continue
            self._encoded += 1
            entry = self._journal.add(first.digest, result.times, result.vectors)
            for file in fresh[first.digest]:
                self._keep(file, entry, found)
                if result.missing:
                    self._partial[file.name] = result.missing

    def _encoded_by(self, files: list[_File]) -> Iterator[tuple[_File, _Segments | AuricleError]]:
        """Short files are encoded in batches, long ones window by window."""
        by_name = {file.name: file for file in files}
        facts = {name: _probe(name, self._aligner.limits) for name in by_name}
        short = {name: known for name, known in facts.items() if known and self._is_short(known)}
        for name, result in zip(short, self._aligner.audio_many(list(short)), strict=True):
            whole = result if isinstance(result, AuricleError) else self._whole(name, result, short[name])
            yield by_name[name], whole
        for file in files:
            if file.name not in short:
                yield file, self._windows(file.name, facts[file.name])

    def _is_short(self, facts: Facts) -> bool:
        return facts.duration_s is not None and facts.duration_s <= self._settings.window_s

    def _whole(self, name: str, embedding: Embedding, facts: Facts) -> _Segments | AuricleError:
        receipt = embedding.receipt
        spans = [*receipt.read, *receipt.dropped]
        start, end = min(span.start_s for span in spans), max(span.stop_s for span in spans)
        if end - start > self._settings.window_s + _REST_S:  # longer than its header says
            return self._windows(name, facts)
        missing = None if receipt.complete else f"read from {start:.1f} s to {end:.1f} s only: it is damaged"
        return _checked(name, np.array([[start, end]]), embedding.values.numpy()[None], missing)

    def _windows(self, name: str, facts: Facts | None) -> _Segments | AuricleError:
        settings = self._settings
        try:
            times, vectors = self._aligner.segments(name, window_s=settings.window_s, hop_s=settings.hop_s)
        except AuricleError as error:
            return error
        end_s = float(times[-1, 1]) if len(times) else 0.0
        is_cut = facts and (facts.truncated or end_s < (facts.duration_s or 0) - _REST_S)
        missing = f"read to {end_s:.1f} s only: it ends before its header says it should" if is_cut else None
        return _checked(name, times.numpy(), vectors.numpy(), missing)

    def _keep(self, file: _File, entry: Entry, found: dict[str, Entry]) -> None:
        digest = file.digest or entry.digest
        found[file.name] = entry._replace(name=file.name, size=file.size, changed_ns=file.changed_ns, digest=digest)
        self._on_file(file.name, None)

    def _fail(self, name: str, error: AuricleError) -> None:
        self._failed[name] = str(error)
        self._on_file(name, str(error))


def _former(path: Path, settings: Settings) -> IndexFile | None:
    """The index that is there, if it can be updated.

    Raises:
        ConfigError: it was made with another model or other windows.
    """
    if not os.path.lexists(path):
        return None
    former = read_index(path)
    own = former.settings
    if not own.same_vectors(settings):
        raise ConfigError(
            f"{path}: was made with model {own.model or own.fingerprint[:12]!r}, windows of {own.window_s:g} s every "
            f"{own.hop_s:g} s, and not with {settings.model or settings.fingerprint[:12]!r}, {settings.window_s:g} s "
            f"every {settings.hop_s:g} s; use the same, name another index, or delete this one"
        )
    return former


def _same_files(former: IndexFile, entries: list[Entry]) -> bool:
    if len(former.file_ends) != len(entries):
        return False
    pairs = zip(former.entries(), entries, strict=True)
    return all(old[:4] == new[:4] and old.segments == new.segments for old, new in pairs)


def _checked(name: str, times: Times, vectors: np.ndarray[Any, Any], missing: str | None) -> _Segments | AuricleError:
    """Segments in half precision, of length 1, as a search expects them."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not len(vectors) or not (np.isfinite(lengths) & (lengths > 0)).all():
        return AudioError(f"{name}: its vector is not finite; check the audio, and leave it out")
    return _Segments(times, (vectors / lengths).astype(np.float16), missing)


def _stat(name: str) -> _File:
    with open_source(name, DEFAULT_LIMITS) as opened:
        status = os.fstat(opened.file.fileno())
    return _File(name, status.st_size, status.st_mtime_ns)


def _stat_or_none(name: str) -> _File | None:
    try:
        return _stat(name)
    except AuricleError:
        return None


def _hash(name: str) -> bytes:
    digest = hashlib.sha256()
    try:
        with open_source(name, DEFAULT_LIMITS) as opened:
            while block := opened.file.read(_HASH_BYTES):
                digest.update(block)
    except OSError as error:
        raise AudioError(f"{name}: cannot be read ({error.strerror or error}); check the disk it is on") from None
    return digest.digest()


def _probe(name: str, limits: Limits) -> Facts | None:
    """The facts of the header; None where it cannot be read, which encoding reports."""
    try:
        return probe(name, limits=limits)
    except AuricleError:
        return None
