"""Figures as SVG text that fits a page: one palette, inks that follow dark mode, text that stays text, ids that do not collide.

Matplotlib is used without pyplot. Inks are written as CSS variables with the light colour as fallback, so that a figure is
readable alone and follows the page's colours when it stands in one.
"""

import html
import io
import re
import unicodedata
import warnings
from collections.abc import Sequence
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from clmm_core.report.records import Group

# Sentinel colours, replaced by CSS variables in the SVG: no other colour may equal them.
INK, MUTED, GRID, SURFACE, LINE = "#1a1f26", "#5a6472", "#d9dee5", "#fefefe", "#0071b1"
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", SURFACE: "--surface", LINE: "--line"}

# Okabe and Ito 2008, "Color Universal Design", https://jfly.uni-koeln.de/color/. Warm: never trained on; blue: trained on.
BLUE, SKY, GREEN, ORANGE, VERMILION, PURPLE = "#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00", "#cc79a7"
GROUP_COLOURS: dict[Group, str] = {"unseen": VERMILION, "validation": ORANGE, "seen": SKY, "labelled": BLUE}
GROUP_MARKERS: dict[Group, str] = {"unseen": "o", "validation": "s", "seen": "^", "labelled": "D"}
_CLASS_COLOURS = (BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE, "#8c6d31", "#7a7f87", "#b8a600", "#6a51a3")
"""Six of Okabe and Ito, then four that differ from them in lightness; more classes than that are told apart by their numbers."""
PIXELS_PER_UNIT = 1.35
"""A figure's text of 9 units is then about 12 pixels high, as small as text should be on a page."""
MAX_LABEL = 30
"""Characters of a subject's or class's name that a figure has room for."""


def class_colour(index: int) -> str:
    """Return the colour of a class; colours repeat after ten, so each class is also named or numbered."""
    return _CLASS_COLOURS[index % len(_CLASS_COLOURS)]


def label_text(name: str) -> str:
    """Return a name short enough for a figure, cut in its middle, as ends tell names apart."""
    clean = _without_controls(name)
    return clean if len(clean) <= MAX_LABEL else f"{clean[: MAX_LABEL // 2]}…{clean[len(clean) - MAX_LABEL // 2 + 1 :]}"


def _without_controls(text: str) -> str:
    """Return the text with a space for each control character: XML cannot hold them."""
    return "".join(" " if unicodedata.category(character).startswith("C") else character for character in text)


def new_figure(width_in: float, height_in: float) -> Figure:
    """Return an empty figure without a background of its own; sizes in inches of 72 SVG units."""
    return Figure(figsize=(width_in, height_in), layout="constrained", facecolor="none")


def dress(axes: Axes, *, x_label: str = "", y_label: str = "", title: str = "", grid: Literal["x", "y", "both"] | None = None) -> None:
    """Give axes the house look: no frame, faint grid along one axis, muted ticks, title at the left."""
    axes.set_facecolor("none")
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    if grid is not None:
        axes.grid(visible=True, axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, length=0, labelsize=9)
    axes.set_xlabel(x_label, color=MUTED, fontsize=9)
    axes.set_ylabel(y_label, color=MUTED, fontsize=9)
    if title:
        axes.set_title(title, loc="left", color=INK, fontsize=10.5, fontweight="bold")


def name_ticks(axes: Axes, axis: Literal["x", "y"], names: Sequence[str], *, fontsize: float = 9, rotation: float = 0) -> None:
    """Put names that fit at 0, 1, 2, ... of the x or y axis, never read as mathematics."""
    places = range(len(names))
    if axis == "y":
        axes.set_yticks(places, names, color=INK, fontsize=fontsize, parse_math=False)
    else:
        alignment = "right" if 0 < rotation < 90 else "center"
        axes.set_xticks(places, names, color=INK, fontsize=fontsize, rotation=rotation, ha=alignment, parse_math=False)
        if alignment == "right":
            for tick in axes.get_xticklabels():
                tick.set_rotation_mode("anchor")


def svg_text(figure: Figure, name: str, description: str) -> str:
    """Return the figure as one `<svg>` element, described for those who cannot see it.

    Args:
        figure: What was drawn.
        name: Unique in the page; prefixes every id.
        description: What the figure shows, in a sentence.
    """
    text = io.StringIO()
    # rc_context is matplotlib's only door to these two settings of the SVG writer; it is closed again at once.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        # Only the layout measures with matplotlib's font; the reader's browser draws the text with one that has the glyph.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})  # type: ignore[no-untyped-call]
    return _for_page(text.getvalue(), name, description)


def standing_alone(figure: Figure, name: str, description: str) -> str:
    """Return what `svg_text` does, with a size and a ground of its own: a file that a dark page may show."""
    width, height = (round(72 * inches * PIXELS_PER_UNIT) for inches in (figure.get_figwidth(), figure.get_figheight()))
    svg = svg_text(figure, name, description).replace("<svg", f'<svg width="{width}" height="{height}"', 1)
    return svg.replace('style="', f'style="background: var(--surface, {SURFACE}); ', 1)


def _for_page(svg: str, name: str, description: str) -> str:
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    # Matplotlib numbers its groups (`axes_1`) anew in each figure; nothing refers to them. Hashed ids are referred to: prefix them.
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    # Its style sheet would apply to the whole page, and its list of fonts would stand at every text.
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    svg = re.sub(r"\s*\n\s*", " ", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable}, {colour})")
    view_box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert view_box is not None, "matplotlib writes a viewBox"
    # The width is a variable, so that a page may shrink the figure down to where its text stays readable.
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {view_box.group()}'
        f' role="img" aria-label="{html.escape(_without_controls(description), quote=True)}"'
        f' style="--width: {PIXELS_PER_UNIT * float(view_box.group(1)):.0f}px; width: var(--width);'
        ' stroke-linejoin: round; font-family: system-ui, sans-serif">'
    )
    return opening + svg[svg.index(">") + 1 :].strip()
