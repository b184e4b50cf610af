import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clmm_core.federated.channel_sums import ChannelSums, add_sums, channel_sums


def windows(seed: int, count: int, offset: float = 9.8) -> tuple[np.ndarray, np.ndarray]:
    """Windows [count, 3, 20] of three channels of very different size, some absent and then full of rubbish."""
    random = np.random.default_rng(seed)
    values = (random.normal(0, 1, (count, 3, 20)) * [[1], [1e-3], [50]] + [[offset], [0], [-40]]).astype(np.float32)
    present = random.random(count) < 0.7
    present[0] = True
    values[~present] = 1e9
    return values, present


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(1, 9)), min_size=1, max_size=5), st.floats(-100, 100))
def test_sums_of_devices_give_the_pooled_mean_and_deviation(devices: list[tuple[int, int]], offset: float):
    data = [windows(seed, count, offset) for seed, count in devices]
    sums = add_sums([{"accelerometer": channel_sums(*each)} for each in data])["accelerometer"]
    pooled = np.concatenate([values[present] for values, present in data]).astype(np.float64)
    np.testing.assert_allclose(sums.mean, pooled.mean(axis=(0, 2)), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(sums.std, pooled.std(axis=(0, 2)), rtol=1e-4)
    assert sums.count == pooled.shape[0] * 20
    assert sums.mean.dtype == sums.std.dtype == np.float32


def test_modalities_add_up_apart():
    one, other = channel_sums(*windows(1, 4)), channel_sums(*windows(2, 5))
    added = add_sums([{"a": one}, {"b": other}, {"a": other}])
    assert added == {"a": one + other, "b": other}
    assert add_sums([]) == {}


def test_two_samples_by_hand():
    """A channel of 1 and 3: mean 2, deviation 1 (of all samples, not of a sample of them)."""
    sums = channel_sums(np.float32([[[1, 3]]]), np.array([True]))
    assert sums == ChannelSums(count=2.0, total=(4.0,), squares=(10.0,))
    assert (sums.mean.item(), sums.std.item()) == (2.0, 1.0)


@pytest.mark.parametrize("value", [0.0, 9.80665, 101325.0])
def test_a_channel_that_never_moves_stays_finite(value: float):
    values = np.full((50, 1, 100), value, np.float32)
    sums = channel_sums(values, np.ones(50, np.bool_))
    assert sums.std.item() > 0
    normal = (values - sums.mean) / sums.std
    np.testing.assert_allclose(normal, 0, atol=1e-3)


@pytest.mark.parametrize("seed", range(20))
def test_a_large_constant_channel_is_not_scaled_by_rounding(seed: int):
    """Over many devices of unequal numbers of windows, as a pressure in hPa; nobody else is then thousands of deviations away."""
    random = np.random.default_rng(seed)
    value = np.float32(random.uniform(50, 5000))
    parts = [channel_sums(np.full((n, 1, 128), value, np.float32), np.ones(n, np.bool_)) for n in random.integers(1, 200, 12)]
    assert add_sums([{"pressure": part} for part in parts])["pressure"].std.item() == 1.0


def test_channels_of_different_number_do_not_add():
    with pytest.raises(ValueError, match="zip"):
        channel_sums(np.zeros((1, 2, 3), np.float32), np.array([True])) + channel_sums(np.zeros((1, 3, 3), np.float32), np.array([True]))
