import numpy as np
import pytest

from clmm_core.data.datasets.synthetic import ACTIVITIES, ACTIVITY_S, RATES_HZ, Synthetic
from clmm_core.data.recording import Recording
from clmm_core.data.windows import NO_LABEL, window_recordings
from clmm_core.errors import ConfigError

NUM_DEVICES = 60


@pytest.fixture(scope="module")
def fleet() -> dict[str, tuple[Recording, ...]]:
    data = Synthetic(num_devices=NUM_DEVICES, seed=3)
    return {subject: data.recordings(subject) for subject in data.subjects()}


def same(one: tuple[Recording, ...], other: tuple[Recording, ...]) -> bool:
    return all(
        a.intervals == b.intervals
        and a.streams.keys() == b.streams.keys()
        and all(np.array_equal(a.streams[name].samples, b.streams[name].samples, equal_nan=True) for name in a.streams)
        for a, b in zip(one, other, strict=True)
    )


def test_subjects_are_numbered() -> None:
    assert Synthetic(num_devices=2, seed=0).subjects() == ("device-00000", "device-00001")


def test_a_device_depends_on_seed_and_number_only(fleet: dict[str, tuple[Recording, ...]]) -> None:
    assert same(Synthetic(num_devices=10_000, seed=3).recordings("device-00007"), fleet["device-00007"])
    assert not same(Synthetic(num_devices=NUM_DEVICES, seed=4).recordings("device-00007"), fleet["device-00007"])
    firsts = [recordings[0].streams["accelerometer"].samples[:50].tobytes() for recordings in fleet.values()]
    assert len(set(firsts)) == NUM_DEVICES


def test_global_randomness_is_neither_used_nor_changed() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002  what is tested is that nobody touches it
    Synthetic(num_devices=1, seed=0).recordings("device-00000")
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_about_sixty_windows_and_every_activity_in_both_sessions(fleet: dict[str, tuple[Recording, ...]]) -> None:
    data = Synthetic(num_devices=NUM_DEVICES, seed=3)
    for subject in ("device-00000", "device-00031"):
        windows = window_recordings(subject, fleet[subject], data.modalities, data.window)
        assert 50 <= len(windows) <= 64
        assert set(windows.labels.tolist()) - {NO_LABEL} == set(ACTIVITIES)
        assert len(set(windows.trials.tolist()) - {-1}) == 12
        assert all(values.shape[2] == data.window.time_steps[name] for name, values in windows.streams.items())


def test_intervals_fit_the_streams(fleet: dict[str, tuple[Recording, ...]]) -> None:
    for recordings in fleet.values():
        for recording in recordings:
            assert {stream.end_s for stream in recording.streams.values()} == {len(ACTIVITIES) * ACTIVITY_S}
            assert recording.intervals[-1].end_s == len(ACTIVITIES) * ACTIVITY_S


def test_some_devices_lack_a_sensor_and_none_the_accelerometer(fleet: dict[str, tuple[Recording, ...]]) -> None:
    having = {modality: sum(modality in recordings[0].streams for recordings in fleet.values()) for modality in RATES_HZ}
    assert having["accelerometer"] == NUM_DEVICES
    assert 0.6 < having["gyroscope"] / NUM_DEVICES < 0.95
    assert 0.5 < having["magnetometer"] / NUM_DEVICES < 0.9


def test_rates_differ_between_devices_not_between_sessions(fleet: dict[str, tuple[Recording, ...]]) -> None:
    rates_hz = {recordings[0].streams["accelerometer"].rate_hz for recordings in fleet.values()}
    assert rates_hz == set(RATES_HZ["accelerometer"])
    for first, second in fleet.values():
        assert {name: stream.rate_hz for name, stream in first.streams.items()} == {
            name: stream.rate_hz for name, stream in second.streams.items()
        }


def test_some_devices_drop_out(fleet: dict[str, tuple[Recording, ...]]) -> None:
    dropping = [any(np.isnan(stream.samples).any() for stream in recordings[0].streams.values()) for recordings in fleet.values()]
    assert 0.05 < np.mean(dropping) < 0.5


def test_units_and_sizes_are_those_of_real_sensors(fleet: dict[str, tuple[Recording, ...]]) -> None:
    data = Synthetic(num_devices=NUM_DEVICES, seed=3)
    subject = next(subject for subject, recordings in fleet.items() if len(recordings[0].streams) == 3)
    windows = window_recordings(subject, fleet[subject], data.modalities, data.window)
    still = windows.labels == "still"
    size = {name: np.linalg.norm(values, axis=1) for name, values in windows.streams.items()}  # [windows, time]
    assert np.median(size["accelerometer"][still & windows.present["accelerometer"]]) == pytest.approx(9.81, abs=0.5)
    assert np.median(size["magnetometer"]) == pytest.approx(48.3, abs=8.0)
    assert np.median(size["gyroscope"][still & windows.present["gyroscope"]]) < 0.15
    assert np.median(size["gyroscope"][windows.labels == "run"]) > 0.5


@pytest.mark.parametrize("subject", ["device-00002", "device-2", "device--0001", "device-1", "anna", ""])
def test_an_unknown_subject_has_no_recordings(subject: str) -> None:
    assert Synthetic(num_devices=2, seed=0).recordings(subject) == ()


@pytest.mark.parametrize(("num_devices", "seed"), [(0, 0), (1, -1)])
def test_a_fleet_that_cannot_be_is_refused(num_devices: int, seed: int) -> None:
    with pytest.raises(ConfigError, match=r"(num-devices|seed): expected"):
        Synthetic(num_devices=num_devices, seed=seed)
