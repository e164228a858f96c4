"""Published layouts of data sets → entries with facts → shards.

Facts are those that the wording of captions uses. Speech: ``kind`` "speech", ``text`` in lower case, ``language``,
``gender`` "m" or "f", ``age`` in years, ``speaker``, ``set``. Sound: ``kind`` "sound", ``event``, ``fold``, ``set``.
Unknown facts are left out.
"""

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from auricle.audio.limits import Limits
from auricle.data.batches import prefetch
from auricle.data.manifest import Entry, read_manifest
from auricle.data.shards import ShardSet, ShardWriter, safe_key
from auricle.data.tar_members import CLIP_LIMITS
from auricle.errors import DataError

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_FSDD_NAME = re.compile(r"([0-9])_([A-Za-z]+)_(\d+)")
_FSDD_MEN = frozenset({"george", "jackson", "lucas", "nicolas", "theo", "yweweler"})  # all speakers of version 1.0.10
_SUFFIXES = (".wav", ".flac", ".ogg")

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class PackReport:
    """Result of `pack`."""

    written: int
    failed: list[tuple[str, str]] = field(repr=False)  # id and error of each entry left out
    flawed: list[tuple[str, str]] = field(repr=False)  # id and flaw of entries written although their source is damaged
    audio_s: float  # seconds of audio written
    seconds: float  # wall time
    manifest_hash: str | None  # `ShardSet.manifest_hash` of the new shards; None if nothing was written


def from_manifest(path: str | Path, *, only: Mapping[str, Collection[str]] | None = None) -> Iterator[Entry]:
    """Entries of any JSONL, CSV or TSV manifest; its columns are the facts.

    Args:
        path: of the manifest.
        only: fact -> values; entries whose facts differ are left out.

    Raises:
        DataError: see `read_manifest`; or no entry is left.
    """
    entries = read_manifest(path)
    return entries if only is None else _matching(entries, only, path)


def esc50(root: str | Path, *, folds: Collection[int] | None = None) -> list[Entry]:
    """Environmental sounds in the layout of ESC-50 and ESC-10: ``meta/esc50.csv`` and ``audio/``.

    Args:
        root: folder of the data set; the audio may be wav, flac or ogg, whatever the suffix in the table.
        folds: only these; all where None.

    Raises:
        DataError: another layout, or a fold without clips.

    Source: K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", 2015 (karolpiczak/ESC-50).
    """
    root = Path(root)
    table = root / "meta" / "esc50.csv"
    entries = []
    for row in read_manifest(table):
        if "fold" not in row.meta or "category" not in row.meta:
            raise DataError(f"{table}: {row.id!r} has no fold or no category; expected the table of ESC-50")
        meta = {"kind": "sound", "event": row.meta["category"], "fold": row.meta["fold"], "set": "esc50"}
        entries.append(Entry(row.id, _present(root / "audio" / row.audio.name), meta))
    return _chosen(entries, "fold", folds, root)


def fsdd(root: str | Path, *, speakers: Collection[str] | None = None) -> list[Entry]:
    """Spoken digits in the layout of the Free Spoken Digit Dataset: ``recordings/{digit}_{speaker}_{index}.wav``.

    Args:
        root: folder of the data set; wav, flac or ogg.
        speakers: only these; all where None.

    Raises:
        DataError: no recordings of that naming, or a speaker without any.

    Source: Jakobovski/free-spoken-digit-dataset.
    """
    root = Path(root)
    entries = []
    for path in sorted(root.glob("recordings/*")):
        name = _FSDD_NAME.fullmatch(path.stem)
        if name is None or path.suffix.lower() not in _SUFFIXES:
            continue
        speaker = name[2].lower()
        meta = {"kind": "speech", "text": DIGITS[int(name[1])], "language": "en", "speaker": speaker, "set": "fsdd"}
        if speaker in _FSDD_MEN:
            meta["gender"] = "m"
        entries.append(Entry(path.stem, path, meta))
    return _chosen(entries, "speaker", speakers, root)


def speechocean762(root: str | Path, *, split: str) -> list[Entry]:
    """English read by Mandarin speakers, children and adults: ``train.jsonl`` and ``test.jsonl`` with the facts.

    Args:
        root: folder with the two files; each line has ``id``, ``audio``, ``text``, ``speaker``, ``gender``, ``age``.
        split: "train" or "test".

    Raises:
        DataError: another split or layout.

    Source: J. Zhang et al., "speechocean762: An Open-Source Non-native English Speech Corpus", Interspeech 2021.
    """
    if split not in ("train", "test"):
        raise DataError(f"speechocean762 has splits 'train' and 'test', not {split!r}")
    path = Path(root) / f"{split}.jsonl"
    entries = []
    for row in read_manifest(path):
        if missing := {"text", "speaker", "gender", "age"} - row.meta.keys():
            raise DataError(f"{path}: {row.id!r} lacks {sorted(missing)}")
        meta = {"kind": "speech", "text": str(row.meta["text"]).lower(), "language": "en", "set": "speechocean762"}
        meta |= {name: row.meta[name] for name in ("gender", "age", "speaker")}
        entries.append(Entry(row.id, row.audio, meta))
    return entries


def pack(
    entries: Iterable[Entry],
    folder: str | Path,
    name: str,
    *,
    limits: Limits = CLIP_LIMITS,
    workers: int = 2,
    progress: Progress | None = None,
) -> PackReport:
    """Decode entries to 16 kHz mono and write them as shards ``folder/NAME-000000.tar``, ….

    An entry that cannot be read is left out and reported. The shards hold the clips in the order of `entries` and have
    the same bytes for any number of workers. The key of a clip is its id, changed as `safe_key` does where needed; then
    the facts hold the ``id``.

    Args:
        entries: files and facts.
        folder: of the shards, created if missing.
        name: of the set.
        limits: what one file may cost.
        workers: threads that decode.
        progress: called after each entry with the numbers done (read or failed) and failed.

    Raises:
        DataError: a bad set name, or shards of that name exist.
        OutputError: the folder cannot be written, or another run is writing shards of that name.
    """
    started = time.monotonic()
    failed: list[tuple[str, str]] = []
    flawed: list[tuple[str, str]] = []
    num_samples = written = 0
    decoded = prefetch(lambda entry: _decode(entry, limits), entries, depth=2 * workers, workers=workers)
    with ShardWriter(folder, name) as writer:
        for done, (entry, waveform, remark) in enumerate(decoded, 1):
            if waveform is None:
                failed.append((entry.id, remark))
            elif problem := _write(writer, entry, waveform):
                failed.append((entry.id, problem))
            else:
                written, num_samples = written + 1, num_samples + len(waveform)
                if remark:
                    flawed.append((entry.id, remark))
            if progress is not None:
                progress(done, len(failed))
    own = sorted(Path(folder).glob(f"{name}-{'[0-9]' * 6}.tar"))  # NAME-10-… is another set
    return PackReport(
        written=written,
        failed=failed,
        flawed=flawed,
        audio_s=num_samples / 16_000,
        seconds=time.monotonic() - started,
        manifest_hash=ShardSet(own).manifest_hash if written else None,
    )


def _decode(entry: Entry, limits: Limits) -> tuple[Entry, npt.NDArray[np.float32] | None, str]:
    """The waveform and its flaws, or None and the error: one hostile file must not stop the others."""
    from auricle.audio.decode import decode

    try:
        clip = decode(entry.audio, limits=limits)
    except Exception as error:
        return entry, None, f"{type(error).__name__}: {error}"
    facts = clip.facts
    flaws = {"truncated": facts.truncated, "damaged": facts.damaged, "non-finite samples": facts.non_finite}
    return entry, clip.waveform, ", ".join([*(flaw for flaw, found in flaws.items() if found), *facts.notes])


def _write(writer: ShardWriter, entry: Entry, waveform: npt.NDArray[np.float32]) -> str | None:
    key = safe_key(entry.id)
    try:
        writer.write(key, waveform, entry.meta if key == entry.id else {"id": entry.id, **entry.meta})
    except DataError as error:
        return f"{type(error).__name__}: {error}"
    return None


def _matching(entries: Iterable[Entry], only: Mapping[str, Collection[str]], path: str | Path) -> Iterator[Entry]:
    found = 0
    for entry in entries:
        if all(str(entry.meta.get(fact)) in values for fact, values in only.items()):
            found += 1
            yield entry
    if not found:
        wanted = ", ".join(f"{fact} {' or '.join(values)}" for fact, values in only.items())
        raise DataError(f"no entry of {path} has {wanted}")


def _present(path: Path) -> Path:
    """`path`, or the same name with another suffix where only that exists."""
    candidates = (path, *(path.with_suffix(suffix) for suffix in _SUFFIXES))
    return next((candidate for candidate in candidates if candidate.exists()), path)


def _chosen(
    entries: list[Entry], fact: str, wanted: Collection[int] | Collection[str] | None, root: Path
) -> list[Entry]:
    known = {entry.meta[fact] for entry in entries}
    if not entries:
        raise DataError(f"no clips of the expected layout in {root}")
    if wanted is None:
        return entries
    if unknown := set(wanted) - known:
        raise DataError(f"{root} has no {fact} {sorted(map(str, unknown))}; found {sorted(map(str, known))}")
    return [entry for entry in entries if entry.meta[fact] in wanted]
