"""The caption factory: audio → clips → facts of experts → captions and questions → shards; resumed after any kill.

What a run leaves in its folder::

    shards/             captioned clips as tars, see `auricle.curate.factory.pack`
    mecat/              captions and questions as MECAT's reference files
    clips.jsonl         a line a clip: domain, what became of it and why
    dead_letters.jsonl  what failed: clip, stage, expert, reason
    summary.json        written last: counts, settings, throughput of each stage
    facts/              what experts said, by expert, version and clip; kept, so that no expert runs twice
    pieces/, filtered/, written.jsonl   the clips of each source; the filter's folder; what a language model wrote

All but times follows from the input, the experts and the settings alone, for any number of processes.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from auricle.curate.decision import FilterConfig
from auricle.curate.factory.checks import check
from auricle.curate.factory.clips import Piece, Source, unique_keys
from auricle.curate.factory.experts import LETTERS, PHASES, Expert, Fact, Phase, domain_code, route
from auricle.curate.factory.pack import Captioned, pack, write_mecat
from auricle.curate.factory.processes import Pool, pool
from auricle.curate.factory.results import FORMAT, Dead, summarise, write_tables
from auricle.curate.factory.rewriting import Rewriter
from auricle.curate.factory.selection import Dropped, keep_licensed, keep_matching
from auricle.curate.factory.sheet import Sheet, Written, sheet_of
from auricle.curate.factory.store import FactStore, error_row
from auricle.curate.factory.tasks import Tally, Task, WorkSettings, blocks
from auricle.curate.stages import Stage, run_stages
from auricle.data.shards import safe_key
from auricle.errors import AuricleError, DataError, check_number
from auricle.files import locked, make_folder, read_regular_text, remove_all_leftovers, write_json

_BLOCK_SOURCES = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class FactorySettings:
    """What decides a run beside its input and its experts."""

    workers: int = 0  # processes; 0: this one
    block: int = 32  # clips in a task: what a kill costs at most, and what models see as batches
    licences: tuple[str, ...] = ()  # only clips of these; empty: all
    aligner: str = ""  # audio–text model of the filter; empty: no filter
    p: float = 0.01  # of the filter, see `auricle.curate.decision.FilterConfig`
    shard_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        check_number("workers", self.workers, least=0, most=1024, whole=True)
        check_number("block", self.block, least=1, most=4096, whole=True)
        check_number("shard_bytes", self.shard_bytes, least=1 << 16, whole=True)
        check_number("p", self.p, least=1e-4, most=FilterConfig().drop_p)


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What came of a run."""

    summary: dict[str, Any]  # as in summary.json
    dead: list[Dead]


@dataclass
class Run:
    """One run: what its stages share."""

    out: Path
    work: WorkSettings
    settings: FactorySettings
    rewriter: Rewriter | None
    on_stage: Callable[[str, int], Callable[[int], None]]
    pool: Pool
    dead: list[Dead] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    tallies: dict[str, list[Tally]] = field(default_factory=lambda: defaultdict(list))
    seconds: dict[str, float] = field(default_factory=dict)

    def stages(self) -> list[Stage]:
        """All stages with what each needs and gives."""
        speech, music, acoustics = (
            Stage(
                phase, ("clips", "codes"), phase, lambda clips, codes, phase=phase: self.run_phase(clips, codes, phase)
            )
            for phase in PHASES[1:]
        )
        steps = [
            Stage("segment", ("sources",), "pieces", self.segment),
            Stage("select", ("pieces",), "clips", self.select),
            Stage("tag", ("clips",), "tag", lambda clips: self.run_phase(clips, {}, "tag")),
            Stage("route", ("clips", "tag"), "codes", self.route),
            *(speech, music, acoustics),
            Stage("gather", ("clips", "codes", "tag", "speech", "music", "acoustics"), "sheets", self.gather),
            Stage("caption", ("sheets",), "drafts", self.caption),
            Stage("check", ("sheets", "drafts"), "checked", self.check),
            Stage("filter", ("clips", "sheets", "checked"), "chosen", self.filter),
            Stage("rewrite", ("clips", "sheets", "chosen", "checked"), "final", self.rewrite_chosen),
            Stage("pack", ("clips", "sheets", "final"), "manifest", self.pack),
        ]
        return [replace(step, run=self._timed(step)) for step in steps]

    def _timed(self, step: Stage) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            started = perf_counter()
            result = step.run(*given)
            self.seconds[step.name] = perf_counter() - started
            return result

        return run

    # --- the stages

    def segment(self, sources: Sequence[Source]) -> list[Piece]:
        """The clips of all sources, in order, those that cannot be read among them."""
        tasks = [Task("cut", block) for block in blocks(sources, _BLOCK_SOURCES)]
        found: dict[str, list[Piece]] = defaultdict(list)
        advance = self.on_stage("segment", len(sources))
        for done in self.pool.do(tasks):
            dead = [Piece(key=safe_key(each.id), source=each, error=done.death) for each in done.task.items]
            for piece in dead if done.death else done.result:
                found[piece.source.id].append(piece)
            advance(len(done.task.items))
        return unique_keys([piece for source in sources for piece in found[source.id]])

    def select(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Clips that can be read, one of each audio, of the licences wanted."""
        self.dead += [Dead(piece.key, "segment", "", piece.error) for piece in pieces if piece.error]
        kept, dropped = keep_licensed([piece for piece in pieces if not piece.error], self.settings.licences)
        self.dropped += dropped
        return kept

    def run_phase(self, clips: Sequence[Piece], codes: Mapping[str, str], phase: Phase) -> int:
        """Have the experts of a phase see the clips of their domains; returns how many of them there are."""
        experts = [expert for expert in self.pool.experts if expert.phase == phase]
        every = "".join(LETTERS.values())
        known = [(piece, every if phase == "tag" else codes.get(piece.clip_hash, "")) for piece in clips]
        items = [(piece, code) for piece, code in known if code and route(experts, code)]
        advance = self.on_stage(phase, len(items))
        for done in self.pool.do([Task("experts", block, phase) for block in blocks(items, self.settings.block)]):
            if done.death:
                self._bury(done.task, experts, done.death)
            else:
                self.tallies[phase] += done.result
            advance(len(done.task.items))
        return len(items)

    def _bury(self, task: Task, experts: Sequence[Expert], death: str) -> None:
        """Note of one clip that an expert ended its process, so that no run tries it again."""
        store = FactStore(self.out / "facts")
        for piece, code in task.items:
            for expert in route(experts, code):
                if not task.experts or expert.name in task.experts:
                    if piece.clip_hash not in store.rows(expert):
                        store.add(expert, [error_row(piece.clip_hash, AuricleError(death), 0.0)])

    def route(self, clips: Sequence[Piece], _: int) -> dict[str, str]:
        """The domain code of each clip, by hash; clips without tags are dead."""
        store = FactStore(self.out / "facts")
        taggers = [expert for expert in self.pool.experts if expert.phase == "tag"]
        codes: dict[str, str] = {}
        for piece in clips:
            rows = [store.rows(expert)[piece.clip_hash] for expert in taggers]
            facts: list[Fact] = [fact for row in rows for fact in row.facts]
            if facts:
                codes[piece.clip_hash] = domain_code(facts)
        return codes

    def gather(self, clips: Sequence[Piece], codes: Mapping[str, str], *_: int) -> dict[str, Sheet]:
        """All facts of each clip, by hash; failures of experts join the dead letters."""
        store, sheets = FactStore(self.out / "facts"), {}
        for piece in clips:
            name = piece.clip_hash
            stated: list[tuple[str, Sequence[Fact]]] = []
            experts = route(self.pool.experts, codes[name]) if name in codes else self.pool.experts
            for expert in experts:
                row = store.rows(expert).get(name)
                if row is None:
                    continue
                if row.error:
                    self.dead.append(Dead(piece.key, expert.phase, expert.identity, row.error))
                stated.append((expert.identity, row.facts))
            if name in codes:
                sheets[name] = sheet_of(name, piece.seconds, codes[name], stated)
        return sheets

    def caption(self, sheets: Mapping[str, Sheet]) -> dict[str, Written]:
        """What the grammar writes, by hash."""
        tasks = [Task("write", block) for block in blocks(list(sheets.values()), self.settings.block)]
        advance, drafts = self.on_stage("caption", len(sheets)), dict[str, Written]()
        for done in self.pool.do(tasks):
            if done.death:
                raise AuricleError(f"writing captions: {done.death}")
            drafts.update(zip((sheet.clip_hash for sheet in done.task.items), done.result, strict=True))
            advance(len(done.task.items))
        return drafts

    def check(self, sheets: Mapping[str, Sheet], drafts: Mapping[str, Written]) -> dict[str, Written]:
        """The drafts without what the facts do not support."""
        return {name: check(drafts[name], sheet, drafts[name]) for name, sheet in sheets.items()}

    def filter(
        self, clips: Sequence[Piece], sheets: Mapping[str, Sheet], checked: Mapping[str, Written]
    ) -> frozenset[str]:
        """The hashes of the clips whose captions fit them; all without a filter."""
        if not self.settings.aligner or not checked:
            return frozenset(checked)
        draft = self._captioned(clips, sheets, checked)
        advance = self.on_stage("filter", len(draft))
        kept, dropped = keep_matching(draft, self.out, self.settings.aligner, self.settings.p, self.work.device)
        self.dropped += dropped
        advance(len(draft))
        return frozenset(piece.clip_hash for piece in kept)

    def rewrite_chosen(
        self,
        clips: Sequence[Piece],
        sheets: Mapping[str, Sheet],
        chosen: frozenset[str],
        checked: Mapping[str, Written],
    ) -> dict[str, Written]:
        """What a language model writes of the clips that are left, checked; the grammar's without one."""
        final = {name: written for name, written in checked.items() if name in chosen}
        if self.rewriter is None:
            return final
        keys = {piece.clip_hash: piece.key for piece in clips}
        advance = self.on_stage("rewrite", len(final))
        made = self.rewriter.write([sheets[name] for name in final], self.out / "written.jsonl", advance)
        for name in list(final):
            written = made[name]
            if isinstance(written, AuricleError):
                self.dead.append(Dead(keys[name], "rewrite", self.rewriter.writer, str(written)))
                del final[name]
            else:
                final[name] = check(written, sheets[name], checked[name])
        return final

    def pack(self, clips: Sequence[Piece], sheets: Mapping[str, Sheet], final: Mapping[str, Written]) -> str:
        """Write shards and MECAT's files; returns the hash of the shards' content."""
        captioned = self._captioned(clips, sheets, final)
        advance = self.on_stage("pack", len(captioned))
        failed, manifest = pack(
            captioned, self.out / "shards", max_bytes=self.settings.shard_bytes, on_clip=lambda: advance(1)
        )
        self.dead += [Dead(key, "pack", "", reason) for key, reason in failed.items()]
        captioned = [clip for clip in captioned if clip.piece.key not in failed]
        write_mecat(captioned, self.out / "mecat")
        return manifest

    def _captioned(
        self, clips: Sequence[Piece], sheets: Mapping[str, Sheet], written: Mapping[str, Written]
    ) -> list[Captioned]:
        return [
            Captioned(piece=piece, sheet=sheets[piece.clip_hash], written=written[piece.clip_hash])
            for piece in clips
            if piece.clip_hash in written
        ]


def caption_sources(
    sources: Iterable[Source],
    out: str | Path,
    work: WorkSettings,
    settings: FactorySettings | None = None,
    *,
    rewriter: Rewriter | None = None,
    on_stage: Callable[[str, int], Callable[[int], None]] = lambda name, total: lambda amount: None,
) -> Made:
    """Caption clips of any audio, with evidence; a run that was stopped continues.

    Args:
        sources: files or clips of shards, see `auricle.curate.factory.clips`.
        out: new folder, or that of an earlier run: facts there are used, its captions and shards replaced.
        work: experts, model and length of clips; its ``out`` is set to `out`.
        settings: processes, filter, shards.
        rewriter: a language model that writes the captions of clips that passed the filter; None: the grammar's stay.
        on_stage: called with the name of each stage and its items; what it returns is called with those done.

    Raises:
        ConfigError: experts or settings that do not fit.
        DataError: no sources, or a folder with other content.
        OutputError: the folder cannot be written, or another run is writing there.
        MissingExtra: an expert or the filter needs a package that is not installed.
    """
    listed, out, settings = list(sources), Path(out), settings or FactorySettings()
    if not listed:
        raise DataError("no audio to caption; name files, a manifest or shards")
    doubled = [name for name, count in Counter(source.id for source in listed).items() if count > 1]
    if doubled:
        raise DataError(f"{len(doubled)} names are given twice, the first {doubled[0]!r}; each source needs its own")
    _claim(out)
    work = replace(work, out=str(out))
    with locked(out), pool(work, settings.workers) as processes:
        (out / "summary.json").unlink(missing_ok=True)
        run = Run(out, work, settings, rewriter, on_stage, processes)
        started = perf_counter()
        values = run_stages(run.stages(), {"sources": listed})
        summary = summarise(run, values, perf_counter() - started)
        write_tables(run, values)
        write_json(out / "summary.json", summary)
    return Made(summary=summary, dead=run.dead)


def _claim(out: Path) -> None:
    remove_all_leftovers(out)
    mark = out / "captions.json"
    if mark.exists():
        try:
            is_ours = json.loads(read_regular_text(mark, 1 << 20))["format"] == FORMAT
        except (ValueError, KeyError, TypeError):
            is_ours = False
        if not is_ours:
            raise DataError(f"{out} is of another version of the factory, or damaged; choose a new folder")
        return
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty and no folder of the caption factory; choose a new one")
    make_folder(out)
    write_json(mark, {"format": FORMAT})
