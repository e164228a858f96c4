"""Answers kept on disk: none is generated twice, and a run that was killed continues where it stopped.

A folder of JSON Lines that any number of processes may share, on any number of machines. Each reads all files once, as
it starts, and writes to its own file only, whose name starts with the time of its first answer: where two processes
answered the same question, the answer of the older file is used, in later runs too.

An answer is handed to the operating system before the next one: a process that is killed loses no answer. The disk is
synchronised every `SYNC_S` seconds and at the end, so that a power cut costs the answers of these seconds, which are
generated again. An incomplete line at the end of a file is what a kill leaves, and is skipped; a line that is damaged
elsewhere is skipped and reported. Each line has a checksum, so that what a disk has changed is generated again too.
"""

import json
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import blake2b, sha256
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from auricle.data.untrusted_json import parse_object, shorten
from auricle.engine.request import SamplingParams
from auricle.errors import DataError
from auricle.files import sync
from auricle.listen.aggregate import Aggregation

FORMAT = "auricle-answer/1"  # part of every key: grows whenever one key could stand for two answers
SYNC_S = 5.0  # longest time between two synchronisations while answers are added
_KEY = re.compile(r"[0-9a-f]{64}")


class KeptAnswer(NamedTuple):
    """The answer of a model to a question about a clip."""

    text: str
    complete: bool  # the whole clip was processed


def answer_key(
    fingerprint: str,
    prompt: str,
    audio: str,
    *,
    sampling: SamplingParams,
    reduce: Aggregation = "auto",
    window_s: float | None = None,
) -> str:
    """SHA-256 of everything that decides an answer."""
    decided: Mapping[str, Any] = {
        "format": FORMAT,
        "model": fingerprint,
        "prompt": prompt,
        "sound": audio,
        "decoding": asdict(sampling),
        "reduce": reduce,
        "window_s": window_s,
    }
    return sha256(json.dumps(decided, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class AnswerCache:
    """The answers of a folder, those of this process included."""

    def __init__(self, folder: str | Path) -> None:
        """Read what is there; the folder is made with the first answer.

        Raises:
            DataError: the folder cannot be listed.
        """
        self.folder = Path(folder)
        self.damaged: list[str] = []  # lines that were skipped, and why
        self.added = 0  # answers by this process
        self._replies: KeptReplies | None = None
        self._kept: dict[str, KeptAnswer] = {}
        self._file: FileIO | None = None
        self._is_torn = False
        self._synced = time.monotonic()
        try:
            paths = sorted(self.folder.iterdir()) if self.folder.exists() else []
        except OSError as error:
            raise DataError(
                f"{self.folder}: cannot be listed ({error.strerror or error}); name another folder of answers"
            ) from None
        for path in paths:
            if path.suffix == ".jsonl" and path.is_file():
                self._read(path)

    @property
    def replies(self) -> "KeptReplies":
        """Replies of servers by request, in the folder ``requests`` inside: see `AudioLM.journal`."""
        if self._replies is None:
            self._replies = KeptReplies(AnswerCache(self.folder / "requests"))
        return self._replies

    def __len__(self) -> int:
        return len(self._kept)

    def __enter__(self) -> "AnswerCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get(self, key: str) -> KeptAnswer | None:
        """The answer to a question, see `answer_key`; None where there is none yet."""
        return self._kept.get(key)

    def add(self, key: str, answer: KeptAnswer) -> KeptAnswer:
        """Keep an answer; an earlier one to the same question stays.

        Returns:
            The one that is kept.

        Raises:
            DataError: it cannot be written.
        """
        if key in self._kept:
            return self._kept[key]
        fields = {"key": key, "text": answer.text, "complete": answer.complete}
        line = json.dumps({**fields, "sum": _checksum(fields)}, allow_nan=False).encode() + b"\n"
        try:
            file = self._file or self._create()
            # After a write that failed half-way, this answer must not end up in the line of that one.
            _write(file, b"\n" + line if self._is_torn else line)
            self._is_torn = False
            self._kept[key] = answer
            self.added += 1
            if time.monotonic() - self._synced >= SYNC_S:
                self.sync()
        except OSError as error:
            self._is_torn = True
            raise DataError(
                f"{self.folder}: an answer cannot be kept ({error.strerror or error}); make room or name another one"
            ) from None
        return answer

    def sync(self) -> None:
        """Synchronise the disk."""
        if self._file is not None:
            sync(self._file)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Synchronise the disk and close the file; a further answer starts another one."""
        if self._replies is not None:
            self._replies.close()
        if self._file is None:
            return
        try:
            with self._file:
                self.sync()
        except OSError as error:
            raise DataError(
                f"{self.folder}: the last answers may be lost ({error.strerror or error}); run again"
            ) from None
        finally:
            self._file = None

    def _create(self) -> FileIO:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:12]}.jsonl"
        # Without a buffer: a half-written answer must not be written again later.
        self._file = path.open("xb", buffering=0)
        return self._file

    def _read(self, path: Path) -> None:
        try:
            content = path.read_bytes()
        except OSError as error:
            self.damaged.append(f"{path}: not readable ({error.strerror or error})")
            return
        *whole, last = content.split(b"\n")
        for number, line in enumerate([*whole, last], 1):
            if not line.strip():
                continue
            try:
                key, answer = _answer(line, f"{path}, line {number}")
            except DataError as error:
                if number <= len(whole):
                    self.damaged.append(str(error))
                continue
            self._kept.setdefault(key, answer)


class KeptReplies:
    """Replies of servers, kept as answers are; the long clips of one answer have several."""

    def __init__(self, kept: AnswerCache) -> None:
        self._kept = kept

    def get(self, key: str) -> str | None:
        """The reply to a request, by its SHA-256; None: there is none yet."""
        found = self._kept.get(key)
        return None if found is None else found.text

    def add(self, key: str, reply: str) -> None:
        """Keep a reply.

        Raises:
            DataError: it cannot be written.
        """
        self._kept.add(key, KeptAnswer(reply, True))

    def close(self) -> None:
        """Synchronise the disk."""
        self._kept.close()


def _write(file: FileIO, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def _checksum(fields: Mapping[str, Any]) -> str:
    return blake2b(json.dumps(fields, sort_keys=True).encode(), digest_size=8).hexdigest()


def _answer(line: bytes, where: str) -> tuple[str, KeptAnswer]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: is not UTF-8 ({error})") from None
    found = parse_object(text, where)
    key, answer, complete = (found.get(name) for name in ("key", "text", "complete"))
    if not isinstance(key, str) or not _KEY.fullmatch(key) or not isinstance(answer, str):
        raise DataError(f"{where}: expected an answer with a key of 64 hex digits and a text")
    if not isinstance(complete, bool):
        raise DataError(f"{where}: complete is {shorten(complete)}, expected true or false")
    wanted = found.pop("sum", None)
    # Lines of earlier versions have no checksum.
    if found.keys() != {"key", "text", "complete"} or wanted not in (None, _checksum(found)):
        raise DataError(f"{where}: is not what was written, expected a line with its checksum; generated again")
    return key, KeptAnswer(answer, complete)
