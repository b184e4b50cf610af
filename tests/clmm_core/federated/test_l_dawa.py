import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as numpy_arrays

from clmm_core.federated.arrays import Arrays, difference
from clmm_core.federated.l_dawa import scale_by_agreement
from clmm_core.federated.weighted_sum import WeightedSum

NAME = "modalities.accelerometer.encoder.w"
layers = numpy_arrays(np.float32, (2, 3), elements=st.floats(-100, 100, width=32, allow_subnormal=False))


def scaled(local: list[float], start: list[float]) -> list[float]:
    return scale_by_agreement({NAME: np.float32(local)}, {NAME: np.float32(start)})[NAME].tolist()


def authors_aggregate(clients: list[Arrays], start: Arrays) -> Arrays:
    """`my_aggregate` of `L-DAWA-Agg.py` at 2ae58ba, a layer and a client after the other, in float64."""
    mean = {}
    for name, global_layer in start.items():
        y, total = global_layer.astype(np.float64), np.zeros_like(global_layer, np.float64)
        for client in clients:
            x = client[name].astype(np.float64)
            if np.linalg.norm(x) > 0:
                v = (x * y).sum() / (np.linalg.norm(x) * np.linalg.norm(y))
                x = x * min(v, 1.0)
            total = total + x
        mean[name] = total / len(clients)
    return mean


def test_a_layer_that_turned_by_60_degrees_counts_half():
    assert scaled([1.0, 3**0.5], [4.0, 0.0]) == pytest.approx([0.5, 3**0.5 / 2])


@pytest.mark.parametrize(
    ("local", "factor"), [([3.0, 0.0], 1.0), ([0.0, 2.0], 0.0), ([-5.0, 0.0], -1.0), ([1.0, 1.0], 0.5**0.5), ([-1.0, 1.0], -(0.5**0.5))]
)
def test_by_hand(local: list[float], factor: float):
    assert scaled(local, [2.0, 0.0]) == pytest.approx([factor * value for value in local], abs=1e-7)


@given(layers, st.sampled_from([1, 4, 64]))
def test_the_same_direction_leaves_a_layer_as_it_is_to_the_bit(layer: np.ndarray, length: int):
    assert np.array_equal(scale_by_agreement({NAME: layer}, {NAME: np.float32(length) * layer})[NAME], layer)


@pytest.mark.parametrize(("local", "start"), [([0.0, 0.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, 0.0]), ([0.0, 0.0], [0.0, 0.0])])
def test_an_array_of_zeros_on_either_side_leaves_the_local_one_as_it_is(local: list[float], start: list[float]):
    assert scaled(local, start) == local


@given(layers, layers)
def test_no_layer_grows(local: np.ndarray, start: np.ndarray):
    values = scale_by_agreement({NAME: local}, {NAME: start})[NAME]
    assert values.dtype == np.float32
    assert (np.abs(values) <= np.abs(local)).all()


@given(layers, layers)
def test_only_the_direction_of_the_global_layer_counts(local: np.ndarray, start: np.ndarray):
    one, other = (scale_by_agreement({NAME: local}, {NAME: np.float32(factor) * start})[NAME] for factor in (1, 8))
    np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-30)


def test_each_array_has_its_own_cosine_and_those_that_stayed_home_are_not_missed():
    start = {"a": np.float32([1, 0]), "b": np.float32([1, 0]), "c": np.float32([1, 0])}
    values = scale_by_agreement({"a": np.float32([0, 1]), "b": np.float32([2, 0])}, start)
    assert {name: array.tolist() for name, array in values.items()} == {"a": [0.0, 0.0], "b": [2.0, 0.0]}


@pytest.mark.parametrize("num_devices", [1, 2, 5])
def test_the_mean_over_devices_equals_the_authors_formula(num_devices: int):
    """Scaled where they were trained, folded as updates with equal weights, and added to the global layers."""
    random = np.random.default_rng(num_devices)
    shapes = {"modalities.accelerometer.encoder.w": (4, 3, 5), "modalities.accelerometer.encoder.b": (4,)}

    def drawn(scale: float) -> Arrays:
        return {name: (scale * random.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}

    start = drawn(1.0)
    clients = [{name: start[name] + change for name, change in drawn(0.7).items()} for _ in range(num_devices)]
    total = WeightedSum()
    for client in clients:
        total.add(difference(scale_by_agreement(client, start), start), {"accelerometer": 12.0})
    expected = authors_aggregate(clients, start)
    for name, update in total.mean().items():
        np.testing.assert_allclose(start[name] + update, expected[name], rtol=0, atol=1e-6)
