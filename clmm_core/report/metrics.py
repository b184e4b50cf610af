"""The figures of a run: pure functions of the counts its subjects leave behind.

A figure of no windows at all is None, never NaN: whoever shows or stores it has to say so. Suffixes: `N` windows, `K` classes.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from statistics import fmean, stdev

import numpy as np
from numpy.typing import ArrayLike

from clmm_core.errors import DataError
from clmm_core.federated.messages import Counts
from clmm_core.report.records import NUM_CALIBRATION_BINS, EvaluationCounts, Group, SubjectRecord

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


@dataclass(frozen=True, kw_only=True)
class GroupSummary:
    """How well a model recognises the subjects of one group; subjects without evaluated windows do not count."""

    group: Group
    num_subjects: int
    num_windows: int
    accuracy_mean: float
    """Mean over subjects, each counting the same, in [0, 1]."""
    accuracy_std: float | None
    """Over subjects, n - 1 in the denominator; None for one subject."""
    worst_subject: str
    worst_accuracy: float
    macro_f1_mean: float
    """Mean over subjects of each subject's macro-F1, in [0, 1]."""
    ece: float
    """Expected calibration error of all windows pooled, in [0, 1]."""
    gain_mean: float | None
    """Mean accuracy gained by personalisation, as a share; None where nobody was personalised."""
    num_personalised: int
    num_hurt: int
    """Personalised subjects whose accuracy fell."""


def counts_of(probabilities: ArrayLike, truth: ArrayLike) -> EvaluationCounts:
    """Count what a recogniser said of windows whose class is known.

    Args:
        probabilities: `[N, K]`, in [0, 1]; the largest is the prediction and its confidence, the first one of equals.
        truth: `[N]`, class numbers in 0..K-1: leave windows without a label out first.

    Raises:
        ValueError: the shapes do not fit, a class number is out of range, or a probability is not in [0, 1].
    """
    P = np.asarray(probabilities, dtype=np.float64)
    T = np.asarray(truth)
    if P.ndim != 2 or P.shape[1] == 0 or T.shape != P.shape[:1]:
        raise ValueError(f"expected probabilities [N, K] and truth [N], found {P.shape} and {T.shape}")
    num_windows, num_classes = P.shape
    if num_windows and not (np.issubdtype(T.dtype, np.integer) and T.min() >= 0 and T.max() < num_classes):
        raise ValueError(f"expected class numbers from 0 to {num_classes - 1} as truth: leave unlabelled windows out before counting")
    # Float32 softmax may end a rounding step above 1.
    if num_windows and not (np.isfinite(P).all() and P.min() >= 0 and P.max() <= 1 + 1e-5):
        raise ValueError("expected probabilities in [0, 1], found others or NaN: the model may have diverged")
    predicted = P.argmax(axis=1)
    confidence = np.minimum(P.max(axis=1), 1.0)
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(confusion, (T.astype(np.int64), predicted), 1)
    # Confidence 1 belongs to the last bin, not to one above it.
    bins = np.minimum((confidence * NUM_CALIBRATION_BINS).astype(np.int64), NUM_CALIBRATION_BINS - 1)
    calibration = np.zeros((NUM_CALIBRATION_BINS, 3), dtype=np.float64)
    np.add.at(calibration, bins, np.stack([np.ones(num_windows), confidence, predicted == T], axis=1))
    return EvaluationCounts(confusion=confusion, calibration=calibration)


def counts_as_lists(counts: EvaluationCounts) -> Counts:
    """Return the counts as they travel and are stored."""
    return Counts(
        confusion=tuple(tuple(row) for row in counts.confusion.tolist()),
        calibration=tuple(tuple(row) for row in counts.calibration.tolist()),
    )


def counts_as_arrays(counts: Counts, num_classes: int) -> EvaluationCounts:
    """Return the counts as arrays.

    Raises:
        DataError: a shape is not that of `num_classes` classes.
    """
    shapes = {len(counts.confusion), *map(len, counts.confusion)}, {len(counts.calibration)}, set(map(len, counts.calibration))
    if shapes != ({num_classes}, {NUM_CALIBRATION_BINS}, {3}):
        raise DataError(
            f"expected confusion [{num_classes}, {num_classes}] and calibration [{NUM_CALIBRATION_BINS}, 3], found other shapes"
        )
    return EvaluationCounts(
        confusion=np.array(counts.confusion, dtype=np.int64), calibration=np.array(counts.calibration, dtype=np.float64)
    )


def pooled(counts: Iterable[EvaluationCounts]) -> EvaluationCounts | None:
    """Return the sum of all counts, or None where there are none."""
    several = list(counts)
    return reduce(add, several) if several else None


def group_counts(subjects: Iterable[SubjectRecord], group: Group) -> EvaluationCounts | None:
    """Return the pooled counts of one group's subjects, or None where there are none."""
    return pooled(subject.counts for subject in subjects if subject.group == group)


def num_windows_of(counts: EvaluationCounts) -> int:
    """Return how many windows were counted."""
    return int(counts.confusion.sum())


def num_right_of(counts: EvaluationCounts) -> int:
    """Return how many windows were recognised."""
    return int(counts.confusion.trace())


def accuracy(counts: EvaluationCounts) -> float | None:
    """Return the share of windows recognised, in [0, 1]."""
    windows = num_windows_of(counts)
    return num_right_of(counts) / windows if windows else None


def macro_f1(counts: EvaluationCounts) -> float | None:
    """Return the mean F1 over the classes that occur in truth or prediction, in [0, 1]."""
    occurs = counts.confusion.sum(axis=1) + counts.confusion.sum(axis=0)
    if not occurs.any():
        return None
    return float(np.mean(2 * counts.confusion.diagonal()[occurs > 0] / occurs[occurs > 0]))


def expected_calibration_error(counts: EvaluationCounts) -> float | None:
    """Return the mean distance between confidence and accuracy over equal-width bins, weighted by windows, in [0, 1].

    Source: Guo, Pleiss, Sun, Weinberger 2017, "On Calibration of Modern Neural Networks", eq. 3, https://arxiv.org/abs/1706.04599.
    """
    windows, confidence, right = counts.calibration.T
    return float(np.abs(right - confidence).sum() / windows.sum()) if windows.any() else None


def chance(num_classes: int) -> float:
    """Return the accuracy of guessing each class equally often."""
    return 1 / num_classes


def majority_share(counts: EvaluationCounts) -> float | None:
    """Return the accuracy of always saying the class that is most frequent in truth."""
    windows = num_windows_of(counts)
    return int(counts.confusion.sum(axis=1).max()) / windows if windows else None


def wilson_interval(num_right: int, num_windows: int) -> tuple[float, float] | None:
    """Return the 95 % interval of a share; it stays in [0, 1] and is honest with few windows.

    Windows of one person resemble each other, so the truth is rather wider than this.

    Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22.
    """
    if num_windows == 0:
        return None
    share, z2 = num_right / num_windows, Z_95**2
    centre = (share + z2 / (2 * num_windows)) / (1 + z2 / num_windows)
    half = Z_95 / (1 + z2 / num_windows) * math.sqrt(share * (1 - share) / num_windows + z2 / (4 * num_windows**2))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def personal_gain(subject: SubjectRecord) -> float | None:
    """Return the accuracy gained by personalisation, as a share; None where it did not apply."""
    if subject.personal_before is None or subject.personal_after is None:
        return None
    before, after = accuracy(subject.personal_before), accuracy(subject.personal_after)
    return None if before is None or after is None else after - before


def worst_first(subjects: Iterable[SubjectRecord]) -> list[SubjectRecord]:
    """Return the subjects by accuracy, the lowest first, by name among equals; those without evaluated windows come last."""

    def rank(subject: SubjectRecord) -> tuple[bool, float, str]:
        share = accuracy(subject.counts)
        return share is None, share or 0.0, subject.subject

    return sorted(subjects, key=rank)


def summarise(subjects: Sequence[SubjectRecord], group: Group) -> GroupSummary | None:
    """Return the figures of one group, or None where no subject of it has evaluated windows."""
    members = [subject for subject in worst_first(subjects) if subject.group == group and num_windows_of(subject.counts)]
    counts = pooled(member.counts for member in members)
    if counts is None:
        return None
    accuracies = [share for member in members if (share := accuracy(member.counts)) is not None]
    gains = [gain for member in members if (gain := personal_gain(member)) is not None]
    return GroupSummary(
        group=group,
        num_subjects=len(members),
        num_windows=num_windows_of(counts),
        accuracy_mean=fmean(accuracies),
        accuracy_std=stdev(accuracies) if len(accuracies) > 1 else None,
        worst_subject=members[0].subject,
        worst_accuracy=accuracies[0],
        macro_f1_mean=fmean(share for member in members if (share := macro_f1(member.counts)) is not None),
        ece=expected_calibration_error(counts) or 0.0,
        gain_mean=fmean(gains) if gains else None,
        num_personalised=len(gains),
        num_hurt=sum(gain < 0 for gain in gains),
    )
