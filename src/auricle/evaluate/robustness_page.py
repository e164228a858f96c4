"""Robustness cards as figures, small multiples of the retention, and as an HTML page that needs no other file."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from auricle.errors import DataError
from auricle.evaluate.corruptions import CORRUPTIONS, Corruption
from auricle.evaluate.robustness import FALLS, Card, Crossing, Curve
from auricle.files import atomic_folder, locked, make_folder, write_text
from auricle.metrics.intervals import Score
from auricle.metrics.paired import LOWER_IS_BETTER
from auricle.pages.plots import GRID_COLOUR, MUTED_COLOUR, Drawing, drawable, look_of, new_figure, svg, write_png
from auricle.pages.render import render
from auricle.pages.table import Column, Entry, Number, Table, Text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 4
_TITLE = "Robustness to corrupted audio"


def plot_cards(cards: Sequence[Card]) -> "Figure":
    """One panel for each condition, one line with its 95 % band for each model; all cards are of one task.

    Raises:
        DataError: no cards, or cards of several tasks or scoring rules.
        MissingExtra: matplotlib is not installed.
    """
    tasks = {(card.task, card.scoring_rule) for card in cards}
    if len(tasks) != 1:
        found = ", ".join(f"{task} ({rule})" for task, rule in sorted(tasks)) or "no cards"
        raise DataError(f"found {found}; expected cards of one task under one scoring rule, plot them one by one")
    names = _conditions(cards)
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(3.1 * columns + 0.4, 2.5 * rows + 0.9 + 0.2 * len(cards), "The robustness card", "evaluate")
    first = cards[0]
    what = f"1 - {first.metric}" if first.metric in LOWER_IS_BETTER else first.metric
    words = f"{drawable(str(first.identity['title']), 60)}: share of the clean {drawable(what)} that is left"
    figure.suptitle(words + "\n", fontsize=11)
    figure.set_layout_engine("constrained", h_pad=0.1)
    plots = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for plot, name in zip(plots, names, strict=False):
        _panel(plot, CORRUPTIONS[name], cards)
    for plot in plots[len(names) :]:
        plot.set_axis_off()
    for plot in plots[::columns]:
        plot.set_ylabel("retention")
    # From all panels, as a model may lack the condition of the first.
    known = {label: line for plot in plots for line, label in zip(*plot.get_legend_handles_labels(), strict=True)}
    labels = [label for label in (_label(card, cards) for card in cards) if label in known]
    figure.legend(
        [known[label] for label in labels], labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9
    )
    return figure


def write_cards(cards: Sequence[Card], folder: str | Path, *, figures: bool = True) -> list[Path]:
    """Write ``robustness.html``, and of each task ``robustness.TASK-RULE.svg`` and ``.png``; return their paths.

    Args:
        cards: of any models and tasks.
        folder: created if absent; older files of these names are replaced.
        figures: False where matplotlib is not installed; the page then has tables alone.

    Raises:
        DataError: no cards.
        MissingExtra: matplotlib is not installed.
    """
    if not cards:
        raise DataError("found no cards, expected one or more; run the measurement first")
    by_task: dict[tuple[str, str], list[Card]] = {}
    for card in cards:
        by_task.setdefault((card.task, card.scoring_rule), []).append(card)
    files: dict[str, str | Figure] = {}
    tasks = []
    for number, ((task, rule), own) in enumerate(by_task.items()):
        drawings = []
        if figures:
            figure = plot_cards(own)
            drawn = svg(figure, f"figure{number}")
            drawings.append(Drawing(drawn, f"Dashed: {' and '.join(f'{share:g}' for share in FALLS)}."))
            stem = "".join(letter if letter.isalnum() or letter in "_-" else "-" for letter in f"{task}-{rule}")
            files |= {f"robustness.{stem}.svg": drawn, f"robustness.{stem}.png": figure}
        tasks.append(_task(own, drawings))
    files = {"robustness.html": render("robustness.html", title=_TITLE, tasks=tasks), **files}
    folder = make_folder(folder)
    with locked(folder), atomic_folder(folder, last="robustness.html") as aside:
        for name, content in files.items():
            if isinstance(content, str):
                write_text(aside / name, content)
            else:
                write_png(content, aside / name)
    return [folder / name for name in files]


def _conditions(cards: Sequence[Card]) -> list[str]:
    """In the order of their declaration."""
    measured = {curve.corruption for card in cards for curve in card.curves}
    return [name for name in CORRUPTIONS if name in measured]


def _label(card: Card, cards: Sequence[Card]) -> str:
    """The model with its clean score; models of one name have their fingerprint beside it."""
    alike = sum(other.name == card.name for other in cards) > 1
    mark = f" {str(card.identity['fingerprint'])[:8]}" if alike else ""
    return f"{drawable(card.name + mark, 44)} (clean {card.metric} {number(card.clean.value)})"


def _panel(plot: "Axes", condition: Corruption, cards: Sequence[Card]) -> None:
    highest = 1.0
    for number, card in enumerate(cards):
        curve = next((each for each in card.curves if each.corruption == condition.name), None)
        if curve is None:
            continue
        points = {each.level: each.retention for each in curve.levels}
        if condition.neutral is not None:
            points[condition.neutral] = Score(1.0, 1.0, 1.0, card.clean.n)
        places = sorted(points)
        look = {**look_of("", number), "label": _label(card, cards)}
        plot.plot(places, [points[at].value for at in places], markersize=4, linewidth=1.6, **look)
        low, high = ([getattr(points[at], end) for at in places] for end in ("low", "high"))
        plot.fill_between(places, low, high, color=look["color"], alpha=0.13, linewidth=0)
        highest = max([highest, *(each.value for each in points.values() if not math.isnan(each.value))])
    _dress(plot, condition, highest)


def _dress(plot: "Axes", condition: Corruption, highest: float) -> None:
    for share in FALLS:
        plot.axhline(share, color=MUTED_COLOUR, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    if condition.in_octaves:
        from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

        plot.set_xscale("log", base=2)
        plot.xaxis.set_major_locator(FixedLocator([8, 16, 32, 64, 128, 256]))
        plot.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        plot.xaxis.set_minor_locator(NullLocator())
    if condition.is_counted:
        from matplotlib.ticker import MaxNLocator

        plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    if condition.severe < 0:
        plot.invert_xaxis()
    if not condition.severe and condition.neutral is not None:
        plot.axvline(condition.neutral, color=MUTED_COLOUR, linewidth=0.8, zorder=0)
    low, high = plot.get_ylim()
    plot.set_ylim(min(0.0, low) if low < 0 else 0.0, max(high, 1.08 * highest))
    plot.set_title(drawable(condition.title, 44), fontsize=9.5)
    plot.set_xlabel(condition.unit, fontsize=8.5)
    plot.tick_params(labelsize=8)
    plot.grid(color=GRID_COLOUR, linewidth=0.6)
    plot.spines[["top", "right"]].set_visible(False)


# --- the page


class _Task(NamedTuple):
    title: str
    figures: list[Drawing]
    overview: Table
    models: list["_Model"]


class _Model(NamedTuple):
    title: str
    levels: Table
    facts: str
    fingerprint: str


def _task(cards: Sequence[Card], figures: list[Drawing]) -> _Task:
    first = cards[0].identity
    title = f"{first['title']} ({cards[0].task}, {first['protocol']})"
    return _Task(title, figures, _overview(cards), [_model(card) for card in cards])


def _overview(cards: Sequence[Card]) -> Table:
    rows: list[list[Entry]] = []
    for name in _conditions(cards):
        condition = CORRUPTIONS[name]
        curves = [next((each for each in card.curves if each.corruption == name), None) for card in cards]
        areas = [curve.area for curve in curves if curve is not None and not math.isnan(curve.area)]
        for card, curve in zip(cards, curves, strict=True):
            if curve is not None:
                best = len(areas) > 1 and curve.area == max(areas)
                falls = [fall_words(curve, condition, share) for share in FALLS]
                rows.append(
                    [Text(text=condition.title, note=card.name), Number(value=curve.area, is_best=best), *falls]
                )
    columns = [
        Column(title="Condition", note="Model"),
        Column(title="Area", decimals=3),
        *(Column(title=f"Below {share:g} at") for share in FALLS),
    ]
    return Table(label="Conditions", columns=columns, rows=rows)


def _model(card: Card) -> _Model:
    rows: list[list[Entry]] = []
    for curve in card.curves:
        condition = CORRUPTIONS[curve.corruption]
        for each in curve.levels:
            notes = [f"{each.failed} without answer"] * bool(each.failed)
            notes += [f"{each.partial} partly processed"] * bool(each.partial)
            notes += [f"{each.lost} items not paired"] * bool(each.lost)
            level = Text(text=f"{condition.title}, {each.level:g} {condition.unit}", note=", ".join(notes))
            rows.append([level, *(_number(own) for own in (each.score, each.retention, each.difference))])
    titles = (card.metric, "Retention", f"Difference of {card.paired_metric}")
    columns = [Column(title="Condition and level"), *(Column(title=title, decimals=3) for title in titles)]
    clean = f"clean {card.metric} {interval(card.clean)}, {card.questions} questions on {card.clips} clips"
    if card.clean_failed or card.clean_partial:
        clean += f", {card.clean_failed} without answer, {card.clean_partial} partly processed"
    settings = ", ".join(f"{name} {value}" for name, value in {**asdict(card.rule), **card.settings}.items())
    return _Model(
        f"{card.name}: {clean}",
        Table(label=f"Levels, {card.name}", columns=columns, rows=rows),
        f"{settings}; auricle {card.version}",
        str(card.identity["fingerprint"]),
    )


def _number(score: Score) -> Number:
    return Number(value=score.value, low=score.low, high=score.high)


def fall_words(curve: Curve, condition: Corruption, share: float) -> str:
    """Where a retention falls below a share, in words."""
    return "; ".join(_crossing_words(each, condition) for each in curve.falls.get(share, ())) or "not known"


def _crossing_words(found: Crossing, condition: Corruption) -> str:
    way = {"up": "", "down": ""} if condition.severe else {"up": "upwards ", "down": "downwards "}
    if found.level is None:
        return f"{way[found.direction]}never"
    sign = "the mildest, " if found.at_mildest else ""
    return f"{way[found.direction]}{sign}{found.level:.3g} {condition.unit}"


def number(value: float) -> str:
    """With three digits after the point; a dash for what does not exist."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def interval(found: Score) -> str:
    """A score with its interval, where it has one."""
    ends = "" if math.isnan(found.low) else f" [{found.low:.3f}, {found.high:.3f}]"
    return number(found.value) + ends
