"""The pairs of shards and their vectors: each sound and each text goes through the model once, and is kept at once.

A folder holds ``pairs.jsonl``, one line a clip in the order of the shards, and the vectors of the distinct sounds and
texts, ``audio.f32`` and ``text.f32``: plain rows of float32 in the order in which they first appear. Vectors reach the
disk before the lines that lean on them, so that after a kill the lines tell what counts. What lies beyond is cut off.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from auricle.data.batches import prefetch
from auricle.data.shards import SAMPLE_RATE, ShardSet
from auricle.errors import AuricleError, DataError
from auricle.files import append_bytes, make_folder, write_bytes

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

# Clips that are embedded and written together: what a kill costs at most. More of them save padding.
WINDOW_CLIPS, WINDOW_SECONDS = 64, 600.0
MAX_CAPTIONS = 32  # of one clip; further ones are not looked at
SCORE_SCALE = 100.0  # scores are 100 × cosine, as those of the aligner
_CHUNK = 8192  # pairs whose vectors are gathered at once
_DECODERS, _DECODED = 2, 8  # threads, and clips ready or in work
_MAX_NAME = 60  # characters of a domain's or language's name


class Aligns(Protocol):
    """What is needed of a model: see `auricle.encode.aligner.Aligner`."""

    embedding_dim: int

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides which vectors come out."""
        ...

    def audio_many(self, sources: Any) -> Iterator[Any]:
        """Waveforms → for each a result with ``.values`` (D,) of length 1, or an error in its place."""
        ...

    def text(self, strings: Sequence[str]) -> Any:
        """Texts → (m, D) of length 1."""
        ...


class Line(NamedTuple):
    """What ``pairs.jsonl`` says of one clip."""

    key: str
    captions: list[str]  # distinct and not blank
    domain: str  # empty: not stated
    language: str
    sound: str  # hash of the samples; empty where they could not be read
    error: str  # why there is no vector of the sound; empty: there is


@dataclass(frozen=True, kw_only=True, slots=True)
class PairTable:
    """n pairs, u distinct sounds and v distinct texts, as numbers."""

    lines: Path  # a `Line` for each pair, see `read_lines`
    audio: Vectors  # (u, D) of length 1
    text: Vectors  # (v, D) of length 1
    sounds: Ids  # (n,) rows of `audio`; -1: none
    captions: Ids  # (n, k) rows of `text`; -1 behind the last one
    words: Ids  # (v,) the same number for texts that differ in case, spacing or full stop only
    groups: list[tuple[str, str]]  # domain and language of each pair
    encoded: tuple[int, int]  # sounds and texts that went through the model now

    def __len__(self) -> int:
        """Pairs."""
        return len(self.sounds)

    def usable(self) -> Ids:
        """Numbers of the pairs that have a score: those whose sound was read, with a caption or more."""
        return np.flatnonzero((self.sounds >= 0) & (self.captions[:, 0] >= 0))

    def said(self, pairs: Ids) -> Vectors:
        """The mean (m, D) of the vectors of each pair's captions."""
        rows = self.captions[pairs]
        if rows.shape[1] == 1:
            return self.text[rows[:, 0]]
        is_there = rows >= 0
        total = np.where(is_there[..., None], self.text[rows], np.float32(0)).sum(1)
        return total / is_there.sum(1, keepdims=True).astype(np.float32)

    def scores(self, sounds: Ids, captions: Ids) -> npt.NDArray[np.float64]:
        """100 × cosine between the sounds of some pairs (m,) and the captions of others (m,), a mean over several."""
        found = np.empty(len(sounds))
        for at in range(0, len(sounds), _CHUNK):
            part = slice(at, at + _CHUNK)
            heard = self.audio[self.sounds[sounds[part]]]
            found[part] = SCORE_SCALE * np.einsum("md,md->m", heard, self.said(captions[part]))
        return found

    def caption_scores(self, pair: int) -> list[float]:
        """100 × cosine between a pair's sound and each of its captions."""
        rows = self.captions[pair]
        return (SCORE_SCALE * self.text[rows[rows >= 0]] @ self.audio[self.sounds[pair]]).tolist()

    def are_alike(self, one: Ids, other: Ids, cosine: float = 1.0) -> npt.NDArray[np.bool_]:
        """Which pairs (m,) are no random partners of others (m,): the same sound or words, or captions this close.

        Args:
            one: numbers of pairs.
            other: the same.
            cosine: of captions that count as the same; 1: those of the same words only.
        """
        alike = self.sounds[one] == self.sounds[other]
        own, its = self.captions[one], self.captions[other]
        for a in range(own.shape[1]):
            for b in range(own.shape[1]):
                is_there = (own[:, a] >= 0) & (its[:, b] >= 0)
                alike |= is_there & (self.words[own[:, a]] == self.words[its[:, b]])
        for at in range(0, len(one) if cosine < 1 else 0, _CHUNK):
            part = slice(at, at + _CHUNK)
            said, other_said = self.said(one[part]), self.said(other[part])
            lengths = np.linalg.norm(said, axis=1) * np.linalg.norm(other_said, axis=1)
            alike[part] |= np.einsum("md,md->m", said, other_said) >= cosine * lengths
        return alike


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a finished table, one after the other."""
    with path.open(encoding="utf-8") as file:
        for text in file:
            yield Line(**json.loads(text))


def captions_of(meta: Mapping[str, Any], field: str) -> list[str]:
    """A clip's distinct captions: the fact `field`, a text or a list of texts."""
    told = meta.get(field)
    listed = told if isinstance(told, list) else [told]
    texts = (text.strip() for text in listed if isinstance(text, str))
    return list(islice(dict.fromkeys(text for text in texts if text and _is_unicode(text)), MAX_CAPTIONS))


def embed_pairs(
    aligner: Aligns,
    shards: ShardSet,
    folder: Path,
    *,
    caption: str = "caption",
    on_pairs: Callable[[int], None] = lambda count: None,
) -> PairTable:
    """Embed what the folder does not hold yet, window by window.

    Args:
        aligner: see `Aligns`.
        shards: the clips.
        folder: of these clips, this model and this fact; made if missing.
        caption: the fact that holds the caption, or several.
        on_pairs: called with the number of pairs finished since the last call.

    Raises:
        DataError: the folder is damaged, or belongs to something else.
    """
    make_folder(folder)
    _check_owner(folder, {"model": aligner.fingerprint, "manifest": shards.manifest_hash, "caption": caption})
    kept = _Kept(folder, aligner.embedding_dim)
    windows = list(_windows(shards.num_samples))
    done = kept.resume([stop for _, stop in windows])
    on_pairs(done)

    keys = shards.keys()

    def load(i: int) -> _Loaded:
        return _load(shards, i, keys[i], caption)

    before = len(kept.audio.rows), len(kept.text.rows)
    loaded = prefetch(load, range(done, len(shards)), depth=_DECODED, workers=_DECODERS)
    for start, stop in windows:
        if start >= done:
            kept.write(_embed_window(aligner, list(islice(loaded, stop - start)), kept))
            on_pairs(stop - start)
    return kept.table((len(kept.audio.rows) - before[0], len(kept.text.rows) - before[1]))


class _Loaded(NamedTuple):
    line: Line
    waveform: npt.NDArray[np.float32] | None


class _Window(NamedTuple):
    lines: list[Line]
    audio: dict[str, Vectors]  # key → (D,), in the order of their rows
    text: dict[str, Vectors]


class _Rows:
    """Vectors in a file, one for each key; rows count in the order of the keys."""

    def __init__(self, path: Path, dim: int) -> None:
        self.path, self.dim = path, dim
        self.rows: dict[str, int] = {}

    def add(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.rows.setdefault(key, len(self.rows))

    def trim(self) -> None:
        """Cut off vectors that no line leans on.

        Raises:
            DataError: there are too few.
        """
        wanted = len(self.rows) * self.dim * 4
        self.path.touch()
        if self.path.stat().st_size < wanted:
            raise DataError(f"{self.path} is shorter than the lines beside it say; delete {self.path.parent}")
        os.truncate(self.path, wanted)

    def append(self, vectors: Mapping[str, Vectors]) -> None:
        if vectors:
            append_bytes(self.path, np.stack(list(vectors.values())).tobytes())
        self.add(vectors)

    def read(self) -> Vectors:
        if not self.rows:
            return np.zeros((0, self.dim), np.float32)
        return np.memmap(self.path, np.float32, "r", shape=(len(self.rows), self.dim))


class _Kept:
    """What a folder holds."""

    def __init__(self, folder: Path, dim: int) -> None:
        self.lines = folder / "pairs.jsonl"
        self.audio, self.text = _Rows(folder / "audio.f32", dim), _Rows(folder / "text.f32", dim)

    def resume(self, stops: Sequence[int]) -> int:
        """Read the lines of whole windows, cut off the rest; gives the number of pairs that are done."""
        self.lines.touch()
        ends, lines = [0], []
        with self.lines.open("rb") as file:
            for stored in file:
                line = _parse(stored)
                if line is None:
                    break
                lines.append(line)
                ends.append(ends[-1] + len(stored))
        done = max((stop for stop in stops if stop <= len(lines)), default=0)
        for line in lines[:done]:
            self._note(line)
        os.truncate(self.lines, ends[done])
        self.audio.trim()
        self.text.trim()
        return done

    def write(self, window: _Window) -> None:
        self.audio.append(window.audio)
        self.text.append(window.text)
        stored = (json.dumps(line._asdict(), ensure_ascii=False, allow_nan=False) + "\n" for line in window.lines)
        append_bytes(self.lines, "".join(stored).encode("utf-8", "replace"))

    def table(self, encoded: tuple[int, int]) -> PairTable:
        """All of it as numbers."""
        sounds, captions, groups = [], [], []
        words, classes = np.empty(len(self.text.rows), np.int64), dict[str, int]()
        for line in read_lines(self.lines):
            sounds.append(self.audio.rows[line.sound] if not line.error else -1)
            rows = [self.text.rows[_text_key(text)] for text in line.captions]
            for row, text in zip(rows, line.captions, strict=True):
                words[row] = classes.setdefault(_text_key(_plain(text)), len(classes))
            captions.append(rows)
            groups.append((line.domain, line.language))
        table = np.full((len(captions), max(1, *map(len, captions)) if captions else 1), -1, np.int64)
        for pair, rows in enumerate(captions):
            table[pair, : len(rows)] = rows
        return PairTable(
            lines=self.lines,
            audio=self.audio.read(),
            text=self.text.read(),
            sounds=np.array(sounds, np.int64),
            captions=table,
            words=words,
            groups=groups,
            encoded=encoded,
        )

    def _note(self, line: Line) -> None:
        self.audio.add([] if line.error else [line.sound])
        self.text.add(map(_text_key, line.captions))


def _load(shards: ShardSet, i: int, key: str, caption: str) -> _Loaded:
    """The samples of a clip and what is said of it; a damaged one has a line as well."""
    try:
        record = shards.read(i)
    except AuricleError as error:
        return _Loaded(Line(key, [], "", "", "", str(error)), None)
    meta = record.meta
    sound = blake2b(record.waveform.tobytes(), digest_size=16).hexdigest()
    domain, language = _name(meta.get("domain")) or _name(meta.get("kind")), _name(meta.get("language"))
    return _Loaded(Line(key, captions_of(meta, caption), domain, language, sound, ""), record.waveform)


def _embed_window(aligner: Aligns, window: Sequence[_Loaded], kept: _Kept) -> _Window:
    waveforms = {
        clip.line.sound: clip.waveform
        for clip in window
        if clip.waveform is not None and clip.line.sound not in kept.audio.rows
    }
    by_length = sorted(waveforms, key=lambda sound: len(waveforms[sound]))  # which saves padding
    found, failed = dict[str, Vectors](), dict[str, str]()
    for sound, result in zip(by_length, aligner.audio_many([waveforms[sound] for sound in by_length]), strict=True):
        values = np.zeros(0, np.float32) if isinstance(result, AuricleError) else np.asarray(result.values, np.float32)
        if isinstance(result, AuricleError):
            failed[sound] = str(result)
        elif not np.isfinite(values).all():
            failed[sound] = f"the model gave no finite vector for {len(waveforms[sound]) / SAMPLE_RATE:g} s of sound"
        else:
            found[sound] = values
    lines = [clip.line._replace(error=clip.line.error or failed.get(clip.line.sound, "")) for clip in window]
    texts = {_text_key(text): text for line in lines for text in line.captions}
    new = [key for key in texts if key not in kept.text.rows]
    vectors = np.asarray(aligner.text([texts[key] for key in new]), np.float32) if new else ()
    audio = {sound: found[sound] for sound in waveforms if sound in found}
    return _Window(lines, audio, dict(zip(new, vectors, strict=True)))


def _windows(num_samples: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """First and one-past-last clips that go together; they depend on the shards alone, so that a resumed run has the
    batches, and with them the bits, of one at a stretch."""
    start, held = 0, 0.0
    for i, seconds in enumerate(num_samples / SAMPLE_RATE):
        if i > start and (i - start >= WINDOW_CLIPS or held + seconds > WINDOW_SECONDS):
            yield start, i
            start, held = i, 0.0
        held += seconds
    yield start, len(num_samples)


def _check_owner(folder: Path, owner: dict[str, str]) -> None:
    path = folder / "about.json"
    if not path.exists():
        write_bytes(path, json.dumps(owner, indent=1).encode())
    elif json.loads(path.read_text()) != owner:
        raise DataError(f"{folder} holds vectors of other clips, captions or another model; delete it")


def _parse(stored: bytes) -> Line | None:
    try:
        return Line(**json.loads(stored)) if stored.endswith(b"\n") else None
    except (ValueError, TypeError):
        return None


def _text_key(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".!")


def _name(value: Any) -> str:
    return value.strip()[:_MAX_NAME] if isinstance(value, str) and _is_unicode(value) else ""


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True
