"""The figures of a study, each a function of its outcomes that returns one `<svg>` element, or None where there is nothing to show."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from textwrap import wrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from clmm_core.report.drawing import (
    GRID,
    INK,
    MAX_LABEL,
    SURFACE,
    class_colour,
    dress,
    label_text,
    name_ticks,
    new_figure,
    standing_alone,
)
from clmm_core.report.lines import percent
from clmm_core.report.plots import MAX_BARS as MAX_SUBJECTS
from simulation.study.outcomes import Outcome, by_subject, interval, mean_by_subject, of
from simulation.study.plan import Study

MAX_PANELS = 6
"""Settings that a figure with a panel each shows, the first ones; the tables have them all."""
COLUMNS = {1: 1, 2: 2, 3: 3, 4: 2, 5: 3, 6: 3}
"""Panels beside one another, by how many there are."""
MARKERS = {"o": 5.5, "s": 5.2, "^": 6.6, "D": 5.0, "v": 6.6, "P": 7.0, "X": 7.0, "<": 6.6, ">": 6.6, "p": 6.6, "h": 6.6, "*": 9.0}
"""Twelve shapes and the sizes that make them look the same size; with ten colours no two of the first sixty methods look the same."""
REFERENCE_SCALE = 1.4
LINE_IN = 0.18
"""Height of a line of the legend, in inches."""
TITLES = {
    "subjects": "Accuracy of each subject",
    "gains": "What personalisation gains each subject",
    "settings": "Accuracy over the settings",
    "curve": "Validation accuracy over the rounds of stage two",
}


def study_figures(study: Study, outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Return the figures that the study asks for and its outcomes can fill, by their name in `TITLES`."""
    draw: dict[str, Callable[[Study, Sequence[Outcome]], str | None]] = {"subjects": subjects_figure, "gains": gains_figure}
    draw |= {"settings": {"settings": settings_figure}, "curve": {"curve": curve_figure}, "none": {}}[study.figure]
    drawn = {name: figure(study, outcomes) for name, figure in draw.items()}
    return {name: svg for name, svg in drawn.items() if svg is not None}


def caption(study: Study, name: str) -> str:
    """Return what the marks of a figure mean."""
    more = f" The first {MAX_PANELS} of {len(study.settings)} settings." if len(study.settings) > MAX_PANELS else ""
    match name:
        case "subjects":
            return f"A dot is a method’s accuracy, mean over the runs that tested the subject. Worst with {study.reference} first.{more}"
        case "gains":
            return (
                f"A dot is a method’s gain, mean over the runs that tested the subject. Who gains least with {study.reference} first.{more}"
            )
        case "settings":
            return "Mean over subjects, with its 95 % interval by Student’s t over subjects. Places within a setting mean nothing."
        case _:
            return f"Mean over runs; the band is ± one standard deviation over runs.{more}"


def subjects_figure(study: Study, outcomes: Sequence[Outcome]) -> str | None:
    """Draw a row a subject and a dot a method, the worst subject at the top, a panel a setting; None without outcomes."""
    dots = _dots(study, outcomes, by_subject, "accuracy, %")
    if dots is None:
        return None
    for axes in dots.panels:
        axes.set_xlim(max(0.0, 10 * (min(90.0, dots.lowest) // 10)), 100)
    return standing_alone(dots.figure, "study-subjects", f"Accuracy of {dots.in_words(study)}.")


def gains_figure(study: Study, outcomes: Sequence[Outcome]) -> str | None:
    """Draw what personalisation gains each subject, the one it gains least at the top; None where nobody was personalised."""
    personalised = [outcome for outcome in outcomes if outcome.gain]
    dots = _dots(study, personalised, _gains, "percentage points gained")
    if dots is None:
        return None
    for axes in dots.panels:
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_xlim(5 * (min(0.0, dots.lowest) // 5), -5 * (-max(5.0, dots.highest) // 5))
    return standing_alone(dots.figure, "study-gains", f"Points gained by {dots.in_words(study)}.")


def _gains(outcomes: Sequence[Outcome]) -> dict[str, float]:
    return mean_by_subject(outcome.gain for outcome in outcomes)


@dataclass(frozen=True)
class _Dots:
    """A drawing of a row a subject, before its limits are set."""

    figure: Drawing
    panels: Sequence[Axes]
    everybody: Mapping[str, float]
    """Each subject's share, mean over all methods, in the order of the rows."""
    lowest: float
    highest: float

    def in_words(self, study: Study) -> str:
        """Return who is shown, from the first row to the last."""
        names = list(self.everybody)
        ends = [f"{name} with {percent(self.everybody[name])}" for name in (names[0], names[-1])]
        return f"{len(names)} subjects with {len(study.methods)} methods, from {' to '.join(ends)} over all methods"


def _dots(
    study: Study, outcomes: Sequence[Outcome], share_of: Callable[[Sequence[Outcome]], dict[str, float]], x_label: str
) -> _Dots | None:
    """Draw a row a subject and a dot a method at its share, in percent, the lowest with the reference at the top, a panel a setting."""
    shown = _panels(study, [outcome.cell.setting for outcome in outcomes])
    outcomes = [outcome for outcome in outcomes if outcome.cell.setting in shown]
    if not outcomes:
        return None
    everybody = share_of(outcomes)
    with_reference = share_of([outcome for outcome in outcomes if outcome.cell.method == study.reference])
    subjects = sorted(everybody, key=lambda name: (with_reference.get(name, everybody[name]), name))[:MAX_SUBJECTS]
    places = {name: place for place, name in enumerate(subjects)}
    step = 0.1 if len(study.methods) <= 4 else 0.64 / (len(study.methods) - 1)
    row_in = 0.24 if len(study.methods) <= 8 else 0.3
    figure, panels = _grid(len(shown), panel_in=5.2 if len(shown) == 1 else 2.75, height_in=row_in * len(subjects) + 0.7)
    drawn = []
    for axes, setting in zip(panels, shown, strict=True):
        dress(axes, x_label=x_label, grid="x")
        _title(axes, setting)
        for place in range(0, len(subjects), 2):
            axes.axhspan(place - 0.5, place + 0.5, color=GRID, alpha=0.35, linewidth=0)
        for i, method in enumerate(study.methods):
            shares = {name: 100 * value for name, value in share_of(of(outcomes, setting, method)).items() if name in places}
            if not shares:  # an empty line that is not clipped leaves matplotlib no room for the axes
                continue
            offset = step * (i - (len(study.methods) - 1) / 2)
            rows = [places[name] + offset for name in shares]
            axes.plot(list(shares.values()), rows, linestyle="", **_mark(study, method), clip_on=False)
            drawn += shares.values()
        axes.set_ylim(len(subjects) - 0.5, -0.5)
        name_ticks(axes, "y", [label_text(name) for name in subjects])
        axes.xaxis.set_major_locator(_round_numbers())
    for axes in panels:
        axes.label_outer()
        axes.tick_params(labelbottom=True)
    _legend(figure, study, outcomes)
    return _Dots(figure, panels, {name: everybody[name] for name in subjects}, min(drawn), max(drawn))


def settings_figure(study: Study, outcomes: Sequence[Outcome]) -> str | None:
    """Draw mean accuracy over the settings, a line a method; None where fewer than two settings have outcomes."""
    if len({outcome.cell.setting for outcome in outcomes}) < 2:
        return None
    names = list(study.settings)
    width_in = min(9.8, max(6.8, 1.1 * len(names) + 1))
    figure = new_figure(width_in, 3.6)
    axes = figure.subplots()
    dress(axes, y_label="accuracy, %", grid="y")
    ends = []
    for i, method in enumerate(study.methods):
        # Side by side within a setting, so that intervals do not hide one another.
        dodge = min(0.6 / len(study.methods), 0.08) * (i - (len(study.methods) - 1) / 2)
        points = [
            (place, interval(list(by_subject(rows).values()))) for place, name in enumerate(names) if (rows := of(outcomes, name, method))
        ]
        mark = _mark(study, method)
        axes.plot([place + dodge for place, _ in points], [100 * each.mean for _, each in points], **mark, linewidth=1.6)
        for place, each in points:
            if each.low is not None and each.high is not None:
                bounds = [100 * max(0.0, each.low), 100 * min(1.0, each.high)]
                axes.plot([place + dodge] * 2, bounds, color=mark["color"], linewidth=1.2, alpha=0.55)
        ends += [f"{method} from {percent(points[0][1].mean)} to {percent(points[-1][1].mean)}"] if points else []
    name_ticks(axes, "x", [_wrapped(name, max(8, int(11 * width_in / len(names)))) for name in names])
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.yaxis.set_major_locator(_round_numbers())
    _legend(figure, study, outcomes)
    return standing_alone(figure, "study-settings", f"Mean accuracy from '{names[0]}' to '{names[-1]}': {'; '.join(ends)}.")


def curve_figure(study: Study, outcomes: Sequence[Outcome]) -> str | None:
    """Draw validation accuracy over the rounds of stage two, a line a method, a panel a setting; None where no run has it."""
    outcomes = [outcome for outcome in outcomes if outcome.curve]
    shown = _panels(study, [outcome.cell.setting for outcome in outcomes])
    if not shown:
        return None
    figure, panels = _grid(len(shown), panel_in=5.2 if len(shown) == 1 else 2.75, height_in=3.4 if len(shown) == 1 else 2.4)
    for axes, setting in zip(panels, shown, strict=True):
        dress(axes, x_label="round", y_label="validation accuracy, %", grid="y")
        _title(axes, setting)
        for method in study.methods:
            _curve(axes, [outcome.curve for outcome in of(outcomes, setting, method)], _mark(study, method))
        axes.xaxis.set_major_locator(_round_numbers())
        axes.yaxis.set_major_locator(_round_numbers())
    low, high = min(axes.get_ylim()[0] for axes in panels), max(axes.get_ylim()[1] for axes in panels)
    last = max(len(outcome.curve) for outcome in outcomes)
    for axes in panels:
        axes.set_ylim(max(0.0, low), min(100.5, high))
        axes.set_xlim(1 - 0.02 * last, last + 0.02 * last)
        axes.label_outer()
        axes.tick_params(labelbottom=True)
    _legend(figure, study, outcomes)
    ends = [
        f"{method} ends at {percent(fmean(outcome.curve[-1] for outcome in rows))}"
        for method in study.methods
        if (rows := of(outcomes, shown[0], method))
    ]
    return standing_alone(figure, "study-curve", f"Validation accuracy over up to {last} rounds{_of(shown[0])}: {'; '.join(ends)}.")


def _curve(axes: Axes, curves: Sequence[Sequence[float]], mark: Mapping[str, Any]) -> None:
    """Draw the mean of the runs that have each round, and a band of one deviation where they are several."""
    rounds = range(1, max(map(len, curves), default=0) + 1)
    at = [[100 * curve[n - 1] for curve in curves if len(curve) >= n] for n in rounds]
    means, deviations = [fmean(values) for values in at], [stdev(values) if len(values) > 1 else 0.0 for values in at]
    axes.plot(rounds, means, **mark, linewidth=1.8, markevery=max(1, len(means) // 8))
    low, high = ([m + sign * d for m, d in zip(means, deviations, strict=True)] for sign in (-1, 1))
    axes.fill_between(rounds, low, high, color=mark["color"], alpha=0.12, linewidth=0)


def _panels(study: Study, having: Sequence[str]) -> list[str]:
    """Return the settings that get a panel."""
    return [setting for setting in study.settings if setting in having][:MAX_PANELS]


def _grid(num_panels: int, *, panel_in: float, height_in: float) -> tuple[Drawing, list[Axes]]:
    """Return a figure and its panels in reading order, each of about that size."""
    columns = COLUMNS[num_panels]
    rows = -(-num_panels // columns)
    figure = new_figure(panel_in * columns + 1.6, height_in * rows + 0.2)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[num_panels:]:
        axes.remove()
    return figure, panels[:num_panels]


def _round_numbers() -> MaxNLocator:
    return MaxNLocator(6, integer=True, steps=[1, 2, 5, 10])


def _title(axes: Axes, setting: str) -> None:
    axes.set_title(_wrapped(setting) if setting else "", loc="left", color=INK, fontsize=10, fontweight="bold", parse_math=False)


def _mark(study: Study, method: str) -> dict[str, Any]:
    """Return a method's look, the same in every figure; the reference stands out."""
    i = list(study.methods).index(method)
    marker, size = list(MARKERS.items())[i % len(MARKERS)]
    edge = {"markeredgecolor": SURFACE, "markeredgewidth": 0.7}
    if method == study.reference:
        return {"color": class_colour(i), "marker": marker, "markersize": REFERENCE_SCALE * size, "zorder": 4, **edge}
    return {"color": class_colour(i), "marker": marker, "markersize": size, "zorder": 3, **edge}


def _legend(figure: Drawing, study: Study, outcomes: Sequence[Outcome]) -> None:
    """Name the methods above the panels; in as many columns as their names leave room for."""
    present = [method for method in study.methods if any(outcome.cell.method == method for outcome in outcomes)]
    labels = [_wrapped(method) for method in present]
    longest = max(len(line) for label in labels for line in label.splitlines())
    columns = max(1, min(int(72 * figure.get_figwidth() // (5.9 * longest + 36)), len(labels)))
    in_column = -(-len(labels) // columns)
    num_lines = max(sum(label.count("\n") + 1.2 for label in labels[i : i + in_column]) for i in range(0, len(labels), in_column))
    figure.set_figheight(figure.get_figheight() + LINE_IN * num_lines)
    marks = [Line2D([], [], linestyle="", **_mark(study, method), label=label) for method, label in zip(present, labels, strict=True)]
    legend = figure.legend(handles=marks, loc="outside upper left", ncols=columns, frameon=False, fontsize=9.5, labelcolor=INK,
                           handlelength=1, columnspacing=1.2)  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


def _wrapped(name: str, most: int = MAX_LABEL) -> str:
    """Return a name whole, in lines that a figure has room for."""
    return "\n".join(label_text(line) for line in wrap(name, most)) or " "


def _of(setting: str) -> str:
    return f" of '{setting}'" if setting else ""
