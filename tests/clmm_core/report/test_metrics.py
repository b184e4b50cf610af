import dataclasses
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, f1_score

from clmm_core.report.metrics import (
    accuracy,
    chance,
    counts_of,
    expected_calibration_error,
    macro_f1,
    majority_share,
    personal_gain,
    pooled,
    summarise,
    wilson_interval,
    worst_first,
)
from clmm_core.report.records import NUM_CALIBRATION_BINS, EvaluationCounts, SubjectRecord


def confusion_counts(rows: list[list[int]]) -> EvaluationCounts:
    return EvaluationCounts(confusion=np.array(rows), calibration=np.zeros((NUM_CALIBRATION_BINS, 3)))


def subject(name: str, group: str, rows: list[list[int]], **personal: EvaluationCounts) -> SubjectRecord:
    counts = confusion_counts(rows)
    return SubjectRecord(subject=name, group=group, modalities=(), counts=counts, **personal)


@st.composite
def evaluations(draw) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [N, K] and truth [N]."""
    N, K = draw(st.integers(1, 40)), draw(st.integers(1, 6))
    weights = draw(arrays(np.float64, (N, K), elements=st.floats(0.015625, 1)))
    return weights / weights.sum(axis=1, keepdims=True), draw(arrays(np.int64, N, elements=st.integers(0, K - 1)))


def calibration_error_by_hand(P: np.ndarray, truth: np.ndarray) -> float:
    """Guo et al. 2017, eq. 3, one bin after the other."""
    confidence, right, error = P.max(axis=1), P.argmax(axis=1) == truth, 0.0
    bins = [min(int(c * NUM_CALIBRATION_BINS), NUM_CALIBRATION_BINS - 1) for c in confidence]
    for b in set(bins):
        inside = np.array(bins) == b
        error += inside.sum() / len(truth) * abs(right[inside].mean() - confidence[inside].mean())
    return error


@given(evaluations())
def test_figures_equal_the_oracles(evaluation: tuple[np.ndarray, np.ndarray]):
    P, truth = evaluation
    counts, predicted = counts_of(P, truth), P.argmax(axis=1)
    assert accuracy(counts) == pytest.approx(accuracy_score(truth, predicted))
    assert expected_calibration_error(counts) == pytest.approx(calibration_error_by_hand(P, truth))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sklearn warns of labels that look like a regression target
        assert macro_f1(counts) == pytest.approx(f1_score(truth, predicted, average="macro", zero_division=0))


@given(evaluations(), st.randoms())
def test_counts_add_up_whatever_the_order_and_the_cut(evaluation: tuple[np.ndarray, np.ndarray], random):
    P, truth = evaluation
    order = random.sample(range(len(truth)), len(truth))
    cut = random.randint(0, len(truth))
    whole, parts = (
        counts_of(P, truth),
        pooled([counts_of(P[order[:cut]], truth[order[:cut]]), counts_of(P[order[cut:]], truth[order[cut:]])]),
    )
    np.testing.assert_array_equal(whole.confusion, parts.confusion)
    np.testing.assert_allclose(whole.calibration, parts.calibration)


def test_two_windows_by_hand():
    counts = counts_of([[0.9, 0.1], [0.6, 0.4]], [0, 1])
    assert counts.confusion.tolist() == [[1, 0], [1, 0]]
    assert accuracy(counts) == 0.5
    assert macro_f1(counts) == pytest.approx((2 / 3 + 0) / 2)
    assert expected_calibration_error(counts) == pytest.approx((0.1 + 0.6) / 2)
    assert majority_share(counts) == 0.5
    assert chance(4) == 0.25


def test_macro_f1_leaves_out_a_class_that_never_occurs():
    assert macro_f1(confusion_counts([[2, 0, 0], [0, 2, 0], [0, 0, 0]])) == 1.0


def test_full_confidence_falls_into_the_last_bin_also_a_rounding_step_above_one():
    counts = counts_of(np.array([[1.0000001, 0.0], [1.0, 0.0]], dtype=np.float32), [0, 0])
    assert counts.calibration[-1].tolist() == [2, 2, 2]


def test_no_windows_have_no_figures():
    counts = counts_of(np.zeros((0, 3)), np.zeros(0, dtype=np.int64))
    assert (accuracy(counts), macro_f1(counts), expected_calibration_error(counts), majority_share(counts)) == (None,) * 4
    assert wilson_interval(0, 0) is None
    assert pooled([]) is None


@pytest.mark.parametrize(
    ("probabilities", "truth"),
    [
        ([[0.5, 0.5]], [-1]),
        ([[0.5, 0.5]], [2]),
        ([[np.nan, 1]], [0]),
        ([[0.5, 1.5]], [0]),
        ([[0.5, 0.5]], [0, 1]),
        ([0.5], [0]),
        ([[1.0]], [0.5]),
    ],
)
def test_what_cannot_be_counted_is_refused(probabilities, truth):
    with pytest.raises(ValueError, match="expected"):
        counts_of(probabilities, truth)


def test_wilson_interval_by_hand():
    # Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to 0.1611.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share_and_stays_in_range(right_of: tuple[int, int]):
    low, high = wilson_interval(*right_of)
    assert 0 <= low <= right_of[0] / right_of[1] <= high <= 1
    assert low < high


def test_summary_by_hand():
    subjects = [
        subject(
            "a",
            "unseen",
            [[8, 2], [0, 0]],
            personal_before=confusion_counts([[4, 0], [1, 0]]),
            personal_after=confusion_counts([[5, 0], [0, 0]]),
        ),
        subject(
            "b",
            "unseen",
            [[3, 1], [1, 1]],
            personal_before=confusion_counts([[2, 0], [0, 0]]),
            personal_after=confusion_counts([[1, 1], [0, 0]]),
        ),
        subject("c", "unseen", [[0, 0], [0, 0]]),
        subject("d", "seen", [[1, 0], [0, 1]]),
    ]
    summary = summarise(subjects, "unseen")
    assert (summary.num_subjects, summary.num_windows) == (2, 16)
    assert summary.accuracy_mean == pytest.approx((0.8 + 4 / 6) / 2)
    assert summary.accuracy_std == pytest.approx(np.std([0.8, 4 / 6], ddof=1))
    assert (summary.worst_subject, summary.worst_accuracy) == ("b", pytest.approx(4 / 6))
    assert (summary.num_personalised, summary.num_hurt) == (2, 1)
    assert summary.gain_mean == pytest.approx((0.2 - 0.5) / 2)
    alone = summarise(subjects, "seen")
    assert (alone.accuracy_std, alone.gain_mean, alone.num_personalised) == (None, None, 0)
    assert summarise(subjects, "labelled") is None
    assert summarise(subjects[2:3], "unseen") is None


def test_the_worst_come_first_and_those_without_windows_last():
    subjects = [
        subject("none", "seen", [[0]]),
        subject("b", "seen", [[5, 5]] * 2),
        subject("a", "seen", [[5, 5]] * 2),
        subject("c", "unseen", [[0, 1], [1, 0]]),
    ]
    assert [each.subject for each in worst_first(subjects)] == ["c", "a", "b", "none"]


def test_gain_needs_windows_before_and_after():
    full, none = confusion_counts([[1]]), confusion_counts([[0]])
    person = subject("a", "unseen", [[1]])
    assert personal_gain(person) is None
    assert personal_gain(dataclasses.replace(person, personal_before=none, personal_after=none)) is None
    assert personal_gain(dataclasses.replace(person, personal_before=full, personal_after=full)) == 0
