"""What the filter found as one HTML page that needs no other file, and its figure as PNG."""

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from auricle.curate.calibration import CURVE, Calibration
from auricle.curate.decision import DROP, KEEP, NAMES, REVIEW, FilterConfig, Verdicts
from auricle.curate.random_pairs import Evidence
from auricle.curate.summary import SIGNS
from auricle.data.shards import ShardSet
from auricle.files import write_text
from auricle.pages.players import Example, Fact, Players
from auricle.pages.plots import GRID_COLOUR, PALETTE, Drawing, drawable, new_figure, svg, write_png
from auricle.pages.render import bounded, render
from auricle.pages.table import Column, Record, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EXAMPLES = 4  # of a kind
EXCERPT_S = 8.0  # of each example
MAX_PLAYER_BYTES = 6 << 20  # of all players together; examples beyond it have none
MAX_PANELS = 8  # groups drawn, the largest ones
MAX_ROWS = 200  # groups in the table
_BINS = 60
_LONGEST = 400  # characters of a text in the page
_COLOURS = dict(zip(("real pairs", "random audio (randa)", "random caption (randt)"), PALETTE, strict=False))
_LINES = ("-", "--", "-.", ":")


def write_report(
    shards: ShardSet,
    evidence: Evidence,
    verdicts: Verdicts,
    scores: Path,
    calibrations: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    *,
    out: Path,
    config: FilterConfig,
) -> None:
    """Write ``report.html`` and ``distributions.png`` from what the stages found; see `auricle.curate.filter`."""
    figure = _draw(evidence.calibrations, calibrations, config.p)
    write_png(figure, out / "distributions.png")
    chosen = _choose_examples(evidence, verdicts, config)
    page = render(
        "filter.html",
        title="Pairs of audio and captions, filtered",
        summary=summary,
        shares=[(name, summary[name], f"{summary[name] / summary['pairs']:.1%}") for name in NAMES],
        signs=_signs(summary),
        is_repetitive=any(
            each["random_over_median"] > config.p and each["mismatched_share"] < 0.4 for each in calibrations
        ),
        figures=[
            Drawing(
                svg(figure, "distributions"),
                "The further the scores of real pairs are from those of random ones, the better the two can be "
                "distinguished. Mismatched pairs score as random ones do.",
            )
        ],
        groups=_groups(calibrations, config.p),
        keep_rate=_keep_rate(calibrations),
        seconds=f"{EXCERPT_S:g}",
        examples=_examples(shards, chosen, scores),
        record=_record(summary),
    )
    write_text(out / "report.html", page)


# --- the figure


def _draw(calibrations: Sequence[Calibration], facts: Sequence[Mapping[str, Any]], p: float) -> "Figure":
    """The three distributions of each group, and what thresholds keep."""
    shown = sorted(range(len(calibrations)), key=lambda i: -len(calibrations[i].real))[:MAX_PANELS]
    panels = len(shown) + 1
    columns = min(3, panels)
    rows = -(-panels // columns)
    figure = new_figure(4.2 * columns, 3.2 * rows + 0.5, "The page of a filter", "bench")
    figure.suptitle("Scores of real and random pairs\n")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for place, number in zip(axes, shown, strict=False):
        _draw_distributions(place, calibrations[number], facts[number]["score_at_p"], p)
    _draw_curves(axes[len(shown)], [calibrations[number] for number in shown], p)
    for place in axes[panels:]:
        place.set_axis_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _draw_distributions(axes: "Axes", calibration: Calibration, threshold: float | None, p: float) -> None:
    drawn = dict(zip(_COLOURS, (calibration.real, calibration.randa, calibration.randt), strict=True))
    together = np.concatenate(list(drawn.values()))
    edges = np.linspace(together.min(), max(together.max(), together.min() + 1e-6), _BINS + 1).tolist()
    for label, scores in drawn.items():
        axes.hist(scores, edges, density=True, histtype="stepfilled", color=_COLOURS[label], alpha=0.25)
        axes.hist(scores, edges, density=True, histtype="step", color=_COLOURS[label], label=label, linewidth=1.4)
    if threshold is not None:
        axes.axvline(threshold, color="black", linestyle="--", linewidth=1, label=f"p = {p:g}")
    axes.set(title=drawable(calibration.name, 30), xlabel="score, 100 × cosine", yticks=[])
    axes.spines[["top", "right", "left"]].set_visible(False)


def _draw_curves(axes: "Axes", calibrations: Sequence[Calibration], p: float) -> None:
    for number, calibration in enumerate(calibrations):
        curve = calibration.curve()
        axes.plot(
            [row.p for row in curve],
            [100 * row.kept for row in curve],
            linestyle=_LINES[number % len(_LINES)],
            color=PALETTE[number % len(PALETTE)],
            marker=".",
            label=drawable(calibration.name, 30),
        )
    axes.plot(CURVE, [100 * limit for limit in CURVE], color="#8A8A8A", linewidth=1, label="of random pairs")
    axes.axvline(p, color="black", linestyle="--", linewidth=1)
    axes.set(title="kept by p value", xlabel="p value", ylabel="% of pairs kept", xscale="log", ylim=(0, 102))
    axes.grid(color=GRID_COLOUR)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)


# --- the page


def _signs(summary: Mapping[str, Any]) -> Table:
    rows = [[SIGNS.get(sign, sign), count] for sign, count in summary["signs"].items() if count]
    return Table(label="Signs", columns=[Column(title="Sign"), Column(title="Pairs", decimals=0)], rows=rows)


def _groups(calibrations: Sequence[Mapping[str, Any]], p: float) -> Table:
    def percent(title: str) -> Column:
        return Column(title=title, note="%", decimals=1, is_percent=True)

    columns = {
        "group": Column(title="Group"),
        "pairs": Column(title="Pairs", decimals=0),
        "auc": Column(title="AUC", decimals=3),
        "auc_matched": Column(title="AUC", note="without mismatched", decimals=3),
        "equal_error_rate": percent("Equal error"),
        "equal_error_threshold": Column(title="Equal error", note="at score", decimals=1),
        "score_at_p": Column(title="Score", note=f"at p\u00a0=\u00a0{p:g}", decimals=1),
        "random_passing": percent("Random passing"),
        "mismatched_share": percent("Mismatched"),
        "mean_real": Column(title="Mean", note="real", decimals=1),
        "mean_randa": Column(title="Mean", note="randa", decimals=1),
        "mean_randt": Column(title="Mean", note="randt", decimals=1),
    }
    rows = [
        [bounded(each["group"], _LONGEST), *(each[name] for name in islice(columns, 1, None))]
        for each in islice(calibrations, MAX_ROWS)
    ]
    return Table(label="Domains and languages", columns=list(columns.values()), rows=rows)


def _keep_rate(calibrations: Sequence[Mapping[str, Any]]) -> Table:
    """Rows of what each p value keeps, and of how much of that is expected to be wrong."""
    limits = [row["p"] for row in calibrations[0]["keep_rate"]]
    rows = [
        [f"{bounded(each['group'], _LONGEST)}, {title}", *(row[name] for row in each["keep_rate"])]
        for each in islice(calibrations, MAX_ROWS)
        for title, name in (("kept", "kept"), ("of these wrong", "mismatched"))
    ]
    columns = [Column(title=f"p\u00a0=\u00a0{limit:g}", decimals=1, is_percent=True) for limit in limits]
    return Table(label="Keep rate", columns=[Column(title="Group"), *columns], rows=rows)


def _choose_examples(evidence: Evidence, verdicts: Verdicts, config: FilterConfig) -> list[tuple[str, list[int]]]:
    """A few pairs of each kind, as headings and numbers of pairs."""
    p, verdict = evidence.p, verdicts.verdict
    has_score = evidence.group >= 0
    is_marked = (verdicts.same_as >= 0) | (verdicts.near >= 0)
    is_kept, is_dropped = verdict == KEEP, (verdict == DROP) & (p > config.drop_p)
    kinds = [
        ("Kept, the surest", is_kept, 1),
        ("Kept, the least sure", is_kept, -1),
        ("For review", (verdict == REVIEW) & has_score & ~is_marked, 1),
        ("Dropped, the least sure", is_dropped, 1),
        ("Dropped, the surest", is_dropped, -1),
        ("The same or nearly the same audio as another pair", has_score & is_marked, 1),
    ]
    found = []
    for title, wanted, sign in kinds:
        pairs = np.flatnonzero(wanted)
        order = np.lexsort((-sign * evidence.score[pairs], sign * p[pairs]))  # by p, and where that is equal by score
        if len(pairs):
            found.append((title, pairs[order][:EXAMPLES].tolist()))
    return found


def _examples(
    shards: ShardSet, chosen: Sequence[tuple[str, Sequence[int]]], scores: Path
) -> list[tuple[str, list[Example]]]:
    wanted = {pair for _, pairs in chosen for pair in pairs}
    with scores.open(encoding="utf-8") as file:
        records = {pair: json.loads(line) for pair, line in enumerate(file) if pair in wanted}
    players = Players(seconds=EXCERPT_S, max_bytes=MAX_PLAYER_BYTES)
    return [(title, [_example(shards, pair, records[pair], players) for pair in pairs]) for title, pairs in chosen]


def _example(shards: ShardSet, pair: int, record: Mapping[str, Any], players: Players) -> Example:
    return Example(
        player=players.player(lambda: shards.read(pair).waveform),
        name=_clip_name(shards, pair, record["key"]),
        note=f"score {record['score']:.1f}, p {record['p']:.2g}, probability {record['probability']:.2f}",
        facts=[
            Fact("Caption", [bounded(caption, _LONGEST) for caption in record["captions"][:5]]),
            Fact("Why", [bounded(reason, _LONGEST) for reason in record["reasons"]]),
        ],
    )


def _clip_name(shards: ShardSet, pair: int, key: str) -> str:
    """The file's name in the data set, where the shard has it: keys of files with paths are hard to read."""
    found = shards.read_meta(pair).get("id")
    name = found.rstrip("/").rpartition("/")[2] if isinstance(found, str) else ""
    return bounded(name or key, _LONGEST)


def _record(summary: Mapping[str, Any]) -> Record:
    codes = {"Settings": "settings", "AUC over all groups": "auc", "Members that are no clips": "left_out"}
    return Record(
        title="All pairs",
        facts={"Auricle": summary["version"]},
        codes={
            **{title: json.dumps(summary[name], ensure_ascii=False) for title, name in codes.items()},
            "Model": summary["model"],
            "Manifest (SHA-256)": summary["manifest"],
        },
    )
