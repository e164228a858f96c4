"""Tables and the summary of a run."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from auricle import __version__
from auricle.curate.factory.clips import Piece
from auricle.curate.factory.grammar import NAME
from auricle.curate.factory.pack import licence_of
from auricle.curate.factory.store import FactStore
from auricle.curate.factory.tasks import Tally
from auricle.errors import DataError
from auricle.files import atomic_write, read_regular_text

if TYPE_CHECKING:
    from auricle.curate.factory.run import Run

FORMAT = "auricle-captions-1"
_PARTS: Mapping[str, type | tuple[type, ...]] = {  # of a summary, those that pages and plans read
    **dict.fromkeys(("version", "writer", "manifest"), str),
    **dict.fromkeys(("domains", "failed", "dropped", "stages"), dict),
    **dict.fromkeys(("experts", "costs"), list),
    **dict.fromkeys(("packed", "workers"), int),
    "audio_s": (int, float),
}


class Dead(NamedTuple):
    """Something that failed."""

    key: str
    stage: str
    expert: str
    reason: str


def read_summary(out: str | Path) -> dict[str, Any]:
    """The summary of a finished run.

    Raises:
        DataError: there is none.
    """
    try:
        found = json.loads(read_regular_text(Path(out) / "summary.json", 64 << 20))
        if found["format"] == FORMAT and all(isinstance(found[name], kind) for name, kind in _PARTS.items()):
            return dict(found)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise DataError(f"{out} has no finished run of the caption factory; run 'auricle curate run' with -o {out} first")


def write_tables(run: "Run", values: Mapping[str, Any]) -> None:
    """Write what became of each clip, and what failed."""
    codes, final = values["codes"], values["final"]
    reasons = {each.key: each for each in run.dropped}
    failures = {each.key: each.reason for each in reversed(run.dead)}
    dead = {each.key for each in run.dead if each.stage in ("segment", "pack")}
    with atomic_write(run.out / "clips.jsonl", "w") as file:
        for piece in values["pieces"]:
            name, drop = piece.clip_hash, reasons.get(piece.key)
            is_packed = drop is None and name in final and piece.key not in dead
            state = "packed" if is_packed else "dropped" if drop else "failed"
            record = {
                "key": piece.key,
                "id": piece.source.id,
                "clip_hash": name or None,
                "seconds": round(piece.seconds, 3),
                "domain": codes.get(name),
                "state": state,
                "reason": None if is_packed else drop.reason if drop else failures.get(piece.key),
                "license": licence_of(piece),
            }
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
    with atomic_write(run.out / "dead_letters.jsonl", "w") as file:
        for letter in run.dead:
            file.write(json.dumps(letter._asdict(), ensure_ascii=False) + "\n")


def summarise(run: "Run", values: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """What a run found, as summary.json has it."""
    pieces, sheets = values["pieces"], values["sheets"]
    hashes = {piece.clip_hash: piece for piece in values["clips"]}
    unpacked = {each.key for each in run.dead if each.stage == "pack"}
    final = {name: written for name, written in values["final"].items() if hashes[name].key not in unpacked}
    return {
        "format": FORMAT,
        "version": __version__,
        "clips": len(pieces),
        "audio_s": round(sum(piece.seconds for piece in pieces), 3),
        "packed": len(final),
        "packed_s": round(sum(hashes[name].seconds for name in final), 3),
        "dropped": dict(Counter(each.kind for each in run.dropped)),
        "failed": dict(Counter(each.stage for each in run.dead)),
        "domains": dict(sorted(Counter(sheets[name].code for name in final).items())),
        "writer": run.rewriter.writer if run.rewriter else NAME,
        "aligner": run.settings.aligner,
        "endpoint": run.rewriter.usage() if run.rewriter else None,
        "experts": [expert.identity for expert in run.pool.experts],
        "clauses_dropped": sum(len(written.dropped) for written in final.values()),
        "manifest": values["manifest"],
        "workers": run.settings.workers,
        "seconds": round(seconds, 3),
        "stages": {name: round(each, 3) for name, each in run.seconds.items()},
        "throughput": _throughput(run),
        "costs": _costs(run, values["clips"]),
    }


def _costs(run: "Run", clips: Sequence[Piece]) -> list[dict[str, Any]]:
    """What each expert has cost for the clips of the run, in this run or an earlier one."""
    store, found = FactStore(run.out / "facts"), []
    for expert in run.pool.experts:
        rows = store.rows(expert)
        seen = [piece for piece in clips if piece.clip_hash in rows]
        found.append(
            {
                "stage": expert.phase,
                "expert": expert.identity,
                "device": expert.device,
                "clips": len(seen),
                "audio_s": round(sum(piece.seconds for piece in seen), 3),
                "seconds": round(sum(rows[piece.clip_hash].seconds for piece in seen), 4),
            }
        )
    return found


def _throughput(run: "Run") -> list[dict[str, Any]]:
    """What each expert did in this run; those that had nothing to do are left out."""
    total: dict[tuple[str, str], list[Tally]] = defaultdict(list)
    for phase, tallies in run.tallies.items():
        for tally in tallies:
            total[phase, tally.expert].append(tally)
    return [
        {
            "stage": phase,
            "expert": expert,
            "clips": sum(each.clips for each in them),
            "audio_s": round(sum(each.audio_s for each in them), 3),
            "seconds": round(sum(each.seconds for each in them), 3),
            "failed": sum(each.failed for each in them),
        }
        for (phase, expert), them in total.items()
    ]
