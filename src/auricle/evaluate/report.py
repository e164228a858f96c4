"""Benchmark results for the eye: one HTML page that needs nothing else, and its two figures as PNG.

Whatever stands in a result file was written by a stranger. Every text is escaped on its way into the page, the page
forbids scripts and network to the browser, and figures hold text as outlines.
"""

import html
import json
import math
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auricle.errors import DataError, MissingExtra
from auricle.evaluate.leaderboard import DOMAINS, ScoreTable, leaderboard, score_tables
from auricle.evaluate.results import Result, by_encoder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito 2008, "Color universal design": told apart under every common colour blindness; its yellow is too pale.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX*"
RANDOM_COLOUR = "#8A8A8A"
GRID_COLOUR = "#DDDDDD"
PROTOCOLS = {
    "strict": "Settings are chosen on validation data only, padding never reaches an embedding, kNN is true cosine.",
    "compat": "As the released X-ARES runs, its known flaws included: to be set beside published scores, not trusted.",
}
_STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc }
.wide { overflow-x: auto } table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #e3e3e3; text-align: left; vertical-align: top }
td.n { text-align: right } thead th { border-bottom: 2px solid #888; vertical-align: bottom }
td small { display: block; color: #666 } td.best { font-weight: 700; background: #e6f1f8 }
td.best::before { content: "★ "; color: #0072B2 } .random { color: #757575; font-style: italic }
.tag { font: 12px/1 system-ui; background: #eee; border-radius: 3px; padding: .15rem .4rem; white-space: nowrap }
.warn { background: #fdf0e2; border-left: 4px solid #D55E00; padding: .5rem 1rem }
tfoot td { border-top: 2px solid #888 }
code { font-size: 12px; overflow-wrap: anywhere } figure { margin: 1rem 0 } figure svg { max-width: 100%; height: auto }
figcaption { color: #555 }
"""


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
    main = max(views, key=lambda v: (sum(map(len, v.encoders.values())), v.protocol == "strict", v.judge == "mlp"))
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


def _figure(width: float, height: float) -> "Figure":
    """In inches; not known to pyplot, so that nothing global is changed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("The benchmark report", "bench") from None
    return Figure(figsize=(width, height), layout="constrained")


def _plot_text(text: str, width: int = 34) -> str:
    """A name as matplotlib can draw it: no formulas, no letters the font lacks, no great length."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties())).get_charmap()
    drawn = "".join(letter if ord(letter) in known else "\ufffd" for letter in _visible(text))
    return textwrap.shorten(drawn, width, placeholder="…").replace("$", r"\$") or "…"


def _look(view: ScoreTable, encoder: str, number: int) -> dict[str, Any]:
    is_random = view.is_random(encoder)
    return {
        "color": RANDOM_COLOUR if is_random else PALETTE[number % len(PALETTE)],
        "marker": MARKERS[number % len(MARKERS)],
        "label": _plot_text(encoder) + (" (random weights)" if is_random else ""),
        "linestyle": ":" if is_random else ("-", "--", "-.")[number // len(PALETTE) % 3],
    }


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
    import numpy as np

    words, axes = _axes(view)
    figure = _figure(7.0, 6.4 + 0.14 * len(view.encoders))
    figure.suptitle(f"{_plot_text(view.judge)}, {view.protocol}. Each axis: {words}\n", fontsize=11)
    if len(axes) < 3:
        return _bars(figure, view, axes)
    plot = figure.add_subplot(projection="polar")
    angles = np.linspace(0, 2 * np.pi, len(axes), endpoint=False)
    for number, encoder in enumerate(view.encoders):
        values = [view.average(encoder, names) for names in axes.values()]
        look = _look(view, encoder, number)
        plot.plot([*angles, angles[0]], [*values, values[0]], linewidth=1.8, markersize=5, **look)
        if len(view.encoders) <= len(PALETTE):  # more of them would add up to a grey
            plot.fill(angles, values, color=look["color"], alpha=0.07)
    plot.set(theta_offset=np.pi / 2, theta_direction=-1, ylim=(0, 1), yticks=[0.2, 0.4, 0.6, 0.8, 1.0])
    plot.grid(color=GRID_COLOUR)
    plot.spines["polar"].set_color(GRID_COLOUR)
    plot.tick_params(axis="x", pad=8)
    plot.tick_params(axis="y", labelsize=8, labelcolor="#666666")
    plot.set_rlabel_position(180 / len(axes))  # type: ignore[attr-defined]
    titles = [textwrap.fill(_plot_text(title), 14) for title in axes]
    plot.set_xticks(angles, titles)
    for label, angle in zip(plot.get_xticklabels(), angles, strict=True):
        side = np.sin(angle)
        label.set_horizontalalignment("center" if abs(side) < 0.1 else "left" if side > 0 else "right")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _bars(figure: "Figure", view: ScoreTable, axes: Mapping[str, list[str]]) -> "Figure":
    """One or two tasks span no radar."""
    plot = figure.add_subplot()
    if not axes:
        plot.text(0.5, 0.5, "no task that all encoders have", ha="center", va="center", fontsize=12)
        plot.set_axis_off()
        return figure
    height = 0.8 / len(view.encoders)
    for number, encoder in enumerate(view.encoders):
        look = _look(view, encoder, number)
        places = [row + height * (number - (len(view.encoders) - 1) / 2) for row in range(len(axes))]
        values = [view.average(encoder, names) for names in axes.values()]
        plot.barh(places, values, height * 0.9, color=look["color"], label=look["label"])
    plot.set_yticks(range(len(axes)), [textwrap.fill(_plot_text(title), 14) for title in axes])
    plot.set(xlim=(0, 1), xlabel="score")
    plot.spines[["top", "right"]].set_visible(False)
    plot.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _cost(view: ScoreTable) -> "Figure":
    figure = _figure(9.0, 4.4 + 0.14 * len(view.encoders))
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    names = view.shared
    figure.suptitle(f"{_plot_text(view.judge)}, {view.protocol}: cost and quality over {len(names)} tasks", fontsize=11)
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


def _svg(figure: "Figure", name: str) -> str:
    """As an element of a page: identifiers made unique by `name`, no comments or metadata."""
    import matplotlib

    file = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):  # the same figure, the same bytes
        figure.savefig(file, format="svg", metadata={"Date": None})
    drawn = file.getvalue().decode("utf-8")
    drawn = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    drawn = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", drawn)
    return drawn.replace("<svg", f'<svg role="img" aria-label="{name}"', 1)


# --- the page


def _visible(text: object) -> str:
    """Without characters that are not seen but act: controls, reversed writing, halves of a pair."""
    return "".join("\ufffd" if unicodedata.category(letter)[0] == "C" else letter for letter in str(text))


def _text(text: object) -> str:
    return html.escape(_visible(text), quote=True)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], foot: str = "") -> str:
    """Of finished cells: ``<td>…</td>`` for rows, escaped text for the head."""
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    header = "".join(f"<th>{cell}</th>" for cell in head)
    return (
        f'<div class="wide"><table><thead><tr>{header}</tr></thead>\n<tbody>{body}</tbody>'
        f"<tfoot>{foot}</tfoot></table></div>"
    )


def _cell(text: object, style: str = "") -> str:
    return f'<td class="{style}">{_text(text)}</td>' if style else f"<td>{_text(text)}</td>"


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
        f"<figure>{_svg(figure, name)}<figcaption>{_text(captions[name])}</figcaption></figure>"
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
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Benchmark of audio encoders</title>'
        '<meta name="viewport" content="width=device-width">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _scores(view: ScoreTable) -> str:
    """Tasks down, encoders across; the last row is over what all of them have."""
    heads = [
        _text(encoder) + (' <span class="tag">random weights</span>' if view.is_random(encoder) else "")
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
        rows.append([_cell(task.domain), f"<td>{_text(task.title)}{note}</td>", _cell(metric), *cells])
    shared = view.shared
    averages = [f"{view.average(encoder, shared):.3f}" if shared else "–" for encoder in view.encoders]
    foot = f'<tr><td colspan="3">Weighted average over the tasks all encoders have: {len(shared)}</td>' + "".join(
        _cell(average, "n") for average in averages
    )
    title = f"<h2>{_text(view.judge)}, {_text(view.protocol)} protocol</h2><p>{PROTOCOLS[view.protocol]}</p>"
    return title + _table(["Domain", "Task", "Metric", *heads], rows, foot + "</tr>")


def _score(view: ScoreTable, encoder: str, result: Result | None, best: float) -> str:
    if result is None:
        return _cell("–", "n")
    score = result.scores[view.judge]
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
                names = (result.task.title, result.protocol, encoder)
                rows.append([_cell(text) for text in (*names, len(exact), len(near), closest, first)])
    if not rows:
        return "<h2>Leaks</h2><p>The results name no sound that stands in two splits.</p>"
    head = ["Task", "Protocol", "Encoder", "Same bytes", "Nearly the same", "Highest cosine", "First pair"]
    warning = "Sounds stand in two splits: scores of these tasks may be too high."
    return f'<h2>Leaks</h2><p class="warn"><strong>Warning.</strong> {warning}</p>' + _table(head, rows)


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
        cells = [_cell(text, style) for text in (standing.judge, standing.system, standing.protocol)]
        rest = [_cell(text, style) for text in (remarks or "measured", standing.source)]
        rows.append([*cells, _cell(average, "n"), _cell(counted, "n"), *rest])
    head = ["Judge", "System", "Protocol", "Weighted average", "Tasks counted", "Remarks", "Source"]
    return (
        "<h2>Among published X-ARES scores</h2><p>Published scores are copied, not re-measured; they were made by the "
        "released code, so <code>compat</code> comes closest. Averages over other tasks are not comparable.</p>"
        + _table(head, rows)
    )


def _provenance(results: Sequence[Result]) -> str:
    rows = []
    for encoder, own in by_encoder(results).items():
        for result in own:
            splits = ", ".join(f"{name}: {count}" for name, count in result.data.splits.items())
            data = f"{result.data.sounds} sounds, {result.data.pieces} pieces, {result.data.seconds:.0f} s; {splits}"
            cost = f"{result.cost.encoded} encoded in {result.cost.encode_s:.1f} s, {result.cost.reused} reused"
            settings = {judge: score.settings for judge, score in result.scores.items()}
            codes = (result.encoder.fingerprint, result.data.manifest, json.dumps(settings, ensure_ascii=False))
            names = (encoder, result.task.name, result.protocol, result.seed, result.version, data, cost)
            rows.append([*map(_cell, names), *(f"<td><code>{_text(code)}</code></td>" for code in codes)])
    head = [
        *("Encoder", "Task", "Protocol", "Seed", "Auricle", "Data", "Cost"),
        *("Fingerprint of the encoder", "SHA-256 of the manifest", "Settings"),
    ]
    return f"<h2>Provenance</h2><details open><summary>Every result shown</summary>{_table(head, rows)}</details>"
