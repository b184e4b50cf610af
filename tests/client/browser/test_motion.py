from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest


def measured(page: Any, event: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what `measuredIn` makes of an event with these values; its time is how far it is from the event's."""
    script = """const [values, done] = arguments;
        const event = new DeviceMotionEvent("devicemotion", values);
        const plain = (each) => ({ ...each, timeNs: Number(each.timeNs) - event.timeStamp * 1e6 });
        import("./motion.js")
          .then(({ measuredIn }) => measuredIn(event).map(plain))
          .then(done, (error) => done(error.message));"""
    return page.execute_async_script(script, event)


GRAVITY = {"x": 1.0, "y": 2.0, "z": 9.5}
RATE = {"alpha": 90.0, "beta": -45.0, "gamma": 180.0}


def test_an_event_becomes_samples_in_si_units_on_its_own_clock(page: Any):
    acceleration, rotation = measured(page, {"accelerationIncludingGravity": GRAVITY, "rotationRate": RATE})
    assert (acceleration["stream"], acceleration["unit"], acceleration["sample"]) == ("accelerometer", "m/s^2", [1.0, 2.0, 9.5])
    assert (rotation["stream"], rotation["unit"]) == ("gyroscope", "rad/s")
    np.testing.assert_allclose(rotation["sample"], np.deg2rad([90.0, -45.0, 180.0]))
    assert abs(acceleration["timeNs"]) < 1


def test_a_sensor_that_the_device_lacks_is_not_there(page: Any):
    assert measured(page, {}) == []
    (alone,) = measured(page, {"accelerationIncludingGravity": GRAVITY})
    assert alone["stream"] == "accelerometer"


@pytest.fixture
def apple(page: Any) -> Iterator[Any]:
    """Give the page as Apple's browsers would name themselves."""
    source = "Object.defineProperty(navigator, 'vendor', { value: 'Apple Computer, Inc.' })"
    script = page.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source})
    page.refresh()
    yield page
    page.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    page.refresh()


def test_apple_s_acceleration_is_turned_round_and_its_rotation_is_not(apple: Any):
    acceleration, rotation = measured(apple, {"accelerationIncludingGravity": {"x": -1.0, "y": -2.0, "z": -9.5}, "rotationRate": RATE})
    assert acceleration["sample"] == [1.0, 2.0, 9.5]
    assert rotation["sample"][0] > 0
