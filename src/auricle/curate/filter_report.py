"""What the filter found, for eyes and ears: one HTML page that needs nothing else, and its picture as PNG.

Captions and names were written by strangers. Every text is escaped on its way into the page, and the page forbids
scripts and network to the browser.
"""

import base64
import html
import io
import json
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from auricle.curate.calibration import CURVE, Calibration
from auricle.curate.decision import DROP, KEEP, REVIEW, FilterConfig, Verdicts
from auricle.curate.random_pairs import Judged
from auricle.data.shards import SAMPLE_RATE, ShardSet
from auricle.errors import AuricleError, MissingExtra
from auricle.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EXAMPLES = 4  # of a kind
EXCERPT_S = 8.0  # of each example
MAX_SOUND_BYTES = 6 << 20  # of all players together; examples beyond it have none
MAX_PANELS = 8  # groups drawn, the largest ones
MAX_ROWS = 200  # groups in the table
_BINS = 60
_LONGEST = 400  # characters of a text in the page

# Okabe and Ito 2008, "Color universal design": told apart under every common colour blindness.
_COLOURS = {"real pairs": "#0072B2", "random sound (randa)": "#D55E00", "random caption (randt)": "#009E73"}
_LINES = ("-", "--", "-.", ":")
_STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc }
.wide { overflow-x: auto } table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #e3e3e3; text-align: left; vertical-align: top }
td.n { text-align: right } thead th { border-bottom: 2px solid #888; vertical-align: bottom }
td small { display: block; color: #666 } img { max-width: 100%; height: auto }
.warn { background: #fdf0e2; border-left: 4px solid #D55E00; padding: .5rem 1rem }
.bar { display: flex; height: 1.6rem; border-radius: 4px; overflow: hidden; margin: 1rem 0 }
.keep { background: #0072B2 } .review { background: #E69F00 } .drop { background: #999 }
.key { display: inline-block; width: .9em; height: .9em; border-radius: 2px; margin: 0 .3em 0 1em }
audio { width: 15rem; height: 2rem } code { font-size: 12px; overflow-wrap: anywhere } figcaption { color: #555 }
"""
_ALIKE = (
    "Many random captions fit as well as the own one: the data says the same things in other words, so that random "
    "pairs often belong together and few pairs can be told from them. A value of --alike below 1, such as 0.9, takes "
    "captions that mean nearly the same out of the random pairs."
)


def check_figures() -> None:
    """Fail before hours of work rather than after them.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise MissingExtra("The filter's report", "bench") from None


def choose_examples(judged: Judged, verdicts: Verdicts, config: FilterConfig) -> list[tuple[str, list[int]]]:
    """A few pairs of each kind, as headings and numbers of pairs."""
    p, verdict = judged.p, verdicts.verdict
    has_score = judged.group >= 0
    marked = (verdicts.same_as >= 0) | (verdicts.near >= 0)
    kinds = [
        ("Kept, the surest", (verdict == KEEP), p, judged.score),
        ("Kept, the least sure", (verdict == KEEP), -p, -judged.score),
        ("For review", (verdict == REVIEW) & has_score & ~marked, p, judged.score),
        ("Dropped, the least sure", (verdict == DROP) & (p > config.drop_p), p, judged.score),
        ("Dropped, the surest", (verdict == DROP) & (p > config.drop_p), -p, -judged.score),
        ("The same or nearly the same sound as another pair", has_score & marked, p, judged.score),
    ]
    found = []
    for title, wanted, first, second in kinds:
        pairs = np.flatnonzero(wanted)
        order = np.lexsort((-second[pairs], first[pairs]))  # by p, and where that is equal by score
        if len(pairs):
            found.append((title, pairs[order][:EXAMPLES].tolist()))
    return found


def write_report(
    out: Path,
    summary: Mapping[str, Any],
    facts: Sequence[Mapping[str, Any]],
    calibrations: Sequence[Calibration],
    shards: ShardSet,
    examples: Sequence[tuple[str, Sequence[int]]],
    p: float,
) -> None:
    """Write ``report.html`` and ``distributions.png`` beside ``scores.jsonl``, from which the examples are told.

    Args:
        out: folder of the run.
        summary: as in summary.json.
        facts: of the calibrations, as in calibration.json.
        calibrations: of the groups.
        shards: the input, for the sounds of examples.
        examples: see `choose_examples`.
        p: the threshold.
    """
    drawn = io.BytesIO()
    _draw(calibrations, facts, p).savefig(drawn, format="png", dpi=130, metadata={"Software": None})
    write_bytes(out / "distributions.png", drawn.getvalue())
    wanted = {pair for _, pairs in examples for pair in pairs}
    with (out / "scores.jsonl").open(encoding="utf-8") as file:
        records = {pair: json.loads(line) for pair, line in enumerate(file) if pair in wanted}
    page = _page(summary, facts, drawn.getvalue(), _examples(shards, examples, records), p)
    write_bytes(out / "report.html", page.encode("utf-8"))


# --- the picture


def _draw(calibrations: Sequence[Calibration], facts: Sequence[Mapping[str, Any]], p: float) -> "Figure":
    """The three distributions of each group, and what thresholds keep."""
    from matplotlib.figure import Figure  # not known to pyplot, so that nothing global is changed

    shown = sorted(range(len(calibrations)), key=lambda i: -len(calibrations[i].real))[:MAX_PANELS]
    panels = len(shown) + 1
    columns = min(3, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for place, number in zip(axes, shown, strict=False):
        _draw_distributions(place, calibrations[number], facts[number]["score_at_p"], p)
    _draw_curves(axes[len(shown)], [calibrations[number] for number in shown], p)
    for place in axes[panels:]:
        place.set_axis_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
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
    axes.set(title=_drawable(calibration.name), xlabel="score, 100 × cosine", yticks=[])
    axes.spines[["top", "right", "left"]].set_visible(False)


def _draw_curves(axes: "Axes", calibrations: Sequence[Calibration], p: float) -> None:
    for number, calibration in enumerate(calibrations):
        curve = calibration.curve()
        axes.plot(
            [row.p for row in curve],
            [100 * row.kept for row in curve],
            linestyle=_LINES[number % len(_LINES)],
            marker=".",
            label=_drawable(calibration.name),
        )
    axes.plot(CURVE, [100 * limit for limit in CURVE], color="#8A8A8A", linewidth=1, label="of random pairs")
    axes.axvline(p, color="black", linestyle="--", linewidth=1)
    axes.set(title="kept by p value", xlabel="p value", ylabel="% of pairs kept", xscale="log", ylim=(0, 102))
    axes.grid(color="#DDDDDD")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)


def _drawable(text: str) -> str:
    """A name as the font can draw it: no formulas, no letters it lacks, no great length."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties())).get_charmap()
    drawn = "".join(letter if ord(letter) in known else "\ufffd" for letter in _visible(text))
    return textwrap.shorten(drawn, 30, placeholder="…").replace("$", r"\$") or "…"


# --- the page


def _page(summary: Mapping[str, Any], facts: Sequence[Mapping[str, Any]], png: bytes, examples: str, p: float) -> str:
    picture = base64.b64encode(png).decode()
    is_repetitive = any(each["random_over_median"] > p and each["mismatched_share"] < 0.4 for each in facts)
    parts = [
        "<h1>Pairs of sound and caption, filtered</h1>",
        _verdicts(summary),
        f'<p class="warn">{_text(_ALIKE)}</p>' if is_repetitive else "",
        "<h2>Real and random pairs</h2>",
        f'<figure><img alt="Scores of real pairs, of random sounds with the caption and of random captions with the '
        f'sound, for each group" src="data:image/png;base64,{picture}"><figcaption>The further real pairs lie from '
        "random ones, the more can be told. Mismatched pairs lie where the random ones are.</figcaption></figure>",
        _groups(facts, p),
        _curve(facts),
        examples,
        _provenance(summary),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Filtered pairs</title>'
        '<meta name="viewport" content="width=device-width"><meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:\">"
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _verdicts(summary: Mapping[str, Any]) -> str:
    total = summary["pairs"]
    names = ("keep", "review", "drop")
    bar = "".join(f'<div class="{name}" style="flex: {summary[name]}"></div>' for name in names)
    key = "".join(
        f'<span class="key {name}"></span>{name}: <strong>{summary[name]}</strong> ({summary[name] / total:.1%})'
        for name in names
    )
    signs = [[_cell(sign), _cell(count, "n")] for sign, count in summary["signs"].items() if count]
    told = (
        f"<p>{total} pairs. About {summary['mismatched_share']:.0%} of them do not belong together, by the share that "
        f"scores as random pairs do. Of random pairs, {summary['random_passing']:.2%} pass the p value.</p>"
    )
    return f'<div class="bar">{bar}</div><p>{key}</p>{told}' + (_table(["Sign", "Pairs"], signs) if signs else "")


def _groups(facts: Sequence[Mapping[str, Any]], p: float) -> str:
    head = [
        *("Group", "Pairs", "AUC", "AUC without the mismatched", "Equal error", "at score", f"Score at p = {p:g}"),
        *("Random passing", "Mismatched", "Mean: real", "randa", "randt"),
    ]
    rows = []
    for each in islice(facts, MAX_ROWS):
        shares = [each["equal_error_rate"], each["random_passing"], each["mismatched_share"]]
        error, passing, mismatched = (_cell(f"{share:.1%}", "n") for share in shares)
        means = [_cell(f"{each[name]:.1f}", "n") for name in ("mean_real", "mean_randa", "mean_randt")]
        rows.append(
            [
                *(_cell(each["group"]), _cell(each["pairs"], "n"), _cell(f"{each['auc']:.3f}", "n")),
                *(_cell(f"{each['auc_matched']:.3f}", "n"), error, _cell(f"{each['equal_error_threshold']:.1f}", "n")),
                *(_cell(_score(each["score_at_p"]), "n"), passing, mismatched, *means),
            ]
        )
    return "<h2>Domains and languages</h2>" + _table(head, rows)


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _curve(facts: Sequence[Mapping[str, Any]]) -> str:
    limits = [row["p"] for row in facts[0]["keep_rate"]]
    rows = []
    for each in islice(facts, MAX_ROWS):
        cells = [
            f'<td class="n">{row["kept"]:.1%}<small>{row["mismatched"]:.1%}</small></td>' for row in each["keep_rate"]
        ]
        rows.append([_cell(each["group"]), *cells])
    told = "<p>Share of the pairs that each p value keeps; below it, how many of these are expected to be wrong.</p>"
    return f"<h2>Keep rate</h2>{told}" + _table(["Group", *(f"p = {limit:g}" for limit in limits)], rows)


def _examples(
    shards: ShardSet, examples: Sequence[tuple[str, Sequence[int]]], records: Mapping[int, Mapping[str, Any]]
) -> str:
    parts, left = [], MAX_SOUND_BYTES
    for title, pairs in examples:
        rows = []
        for pair in pairs:
            record = records[pair]
            sound = _player(shards, pair, left)
            left -= len(sound)
            numbers = (
                f"<td>{_text(record['key'])}<small>score {record['score']:.1f}, p {record['p']:.3g}, probability "
                f"{record['probability']:.2f}</small></td>"
            )
            captions = "<br>".join(_text(caption) for caption in record["captions"][:5])
            rows.append([f"<td>{sound}</td>", numbers, f"<td>{captions}</td>", _cell("; ".join(record["reasons"]))])
        parts.append(f"<h3>{_text(title)}</h3>" + _table(["Sound", "Pair", "Caption", "Why"], rows))
    return f"<h2>Examples</h2><p>The first {EXCERPT_S:g} s of each.</p>" + "".join(parts) if parts else ""


def _player(shards: ShardSet, pair: int, left: int) -> str:
    """A player of a clip's begin, within the bytes that are left."""
    import soundfile

    try:
        waveform = shards.read(pair).waveform[: round(EXCERPT_S * SAMPLE_RATE)]
    except AuricleError:  # damaged since it was embedded
        return "cannot be read"
    file = io.BytesIO()
    soundfile.write(file, waveform, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    sound = base64.b64encode(file.getvalue()).decode()
    player = f'<audio controls preload="none" src="data:audio/flac;base64,{sound}"></audio>'
    return player if len(player) <= left else "left out, to keep the page small"


def _provenance(summary: Mapping[str, Any]) -> str:
    settings = {name: summary[name] for name in ("settings", "auc", "left_out", "model", "manifest", "version")}
    rows = [
        [_cell(name), f"<td><code>{_text(json.dumps(value, ensure_ascii=False))}</code></td>"]
        for name, value in settings.items()
    ]
    return "<h2>Provenance</h2>" + _table(["", ""], rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Of finished cells: ``<td>…</td>`` for rows, plain text for the head."""
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    header = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    return f'<div class="wide"><table><thead><tr>{header}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _cell(text: object, style: str = "") -> str:
    return f'<td class="{style}">{_text(text)}</td>' if style else f"<td>{_text(text)}</td>"


def _text(text: object) -> str:
    shown = _visible(text)
    return html.escape(shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…", quote=True)


def _visible(text: object) -> str:
    """Without characters that are not seen but act: controls, reversed writing, halves of a pair."""
    return "".join("\ufffd" if unicodedata.category(letter)[0] == "C" else letter for letter in str(text))
