import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clmm_core.data.recording import LabelledInterval, Recording, Stream
from clmm_core.data.windows import NO_LABEL, NO_TRIAL, DeviceWindows, WindowSpec, window_recordings
from clmm_core.errors import DataError

STEPS = {"accelerometer": 10, "gyroscope": 10, "skeleton": 5}
SPEC = WindowSpec(length_s=1.0, time_steps=STEPS)
TRIALS = WindowSpec(length_s=None, time_steps=STEPS)


def ramp(num_samples: int, *, rate_hz: float = 10.0, start_s: float = 0.0, num_channels: int = 1) -> Stream:
    """A stream whose value is its time, in every channel."""
    times = (start_s + np.arange(num_samples) / rate_hz).astype(np.float32)
    return Stream(samples=np.repeat(times[:, None], num_channels, axis=1), rate_hz=rate_hz, start_s=start_s, unit="m/s^2")


def with_value(stream: Stream, row: int, value: float) -> Stream:
    samples = stream.samples.copy()
    samples[row] = value
    return Stream(samples=samples, rate_hz=stream.rate_hz, start_s=stream.start_s, unit=stream.unit)


def recording(*intervals: tuple[str, float, float], **streams: Stream) -> Recording:
    return Recording(
        subject="anna",
        session="monday",
        streams=streams,
        intervals=tuple(LabelledInterval(label=label, start_s=start_s, end_s=end_s) for label, start_s, end_s in intervals),
    )


def cut(*recordings: Recording, modalities: tuple[str, ...] = ("accelerometer",), spec: WindowSpec = SPEC) -> DeviceWindows:
    return window_recordings("anna", recordings, modalities, spec)


def slow_resample(samples: NDArray[np.float32], rate_hz: float, start_s: float, end_s: float, steps: int) -> NDArray[np.float32]:
    """Obviously correct, but slow: one value at a time, for a stream that starts at 0."""
    out = np.empty((samples.shape[1], steps), np.float32)
    for channel in range(samples.shape[1]):
        for i in range(steps):
            time_s = start_s + (end_s - start_s) * i / steps
            out[channel, i] = np.interp(time_s, np.arange(len(samples)) / rate_hz, samples[:, channel])
    return out


def test_windows_of_a_ramp_by_hand() -> None:
    windows = cut(recording(accelerometer=ramp(25)))
    assert windows.streams["accelerometer"].shape == (2, 1, 10)
    assert windows.streams["accelerometer"].dtype == np.float32
    np.testing.assert_allclose(windows.streams["accelerometer"][1, 0], np.arange(10, 20) / 10, rtol=1e-6)
    assert windows.starts_s.tolist() == [0.0, 1.0]
    assert windows.left_out == ()


def test_overlap_repeats_that_share_of_a_window() -> None:
    windows = cut(recording(accelerometer=ramp(25)), spec=WindowSpec(length_s=1.0, overlap=0.5, time_steps=STEPS))
    assert windows.starts_s.tolist() == [0.0, 0.5, 1.0, 1.5]
    streams = windows.streams["accelerometer"]
    np.testing.assert_array_equal(streams[0, :, 5:], streams[1, :, :5])


def test_streams_of_other_rates_and_starts_share_one_clock() -> None:
    windows = cut(
        recording(accelerometer=ramp(20), gyroscope=ramp(100, rate_hz=50.0), skeleton=ramp(6, rate_hz=5.0, start_s=0.9)),
        modalities=("accelerometer", "gyroscope", "skeleton"),
    )
    for modality in ("accelerometer", "gyroscope"):
        np.testing.assert_allclose(windows.streams[modality][1, 0], np.arange(10, 20) / 10, rtol=1e-5)
    np.testing.assert_allclose(windows.streams["skeleton"][1, 0], 1.0 + np.arange(5) / 5, rtol=1e-5)
    assert windows.present["skeleton"].tolist() == [False, True]
    assert not windows.streams["skeleton"][0].any()


@settings(max_examples=60, deadline=None)
@given(
    num_samples=st.integers(20, 200),
    rate_hz=st.sampled_from([10.0, 20.0, 31.25, 50.0]),
    length_s=st.sampled_from([0.5, 1.0, 1.28, 2.56]),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.75]),
)
def test_window_count_starts_and_coverage(num_samples: int, rate_hz: float, length_s: float, overlap: float) -> None:
    stream = ramp(num_samples, rate_hz=rate_hz)
    spec = WindowSpec(length_s=length_s, overlap=overlap, time_steps={"accelerometer": 8})
    step_s = length_s * (1 - overlap)
    starts_s = []
    while len(starts_s) * step_s + length_s <= stream.end_s + 1e-6:
        starts_s.append(len(starts_s) * step_s)
    if not starts_s:
        with pytest.raises(DataError, match=r"no window of .* s in 1 recording"):
            cut(recording(accelerometer=stream), spec=spec)
        return
    windows = cut(recording(accelerometer=stream), spec=spec)
    np.testing.assert_allclose(windows.starts_s, starts_s)
    assert stream.end_s - (windows.starts_s[-1] + length_s) < step_s  # what is left over makes no window
    for values, start_s in zip(windows.streams["accelerometer"], starts_s, strict=True):
        expected = slow_resample(stream.samples, rate_hz, start_s, start_s + length_s, 8)
        np.testing.assert_allclose(values, expected, atol=1e-4)


def one_by_one(recording: Recording, modalities: tuple[str, ...], starts_s: NDArray[np.float64]) -> list[tuple[dict[str, Any], str, int]]:
    """Obviously correct, but slow: what each window of one second has, and its label and trial."""
    found = []
    for start_s in starts_s:
        has = {}
        for modality in modalities:
            streams = [recording.streams[name] for name in modality.split("+")]
            if any(s.start_s > start_s + 1.5 / s.rate_hz or s.end_s < start_s + 1 - 1.5 / s.rate_hz for s in streams):
                continue
            times = start_s + np.arange(10) / 10
            places = [((times - s.start_s) * s.rate_hz).round(6) for s in streams]
            parts = [
                [np.interp(place, np.arange(len(s.samples)), each) for each in s.samples.T]
                for place, s in zip(places, streams, strict=True)
            ]
            if np.isfinite(parts).all():
                has[modality] = np.concatenate(parts)
        over = [i for i, each in enumerate(recording.intervals) if min(start_s + 1, each.end_s) - max(start_s, each.start_s) > 0.5]
        found.append((has, recording.intervals[over[0]].label if over else NO_LABEL, over[0] if over else NO_TRIAL))
    return [each for each in found if each[0]]


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.tuples(st.integers(20, 60), st.integers(10, 60)),
    rates_hz=st.tuples(st.sampled_from([8.0, 10.0, 20.0]), st.sampled_from([8.0, 16.0])),
    late_s=st.sampled_from([0.0, 0.375, 1.125]),
    lost=st.lists(st.integers(0, 19), max_size=3),
    bounds_s=st.lists(st.sampled_from([0.5 * i for i in range(12)]), max_size=5, unique=True).map(sorted),
)
def test_all_windows_at_once_are_those_one_by_one(
    lengths: tuple[int, int], rates_hz: tuple[float, float], late_s: float, lost: list[int], bounds_s: list[float]
) -> None:
    """Of two recordings of two streams with their own rates, starts, ends and gaps."""
    first, second = (ramp(count, rate_hz=rate_hz) for count, rate_hz in zip(lengths, rates_hz, strict=True))
    for row in lost:
        first = with_value(first, row, math.nan)
    second = replace(second, start_s=late_s)
    labelled = [(f"activity-{i}", start_s, end_s) for i, (start_s, end_s) in enumerate(pairwise(bounds_s))]
    whole = recording(*labelled, accelerometer=first, gyroscope=second)
    modalities = ("accelerometer", "gyroscope", "gyroscope+accelerometer")
    length_s = max(first.end_s, second.end_s)
    expected = one_by_one(whole, modalities, np.arange(0, length_s - 1 + 1e-9, 0.5))
    assume(expected)
    spec = WindowSpec(length_s=1.0, overlap=0.5, time_steps=STEPS)
    windows = cut(whole, whole, modalities=modalities, spec=spec)
    assert len(windows) == 2 * len(expected)
    num_intervals = len(whole.intervals)
    for i, (has, label, trial) in enumerate([*expected, *expected]):
        number = i // len(expected)
        assert (windows.recordings[i], windows.labels[i]) == (number, label)
        assert windows.trials[i] == (trial if trial == NO_TRIAL else trial + number * num_intervals)
        for name, values in windows.streams.items():
            assert windows.present[name][i] == (name in has)
            np.testing.assert_allclose(values[i], has.get(name, np.zeros_like(values[i])), atol=1e-5)


def test_label_is_that_of_the_interval_covering_more_than_half() -> None:
    windows = cut(recording(("walk", 0.0, 1.4), ("run", 1.4, 3.5), accelerometer=ramp(50)))
    assert windows.labels.tolist() == ["walk", "run", "run", NO_LABEL, NO_LABEL]
    assert windows.trials.tolist() == [0, 1, 1, NO_TRIAL, NO_TRIAL]


def test_exactly_half_is_no_label() -> None:
    windows = cut(recording(("walk", 0.0, 0.5), ("run", 0.5, 1.0), accelerometer=ramp(10)))
    assert windows.labels.tolist() == [NO_LABEL]


def test_trials_count_on_over_recordings() -> None:
    first = recording(("walk", 0.0, 1.0), ("run", 1.0, 2.0), accelerometer=ramp(20))
    windows = cut(first, recording(("walk", 0.0, 1.0), accelerometer=ramp(10)))
    assert windows.trials.tolist() == [0, 1, 2]
    assert windows.labels.tolist() == ["walk", "run", "walk"]


def test_whole_trial_windows_have_one_length_whatever_the_trial_has() -> None:
    windows = cut(recording(("walk", 0.0, 1.0), ("run", 1.0, 4.0), accelerometer=ramp(40)), spec=TRIALS)
    assert windows.labels.tolist() == ["walk", "run"]
    np.testing.assert_allclose(windows.streams["accelerometer"][1, 0], 1.0 + 0.3 * np.arange(10), rtol=1e-5)


def test_whole_trial_windows_keep_their_own_label_where_trials_overlap() -> None:
    windows = cut(recording(("walk", 0.0, 4.0), ("wave", 1.0, 2.0), accelerometer=ramp(40)), spec=TRIALS)
    assert windows.labels.tolist() == ["walk", "wave"]
    assert windows.trials.tolist() == [0, 1]


def test_one_window_device() -> None:
    assert len(cut(recording(accelerometer=ramp(10)))) == 1


def test_missing_modality_is_absent_and_says_so_in_the_mask() -> None:
    both = recording(accelerometer=ramp(10), gyroscope=ramp(10))
    windows = cut(both, recording(accelerometer=ramp(10)), modalities=("accelerometer", "gyroscope", "skeleton"))
    assert windows.present["gyroscope"].tolist() == [True, False]
    assert set(windows.streams) == {"accelerometer", "gyroscope"}  # this device never has a skeleton


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_finite_windows_are_left_out_and_counted(value: float) -> None:
    broken = with_value(ramp(30), 12, value)
    windows = cut(recording(accelerometer=broken, gyroscope=ramp(30)), modalities=("accelerometer", "gyroscope"))
    assert windows.present["accelerometer"].tolist() == [True, False, True]
    assert windows.present["gyroscope"].all()
    assert windows.left_out == ("device 'anna': 1 window(s) of a modality hold NaN or infinite samples and were left out",)


def test_windows_that_a_stream_covers_in_part_are_counted_by_stream() -> None:
    """The gyroscope stops in the third of five windows, in two recordings; the skeleton starts in the second one."""
    streams = {"accelerometer": ramp(55), "gyroscope": ramp(25), "skeleton": ramp(20, rate_hz=5.0, start_s=1.5)}
    windows = cut(
        recording(**streams), recording(**streams), modalities=("accelerometer", "gyroscope", "accelerometer+gyroscope", "skeleton")
    )
    assert windows.present["gyroscope"].tolist() == [True, True, False, False, False] * 2
    assert windows.present["skeleton"].tolist() == [False, False, True, True, True] * 2
    assert windows.left_out == (
        "device 'anna': 'gyroscope' covers only a part of 2 window(s) and was left out of them",
        "device 'anna': 'skeleton' covers only a part of 2 window(s) and was left out of them",
    )


def test_a_trial_that_a_stream_covers_in_part_is_counted() -> None:
    both = recording(("walk", 0.0, 2.0), ("run", 2.0, 4.0), accelerometer=ramp(40), gyroscope=ramp(30))
    windows = cut(both, modalities=("accelerometer", "gyroscope"), spec=TRIALS)
    assert windows.left_out == ("device 'anna': 'gyroscope' covers only a part of 1 window(s) and was left out of them",)


def test_a_stream_that_nobody_asked_for_and_one_that_only_touches_a_window_are_not_counted() -> None:
    streams = {"accelerometer": ramp(40), "gyroscope": ramp(21), "skeleton": ramp(2)}  # 2.1 s: a sample in the third window
    assert cut(recording(**streams), modalities=("accelerometer", "gyroscope")).left_out == ()


def test_what_a_loader_left_out_is_said_once_for_each_stream_asked_for() -> None:
    dead = {"magnetometer": "zeros only", "heart": "flat"}
    recordings = [replace(recording(accelerometer=ramp(10)), left_out=dead), replace(recording(accelerometer=ramp(10)), left_out=dead)]
    windows = cut(*recordings, recording(accelerometer=ramp(10)), modalities=("accelerometer", "accelerometer+magnetometer"))
    assert windows.left_out == ("device 'anna': 'magnetometer' was left out of 2 of 3 recording(s): zeros only",)


def test_a_window_without_any_modality_is_dropped_and_counted() -> None:
    windows = cut(recording(accelerometer=with_value(ramp(30), 12, math.nan)))
    assert windows.starts_s.tolist() == [0.0, 2.0]
    assert windows.left_out[1] == "device 'anna': 1 window(s) have none of accelerometer and were left out"


def test_joined_modality_is_there_where_both_are() -> None:
    streams = {"accelerometer": ramp(20, num_channels=3), "gyroscope": ramp(10, num_channels=2)}
    windows = cut(recording(**streams), modalities=("accelerometer+gyroscope", "accelerometer"))
    assert windows.streams["accelerometer+gyroscope"].shape == (2, 5, 10)
    assert windows.present["accelerometer+gyroscope"].tolist() == [True, False]
    assert windows.present["accelerometer"].all()


def test_windows_know_their_length_and_units() -> None:
    trial = recording(("walk", 0.0, 1.0), accelerometer=ramp(10), gyroscope=ramp(10))
    windows = cut(trial, modalities=("accelerometer+gyroscope", "gyroscope", "skeleton"))
    assert windows.length_s == 1.0
    assert windows.units == {"accelerometer+gyroscope": "m/s^2+m/s^2", "gyroscope": "m/s^2"}
    assert cut(trial, spec=TRIALS).length_s == 0.0


@pytest.mark.parametrize("recordings", [(), (recording(accelerometer=ramp(9)),), (recording(gyroscope=ramp(10)),)])
def test_no_window_is_an_error_that_says_what_to_change(recordings: tuple[Recording, ...]) -> None:
    with pytest.raises(DataError, match=r"device 'anna': no window of 1 s.*accelerometer; record longer, shorten data.window-s"):
        cut(*recordings)


def test_recordings_must_agree_about_channels() -> None:
    with pytest.raises(DataError, match="device 'anna', modality 'accelerometer': expected one number of channels"):
        cut(recording(accelerometer=ramp(10)), recording(accelerometer=ramp(10, num_channels=3)))


def test_resized_keeps_the_rates() -> None:
    spec = SPEC.resized(2.5, 0.5)
    assert (spec.length_s, spec.overlap) == (2.5, 0.5)
    assert spec.time_steps == {"accelerometer": 25, "gyroscope": 25, "skeleton": 12}


def test_whole_trials_have_no_length_to_change() -> None:
    with pytest.raises(DataError, match=r"leave data\.window-s at 0"):
        TRIALS.resized(2.0, 0.5)


@pytest.mark.parametrize(("length_s", "overlap", "steps"), [(0.0, 0.0, 1), (-1.0, 0.0, 1), (1.0, 1.0, 1), (1.0, -0.1, 1), (1.0, 0.0, 0)])
def test_a_window_that_cannot_be_is_refused(length_s: float, overlap: float, steps: int) -> None:
    with pytest.raises(DataError, match="expected"):
        WindowSpec(length_s=length_s, overlap=overlap, time_steps={"accelerometer": steps})
