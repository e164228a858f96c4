"""Benchmark results for the eye: one HTML page that needs nothing else, and its two figures as PNG.

Whatever stands in a result file was written by a stranger. Every text is escaped on its way into the page, the page
forbids scripts and network to the browser, and figures hold text as outlines.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auricle.bench.leaderboard import DOMAINS, ScoreTable, leaderboard, score_tables
from auricle.bench.results import Result, by_encoder
from auricle.errors import DataError
from auricle.pages.page import cell, document, shown, table
from auricle.pages.plots import (
    GRID_COLOUR,
    Line,
    draw_lines,
    drawable,
    look_of,
    new_figure,
    svg,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANDOM_COLOUR = "#8A8A8A"
PROTOCOLS = {
    "strict": "Settings are chosen on validation data only, padding never reaches an embedding, kNN is true cosine.",
    "compat": "As the released X-ARES runs, its known flaws included: to be set beside published scores, not trusted.",
}


def write_report(results: Sequence[Result], folder: str | Path, *, published: bool = True) -> list[Path]:
    """Write ``report.html``, ``radar.png`` and ``cost.png`` and return their paths.

    The figures show the protocol and judge with the most scores, over the tasks that all its encoders have.

    Args:
        results: of any encoders, tasks and protocols.
        folder: made if need be; older files of these names are replaced.
        published: whether published X-ARES scores stand beside own results of that suite.

    Raises:
        DataError: no results.
        MissingExtra: matplotlib is not installed.
    """
    if not results:
        raise DataError("found no results, expected one or more to report; run the benchmark first")
    views = score_tables(results)
    main = max(views, key=lambda v: (sum(map(len, v.encoders.values())), v.scoring_rule == "strict", v.head == "mlp"))
    figures = {"radar": _radar(main), "cost": _cost(main)}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "report.html"
    page.write_text(_page(results, views, main, figures, published), encoding="utf-8")
    paths = [page]
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], format="png", dpi=160, metadata={"Software": None})
    return paths


# --- figures


def _look(view: ScoreTable, encoder: str, number: int) -> dict[str, Any]:
    look = look_of(encoder, number)
    if view.is_random(encoder):
        look |= {"color": RANDOM_COLOUR, "label": f"{look['label']} (random weights)", "linestyle": ":"}
    return look


def _axes(view: ScoreTable) -> tuple[str, dict[str, list[str]]]:
    """What the radar compares, in words, and the tasks behind each axis: domains, or tasks where those are few."""
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


def _radar(view: ScoreTable) -> "Figure":
    words, axes = _axes(view)
    figure = new_figure(7.0, 6.4 + 0.14 * len(view.encoders))
    figure.suptitle(f"{drawable(view.head)}, {view.scoring_rule}. Each axis: {words}\n", fontsize=11)
    lines = [
        Line([view.average(encoder, names) for names in axes.values()], _look(view, encoder, number))
        for number, encoder in enumerate(view.encoders)
    ]
    return draw_lines(figure, list(axes), lines, nothing="no task that all encoders have")


def _cost(view: ScoreTable) -> "Figure":
    figure = new_figure(9.0, 4.4 + 0.14 * len(view.encoders))
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    names = view.shared
    figure.suptitle(
        f"{drawable(view.head)}, {view.scoring_rule}: cost and quality over {len(names)} tasks", fontsize=11
    )
    costs = {
        "parameters": {encoder: _parameters(own) for encoder, own in view.encoders.items()},
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
            # One that cannot be placed still stands in the legend, which both plots share.
            x, y = ([known[encoder]], [view.average(encoder, names)]) if encoder in known else ([], [])
            plot.plot(x, y, markersize=9, markeredgecolor="white", **look)
        if not known:
            plot.text(0.5, 0.5, "not known", ha="center", va="center", transform=plot.transAxes, color="#666666")
            plot.set(xlim=(1, 10), xticks=[])
    plots[0].set_ylabel("weighted average")
    figure.legend(*plots[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _parameters(own: Mapping[str, Result]) -> float | None:
    return next(iter(own.values())).encoder.parameters


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
        "radar": f"Each axis: {_axes(main)[0]}; only tasks that every encoder has, on the same data.",
        "cost": "Encoding time counts sounds encoded in the run, not those from the store; it depends on the machine "
        f"(threads used: {', '.join(sorted({str(r.cost.threads) for r in results}))}).",
    }
    drawn = "".join(
        f"<figure>{svg(figure, name)}<figcaption>{shown(captions[name])}</figcaption></figure>"
        for name, figure in figures.items()
    )
    parts = [
        "<h1>Benchmark of audio encoders</h1>",
        f"<p>{len(by_encoder(results))} encoders, {len({r.task.name for r in results})} tasks. ★ marks the best of a "
        "row; the small figures are 95 % intervals.</p>",
        *(_scores(view) for view in views),
        f"<h2>Figures</h2>{drawn}",
        _leaks(results),
        _standings(results) if published else "",
        _provenance(results),
    ]
    return document("Benchmark of audio encoders", parts)


def _scores(view: ScoreTable) -> str:
    """Tasks down, encoders across; the last row is over what all of them have."""
    heads = [
        shown(encoder) + (' <span class="tag">random weights</span>' if view.is_random(encoder) else "")
        for encoder in view.encoders
    ]
    rows = []
    for name, results in view.tasks.items():
        task = results[0].task
        better = max if task.higher_is_better else min
        best = better(view.value(result) for result in results)
        same = len({result.data.manifest for result in results}) == 1
        note = "" if same else '<br><span class="tag">⚠ not on the same data</span>'
        metric = task.metric if task.higher_is_better else f"{task.metric} (lower is better)"
        cells = [_score(view, encoder, own.get(name), best) for encoder, own in view.encoders.items()]
        rows.append([cell(task.domain), f"<td>{shown(task.title)}{note}</td>", cell(metric), *cells])
    shared = view.shared
    averages = [f"{view.average(encoder, shared):.3f}" if shared else "–" for encoder in view.encoders]
    foot = f'<tr><td colspan="3">Weighted average over the tasks all encoders have: {len(shared)}</td>' + "".join(
        cell(average, "n") for average in averages
    )
    title = f"<h2>{shown(view.head)}, {shown(view.scoring_rule)} protocol</h2><p>{PROTOCOLS[view.scoring_rule]}</p>"
    return title + table(["Domain", "Task", "Metric", *heads], rows, foot + "</tr>")


def _score(view: ScoreTable, encoder: str, result: Result | None, best: float) -> str:
    if result is None:
        return cell("–", "n")
    score = result.scores[view.head]
    styles = ["n", *["best"] * (score.value == best), *["random"] * view.is_random(encoder)]
    interval = "" if score.low is None or score.high is None else f"{score.low:.3g} to {score.high:.3g}, "
    return f'<td class="{" ".join(styles)}">{score.value:.4g}<small>{interval}n = {score.n}</small></td>'


def _leaks(results: Sequence[Result]) -> str:
    rows = []
    for encoder, own in by_encoder(results).items():
        for result in own:
            exact, near = result.leaks.exact, result.leaks.near
            if exact or near:
                closest = f"{max(pair[4] for pair in near):.4f}" if near else "–"
                (item, split), (other, its_split) = (exact or near)[0][:2], (exact or near)[0][2:4]
                first = f"{item} ({split}) and {other} ({its_split})"
                names = (result.task.title, result.scoring_rule, encoder)
                rows.append([cell(text) for text in (*names, len(exact), len(near), closest, first)])
    if not rows:
        return "<h2>Leaks</h2><p>The results name no sound that stands in two splits.</p>"
    head = ["Task", "Protocol", "Encoder", "Same bytes", "Nearly the same", "Highest cosine", "First pair"]
    warning = "Sounds stand in two splits: scores of these tasks may be too high."
    return f'<h2>Leaks</h2><p class="warn"><strong>Warning.</strong> {warning}</p>' + table(head, rows)


def _standings(results: Sequence[Result]) -> str:
    """Own results of X-ARES among the published ones; nothing where there are none."""
    standings = leaderboard(results)
    if all(standing.origin == "published" for standing in standings):
        return ""
    rows = []
    for standing in standings:
        average = "–" if standing.headline.value is None else f"{standing.headline.value:.3f}"
        counted = f"{standing.headline.counted} of {standing.headline.total}"
        remarks = ", ".join(remark for remark in standing.remarks if not remark.startswith("partial"))
        style = "random" if standing.origin == "published" or standing.is_random else ""
        cells = [cell(text, style) for text in (standing.head, standing.system, standing.scoring_rule)]
        rest = [cell(text, style) for text in (remarks or "measured", standing.source)]
        rows.append([*cells, cell(average, "n"), cell(counted, "n"), *rest])
    head = ["Judge", "System", "Protocol", "Weighted average", "Tasks counted", "Remarks", "Source"]
    return (
        "<h2>Among published X-ARES scores</h2><p>Published scores are copied, not re-measured; they were made by the "
        "released code, so <code>compat</code> comes closest. Averages over other tasks are not comparable.</p>"
        + table(head, rows)
    )


def _provenance(results: Sequence[Result]) -> str:
    rows = []
    for encoder, own in by_encoder(results).items():
        for result in own:
            splits = ", ".join(f"{name}: {count}" for name, count in result.data.splits.items())
            data = f"{result.data.clips} sounds, {result.data.pieces} pieces, {result.data.seconds:.0f} s; {splits}"
            cost = f"{result.cost.encoded} encoded in {result.cost.encode_s:.1f} s, {result.cost.reused} reused"
            settings = {head: score.settings for head, score in result.scores.items()}
            codes = (result.encoder.fingerprint, result.data.manifest, json.dumps(settings, ensure_ascii=False))
            names = (encoder, result.task.name, result.scoring_rule, result.seed, result.version, data, cost)
            rows.append([*map(cell, names), *(f"<td><code>{shown(code)}</code></td>" for code in codes)])
    head = [
        *("Encoder", "Task", "Protocol", "Seed", "Auricle", "Data", "Cost"),
        *("Fingerprint of the encoder", "SHA-256 of the manifest", "Settings"),
    ]
    return f"<h2>Provenance</h2><details open><summary>Every result shown</summary>{table(head, rows)}</details>"
