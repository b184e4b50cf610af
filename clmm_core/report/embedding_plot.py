"""The embedding picture: what stage one made of the windows, before and after, side by side."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from clmm_core.data.windows import NO_LABEL
from clmm_core.report.drawing import GROUP_MARKERS, INK, MUTED, SURFACE, class_colour, dress, label_text, new_figure, svg_text
from clmm_core.report.lines import plural
from clmm_core.report.records import GROUPS, EmbeddedWindow, RunRecord

MAX_DOTS = 1500
"""Windows drawn in each picture, evenly spread over those stored: more only make the page heavy."""


def embedding_pictures(run: RunRecord) -> str | None:
    """Draw windows in the plane, colour and number by class, marker by group; None where no embedding was kept."""
    panels = [
        (title, windows)
        for title, windows in (("Before stage one", run.embedding.before), ("After stage one", run.embedding.after))
        if windows
    ]
    if not panels:
        return None
    found = {window.label for _, windows in panels for window in windows}
    labels = [label for label in run.split.classes if label in found] + sorted(found.difference(run.split.classes))
    groups = [group for group in GROUPS if any(window.group == group for _, windows in panels for window in windows)]
    columns = 4 if len(labels) > 4 else len(labels)
    legend_rows = -(-len(labels) // columns)
    figure = new_figure(4.3 * len(panels), 4.4 + 0.21 * (legend_rows + 1))
    for axes, (title, windows) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_panel(axes, title, windows[:: -(-len(windows) // MAX_DOTS)], labels)
    markers = [Line2D([], [], marker=GROUP_MARKERS[group], linestyle="", color=MUTED, markersize=6, label=group) for group in groups]
    names = [f"{index + 1}  {label_text(label) or 'no label'}" for index, label in enumerate(labels)]
    classes = [
        Line2D([], [], marker="o", linestyle="", color=class_colour(index), markersize=7, label=name) for index, name in enumerate(names)
    ]
    figure.legend(handles=markers, loc="outside upper left", ncols=4, frameon=False, fontsize=9.5, labelcolor=INK, handletextpad=0.2)
    legend = figure.legend(
        handles=classes, loc="outside lower left", ncols=columns, frameon=False, fontsize=9, labelcolor=INK, handletextpad=0.2
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return svg_text(
        figure,
        "embedding",
        f"Embeddings of windows of {plural(len(found - {NO_LABEL}), 'class', 'classes')} in two dimensions, "
        f"{' and '.join(title.lower() for title, _ in panels)}.",
    )


def _draw_panel(axes: Axes, title: str, windows: Sequence[EmbeddedWindow], labels: Sequence[str]) -> None:
    dress(axes, title=title)
    places = np.array([(window.x, window.y) for window in windows])
    label_of = np.array([labels.index(window.label) for window in windows])
    group_of = np.array([GROUPS.index(window.group) for window in windows])
    for index in range(len(labels)):
        for group_index, group in enumerate(GROUPS):
            dots = places[(label_of == index) & (group_of == group_index)]
            if len(dots):
                marker = GROUP_MARKERS[group]
                axes.plot(*dots.T, linestyle="", marker=marker, markersize=3.6, color=class_colour(index), alpha=0.65, markeredgewidth=0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.margins(0.06)
    present = sorted(set(label_of.tolist()))
    middles = np.array([np.median(places[label_of == index], axis=0) for index in present])
    for index, (x, y) in zip(present, _apart(middles, np.ptp(places, axis=0)), strict=True):
        disc = {"boxstyle": "circle,pad=0.25", "facecolor": SURFACE, "edgecolor": class_colour(index), "linewidth": 1.6}
        axes.text(x, y, str(index + 1), ha="center", va="center", fontsize=8, fontweight="bold", color=INK, bbox=disc)


def _apart(middles: NDArray[np.float64], extent: NDArray[np.float64], *, gap: float = 0.075, steps: int = 80) -> NDArray[np.float64]:
    """Push label places `[labels, 2]` apart until no two are nearer than a share of the picture's width, so that none covers another."""
    scale = np.where(extent > 0, extent, 1.0)
    # Equal places have no direction to part in: a tiny turn around the circle gives them one, the same each time.
    angles = np.arange(len(middles)) * 2.399963  # golden angle, in radians
    places = middles / scale + 1e-6 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for _ in range(steps):
        apart = places[:, None] - places[None]  # [labels, labels, 2]
        distance = np.linalg.norm(apart, axis=-1) + np.eye(len(places))
        push = np.clip(gap - distance, 0, None) * (1 - np.eye(len(places)))
        places = places + 0.5 * (apart / distance[..., None] * push[..., None]).sum(axis=1)
    moved: NDArray[np.float64] = places * scale
    return moved
