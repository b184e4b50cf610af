from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clmm_core.data.fleet import DataConfig, device_windows
from clmm_core.data.same_side import same_side
from clmm_core.data.upright import FEWEST_WINDOWS
from clmm_core.data.windows import NO_TRIAL, DeviceWindows

HAPT = Path(__file__).parents[4] / "shared" / "data" / "HAPT_RawData.tar.bz2"
G = 9.81
MIRROR = {"accelerometer": np.array([1, -1, 1]), "gyroscope": np.array([-1, 1, -1])}
"""What a sensor on the other hip sees, whose second axis points along the way: an arrow, and a sense of turning."""


def worn(mirrored: list[bool], lean: float = 7.0, moving: int = 8, lying: int = 8) -> DeviceWindows:
    """Somebody who walks upright and lies so that gravity leans `lean` m/s^2 along the second axis, in recordings of either side."""
    random = np.random.default_rng(0)
    acceleration, rate, recordings = [], [], []
    for number, is_mirrored in enumerate(mirrored):
        for kind in range(moving + lying):
            gravity = np.array([G, 0, 0]) if kind < moving else np.array([0.5, lean, np.sqrt(G**2 - lean**2)])
            samples = gravity[:, None] + random.normal(0, 3 if kind < moving else 0.05, (3, 40))
            turning = random.normal(0, 1, (3, 40))
            acceleration.append(samples * (MIRROR["accelerometer"][:, None] if is_mirrored else 1))
            rate.append(turning * (MIRROR["gyroscope"][:, None] if is_mirrored else 1))
            recordings.append(number)
    count = len(recordings)
    return DeviceWindows(
        device="anna",
        streams={"accelerometer": np.array(acceleration, np.float32), "gyroscope": np.array(rate, np.float32)},
        present={name: np.ones(count, np.bool_) for name in ("accelerometer", "gyroscope")},
        labels=np.full(count, ""),
        trials=np.full(count, NO_TRIAL),
        recordings=np.array(recordings),
        starts_s=np.arange(count, dtype=np.float64),
    )


def test_a_recording_of_the_other_side_reads_like_one_of_this_side():
    windows, straight = worn([False, True]), worn([False, False])
    same = same_side(windows)
    for name, samples in same.streams.items():
        assert not np.allclose(windows.streams[name], straight.streams[name], atol=1)
        np.testing.assert_array_equal(samples, straight.streams[name])
        assert samples.dtype == np.float32
    assert same.left_out == ("1 of 2 recordings of 'anna' are mirrored: worn on the other side",)


@pytest.mark.parametrize("change", [{"lean": 0.5}, {"moving": FEWEST_WINDOWS - 1}, {"lying": FEWEST_WINDOWS - 1}])
def test_a_side_is_believed_only_where_it_shows(change: dict[str, float]):
    windows = worn([True], **change)
    assert same_side(windows) is windows


def test_standing_and_lying_without_a_mirror_stay_as_they_are():
    windows = worn([False, False])
    assert same_side(windows) is windows


def test_a_mirror_twice_is_none():
    once = same_side(worn([True]))
    assert same_side(once) is once


def test_windows_without_an_accelerometer_are_mirrored_with_the_others_and_one_of_another_shape_is_left_alone():
    windows = worn([True])
    windows.present["accelerometer"][0] = False
    windows.streams["accelerometer"][0] = 0
    same = same_side(windows)
    assert not same.streams["accelerometer"][0].any()
    np.testing.assert_array_equal(same.streams["gyroscope"][0], windows.streams["gyroscope"][0] * MIRROR["gyroscope"][:, None])
    joined = replace(windows, streams={"accelerometer": windows.streams["accelerometer"].repeat(2, axis=1)})
    assert same_side(joined) is joined


def test_the_windows_given_are_left_alone():
    windows, again = worn([True]), worn([True])
    same_side(windows)
    assert all(np.array_equal(windows.streams[name], again.streams[name]) for name in windows.streams)


@pytest.mark.skipif(not HAPT.exists(), reason="HAPT is not here")
@pytest.mark.parametrize(("subject", "num_mirrored"), [("1", 0), ("10", 1), ("16", 1)])
def test_the_recordings_of_hapt_that_are_mirrored(subject: str, num_mirrored: int):
    config = DataConfig(name="hapt", path=str(HAPT), upright=True)
    one, other = (device_windows(replace(config, same_side=same), subject) for same in (False, True))
    said = set(other.left_out) - set(one.left_out)
    assert len(said) == num_mirrored
    assert all("are mirrored: worn on the other side" in each for each in said)
    differs = (one.streams["accelerometer"] != other.streams["accelerometer"]).any(axis=2)  # [windows, 3]
    assert len(np.unique(one.recordings[differs[:, 1]])) == num_mirrored
    assert not differs[:, [0, 2]].any()
