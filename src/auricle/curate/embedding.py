"""The vectors of pairs: each distinct clip and text is encoded once, and stored at once.

A folder has ``pairs.jsonl``, one line a clip in the order of the shards, and the vectors of the distinct clips and
texts, ``audio.f32`` and ``text.f32``: plain rows of float32 in the order in which they first appear. Vectors reach the
disk before the lines that refer to them, so that after a kill the lines decide what counts. The rest is cut off.
A line has a checksum of itself and of the vectors that first appear with it.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from auricle.curate.pairs import Ids, Line, PairTable, Vectors, read_lines
from auricle.data.batches import prefetch
from auricle.data.shards import SAMPLE_RATE, ShardSet
from auricle.errors import AuricleError, DataError
from auricle.files import append_bytes, make_folder, write_bytes

# Clips that are embedded and written together: what a kill costs at most. More of them save padding.
WINDOW_CLIPS, WINDOW_SECONDS = 64, 600.0
MAX_CAPTIONS = 32  # of one clip; further ones are ignored
_DECODERS, _DECODED = 2, 8  # threads, and clips ready or in work
_MAX_NAME = 60  # characters of a domain's or language's name


class AudioTextModel(Protocol):
    """What is needed of a model: see `auricle.encode.aligner.Aligner`."""

    embedding_dim: int

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides which vectors come out."""

    def audio_many(self, sources: Any) -> Iterator[Any]:
        """Waveforms → for each a result with ``.values`` (D,) of length 1, or an error in its place."""

    def text(self, strings: Sequence[str]) -> Any:
        """Texts → (m, D) of length 1."""


def embed_pairs(
    model: AudioTextModel,
    shards: ShardSet,
    folder: Path,
    *,
    caption: str = "caption",
    on_pairs: Callable[[int], None] = lambda count: None,
) -> PairTable:
    """Embed what the folder does not have yet, window by window; ``on_pairs`` gets the pairs finished in each.

    Raises:
        DataError: the folder is damaged, or belongs to something else.
    """
    make_folder(folder)
    _check_owner(folder, {"model": model.fingerprint, "manifest": shards.manifest_hash, "caption": caption})
    store = _Store(folder, model.embedding_dim)
    windows = list(_windows(shards.num_samples))
    done = store.resume([stop for _, stop in windows])
    on_pairs(done)
    keys, before = shards.keys(), store.counts

    def load(i: int) -> _Loaded:
        return _load(shards, i, keys[i], caption)

    loaded = prefetch(load, range(done, len(shards)), depth=_DECODED, workers=_DECODERS)
    for start, stop in windows:
        if start >= done:
            store.append(*_embed(model, list(islice(loaded, stop - start)), store))
            on_pairs(stop - start)
    return store.table((store.counts[0] - before[0], store.counts[1] - before[1]))


def captions_of(meta: Mapping[str, Any], field: str) -> list[str]:
    """A clip's distinct captions: the fact `field`, a text or a list of texts."""
    value = meta.get(field)
    texts = (text.strip() for text in (value if isinstance(value, list) else [value]) if isinstance(text, str))
    return list(islice(dict.fromkeys(text for text in texts if text and _is_unicode(text)), MAX_CAPTIONS))


# --- the store


class _Rows:
    """Vectors in a file, one for each key; rows count in the order of the keys."""

    def __init__(self, path: Path, dim: int) -> None:
        self.path, self.dim = path, dim
        self.rows: dict[str, int] = {}

    def note(self, keys: Iterable[str]) -> slice:
        """The rows of the keys that are new."""
        start = len(self.rows)
        for key in keys:
            self.rows.setdefault(key, len(self.rows))
        return slice(start, len(self.rows))

    def trim(self) -> None:
        """Cut off vectors that no line refers to.

        Raises:
            DataError: there are too few.
        """
        wanted = len(self.rows) * self.dim * 4
        append_bytes(self.path, b"")
        if self.path.stat().st_size < wanted:
            raise DataError(f"{self.path} is shorter than the lines beside it say; delete {self.path.parent}")
        os.truncate(self.path, wanted)

    def append(self, vectors: Mapping[str, Vectors]) -> None:
        if vectors:
            append_bytes(self.path, np.stack(list(vectors.values())).tobytes())

    def read(self) -> Vectors:
        if not (size := self.path.stat().st_size):
            return np.zeros((0, self.dim), np.float32)
        return np.memmap(self.path, np.float32, "r", shape=(size // (self.dim * 4), self.dim))


class _Store:
    """What a folder has."""

    def __init__(self, folder: Path, dim: int) -> None:
        self.lines = folder / "pairs.jsonl"
        self.audio, self.text = _Rows(folder / "audio.f32", dim), _Rows(folder / "text.f32", dim)

    @property
    def counts(self) -> tuple[int, int]:
        return len(self.audio.rows), len(self.text.rows)

    def resume(self, stops: Sequence[int]) -> int:
        """Read the lines of complete windows and cut off the rest; returns the number of pairs that are done.

        Raises:
            DataError: lines or vectors are not those that were written.
        """
        append_bytes(self.lines, b"")
        ends, lines = [0], []
        with self.lines.open("rb") as file:
            for stored in file:
                if not stored.endswith(b"\n"):
                    break
                lines.append(self._parse(stored, len(ends)))
                ends.append(ends[-1] + len(stored))
        done = max((stop for stop in stops if stop <= len(lines)), default=0)
        places = [self._note(line) for line in lines[:done]]
        os.truncate(self.lines, ends[done])
        self.audio.trim()
        self.text.trim()
        audio, text = self.audio.read(), self.text.read()
        for number, (line, (clips, words)) in enumerate(zip(lines[:done], places, strict=True), 1):
            if _checksum(line, audio[clips], text[words]) != line.checksum:
                raise DataError(f"{self.lines}:{number}, or a vector that belongs to it, {self._changed}")
        return done

    def append(self, lines: Sequence[Line], audio: Mapping[str, Vectors], text: Mapping[str, Vectors]) -> None:
        """Write a window; the vectors are those of keys that are new, in the order of their rows."""
        self.audio.append(audio)
        self.text.append(text)
        clip_rows, text_rows, stored = self.audio.read(), self.text.read(), []
        for line in lines:
            clips, words = self._note(line)
            stored.append(_json(line._replace(checksum=_checksum(line, clip_rows[clips], text_rows[words]))) + b"\n")
        append_bytes(self.lines, b"".join(stored))

    def _note(self, line: Line) -> tuple[slice, slice]:
        """The rows of the clip and of the texts that first appear with a line."""
        return self.audio.note([] if line.error else [line.clip_hash]), self.text.note(map(_text_key, line.captions))

    def _parse(self, stored: bytes, number: int) -> Line:
        try:
            return Line(**json.loads(stored))
        except (ValueError, TypeError) as error:
            raise DataError(f"{self.lines}:{number} {self._changed}") from error

    @property
    def _changed(self) -> str:
        return f"is not what was written, or of an older version; delete {self.lines.parent}"

    def table(self, encoded: tuple[int, int]) -> PairTable:
        """All of it as numbers."""
        audio_rows, texts, groups = [], [], []
        wordings, known = np.empty(len(self.text.rows), np.int64), dict[str, int]()
        for line in read_lines(self.lines):  # one at a time, as all of them may need much memory
            audio_rows.append(self.audio.rows[line.clip_hash] if not line.error else -1)
            texts.append([self.text.rows[_text_key(text)] for text in line.captions])
            for row, text in zip(texts[-1], line.captions, strict=True):
                wordings[row] = known.setdefault(_text_key(" ".join(text.casefold().split()).rstrip(".!")), len(known))
            groups.append((line.domain, line.language))
        text_rows = np.full((len(texts), max(map(len, texts), default=0) or 1), -1, np.int64)
        for pair, rows in enumerate(texts):
            text_rows[pair, : len(rows)] = rows
        return PairTable(
            lines=self.lines,
            audio=self.audio.read(),
            text=self.text.read(),
            audio_rows=np.array(audio_rows, np.int64),
            text_rows=text_rows,
            wordings=wordings,
            groups=groups,
            encoded=encoded,
        )


def _check_owner(folder: Path, owner: dict[str, str]) -> None:
    path = folder / "about.json"
    if not path.exists():
        write_bytes(path, json.dumps(owner, indent=1, allow_nan=False).encode())
    elif path.read_bytes() != json.dumps(owner, indent=1, allow_nan=False).encode():
        raise DataError(f"{folder} has vectors of other clips, captions or another model; delete it")


def _json(line: Line) -> bytes:
    return json.dumps(line._asdict(), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def _checksum(line: Line, *vectors: Vectors) -> str:
    """Of a line, and of the vectors that first appear with it."""
    total = blake2b(_json(line._replace(checksum="")), digest_size=8)
    for each in vectors:
        total.update(each.tobytes())
    return total.hexdigest()


# --- one window


class _Loaded(NamedTuple):
    line: Line
    waveform: npt.NDArray[np.float32] | None


def _windows(num_samples: Ids) -> Iterator[tuple[int, int]]:
    """First and one-past-last clips that go together.

    They depend on the shards alone, so that a resumed run has the batches, and with them the bits, of one that was
    never stopped.
    """
    start, total = 0, 0.0
    for i, seconds in enumerate(num_samples / SAMPLE_RATE):
        if i > start and (i - start >= WINDOW_CLIPS or total + seconds > WINDOW_SECONDS):
            yield start, i
            start, total = i, 0.0
        total += seconds
    yield start, len(num_samples)


def _load(shards: ShardSet, i: int, key: str, caption: str) -> _Loaded:
    """The samples and facts of a clip; a damaged one has a line as well."""
    try:
        record = shards.read(i)
    except AuricleError as error:
        return _Loaded(Line(key, [], "", "", "", str(error), ""), None)
    meta = record.meta
    digest = blake2b(record.waveform.tobytes(), digest_size=16).hexdigest()
    domain, language = _name(meta.get("domain")) or _name(meta.get("kind")), _name(meta.get("language"))
    return _Loaded(Line(key, captions_of(meta, caption), domain, language, digest, "", ""), record.waveform)


def _embed(
    model: AudioTextModel, window: Sequence[_Loaded], store: _Store
) -> tuple[list[Line], dict[str, Vectors], dict[str, Vectors]]:
    """The lines of a window, and the vectors that the store does not have yet."""
    waveforms = {
        clip.line.clip_hash: clip.waveform
        for clip in window
        if clip.waveform is not None and clip.line.clip_hash not in store.audio.rows
    }
    found, failed = _embed_audio(model, waveforms)
    lines = [clip.line._replace(error=clip.line.error or failed.get(clip.line.clip_hash, "")) for clip in window]
    texts = {_text_key(text): text for line in lines for text in line.captions}
    new = [key for key in texts if key not in store.text.rows]
    vectors = np.asarray(model.text([texts[key] for key in new]), np.float32) if new else ()
    audio = {digest: found[digest] for digest in waveforms if digest in found}
    return lines, audio, dict(zip(new, vectors, strict=True))


def _embed_audio(
    model: AudioTextModel, waveforms: Mapping[str, npt.NDArray[np.float32]]
) -> tuple[dict[str, Vectors], dict[str, str]]:
    """Vectors, and errors of clips without one."""
    found, failed = dict[str, Vectors](), dict[str, str]()
    by_length = sorted(waveforms, key=lambda digest: len(waveforms[digest]))  # which saves padding
    results = model.audio_many([waveforms[digest] for digest in by_length])
    for digest, result in zip(by_length, results, strict=True):
        if isinstance(result, AuricleError):
            failed[digest] = str(result)
        elif np.isfinite(values := np.asarray(result.values, np.float32)).all():
            found[digest] = values
        else:
            failed[digest] = f"the model gave no finite vector for {len(waveforms[digest]) / SAMPLE_RATE:g} s of audio"
    return found, failed


def _text_key(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _name(value: Any) -> str:
    return value.strip()[:_MAX_NAME] if isinstance(value, str) and _is_unicode(value) else ""


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True
