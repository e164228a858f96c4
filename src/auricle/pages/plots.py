"""Pieces of figures: colours, names that a font can draw, a radar and bars, and a figure as an element of a page.

Black is the colour of the text around a figure, so that one figure suits light and dark pages; the other colours are
readable on both.
"""

import re
import textwrap
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from auricle.errors import MissingExtra
from auricle.files import atomic_write, make_folder, write_text
from auricle.pages.render import visible

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

# Okabe and Ito 2008, "Color universal design": distinct under every common colour blindness; its yellow is too pale.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX*"
GRID_COLOUR = (0.0, 0.0, 0.0, 0.15)
MUTED_COLOUR = (0.0, 0.0, 0.0, 0.6)


class Drawing(NamedTuple):
    """A figure of a page."""

    svg: "Markup"
    caption: str


class Line(NamedTuple):
    """What is compared, over all axes of a figure."""

    values: Sequence[float]
    look: Mapping[str, Any]  # colour, marker, label and linestyle


def new_figure(width: float, height: float, what: str, extra: str) -> "Figure":
    """An empty figure of a size in inches; not known to pyplot, so that nothing global is changed.

    Raises:
        MissingExtra: matplotlib, which `what` needs and `extra` installs, is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra(what, extra) from None
    return Figure(figsize=(width, height), layout="constrained")


def drawable(text: str, width: int = 34) -> str:
    """A name as matplotlib can draw it: no formulas, no letters the font lacks; of a long one start and end."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties())).get_charmap()
    drawn = "".join(letter if ord(letter) in known else "\ufffd" for letter in visible(text))
    drawn = " ".join(drawn.split())
    if len(drawn) > width:
        drawn = f"{drawn[: width // 2]}…{drawn[-(width - width // 2 - 1) :]}"
    return drawn.replace("$", r"\$") or "…"


def look_of(label: str, number: int) -> dict[str, Any]:
    """Colour, marker and line of the `number`-th thing that is compared."""
    return {
        "color": PALETTE[number % len(PALETTE)],
        "marker": MARKERS[number % len(MARKERS)],
        "label": drawable(label),
        "linestyle": ("-", "--", "-.")[number // len(PALETTE) % 3],
    }


def draw_lines(figure: "Figure", titles: Sequence[str], lines: Sequence[Line], *, nothing: str = "") -> "Figure":
    """In an empty figure, a radar with an axis from 0 to 1 for each title; one or two are drawn as bars."""
    if not titles:
        plot = figure.add_subplot()
        plot.text(0.5, 0.5, nothing, ha="center", va="center", fontsize=12)
        plot.set_axis_off()
        return figure
    draw = _radar if len(titles) >= 3 else _bars
    draw(figure, [textwrap.fill(drawable(title), 14) for title in titles], lines)
    return figure


def _radar(figure: "Figure", titles: Sequence[str], lines: Sequence[Line]) -> None:
    import numpy as np

    plot = figure.add_subplot(projection="polar")
    angles = np.linspace(0, 2 * np.pi, len(titles), endpoint=False)
    for values, look in lines:
        plot.plot([*angles, angles[0]], [*values, values[0]], linewidth=1.8, markersize=5, **look)
        if len(lines) <= len(PALETTE):  # more of them would add up to a grey
            plot.fill(angles, values, color=look["color"], alpha=0.07)
    plot.set(theta_offset=np.pi / 2, theta_direction=-1, ylim=(0, 1), yticks=[0.2, 0.4, 0.6, 0.8, 1.0])
    plot.grid(color=GRID_COLOUR)
    plot.spines["polar"].set_color(GRID_COLOUR)
    plot.tick_params(axis="x", pad=8)
    plot.tick_params(axis="y", labelsize=8, labelcolor=MUTED_COLOUR)
    plot.set_rlabel_position(180 / len(titles))  # type: ignore[attr-defined]
    plot.set_xticks(angles, titles)
    for label, angle in zip(plot.get_xticklabels(), angles, strict=True):
        side = np.sin(angle)
        label.set_horizontalalignment("center" if abs(side) < 0.1 else "left" if side > 0 else "right")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)


def _bars(figure: "Figure", titles: Sequence[str], lines: Sequence[Line]) -> None:
    plot = figure.add_subplot()
    height = 0.8 / len(lines)
    for number, (values, look) in enumerate(lines):
        places = [row + height * (number - (len(lines) - 1) / 2) for row in range(len(titles))]
        plot.barh(places, values, height * 0.9, color=look["color"], label=look["label"])
    plot.set_yticks(range(len(titles)), titles)
    plot.set(xlim=(0, 1), xlabel="score")
    plot.spines[["top", "right"]].set_visible(False)
    plot.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)


def svg(figure: "Figure", name: str) -> "Markup":
    """A figure as an element of a page, described by its title.

    Args:
        figure: black parts take the colour of the text around it.
        name: makes the identifiers unique within the page.
    """
    import matplotlib
    from markupsafe import Markup, escape

    file = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):  # the same figure, the same bytes
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    drawn = file.getvalue().decode("utf-8")
    drawn = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    drawn = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", drawn).replace("#000000", "currentColor")
    label = escape(" ".join(visible(figure.get_suptitle()).replace("\\$", "$").split()) or name)
    size = f"--width: {figure.get_figwidth():g}in"
    return Markup(drawn.replace("<svg", f'<svg style="{size}" fill="currentColor" role="img" aria-label="{label}"', 1))


def write_page(folder: str | Path, page: str, figures: "Mapping[str, Figure]") -> list[Path]:
    """Write ``report.html``, and each figure by its name as PNG; returns the paths.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = make_folder(folder)
    paths = [folder / "report.html", *(folder / f"{name}.png" for name in figures)]
    write_text(paths[0], page)
    for path, figure in zip(paths[1:], figures.values(), strict=True):
        write_png(figure, path)
    return paths


def write_png(figure: "Figure", path: Path) -> None:
    """Write a figure on white; the same figure gives the same bytes. Raises as `auricle.files.atomic_write`."""
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=160, metadata={"Software": None})
