"""Two pages of a run, each one file: a report with examples and their evidence, and a review by keyboard."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from auricle.curate.factory.results import read_summary
from auricle.curate.factory.review import FORMAT, Verdicts, accepted_share, agreement
from auricle.curate.factory.sheet import FIELDS
from auricle.data.shards import ShardSet
from auricle.errors import ConfigError, DataError
from auricle.files import write_text
from auricle.pages.players import Example, Fact, Player, Players
from auricle.pages.render import bounded, render
from auricle.pages.table import Column, Record, Table

EXCERPT_S = 10.0
MAX_PLAYER_BYTES = 12 << 20  # of a page
_LONGEST = 600  # characters of a text
_MOST_DEAD = 200
_EXAMPLES = 2  # of a domain in the report
# Of the papers: words in all captions, mean words of a caption (arXiv 2603.24038, table 1).
PUBLISHED = {"ACAVCaps, as published": (644_407, 22.18)}


class Statistics(NamedTuple):
    """Words of the long captions."""

    captions: int
    vocabulary: int
    mean_words: float
    mean_short: float  # words of the short ones


def statistics(shards: ShardSet) -> Statistics:
    """Count the words of a set of captioned shards: lower case, without punctuation."""
    words: set[str] = set()
    lengths, short = [], []
    for i in range(len(shards)):
        meta = shards.read_meta(i)
        for text in meta["long"]:
            found = _words(text)
            words.update(found)
            lengths.append(len(found))
        short += [len(_words(text)) for text in meta["short"]]
    return Statistics(len(lengths), len(words), float(np.mean(lengths)), float(np.mean(short)))


def write_report(out: str | Path, path: str | Path | None = None, seed: int = 0) -> Path:
    """Write ``report.html`` of a finished run.

    Args:
        out: folder of the run.
        path: of the page; None: ``report.html`` in the folder.
        seed: of the choice of examples.

    Returns:
        Path of the page.

    Raises:
        DataError: no finished run, or a damaged one.
        ConfigError: `path` does not end in .html.
    """
    out = Path(out)
    summary, path = read_summary(out), _page(path, out / "report.html")
    shards = _shards(out, summary)
    players = Players(seconds=EXCERPT_S, max_bytes=MAX_PLAYER_BYTES)
    examples = [] if shards is None else list(_by_domain(shards, players, seed))
    page = render(
        "captions.html",
        title="Captions of a collection",
        summary=summary,
        stages=_stages(summary),
        domains=_domains(summary),
        words=None if shards is None else _words_table(statistics(shards)),
        dead=_dead(out),
        examples=examples,
        seconds=f"{EXCERPT_S:g}",
        record=_record(summary),
    )
    write_text(path, page)
    return path


def write_review(
    out: str | Path,
    path: str | Path | None = None,
    *,
    clips: int = 100,
    seed: int = 0,
    verdicts: Sequence[Verdicts] = (),
) -> Path:
    """Write ``review.html`` of a finished run: clips to accept or reject by keyboard.

    Args:
        out: folder of the run.
        path: of the page; None: ``review.html`` in the folder.
        clips: most of them on the page, from all domains.
        seed: of their choice.
        verdicts: of earlier reviewers, whose agreement the page shows.

    Returns:
        Path of the page.

    Raises:
        DataError: no finished run, or a damaged one.
        ConfigError: `path` does not end in .html.
    """
    out = Path(out)
    summary, path = read_summary(out), _page(path, out / "review.html")
    shards = _shards(out, summary)
    players = Players(seconds=EXCERPT_S, max_bytes=MAX_PLAYER_BYTES)
    chosen = [] if shards is None else _chosen(shards, clips, seed)
    script = files("auricle.pages").joinpath("templates/review.js").read_text(encoding="utf-8")
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    judged = [each.verdicts for each in verdicts]
    page = render(
        "review.html",
        title="Review of captions",
        manifest=summary["manifest"],
        format=FORMAT,
        script=_as_is(script),
        script_hash=digest,
        clips=[] if shards is None else [(shards.keys()[i], _example(shards, i, players)) for i in chosen],
        agreement=_agreement_table(verdicts) if verdicts else None,
        accepted=accepted_share(judged),
    )
    write_text(path, page)
    return path


def _page(path: str | Path | None, default: Path) -> Path:
    """Where a page goes; a page replaces its like, and no file of the run or of anything else."""
    path = Path(path or default)
    if path.suffix.lower() != ".html":
        raise ConfigError(f"{path}: expected a name that ends in .html")
    return path


def _as_is(script: str) -> Any:
    from markupsafe import Markup

    return Markup(script)


def _agreement_table(verdicts: Sequence[Verdicts]) -> Table:
    found = agreement([each.verdicts for each in verdicts])
    rows: list[list[Any]] = [
        [bounded(each.reviewer, 80), len(each.verdicts), accepted_share([each.verdicts])] for each in verdicts
    ]
    note = "" if found.share is None else f"{found.clips} clips judged by two or more"
    kappa = "–" if found.kappa is None else f"{found.kappa:.2f}"
    columns = [
        Column(title="Reviewer"),
        Column(title="Verdicts", decimals=0),
        Column(title="Accepted, or equal", note="%", decimals=1, is_percent=True),
    ]
    foot = [f"agreement; kappa {kappa}; {note}", None, found.share]
    return Table(label="Agreement", columns=columns, rows=rows, foot=foot)


def _shards(out: Path, summary: Mapping[str, Any]) -> ShardSet | None:
    return ShardSet(out / "shards") if summary["packed"] else None


def _chosen(shards: ShardSet, count: int, seed: int) -> list[int]:
    """Clips of all domains in turn."""
    rng = np.random.default_rng(seed)
    by_domain: dict[str, list[int]] = {}
    for i in rng.permutation(len(shards)).tolist():
        by_domain.setdefault(str(shards.read_meta(i)["domain"]), []).append(i)
    found: list[int] = []
    while len(found) < count and any(by_domain.values()):
        for code in sorted(by_domain):
            if by_domain[code] and len(found) < count:
                found.append(by_domain[code].pop())
    return found


def _by_domain(shards: ShardSet, players: Players, seed: int) -> Iterator[tuple[str, list[Example]]]:
    chosen: dict[str, list[int]] = {}
    for i in _chosen(shards, 8 * _EXAMPLES, seed):
        chosen.setdefault(str(shards.read_meta(i)["domain"]), []).append(i)
    for code, them in sorted(chosen.items()):
        yield code, [_example(shards, i, players) for i in them[:_EXAMPLES]]


def _example(shards: ShardSet, i: int, players: Players) -> Example:
    meta = shards.read_meta(i)
    facts = [
        Fact(field, [bounded(str(text), _LONGEST) for text in meta[field]], _numbers(meta, field)) for field in FIELDS
    ]
    facts += [
        Fact("question", [f"{each['question']} – {each['answer']}"], f"{each['category']}, {each['difficulty']}")
        for each in meta["questions"]
    ]
    facts.append(Fact("evidence", [_evidence(number, each) for number, each in enumerate(meta["facts"])]))
    if meta["dropped"]:
        facts.append(Fact("dropped", [bounded(str(text), _LONGEST) for text in meta["dropped"]]))
    source = meta["source"]
    licence = source.get("license") or "licence not stated"
    note = f"{meta['domain']}, confidence {meta['confidence']:.2f}, {bounded(str(licence), 80)}"
    player: Player = players.player(lambda: shards.read(i).waveform)
    return Example(player=player, name=bounded(str(source["id"]), 120), note=note, facts=facts)


def _numbers(meta: Mapping[str, Any], field: str) -> str:
    """Numbers of the facts that support any phrasing of a field."""
    cited = sorted({number for numbers in meta["evidence"][field] for number in numbers})
    return f"facts {', '.join(map(str, cited))}" if cited else ""


def _evidence(number: int, fact: Mapping[str, Any]) -> str:
    sure = "" if fact["confidence"] is None else f", {fact['confidence']:.2f}"
    span = f"{fact['start_s']:g}–{fact['stop_s']:g} s"
    return bounded(f"{number}: {fact['name']} {fact['value']} ({span}{sure}) by {fact['expert']}", _LONGEST)


def _stages(summary: Mapping[str, Any]) -> Table:
    columns = [
        Column(title="Stage"),
        Column(title="Expert"),
        Column(title="Clips", decimals=0),
        Column(title="Audio", note="s", decimals=0),
        Column(title="Time", note="s", decimals=1),
        Column(title="Speed", note="s of audio a second", decimals=1),
    ]
    rows: list[list[Any]] = [
        [
            each["stage"],
            each["expert"],
            each["clips"],
            each["audio_s"],
            each["seconds"],
            each["audio_s"] / each["seconds"] if each["seconds"] else None,
        ]
        for each in summary["costs"]
    ]
    return Table(label="Experts", columns=columns, rows=rows)


def _domains(summary: Mapping[str, Any]) -> Table:
    columns = [
        Column(title="Domain"),
        Column(title="Clips", decimals=0),
        Column(title="Share", note="%", decimals=1, is_percent=True),
    ]
    packed = summary["packed"] or 1
    rows = [[code, count, count / packed] for code, count in summary["domains"].items()]
    return Table(label="Domains", columns=columns, rows=rows)


def _words_table(found: Statistics) -> Table:
    columns = [
        Column(title="Captions"),
        Column(title="Words", note="different ones", decimals=0),
        Column(title="Words of a caption", note="mean", decimals=2),
    ]
    rows: list[list[Any]] = [
        ["this run, long", found.vocabulary, found.mean_words],
        ["this run, short", None, found.mean_short],
        *([name, *numbers] for name, numbers in PUBLISHED.items()),
    ]
    return Table(label="Words", columns=columns, rows=rows)


def _dead(out: Path) -> Table | None:
    path = out / "dead_letters.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines:
        return None
    try:
        rows = [json.loads(line) for line in lines[:_MOST_DEAD]]
        cells = [[bounded(str(row[name]), _LONGEST) for name in ("key", "stage", "expert", "reason")] for row in rows]
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path}: no dead letters of the caption factory; run 'auricle curate run' again") from None
    columns = [Column(title=title) for title in ("Clip", "Stage", "Expert", "Reason")]
    return Table(label="What failed", columns=columns, rows=cells)


def _record(summary: Mapping[str, Any]) -> Record:
    names = ("writer", "experts", "failed", "dropped", "stages", "workers")
    codes = {name: json.dumps(summary[name], ensure_ascii=False) for name in names}
    return Record(
        title="The run", facts={"Auricle": summary["version"]}, codes={**codes, "manifest": summary["manifest"]}
    )


def _words(text: str) -> list[str]:
    return [word for each in text.lower().split() if (word := each.strip(".,;:!?\"'()“”…"))]
