import numpy as np
import pytest

from clmm_core.data.recording import LabelledInterval, Recording, Stream
from clmm_core.errors import DataError


def test_stream_ends_one_period_after_its_last_sample() -> None:
    stream = Stream(samples=np.zeros((100, 3), np.float32), rate_hz=50.0, start_s=2.0, unit="m/s^2")
    assert stream.end_s == 4.0


def test_stream_may_hold_nan() -> None:
    samples = np.full((4, 1), np.nan, np.float32)
    assert np.isnan(Stream(samples=samples, rate_hz=1.0, unit="uT").samples).all()


@pytest.mark.parametrize("shape", [(3,), (0, 3), (3, 0), (2, 3, 4)])
def test_stream_refuses_samples_that_are_not_time_by_channels(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"expected samples \[time, channels\].*found shape"):
        Stream(samples=np.zeros(shape, np.float32), rate_hz=50.0, unit="m/s^2")


@pytest.mark.parametrize("rate_hz", [0.0, -1.0, float("nan"), float("inf")])
def test_stream_refuses_a_rate_that_is_not_positive(rate_hz: float) -> None:
    with pytest.raises(DataError, match="positive sampling rate"):
        Stream(samples=np.zeros((2, 3), np.float32), rate_hz=rate_hz, unit="m/s^2")


def test_interval_needs_a_name() -> None:
    with pytest.raises(DataError, match="leave unlabelled time out"):
        LabelledInterval(label="", start_s=0.0, end_s=1.0)


@pytest.mark.parametrize("end_s", [1.0, 0.5, float("nan")])
def test_interval_ends_after_its_start(end_s: float) -> None:
    with pytest.raises(DataError, match="interval 'walk' ends at"):
        LabelledInterval(label="walk", start_s=1.0, end_s=end_s)


def test_recording_needs_a_stream_and_names_its_session() -> None:
    with pytest.raises(DataError, match="subject 'anna', session 'monday': expected at least one stream"):
        Recording(subject="anna", session="monday", streams={})
