"""The laws that make a fleet's mean independent of how its devices are spread over hosts."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clmm_core.federated.arrays import FUSION, Arrays
from clmm_core.federated.weighted_sum import WeightedSum

NAMES = {"modalities.accelerometer.w": "accelerometer", "modalities.gyroscope.w": "gyroscope", "primary.w": FUSION}
Update = tuple[Arrays, dict[str, float]]
values = st.floats(-1e6, 1e6, width=32)
weights = st.floats(1, 1000, width=32) | st.integers(1, 1000).map(float)


@st.composite
def updates(draw: st.DrawFn) -> list[Update]:
    """One to six devices, each with some of the parts."""

    def device() -> Update:
        names = draw(st.sets(st.sampled_from(sorted(NAMES)), min_size=1))
        arrays = {name: np.array(draw(st.lists(values, min_size=3, max_size=3)), np.float32) for name in sorted(names)}
        return arrays, {NAMES[name]: draw(weights) for name in sorted(names)}

    return [device() for _ in range(draw(st.integers(1, 6)))]


def folded(devices: list[Update]) -> WeightedSum:
    total = WeightedSum()
    for arrays, its_weights in devices:
        total.add(arrays, its_weights)
    return total


def by_hand(devices: list[Update], name: str) -> list[float]:
    """Sum of weight times value over the owners, divided by the sum of their weights, exactly rounded."""
    owners = [(arrays[name].tolist(), its_weights[NAMES[name]]) for arrays, its_weights in devices if name in arrays]
    total = math.fsum(weight for _, weight in owners)
    return [math.fsum(each[i] * weight for each, weight in owners) / total for i in range(3)]


def assert_close(one: Arrays, other: Arrays) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-6, atol=1e-6 * 1e6)


@given(updates())
def test_mean_equals_the_loop_over_the_owners(devices: list[Update]):
    mean = folded(devices).mean()
    assert set(mean) == {name for arrays, _ in devices for name in arrays}
    for name, value in mean.items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, by_hand(devices, name), rtol=1e-6, atol=1e-9)


@given(updates(), st.randoms())
def test_order_changes_nothing(devices: list[Update], random):
    shuffled = random.sample(devices, len(devices))
    one, other = folded(devices).mean(), folded(shuffled).mean()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-6, atol=1e-9)


@given(updates(), st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_hosts_fold_to_the_same(devices: list[Update], host_of: list[int]):
    """Devices into hosts, hosts into the server: what travels is the host's mean (float32) and its weights."""
    hosts = [folded([d for d, h in zip(devices, host_of, strict=False) if h == host]) for host in set(host_of[: len(devices)])]
    server = folded([(host.mean(), host.weights) for host in hosts])
    at_once = folded(devices)
    assert server.weights == pytest.approx(at_once.weights)
    assert_close(server.mean(), at_once.mean())


@given(updates())
def test_mean_lies_between_the_smallest_and_the_largest(devices: list[Update]):
    for name, value in folded(devices).mean().items():
        owned = np.stack([arrays[name] for arrays, _ in devices if name in arrays])
        assert (value >= owned.min(axis=0)).all()
        assert (value <= owned.max(axis=0)).all()


@given(updates(), st.floats(0.001, 1000))
def test_scaling_all_weights_changes_nothing(devices: list[Update], factor: float):
    scaled = [(arrays, {part: factor * weight for part, weight in its_weights.items()}) for arrays, its_weights in devices]
    one, other = folded(devices).mean(), folded(scaled).mean()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-6, atol=1e-9)


@given(updates())
def test_one_device_is_itself(devices: list[Update]):
    arrays, _ = devices[0]
    mean = folded(devices[:1]).mean()
    assert mean.keys() == arrays.keys()
    assert all(np.array_equal(mean[name], arrays[name]) for name in arrays)


@given(values, weights)
def test_weighing_one_alone_rounds_to_itself(value: float, weight: float):
    assert np.float32(np.float64(value) * weight / weight) == np.float32(value)


@given(weights, weights)
def test_a_weight_without_arrays_counts(one: float, other: float):
    total = folded([({}, {FUSION: one}), ({"primary.w": np.float32([2])}, {FUSION: other})])
    np.testing.assert_allclose(total.mean()["primary.w"], 2 * other / (one + other), rtol=1e-6)


@given(updates())
def test_a_modality_is_averaged_over_its_owners_only(devices: list[Update]):
    """A device that lacks a modality changes neither its mean nor its weight."""
    without = ({"primary.w": np.float32([1, 2, 3])}, {FUSION: 5.0})
    before, after = folded(devices), folded([*devices, without])
    for name in before.mean():
        if name != "primary.w":
            assert np.array_equal(before.mean()[name], after.mean()[name])
    assert {p: w for p, w in after.weights.items() if p != FUSION} == {p: w for p, w in before.weights.items() if p != FUSION}


def test_arrays_of_a_part_without_a_weight_are_left_out():
    total = WeightedSum()
    total.add({"modalities.gyroscope.w": np.float32([1]), "primary.w": np.float32([2])}, {FUSION: 3.0})
    assert total.mean() == {"primary.w": np.float32([2])}
    assert total.weights == {FUSION: 3.0}


def test_nothing_added_is_an_error():
    with pytest.raises(ValueError, match="at least one update to average, found none"):
        WeightedSum().mean()


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_a_weight_that_is_none_is_an_error(weight: float):
    with pytest.raises(ValueError, match=r"part 'fusion\.': expected a finite weight above 0"):
        WeightedSum().add({"primary.w": np.float32([2])}, {FUSION: weight})


def test_what_is_added_is_left_as_it_is():
    arrays = {"primary.w": np.float32([2])}
    total = folded([(arrays, {FUSION: 3.0}), (arrays, {FUSION: 1.0})])
    total.mean()["primary.w"] += 1
    total.weights[FUSION] = 9.0
    assert arrays["primary.w"] == np.float32([2])
    assert total.mean()["primary.w"] == np.float32([2])
    assert total.weights == {FUSION: 4.0}
