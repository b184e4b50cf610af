import numpy as np
import pytest

from clmm_core.federated.arrays import FUSION, difference, part_of


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("modalities.accelerometer.encoder.local.0.weight", "accelerometer"),
        ("modalities.a+b.mean", "a+b"),
        ("modalities.fusion.mean", "fusion"),
        ("fusion.quality", FUSION),
        ("primary.0.weight", FUSION),
        ("branches.modalities.x", FUSION),
        ("modalities_of.x", FUSION),
    ],
)
def test_an_array_belongs_to_its_modality_or_to_none(name: str, part: str):
    assert part_of(name) == part


def test_difference_is_local_minus_start_for_what_is_local():
    local, start = {"a": np.float32([3, 1])}, {"a": np.float32([1, 2]), "b": np.float32([9])}
    update = difference(local, start)
    assert update.keys() == {"a"}
    np.testing.assert_array_equal(update["a"], np.float32([2, -1]))
    np.testing.assert_array_equal(start["a"] + update["a"], local["a"])  # applied by addition
