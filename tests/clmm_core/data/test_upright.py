import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clmm_core.data.upright import FEWEST_WINDOWS, minimal_rotation, nearest_axis, upright
from clmm_core.data.windows import NO_TRIAL, DeviceWindows

G = 9.81
STILL, WALKING = 0.05, 3.0
UNIT = st.lists(st.floats(-1, 1), min_size=3, max_size=3).filter(lambda v: np.linalg.norm(v) > 0.1)


def rotation(axis: list[float], angle_deg: float) -> NDArray[np.float64]:
    """Rodrigues' formula, as the oracle."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(angle_deg)
    return np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew


def worn(turns: list[NDArray[np.float64]], moving: int = 8, still: int = 3) -> DeviceWindows:
    """A person who walks upright and lies on the back, in recordings in which the sensor hangs turned by each of `turns`."""
    random = np.random.default_rng(0)
    acceleration, rate, recordings = [], [], []
    for number, turn in enumerate(turns):
        for kind in range(moving + still):
            gravity = np.array([G, 0.0, 0.0]) if kind < moving else np.array([0.0, 0.0, G])
            spread = WALKING if kind < moving else STILL
            bounce = random.normal(0, spread, (3, 40))
            acceleration.append(turn @ (gravity[:, None] + bounce - bounce.mean(axis=1, keepdims=True)))
            rate.append(turn @ random.normal(0, 1, (3, 40)))
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


def test_a_sensor_that_hangs_askew_reads_like_one_that_hangs_straight():
    straight = worn([np.eye(3), np.eye(3)])
    askew = worn([rotation([0, 1, 0], 25), rotation([0, 0.3, 1], -20)])
    turned = upright(askew)
    for name in ("accelerometer", "gyroscope"):
        assert not np.allclose(askew.streams[name], straight.streams[name], atol=1)
        # Turning back is by the smallest rotation, and these have no part about gravity's own axis.
        np.testing.assert_allclose(turned.streams[name], straight.streams[name], atol=2e-4)


@given(UNIT, st.floats(0, 180))
@settings(max_examples=40, deadline=None)
def test_gravity_while_moving_ends_along_an_axis_and_no_length_or_angle_changes(axis: list[float], angle_deg: float):
    windows = worn([rotation(axis, angle_deg)])
    turned = upright(windows)
    gravity = turned.streams["accelerometer"][:8].mean(axis=(0, 2))
    assert np.sort(np.abs(gravity)) == pytest.approx([0, 0, G], abs=1e-3)
    before = np.concatenate([windows.streams["accelerometer"], windows.streams["gyroscope"]], axis=2)
    after = np.concatenate([turned.streams["accelerometer"], turned.streams["gyroscope"]], axis=2)
    np.testing.assert_allclose(after.transpose(0, 2, 1) @ after, before.transpose(0, 2, 1) @ before, atol=2e-2)


def test_what_a_person_does_lying_does_not_say_where_up_is():
    few, many = (upright(worn([rotation([0, 1, 0], 25)], still=still)) for still in (1, 30))
    np.testing.assert_allclose(few.streams["accelerometer"][:8], many.streams["accelerometer"][:8], atol=1e-5)


@pytest.mark.parametrize(("moving", "is_turned"), [(FEWEST_WINDOWS - 1, False), (FEWEST_WINDOWS, True)])
def test_a_recording_with_little_movement_stays_as_it_is(moving: int, is_turned: bool):
    windows = worn([rotation([0, 1, 0], 25)], moving=moving)
    turned = upright(windows)
    assert np.array_equal(turned.streams["accelerometer"], windows.streams["accelerometer"]) != is_turned
    said = "1 of 1 recordings of 'anna' are not turned upright: they move in fewer than 5 windows, or without gravity"
    assert turned.left_out == (() if is_turned else (said,))


def test_windows_without_the_accelerometer_say_nothing_and_are_turned_with_the_others():
    windows = worn([rotation([0, 1, 0], 25)])
    windows.present["accelerometer"][2] = False
    windows.streams["accelerometer"][2] = 0
    turned = upright(windows)
    assert not turned.streams["accelerometer"][2].any()
    others = [0, 1, 3, 4, 5, 6, 7]
    assert np.abs(turned.streams["accelerometer"][others].mean(axis=(0, 2))) == pytest.approx([G, 0, 0], abs=1e-3)
    assert not np.allclose(turned.streams["gyroscope"][2], windows.streams["gyroscope"][2])


def test_a_person_without_an_accelerometer_stays_as_they_are_and_is_named():
    windows = worn([np.eye(3)])
    del windows.streams["accelerometer"]
    same = upright(windows)
    assert same.streams == windows.streams
    assert same.left_out == ("'anna' is not turned upright: it has no accelerometer of 3 axes that says which way it hangs",)


def test_the_windows_given_are_left_alone():
    windows, again = worn([rotation([0, 1, 0], 25)]), worn([rotation([0, 1, 0], 25)])
    turned = upright(windows)
    assert all(np.array_equal(windows.streams[name], again.streams[name]) for name in windows.streams)
    assert turned.streams["accelerometer"].dtype == np.float32


def test_the_nearest_axis_has_a_sign():
    assert nearest_axis(np.array([0.1, -9.0, 3.0])).tolist() == [0.0, -1.0, 0.0]


def test_the_rotation_between_two_directions_by_hand():
    quarter = minimal_rotation(np.array([1.0, 0, 0]), np.array([0.0, 1, 0]))
    np.testing.assert_allclose(quarter, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12)
