import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from clmm_core.federated.arrays import FUSION
from clmm_core.federated.clipping import MARGIN, factor_within, length_of

UPDATE = {
    "modalities.acc.w": np.array([[3.0, 0.0]], np.float32),
    "modalities.gyro.w": np.array([4.0], np.float32),
    "fusion.b": np.array([12.0], np.float32),
}
LARGEST = float(np.finfo(np.float32).max)


def test_the_length_is_over_all_arrays_of_the_parts_as_one_vector() -> None:
    assert length_of(UPDATE, {"acc", "gyro", FUSION}) == 13
    assert length_of(UPDATE, {"acc", "gyro"}) == 5
    assert length_of(UPDATE, set()) == 0


def test_what_is_within_stays_as_it_is_and_what_is_longer_ends_just_below() -> None:
    assert factor_within(5.0, 5.0) == 1
    assert factor_within(0.0, 5.0) == 1
    assert factor_within(20.0, 5.0) == pytest.approx(0.25, rel=2 * MARGIN)
    assert factor_within(20.0, 5.0) < 0.25
    assert factor_within(20.0, 5.0) > 0.25 * (1 - 2 * MARGIN)


@given(arrays.arrays(np.float32, st.integers(1, 50), elements=st.floats(-LARGEST, LARGEST, width=32)), st.floats(1e-3, 1e3))
def test_in_float32_nothing_is_longer_than_the_clip(values: np.ndarray, clip: float) -> None:
    update = {"fusion.b": values}
    factor = factor_within(length_of(update, {FUSION}), clip)
    shortened = {"fusion.b": (values.astype(np.float64) * factor).astype(np.float32)}
    assert math.isfinite(factor)
    assert length_of(shortened, {FUSION}) <= clip
