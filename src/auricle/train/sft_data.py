"""Rows of prompts and answers about recordings, from several manifests, sampled by shares.

A manifest is JSON Lines, CSV or TSV with one example a row:

* ``audio``: as in `auricle.data.manifest`; one recording may be in many rows;
* ``prompt`` and ``answer``, or ``user_prompt`` and ``prediction`` (the columns of mdl-toolkit); a missing prompt is the
  run's default;
* ``system`` (or ``system_prompt``), optional;
* ``options``, optional: answers to choose from, a list (CSV: parted by ``|``);
* ``turns`` instead of prompt and answer: ``{"role": "user" | "assistant", "content": text}`` in turn, user first,
  assistant last; the recording belongs to the first.

A row that cannot be understood ends the run before it starts. Audio that cannot be read is left out, counted and named.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from auricle.audio.decode import probe, stream
from auricle.audio.resample import SAMPLE_RATE
from auricle.data import manifest
from auricle.data.batches import bucket
from auricle.data.order import Permutation
from auricle.errors import AuricleError, ConfigError, DataError
from auricle.train.config import SftSettings

Turn = tuple[str, str]  # role and text
_BLOCK = 1000  # neighbouring samples that hold the shares exactly
_NAMES = {"prompt": "user_prompt", "answer": "prediction", "system": "system_prompt"}  # ours -> mdl-toolkit's


@dataclass(frozen=True, slots=True)
class Row:
    """One example."""

    audio: Path
    system: str
    turns: tuple[Turn, ...]  # user, assistant, …, assistant
    options: tuple[str, ...]
    where: str  # manifest and line, for messages
    duration_s: float = 0.0  # as its header states it, or counted; 0 where it cannot be read

    @property
    def answer(self) -> str:
        """The last answer of the assistant."""
        return self.turns[-1][1]


def read_rows(path: str | Path, *, prompt: str = "", system: str = "") -> list[Row]:
    """All rows of a manifest; the audio is not touched.

    Args:
        path: ``.jsonl``, ``.csv`` or ``.tsv``.
        prompt: of rows without one.
        system: of rows without one; may be empty.

    Raises:
        DataError: no such manifest, no rows, or a row that cannot be understood; the message names its line.
    """
    path = Path(path)
    manifest.read_manifest(path)  # refuses what is no manifest
    rows = []
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for line, cells in manifest.READERS[path.suffix.lower()](file):
                rows.append(_row(cells, path, line, prompt, system))
    except UnicodeError as error:
        raise DataError(f"{path} is no UTF-8 text ({error})") from None
    except ValueError as error:  # of manifest's readers, or of a row
        raise DataError(f"{path}, line {getattr(error, 'line', line)}: {error}") from None
    if not rows:
        raise DataError(f"{path} holds no rows; expected at least one with audio, prompt and answer")
    return rows


def _row(cells: Mapping[str, Any], path: Path, line: int, prompt: str, system: str) -> Row:
    column = next((name for name in manifest.AUDIO_COLUMNS if cells.get(name) is not None), None)
    if column is None:
        raise ValueError(f"found columns {sorted(cells)}, expected the audio file in one of {manifest.AUDIO_COLUMNS}")
    audio = manifest.resolve_audio(line, cells[column], path.parent)
    given = {name: _text(cells, name) for name in _NAMES}
    turns = _turns(cells["turns"]) if cells.get("turns") else ()
    if turns and (given["prompt"] or given["answer"]):
        raise ValueError("has turns as well as a prompt or answer; leave one of them out")
    if not turns:
        question = given["prompt"] or prompt
        if not question:
            raise ValueError("has no prompt, and no default is set; fill it in, or set sft.prompt=…")
        if not given["answer"]:
            raise ValueError("has no answer; fill in the column answer (or prediction)")
        turns = (("user", question), ("assistant", given["answer"]))
    listed = cells.get("options") or ()
    options = tuple(listed.split("|") if isinstance(listed, str) else listed)
    if not all(isinstance(option, str) and option.strip() for option in options):
        raise ValueError(f"options are {listed!r}, expected texts")
    options = tuple(option.strip() for option in options)
    if options and turns[-1][1] not in options:
        raise ValueError(f"the answer {turns[-1][1]!r} is none of the options {list(options)}")
    return Row(audio, given["system"] or system, turns, options, f"{path}, line {line}")


def _text(cells: Mapping[str, Any], name: str) -> str:
    found = [cells[key] for key in (name, _NAMES[name]) if cells.get(key) not in (None, "")]
    if not all(isinstance(text, str) for text in found) or len(found) > 1:
        raise ValueError(f"{name} is {found}, expected one text in {name} or {_NAMES[name]}")
    return found[0].strip() if found else ""


def _turns(value: Any) -> tuple[Turn, ...]:
    wanted = ("user", "assistant")
    good = isinstance(value, list) and value and len(value) % 2 == 0
    good = good and all(isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in value)
    good = good and all(turn.get("role") == wanted[place % 2] for place, turn in enumerate(value))
    if not good or not all(turn["content"].strip() for turn in value):
        raise ValueError(
            'turns are a list of {"role": …, "content": text}, user and assistant in turn, the assistant last; got '
            f"{str(value)[:80]}"
        )
    return tuple((turn["role"], turn["content"].strip()) for turn in value)


def check_audio(rows: Iterable[Row], max_audio_s: float) -> Iterator[tuple[Row, str]]:
    """Each row with its duration, and why it cannot be used (empty: it can), as far as headers state."""
    known: dict[Path, tuple[float, str]] = {}
    for row in rows:
        if row.audio not in known:
            known[row.audio] = _look(row.audio, max_audio_s)
        duration_s, reason = known[row.audio]
        yield Row(row.audio, row.system, row.turns, row.options, row.where, duration_s), reason


def _look(audio: Path, max_audio_s: float) -> tuple[float, str]:
    try:
        duration_s = probe(audio).duration_s
        if duration_s is None:
            with stream(audio) as blocks:
                duration_s = sum(map(len, blocks)) / SAMPLE_RATE
    except AuricleError as error:
        return 0.0, str(error)
    if duration_s > max_audio_s:
        return duration_s, f"{audio}: lasts {duration_s:.1f} s, sft.max_audio_s is {max_audio_s:g}"
    return duration_s, ""


class Mixture:
    """Endless samples from several lists: a function of (seed, step, place) alone.

    Every 1,000 neighbouring samples hold each source as often as its share states, and a source gives each of its rows
    once before any is repeated.
    """

    def __init__(self, sources: Sequence[Sequence[Row]], shares: Sequence[float], seed: int) -> None:
        """``shares``: of each source, above 0, in any unit."""
        self.sources, self.seed = sources, seed
        self.starts = np.concatenate([[0], np.cumsum(_whole(shares, _BLOCK))])
        self.lengths = [np.array([_length(row) for row in rows]) for rows in sources]

    def sample(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Source and row, (n, 2), at places (n,) of the endless sequence."""
        block, offset = places // _BLOCK, places % _BLOCK
        slots = np.empty_like(places)
        for number in np.unique(block):
            here = block == number
            slots[here] = Permutation(_BLOCK, self.seed, int(number)).ids(offset[here])
        source = np.searchsorted(self.starts, slots, side="right") - 1
        turns = block * np.diff(self.starts)[source] + slots - self.starts[source]
        rows = np.empty_like(places)
        for number in np.unique(source):
            count = len(self.sources[number])
            epochs = turns // count
            for epoch in np.unique(epochs[source == number]):
                here = (source == number) & (epochs == epoch)
                rows[here] = Permutation(count, self.seed + 1 + int(number), int(epoch)).ids(turns[here] % count)
        return np.stack([source, rows], axis=1)

    def batch(self, step: int, batch_size: int, window: int) -> npt.NDArray[np.int64]:
        """Source and row, (batch_size, 2), of a step; ``window`` batches are sorted by length, then shuffled."""
        number, place = divmod(step, window)
        sampled = self.sample(np.arange(number * window * batch_size, (number + 1) * window * batch_size))
        lengths = np.array([self.lengths[source][row] for source, row in sampled])
        batches = bucket(np.arange(len(sampled)), lengths, batch_size)
        chosen = batches[int(Permutation(window, self.seed, number).ids(place))]
        # In no order, so that the processes that share a batch get as much to do.
        return sampled[chosen[Permutation(batch_size, self.seed, step).ids(np.arange(batch_size))]]


def _length(row: Row) -> float:
    """About the tokens of a row: 5 a second of audio, and one for four letters."""
    return 5.0 * row.duration_s + sum(len(text) for _, text in row.turns) / 4


def _whole(shares: Sequence[float], total: int) -> npt.NDArray[np.int64]:
    """Shares as whole numbers >= 1 that add up to ``total``: largest remainders."""
    exact = np.asarray(shares, np.float64) / np.sum(shares) * total
    counts = np.maximum(np.floor(exact), 1).astype(np.int64)
    while (spare := total - int(counts.sum())) != 0:
        place = (
            int(np.argmax(exact - counts)) if spare > 0 else int(np.argmin(np.where(counts > 1, exact - counts, 1e9)))
        )
        counts[place] += 1 if spare > 0 else -1
    return counts


class Sources:
    """The manifests of a run: usable rows, what was left out, and the samples."""

    def __init__(self, settings: SftSettings, seed: int) -> None:
        """Read the manifests, and the headers of their audio.

        Raises:
            DataError: a row cannot be understood, or a manifest has no usable one.
            ConfigError: no manifests, or shares that do not fit them.
        """
        if not settings.train:
            raise ConfigError("sft.train names no manifest; give some: sft.train=[questions.jsonl]")
        shares = _shares(settings)
        self.skipped: Counter[str] = Counter()
        self.reports: list[tuple[str, str]] = []  # where, and why
        digest = hashlib.sha256()
        sources = []
        for name in settings.train:
            rows = read_rows(name, prompt=settings.prompt, system=settings.system)
            sources.append(self._usable(name, rows, settings.max_audio_s))
            digest.update(Path(name).read_bytes())
        self.manifest_hash = digest.hexdigest()
        self.rows = sources
        files = dict.fromkeys(row.audio for rows in sources for row in rows)
        self.recordings = {audio: number for number, audio in enumerate(files)}
        self.mixture = Mixture(sources, shares or [len(rows) for rows in sources], seed)
        self.batch = lru_cache(maxsize=8)(self.mixture.batch)

    def _usable(self, name: str, rows: list[Row], max_audio_s: float) -> list[Row]:
        kept = []
        for row, reason in check_audio(rows, max_audio_s):
            if reason:
                self.leave_out(row, reason)
            else:
                kept.append(row)
        if not kept:
            raise DataError(f"{name}: none of {len(rows)} recordings can be used; the last: {self.reports[-1][1]}")
        return kept

    def leave_out(self, row: Row, reason: str) -> None:
        """Count and note a row that cannot be used; each once."""
        if not any(where == row.where for where, _ in self.reports):
            self.skipped[row.where.rpartition(", line ")[0]] += 1
            self.reports.append((row.where, reason))


def _shares(settings: SftSettings) -> list[float]:
    """The share of each manifest, by the name of its file; empty: by their rows."""
    if not settings.shares:
        return []
    names = [Path(name).stem for name in settings.train]
    if absent := [name for name in names if settings.shares.get(name, 0.0) <= 0.0]:
        known = ", ".join(name for name, share in settings.shares.items() if share > 0)
        raise ConfigError(f"sft.shares has no share above 0 for {', '.join(absent)}; it names {known}")
    if len(set(names)) < len(names) or len(names) > _BLOCK:
        raise ConfigError(f"sft.shares needs manifests of different names, at most {_BLOCK}; got {', '.join(names)}")
    return [float(settings.shares[name]) for name in names]
