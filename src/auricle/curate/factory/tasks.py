"""What a process of the factory does: cut sources into clips, run experts over a block of clips, write captions.

A task depends on its content alone, so that any process may do it, and again after a kill. What takes long is stored
at once: pieces of sources by the state of the files, facts by clip, expert and version.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, NamedTuple, TypeAlias

from auricle.audio.resample import SAMPLE_RATE
from auricle.curate.factory.clips import CLIP_S, Piece, Source, cut, read_piece
from auricle.curate.factory.experts import (
    DEFAULT,
    Expert,
    ExpertInput,
    ExpertSettings,
    Phase,
    make_experts,
    route,
    run_expert,
)
from auricle.curate.factory.grammar import write
from auricle.curate.factory.store import FactStore, Row, error_row
from auricle.errors import AuricleError, check_number
from auricle.files import make_folder, read_regular_text, write_text

_MAX_PIECES = 64 << 20  # bytes of a file of pieces
Kind: TypeAlias = Literal["describe", "cut", "experts", "write"]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkSettings:
    """What all processes of a run share."""

    out: str = ""  # folder of the run; `caption_sources` sets it
    experts: tuple[str | Expert, ...] = DEFAULT
    model: str = "auricle-tiny"
    device: str = "auto"
    clip_s: float = CLIP_S

    def __post_init__(self) -> None:
        """Refuse clips that no expert could judge."""
        check_number("clip_s", self.clip_s, least=1.0, most=600.0, expected="1 to 600 s")


class Task(NamedTuple):
    """One piece of work."""

    kind: Kind
    items: tuple[Any, ...] = ()  # sources; or (piece, domain code); or sheets
    phase: Phase = "tag"  # of experts
    experts: tuple[str, ...] = ()  # only these; empty: all of the phase


class Tally(NamedTuple):
    """What one expert did in one task."""

    expert: str
    clips: int
    audio_s: float
    seconds: float
    failed: int


class Worker:
    """Does tasks in this process."""

    def __init__(self, settings: WorkSettings) -> None:
        """Load nothing yet: cutting needs no expert."""
        self.settings = settings
        self.store = FactStore(Path(settings.out) / "facts")
        self._experts: list[Expert] | None = None

    @property
    def experts(self) -> list[Expert]:
        """The experts of the run, loaded on first use."""
        if self._experts is None:
            given = self.settings.experts
            names = [each for each in given if isinstance(each, str)]
            made = [each for each in given if isinstance(each, Expert)]
            settings = ExpertSettings(model=self.settings.model, device=self.settings.device)
            self._experts = make_experts(names, settings, made)
        return self._experts

    def do(self, task: Task) -> Any:
        """The result of a task: experts without their code, None, tallies, or what was written."""
        work: dict[Kind, Callable[[Task], Any]] = {
            "describe": lambda _: [replace(expert, run=_elsewhere) for expert in self.experts],
            "cut": lambda task: self._cut(task.items),
            "experts": self._run,
            "write": lambda task: [write(sheet) for sheet in task.items],
        }
        return work[task.kind](task)

    def _cut(self, sources: Sequence[Source]) -> list[Piece]:
        path = Path(self.settings.out) / "pieces" / f"{_state(sources, self.settings.clip_s)}.jsonl"
        if path.exists():
            return [Piece.from_json(line) for line in read_regular_text(path, _MAX_PIECES).splitlines()]
        pieces = [piece for source in sources for piece in cut(source, self.settings.clip_s)]
        make_folder(path.parent)
        write_text(path, "".join(f"{piece.to_json()}\n" for piece in pieces))
        return pieces

    def _run(self, task: Task) -> list[Tally]:
        """Run each expert of a phase over the clips of its domains that it has not seen."""
        pieces = {piece.clip_hash: piece for piece, _ in task.items}
        clips: dict[str, ExpertInput | AuricleError] = {}
        tallies = []
        for expert in self.experts:
            if expert.phase != task.phase or (task.experts and expert.name not in task.experts):
                continue
            known = self.store.rows(expert)
            wanted = [piece.clip_hash for piece, code in task.items if route([expert], code)]
            new = [each for each in wanted if each not in known]
            for each in new:
                if each not in clips:
                    clips[each] = _clip(pieces[each])
            if new:
                tallies.append(self._add(expert, {each: clips[each] for each in new}))
        return tallies

    def _add(self, expert: Expert, clips: dict[str, ExpertInput | AuricleError]) -> Tally:
        readable = [clip for clip in clips.values() if isinstance(clip, ExpertInput)]
        started = perf_counter()
        found = dict(zip((clip.clip_hash for clip in readable), run_expert(expert, readable), strict=True))
        seconds, audio_s = perf_counter() - started, sum(clip.seconds for clip in readable)
        rows = []
        for name, clip in clips.items():
            result = found[name] if isinstance(clip, ExpertInput) else clip
            share = seconds * clip.seconds / audio_s if isinstance(clip, ExpertInput) and audio_s else 0.0
            if isinstance(result, AuricleError):
                rows.append(error_row(name, result, share))
            else:
                rows.append(Row(clip=name, facts=tuple(result), seconds=share))
        self.store.add(expert, rows)
        return Tally(expert.identity, len(rows), audio_s, seconds, sum(bool(row.error) for row in rows))


def smaller(task: Task, experts: Sequence[Expert]) -> list[Task]:
    """The parts of a task that ended its process: by clip, then by expert; none: it is the fault itself."""
    if len(task.items) > 1:
        return [task._replace(items=(item,)) for item in task.items]
    if task.kind == "experts" and len(task.experts) != 1:
        _, code = task.items[0]
        names = [each.name for each in route(experts, code) if each.phase == task.phase]
        return [task._replace(experts=(name,)) for name in names] if len(names) > 1 else []
    return []


def blocks(items: Sequence[Any], size: int) -> list[tuple[Any, ...]]:
    """Items in blocks, the same for any number of processes."""
    return [tuple(items[start : start + size]) for start in range(0, len(items), size)]


def _clip(piece: Piece) -> ExpertInput | AuricleError:
    try:
        return ExpertInput(key=piece.key, clip_hash=piece.clip_hash, waveform=read_piece(piece))
    except AuricleError as error:
        return error


def _state(sources: Sequence[Source], clip_s: float) -> str:
    """Hash of all that decides the pieces: names, facts, sizes and times of the files."""
    digest = sha256(json.dumps([clip_s, SAMPLE_RATE]).encode())
    for source in sources:
        try:
            status = os.stat(source.audio)
            times: list[Any] = [status.st_size, status.st_mtime_ns]
        except OSError:
            times = []
        listed = [source.id, source.audio, source.place, dict(source.meta), times]
        digest.update(json.dumps(listed, sort_keys=True, default=str).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()[:24]


def _elsewhere(clips: Sequence[ExpertInput]) -> Any:
    raise AuricleError("this expert is loaded in another process")
