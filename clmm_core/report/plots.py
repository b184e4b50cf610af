"""The figures of a report, each a function of the record that returns one `<svg>` element, or None where there is nothing to show."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from clmm_core.report.drawing import (
    BLUE,
    GREEN,
    GRID,
    GROUP_COLOURS,
    INK,
    LINE,
    MUTED,
    SURFACE,
    VERMILION,
    dress,
    label_text,
    name_ticks,
    new_figure,
    svg_text,
)
from clmm_core.report.lines import percent, points
from clmm_core.report.metrics import (
    accuracy,
    chance,
    expected_calibration_error,
    group_counts,
    num_right_of,
    num_windows_of,
    personal_gain,
    wilson_interval,
    worst_first,
)
from clmm_core.report.records import GROUPS, EvaluationCounts, RoundRecord, RunRecord, SubjectRecord

MAX_BARS = 60
"""Subjects a bar figure shows, the worst ones; the table has them all."""


def unseen_counts(run: RunRecord) -> EvaluationCounts | None:
    """Return the pooled counts of unseen subjects, or None where they have no windows."""
    counts = group_counts(run.subjects, "unseen")
    return counts if counts is not None and num_windows_of(counts) else None


def learning_curves(run: RunRecord) -> str | None:
    """Draw loss against round for each stage, and accuracy on validation subjects; None where no round has any of them."""
    curves = [
        ("Stage one: loss, no labels", _curve(run.rounds, "pretrain", "loss"), LINE, False),
        ("Stage two: loss, few labels", _curve(run.rounds, "finetune", "loss"), LINE, False),
        ("Self-training: loss, own labels", _curve(run.rounds, "selftrain", "loss"), LINE, False),
        ("Validation accuracy, %", _curve(run.rounds, None, "validation_accuracy"), GREEN, True),
    ]
    shown = [curve for curve in curves if curve[1]]
    if not shown:
        return None
    figure = new_figure(3.1 * len(shown) + 0.4, 2.6)
    for axes, (title, curve, colour, is_share) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        x, y = np.array(curve, dtype=float).T
        y = 100 * y if is_share else y
        dress(axes, x_label="round", title=title, grid="y")
        axes.plot(x, y, color=colour, linewidth=2, marker="o" if len(x) <= 30 else None, markersize=4)
        axes.annotate(f"{y[-1]:.1f} %" if is_share else f"{y[-1]:.3g}", (x[-1], y[-1]), xytext=(6, 0), textcoords="offset points",
                      va="center", color=INK, fontsize=9.5, fontweight="bold")  # fmt: skip
        _whole_rounds(axes, x)
        if is_share:
            axes.set_ylim(0, 100)
        axes.margins(x=0.04)
    ends = "; ".join(f"{title.split(',')[0]} from {curve[0][1]:.3g} to {curve[-1][1]:.3g}" for title, curve, *_ in shown)
    return svg_text(figure, "curves", f"Learning curves over rounds. {ends}.")


def _curve(rounds: Sequence[RoundRecord], stage: str | None, figure: str) -> list[tuple[int, float]]:
    return [
        (record.server_round, value)
        for record in rounds
        if record.server_round is not None and stage in (None, record.stage) and (value := getattr(record, figure)) is not None
    ]


def _whole_rounds(axes: Axes, x: NDArray[np.float64]) -> None:
    """Put ticks at whole rounds only; a stage of one round gets one tick in the middle."""
    first, last = int(x[0]), int(x[-1])
    step = max(1, -(-(last - first) // 5))
    axes.set_xticks([*(tick for tick in range(first, last, step) if last - tick > 0.6 * step), last])
    room = max(0.5, 0.22 * (last - first))
    axes.set_xlim(first - 0.2 * room, last + room)


def confusion_matrix(run: RunRecord) -> str | None:
    """Draw what unseen subjects did against what was recognised, each row summing to 100 %; None without unseen windows."""
    counts, classes = unseen_counts(run), run.split.classes
    if counts is None:
        return None
    K = len(classes)
    rows = counts.confusion.sum(axis=1, keepdims=True)
    shares = counts.confusion / np.maximum(rows, 1)
    cell_in = 0.52 if K <= 8 else 0.4 if K <= 14 else 0.27
    figure = new_figure(K * cell_in + 2.6, K * cell_in + 1.7)
    axes = figure.subplots()
    dress(axes, x_label="recognised as", y_label="what they did (windows)", grid=None)
    font = 9.5 if K <= 8 else 8.5 if K <= 14 else 7
    least = 0.005 if K <= 14 else 0.045
    for i, j in zip(*np.nonzero(shares), strict=True):
        share = shares[i, j]
        # Right on the diagonal in blue, mistakes in vermilion, so that mistakes are found at a glance.
        # At most 0.75 opaque: the ink on it stays readable on a light and on a dark page.
        colour = BLUE if i == j else VERMILION
        axes.add_patch(Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, color=colour, alpha=0.13 + 0.62 * share, linewidth=0))
        if share >= least:
            axes.text(j, i, f"{100 * share:.0f}", ha="center", va="center", fontsize=font, color=INK)
    axes.set_xlim(-0.5, K - 0.5)
    axes.set_ylim(K - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.set_xticks(np.arange(K + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(K + 1) - 0.5, minor=True)
    axes.grid(visible=True, which="minor", color=GRID, linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    name_ticks(axes, "x", [label_text(name) for name in classes], fontsize=font, rotation=45)
    name_ticks(axes, "y", [f"{label_text(name)} ({int(n):,})" for name, n in zip(classes, rows[:, 0], strict=True)], fontsize=font)
    return svg_text(figure, "confusion", _confusion_in_words(counts, shares, classes))


def _confusion_in_words(counts: EvaluationCounts, shares: NDArray[np.float64], classes: Sequence[str]) -> str:
    text = f"Confusion matrix of {num_windows_of(counts):,} windows of unseen subjects, {percent(accuracy(counts))} recognised."
    mistakes = shares * (1 - np.eye(len(classes)))
    i, j = divmod(int(mistakes.argmax()), len(classes))
    return text + (f" Most often mistaken: {classes[i]} for {classes[j]}, {percent(mistakes[i, j])}." if mistakes[i, j] > 0 else "")


def subject_bars(run: RunRecord) -> str | None:
    """Draw each subject's accuracy with its 95 % interval, the worst at the top, and the chance line; None without windows."""
    subjects = [subject for subject in worst_first(run.subjects) if num_windows_of(subject.counts)][:MAX_BARS]
    if not subjects:
        return None
    figure = new_figure(6.8, 0.27 * len(subjects) + 1.2)
    axes = figure.subplots()
    dress(axes, x_label="accuracy, % of windows (line: 95 % interval)", grid="x")
    for place, subject in enumerate(subjects):
        right, windows = num_right_of(subject.counts), num_windows_of(subject.counts)
        share, bounds = right / windows, wilson_interval(right, windows)
        axes.barh(place, 100 * share, height=0.68, color=GROUP_COLOURS[subject.group], linewidth=0)
        if bounds is not None:
            axes.plot([100 * bounds[0], 100 * bounds[1]], [place, place], color=INK, linewidth=1.3, solid_capstyle="butt")
        axes.text(101.5, place, f"{100 * share:.1f}", va="center", color=INK, fontsize=9)
        axes.text(115.5, place, f"{windows:,}", va="center", ha="right", color=MUTED, fontsize=9)
    for x, heading in ((101.5, "%"), (115.5, "windows")):
        axes.text(x, -0.85, heading, va="center", ha="right" if heading != "%" else "left", color=MUTED, fontsize=9)
    guess = 100 * chance(len(run.split.classes))
    axes.axvline(guess, ymax=0.985, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.text(guess + 0.8, -0.85, f"chance {guess:.1f} %", va="center", color=INK, fontsize=9)
    axes.set_xlim(0, 116)
    axes.set_xticks(range(0, 101, 20))
    axes.set_ylim(len(subjects) - 0.4, -1.3)
    name_ticks(axes, "y", [label_text(subject.subject) for subject in subjects])
    present = [group for group in GROUPS if any(subject.group == group for subject in subjects)]
    figure.legend(handles=[Patch(color=GROUP_COLOURS[group], label=group) for group in present], loc="outside upper left",
                  ncols=len(present), frameon=False, fontsize=9.5, labelcolor=INK, handlelength=1, handleheight=1)  # fmt: skip
    worst, best = subjects[0], subjects[-1]
    return svg_text(
        figure,
        "subjects",
        f"Accuracy of {len(subjects)} subjects, from {worst.subject} with {percent(accuracy(worst.counts))}"
        f" to {best.subject} with {percent(accuracy(best.counts))}; chance is {guess:.1f} %.",
    )


def reliability_diagram(run: RunRecord) -> str | None:
    """Draw how often it was right against how sure it was, for unseen subjects; None without unseen windows."""
    counts = unseen_counts(run)
    error = None if counts is None else expected_calibration_error(counts)
    if counts is None or error is None:
        return None
    bins = counts.calibration[counts.calibration[:, 0] > 0]
    windows, sure, right = bins[:, 0], 100 * bins[:, 1] / bins[:, 0], 100 * bins[:, 2] / bins[:, 0]
    figure = new_figure(4.6, 4.5)
    axes = figure.subplots()
    dress(axes, x_label="how sure it was, %", y_label="how often it was right, %", grid="both")
    axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
    for x, y, n in zip(sure, right, windows, strict=True):
        bounds = wilson_interval(round(y * n / 100), int(n))
        if bounds is not None:
            axes.plot([x, x], [100 * bounds[0], 100 * bounds[1]], color=LINE, linewidth=1.3, alpha=0.45)
    axes.scatter(sure, right, s=30 + 260 * windows / windows.sum(), color=LINE, edgecolors=SURFACE, linewidths=1, zorder=3, clip_on=False)
    axes.text(99, 11, f"mean gap (ECE) {percent(error)}", color=INK, fontsize=10, fontweight="bold", ha="right")
    axes.text(99, 4, "above the line: too modest; below: too sure", color=MUTED, fontsize=9, ha="right")
    axes.set_xlim(0, 102)
    axes.set_ylim(0, 102)
    axes.set_aspect("equal")
    return svg_text(
        figure, "reliability", f"Reliability of confidence over {int(windows.sum()):,} windows; calibration error {percent(error)}."
    )


def personal_gains(run: RunRecord) -> str | None:
    """Draw accuracy before and after personalisation, the smallest gain at the top; None where nobody was personalised."""
    gained = [(gain, subject) for subject in run.subjects if (gain := personal_gain(subject)) is not None]
    if not gained:
        return None
    gained = sorted(gained, key=lambda pair: (pair[0], pair[1].subject))[:MAX_BARS]
    figure = new_figure(6.8, 0.27 * len(gained) + 1.2)
    axes = figure.subplots()
    dress(axes, x_label="accuracy on the subject's other windows, %", grid="x")
    for place, (gain, subject) in enumerate(gained):
        before, after = _before_and_after(subject)
        colour = VERMILION if gain < 0 else LINE
        axes.plot([before, after], [place, place], color=colour, linewidth=2.5, solid_capstyle="round")
        axes.plot(before, place, marker="o", markersize=7, color=SURFACE, markeredgecolor=colour, markeredgewidth=1.6)
        axes.plot(after, place, marker="o", markersize=7, color=colour)
        axes.text(1.12, place, points(gain), transform=axes.get_yaxis_transform(), va="center", ha="right", color=INK, fontsize=9)
    axes.text(1.12, -0.9, "points", transform=axes.get_yaxis_transform(), va="center", ha="right", color=MUTED, fontsize=9)
    lowest = min(min(_before_and_after(subject)) for _, subject in gained)
    axes.set_xlim(max(0, 10 * (lowest // 10) - 10), 101)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_ylim(len(gained) - 0.4, -1.3)
    name_ticks(axes, "y", [label_text(subject.subject) for _, subject in gained])
    marks = [
        Line2D([], [], marker="o", linestyle="", color=SURFACE, markeredgecolor=MUTED, markeredgewidth=1.6, label="shared model"),
        Line2D([], [], marker="o", linestyle="", color=MUTED, label="personalised"),
        Patch(color=VERMILION, label="got worse"),
    ]
    figure.legend(handles=marks, loc="outside upper left", ncols=3, frameon=False, fontsize=9.5, labelcolor=INK, handlelength=1)
    hurt = sum(gain < 0 for gain, _ in gained)
    return svg_text(
        figure, "personal", f"Personalisation of {len(gained)} subjects: {len(gained) - hurt} gained or kept, {hurt} lost accuracy."
    )


def _before_and_after(subject: SubjectRecord) -> tuple[float, float]:
    assert subject.personal_before is not None
    assert subject.personal_after is not None
    return 100 * (accuracy(subject.personal_before) or 0), 100 * (accuracy(subject.personal_after) or 0)
