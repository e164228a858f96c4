"""Benchmark results as one HTML page that needs no other file, and its two figures as PNG."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from auricle.bench.leaderboard import DOMAINS, ScoreTable, leaderboard, score_tables
from auricle.bench.results import Result, by_encoder
from auricle.errors import DataError
from auricle.pages.plots import (
    GRID_COLOUR,
    MUTED_COLOUR,
    Drawing,
    Line,
    draw_lines,
    drawable,
    look_of,
    new_figure,
    svg,
    write_page,
)
from auricle.pages.render import render
from auricle.pages.table import Column, Entry, Number, Record, Table, Text, count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANDOM_COLOUR = "#8A8A8A"
RULES = {
    "strict": "Settings are chosen on validation data only, padding never reaches an embedding, kNN is true cosine.",
    "compat": "As the released X-ARES runs, with its known flaws: to be compared with published scores, not trusted.",
}


class _Rule(NamedTuple):
    name: str
    meaning: str
    tables: list[tuple[str, Table]]  # by head


def write_report(results: Sequence[Result], folder: str | Path, *, published: bool = True) -> list[Path]:
    """Write ``report.html``, ``scores.png`` and ``cost.png`` and return their paths.

    The figures show the scoring rule and head with the most scores, over the tasks that all its encoders have.

    Args:
        results: of any encoders, tasks and scoring rules.
        folder: created if absent; older files of these names are replaced.
        published: whether published X-ARES scores are shown beside own results of that suite.

    Raises:
        DataError: no results.
        MissingExtra: matplotlib is not installed.
    """
    if not results:
        raise DataError("found no results, expected one or more to report; run the benchmark first")
    views = score_tables(results)
    main = max(views, key=lambda v: (sum(map(len, v.encoders.values())), v.scoring_rule == "strict", v.head == "mlp"))
    figures = {"scores": _scores_figure(main), "cost": _cost_figure(main)}
    return write_page(folder, _page(results, views, main, figures, published), figures)


# --- figures


def _look(view: ScoreTable, encoder: str, number: int) -> dict[str, Any]:
    look = look_of(encoder, number)
    if view.is_random(encoder):
        look |= {"color": RANDOM_COLOUR, "label": f"{look['label']} (random weights)", "linestyle": ":"}
    return look


def _axes(view: ScoreTable) -> tuple[str, dict[str, list[str]]]:
    """What the figure compares, in words, and the tasks behind each axis: domains, or tasks where those are few."""
    shared = view.shared
    facts = {name: results[0].task for name, results in view.tasks.items() if name in shared}
    domains = {d: [name for name, task in facts.items() if task.domain == d] for d in DOMAINS}
    domains = {domain: names for domain, names in domains.items() if names}
    if len(domains) >= 3:
        return f"weighted average of a domain, {len(facts)} tasks in all", domains
    # Titles may repeat from suite to suite, names do not.
    titles = [task.title for task in facts.values()]
    return "one task, as there are fewer than three domains", {
        task.title if titles.count(task.title) == 1 else name: [name] for name, task in facts.items()
    }


def _scores_figure(view: ScoreTable) -> "Figure":
    words, axes = _axes(view)
    figure = new_figure(7.0, 6.4 + 0.14 * len(view.encoders), "The benchmark report", "bench")
    figure.suptitle(f"{drawable(view.head)}, {view.scoring_rule}. Each axis: {words}\n", fontsize=11)
    lines = [
        Line([view.average(encoder, names) for names in axes.values()], _look(view, encoder, number))
        for number, encoder in enumerate(view.encoders)
    ]
    return draw_lines(figure, list(axes), lines, nothing="no task that all encoders have")


def _cost_figure(view: ScoreTable) -> "Figure":
    figure = new_figure(9.0, 4.4 + 0.14 * len(view.encoders), "The benchmark report", "bench")
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    names = view.shared
    figure.suptitle(
        f"{drawable(view.head)}, {view.scoring_rule}: cost and quality over {len(names)} tasks", fontsize=11
    )
    costs: dict[str, Mapping[str, float | None]] = {
        "parameters": {e: next(iter(own.values())).encoder.parameters for e, own in view.encoders.items()},
        "seconds to encode an hour of audio": {e: _encode_s_per_hour(own.values()) for e, own in view.encoders.items()},
    }
    plots = figure.subplots(1, 2, sharey=True)
    for plot, (title, by_name) in zip(plots, costs.items(), strict=True):
        plot.set(xlabel=title, xscale="log")
        plot.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        plot.xaxis.set_major_formatter(EngFormatter(sep=""))
        plot.xaxis.set_minor_locator(NullLocator())
        plot.grid(color=GRID_COLOUR)
        plot.spines[["top", "right"]].set_visible(False)
        plot.margins(0.12)
        known = {encoder: cost for encoder, cost in by_name.items() if cost and names}
        for number, encoder in enumerate(by_name):
            look = _look(view, encoder, number) | {"linestyle": "none"}
            # One without a cost is in the legend all the same, which both plots share.
            x, y = ([known[encoder]], [view.average(encoder, names)]) if encoder in known else ([], [])
            plot.plot(x, y, markersize=9, **look)
        if not known:
            plot.text(0.5, 0.5, "not known", ha="center", va="center", transform=plot.transAxes, color=MUTED_COLOUR)
            plot.set(xlim=(1, 10), xticks=[])
    plots[0].set_ylabel("weighted average")
    figure.legend(*plots[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _encode_s_per_hour(results: Iterable[Result]) -> float | None:
    """Of what was encoded, not taken from the store; None where nothing was."""
    costs = [result.cost for result in results if result.cost.encoded]
    audio_s = sum(cost.audio_s for cost in costs)
    seconds = 3600 * sum(cost.encode_s for cost in costs) / audio_s if audio_s else 0.0
    return seconds if 0 < seconds < math.inf else None


# --- the page


def _page(
    results: Sequence[Result],
    views: Sequence[ScoreTable],
    main: ScoreTable,
    figures: "Mapping[str, Figure]",
    published: bool,
) -> str:
    captions = {
        "scores": f"Each axis: {_axes(main)[0]}; only tasks that every encoder has, on the same data.",
        "cost": "Encoding time counts clips encoded in the run, not those from the store; it depends on the machine "
        f"(threads used: {', '.join(sorted({str(r.cost.threads) for r in results}))}).",
    }
    rules = [
        _Rule(rule, meaning, [(view.head, _scores(view)) for view in views if view.scoring_rule == rule])
        for rule, meaning in RULES.items()
    ]
    return render(
        "bench.html",
        title="Benchmark of audio encoders",
        encoders=count(len(by_encoder(results)), "encoder"),
        tasks=count(len({result.task.name for result in results}), "task"),
        rules=[rule for rule in rules if rule.tables],
        figures=[Drawing(svg(figure, name), captions[name]) for name, figure in figures.items()],
        leaks=_leaks(results),
        contamination=_contamination(results),
        leaderboard=_leaderboard(results if published else ()),
        records=[_record(encoder, result) for encoder, own in by_encoder(results).items() for result in own],
    )


def _scores(view: ScoreTable) -> Table:
    """Tasks down, encoders across; the last row is over the tasks that all of them have."""
    rows = []
    for name, results in view.tasks.items():
        task = results[0].task
        best = (max if task.higher_is_better else min)(view.value(result) for result in results)
        metric = task.metric if task.higher_is_better else f"{task.metric} (lower is better)"
        is_same = len({result.data.manifest for result in results}) == 1
        tags = [f"⚠ {encoder} was trained on some of the clips" for encoder in _trained(view, name)]
        tags += [] if is_same else ["⚠ not on the same data"]
        title = Text(text=task.title, note=f"{task.domain} · {metric}", tags=tags)
        rows.append([title, *(_score(view, own.get(name), best) for own in view.encoders.values())])
    shared = view.shared
    averages = [view.average(encoder, shared) if shared else None for encoder in view.encoders]
    columns = [
        Column(title=encoder, note="random weights" * view.is_random(encoder), decimals=3) for encoder in view.encoders
    ]
    return Table(
        label=f"Scores, {view.head}, {view.scoring_rule}",
        columns=[Column(title="Task"), *columns],
        rows=rows,
        foot=[f"Weighted average over the tasks all encoders have: {len(shared)}", *averages],
    )


def _score(view: ScoreTable, result: Result | None, best: float) -> Number | None:
    if result is None:
        return None
    score = result.scores[view.head]
    return Number(value=score.value, low=score.low, high=score.high, n=score.n, is_best=score.value == best)


def _leaks(results: Sequence[Result]) -> Table:
    rows = []
    for encoder, own in by_encoder(results).items():
        for result in own:
            exact, near = result.leaks.exact, result.leaks.near
            if exact or near:
                (item, split), (other, its_split) = (exact or near)[0][:2], (exact or near)[0][2:4]
                first = f"{item} ({split}) and {other} ({its_split})"
                names = (Text(text=result.task.title, note=result.scoring_rule), encoder)
                closest = max((pair[4] for pair in near), default=None)
                rows.append([*names, len(exact), len(near), closest, first])
    columns = [
        *(Column(title="Task"), Column(title="Encoder"), Column(title="Same bytes", decimals=0)),
        *(Column(title="Same recording", decimals=0), Column(title="Most alike", decimals=4)),
        Column(title="First pair"),
    ]
    return Table(label="Leaks", columns=columns, rows=rows)


def _trained(view: ScoreTable, task: str) -> list[str]:
    """Encoders that were trained on clips of a task."""
    return [name for name, own in view.encoders.items() if task in own and own[task].contamination.clips]


def _contamination(results: Sequence[Result]) -> Table:
    rows: list[list[Entry]] = []
    for encoder, own in by_encoder(results).items():
        for result in (each for each in own if each.contamination.clips):
            found = result.contamination
            splits = ", ".join(f"{split}: {number}" for split, number in found.splits.items())
            names = (Text(text=result.task.title, note=result.scoring_rule), encoder)
            rows.append([*names, found.clips, found.share, splits, ", ".join(found.sets)])
    columns = [
        *(Column(title="Task"), Column(title="Encoder"), Column(title="Clips", decimals=0)),
        *(Column(title="Share", decimals=1, is_percent=True), Column(title="Splits"), Column(title="Trained on")),
    ]
    return Table(label="Clips in the training data", columns=columns, rows=rows)


def _leaderboard(results: Sequence[Result]) -> Table:
    """Own results of X-ARES among the published ones; no rows where there are none."""
    found = leaderboard(results) if results else []
    rows = []
    for each in found if any(each.origin == "measured" for each in found) else ():
        remarks = ", ".join(remark for remark in each.remarks if not remark.startswith("partial")) or "measured"
        is_quoted = each.origin == "published"
        texts = [Text(text=text, is_quoted=is_quoted) for text in (each.head, each.scoring_rule, remarks, each.source)]
        system = Text(text=each.system, is_quoted=is_quoted, tags=["random weights"] * each.is_random)
        rows.append([system, *texts[:2], each.headline.value, f"{each.headline.counted} of {each.headline.total}"])
        rows[-1] += texts[2:]
    columns = [
        *(Column(title=title) for title in ("System", "Head", "Rule")),
        Column(title="Weighted average", decimals=3),
        *(Column(title=title) for title in ("Tasks counted", "Remarks", "Source")),
    ]
    return Table(label="Leaderboard", columns=columns, rows=rows)


def _record(encoder: str, result: Result) -> Record:
    data, cost = result.data, result.cost
    splits = ", ".join(f"{name}: {count}" for name, count in data.splits.items())
    settings = {head: score.settings for head, score in result.scores.items()}
    return Record(
        title=f"{encoder} · {result.task.title} · {result.scoring_rule}",
        facts={
            "Task": result.task.name,
            "Data": f"{count(data.clips, 'clip')}, {count(data.pieces, 'piece')}, {data.seconds:.0f} s",
            "Splits": splits,
            "Cost": f"{cost.encoded} encoded in {cost.encode_s:.1f} s, {cost.reused} from the store",
            "Seed": str(result.seed),
            "Auricle": result.version,
        },
        codes={
            "Settings": json.dumps(settings, ensure_ascii=False),
            "Encoder": result.encoder.fingerprint,
            "Manifest (SHA-256)": data.manifest,
        },
    )
