import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from clmm_core.data.datasets.resampling import resampled


def ramp(times_s: np.ndarray) -> np.ndarray:
    return np.stack([times_s, -2 * times_s], axis=1)


def test_a_straight_line_stays_one() -> None:
    times_s = np.array([0.013, 0.05, 0.2, 0.21, 0.48, 0.61])
    stream = resampled(times_s, ramp(times_s), rate_hz=20.0, unit="rad/s")
    assert (stream.rate_hz, stream.start_s, stream.unit, stream.samples.dtype) == (20.0, 0.05, "rad/s", np.float32)
    np.testing.assert_allclose(stream.samples, ramp(np.arange(1, 13) / 20), atol=1e-6)


def test_samples_at_the_wanted_times_are_kept_as_they_are() -> None:
    times_s = 7.0 + np.arange(40) / 20
    values = np.random.default_rng(0).normal(size=(40, 3))
    stream = resampled(times_s, values, rate_hz=20.0, unit="1")
    assert stream.start_s == 7.0
    np.testing.assert_allclose(stream.samples, values, rtol=1e-6)


def test_two_streams_of_one_clock_share_their_times() -> None:
    early, late = np.arange(0.31, 3, 0.0497), np.arange(0.44, 3, 0.01)
    starts_s = [resampled(times_s, ramp(times_s), rate_hz=20.0, unit="1").start_s for times_s in (early, late)]
    np.testing.assert_allclose(np.array(starts_s) * 20, [7, 9])


def test_a_long_gap_becomes_nan_and_its_edges_stay() -> None:
    times_s = np.array([0.0, 0.1, 0.2, 0.8, 0.9, 1.4, 1.5])  # gaps of 0.6 s and, still bridged, 0.5 s
    stream = resampled(times_s, ramp(times_s), rate_hz=10.0, unit="1")
    assert np.isnan(stream.samples[:, 0]).tolist() == [False] * 3 + [True] * 5 + [False] * 8
    np.testing.assert_allclose(stream.samples[8:, 0], np.arange(8, 16) / 10, atol=1e-6)


def test_one_sample_is_a_stream() -> None:
    stream = resampled(np.array([0.97]), np.array([[4.0]]), rate_hz=20.0, unit="1")
    assert stream.samples.tolist() == [[4.0]]


@example([1, 63, 500, 500], 20.0, 0)  # 0.5 s, but for the last bit of 0.564 - 0.064
@given(st.lists(st.integers(1, 900), min_size=2, max_size=60), st.sampled_from([20.0, 50.0, 200.0]), st.integers(0, 10**15))
def test_every_sample_is_right_or_lost(steps_ms: list[int], rate_hz: float, origin_ms: int) -> None:
    times_s = (origin_ms % 10**8 + np.cumsum(steps_ms)) / 1000
    stream = resampled(times_s, times_s[:, None] - times_s[0], rate_hz=rate_hz, unit="1")
    grid_s = stream.start_s + np.arange(len(stream.samples)) / rate_hz
    assert stream.start_s >= times_s[0] - 0.001
    lost = np.isnan(stream.samples[:, 0])
    within = (grid_s >= times_s[0]) & (grid_s <= times_s[-1]) & ~lost
    np.testing.assert_allclose(stream.samples[within, 0], grid_s[within] - times_s[0], atol=1e-3)
    if max(steps_ms[1:]) <= 500:
        assert not lost.any()
