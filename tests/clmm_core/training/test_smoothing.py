import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clmm_core.data.windows import NO_TRIAL, DeviceWindows
from clmm_core.training.smoothing import smoothed

ALL = np.ones(100, np.bool_)


def windows(recordings: list[int], starts_s: list[float]) -> DeviceWindows:
    count = len(starts_s)
    return DeviceWindows(
        device="anna",
        streams={},
        present={},
        labels=np.full(count, ""),
        trials=np.full(count, NO_TRIAL),
        recordings=np.array(recordings),
        starts_s=np.array(starts_s),
    )


def slow(probabilities: np.ndarray, where: DeviceWindows, reach_s: float) -> np.ndarray:
    """One window after the other."""
    rows = []
    for recording, start_s in zip(where.recordings, where.starts_s, strict=True):
        near = (where.recordings == recording) & (np.abs(where.starts_s - start_s) <= reach_s + 1e-6)
        rows.append(probabilities[near].mean(axis=0))
    return np.array(rows)


def test_three_neighbours_by_hand():
    ones = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    averaged = smoothed(ones, windows([0, 0, 0, 1], [0.0, 1.28, 2.56, 0.0]), 1.28, ALL[:4])
    assert averaged.tolist() == [[0.5, 0.5], pytest.approx([1 / 3, 2 / 3]), [0.0, 1.0], [1.0, 0.0]]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40), st.integers(0, 99)), min_size=1, max_size=30), st.integers(1, 10))
def test_it_equals_the_loop_over_windows_in_any_order(rows: list[tuple[int, int, int]], steps: int):
    where = windows([row[0] for row in rows], [0.1 * row[1] for row in rows])
    share = np.array([[row[2] / 99, 1 - row[2] / 99] for row in rows])
    averaged = smoothed(share, where, 0.1 * steps, ALL[: len(rows)])
    np.testing.assert_allclose(averaged, slow(share, where, 0.1 * steps), atol=1e-12)
    np.testing.assert_allclose(averaged.sum(axis=1), 1.0)


def test_no_reach_changes_nothing():
    share = np.random.default_rng(0).dirichlet([1, 1, 1], size=5)
    np.testing.assert_allclose(smoothed(share, windows([0] * 5, [0.0, 1.0, 2.0, 3.0, 4.0]), 0.0, ALL[:5]), share)


def test_windows_that_were_trained_on_speak_for_nobody_and_keep_what_they_have():
    ones = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    averaged = smoothed(ones, windows([0, 0, 0], [0.0, 1.0, 2.0]), 1.0, np.array([True, False, True]))
    assert averaged.tolist() == ones.tolist()
