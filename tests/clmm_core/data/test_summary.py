from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from clmm_core.data.datasets.synthetic import Synthetic
from clmm_core.data.recording import LabelledInterval, Recording, Stream
from clmm_core.data.summary import summarise, warnings_of
from clmm_core.data.windows import WindowSpec


@dataclass(frozen=True)
class Given:
    """A data set of the recordings it is given, by subject."""

    by_subject: Mapping[str, tuple[Recording, ...]]
    modalities: tuple[str, ...] = field(default=("accelerometer",))

    @property
    def window(self) -> WindowSpec:
        return WindowSpec(length_s=1.0, time_steps=dict.fromkeys(self.modalities, 10))

    def subjects(self) -> tuple[str, ...]:
        return tuple(self.by_subject)

    def recordings(self, subject: str) -> tuple[Recording, ...]:
        return self.by_subject[subject]


def stream(*, gravity: float = 9.8, seconds: float = 4.0, channels: int = 3, unit: str = "m/s^2") -> Stream:
    """A sensor at rest, with gravity along its first channel."""
    samples = np.zeros((round(seconds * 10), channels), np.float32)
    samples[:, 0] = gravity
    return Stream(samples=samples, rate_hz=10.0, unit=unit)


def recording(label: str = "walk", **streams: Stream) -> Recording:
    return Recording(
        subject="anna",
        session="monday",
        streams=streams,
        intervals=(LabelledInterval(label=label, start_s=0.0, end_s=4.0),) if label else (),
    )


def warnings(data: Given) -> tuple[str, ...]:
    return warnings_of(data.modalities, summarise(data))


def test_a_subject_is_summed_up_over_its_sessions() -> None:
    lost = stream()
    lost.samples[3, 1] = np.nan
    data = Given({"anna": (recording(accelerometer=stream()), recording("", accelerometer=lost))})
    (anna,) = summarise(data)
    assert (anna.subject, anna.num_sessions, anna.recorded_s, anna.num_windows) == ("anna", 2, 8.0, 7)
    assert anna.class_counts == {"": 3, "walk": 4}
    accelerometer = anna.streams["accelerometer"]
    assert (accelerometer.min_rate_hz, accelerometer.max_rate_hz, accelerometer.unit) == (10.0, 10.0, "m/s^2")
    assert accelerometer.nan_share == pytest.approx(1 / 80)
    assert accelerometer.median_norm == pytest.approx(9.8)
    assert anna.notes == warnings(data)


def test_what_a_run_would_trip_over_is_a_warning() -> None:
    short = Given({"anna": (recording(accelerometer=stream()),), "ben": (recording("row", accelerometer=stream(seconds=1.0)),)})
    assert warnings(short) == (
        "subject 'ben' has 1 window(s); a device needs at least 2",
        "class 'row' comes from subject 'ben' only; nobody else can test what is learnt of it",
        "class 'walk' comes from subject 'anna' only; nobody else can test what is learnt of it",
    )
    data = Given({"anna": (recording(gyroscope=stream(unit="rad/s")),)}, ("accelerometer", "gyroscope"))
    assert warnings(data) == ("subject 'anna' lacks accelerometer",)


@pytest.mark.parametrize(("gravity", "found"), [(1.0, "1"), (96.2, "96.2"), (6.9, "6.9"), (14.2, "14.2")])
def test_gravity_of_another_size_is_a_warning(gravity: float, found: str) -> None:
    data = Given({"anna": (recording(accelerometer=stream(gravity=gravity)),), "ben": (recording(accelerometer=stream()),)})
    (warning,) = warnings(data)
    assert warning.startswith(
        f"subject 'anna': expected accelerometer to show gravity, a median length of 7 to 14 m/s^2, found {found} m/s^2:"
    )
    assert "its unit (g" in warning


@pytest.mark.parametrize("gravity", [7.1, 9.3, 12.4, 13.9])
def test_gravity_as_real_sets_show_it_is_no_warning(gravity: float) -> None:
    assert warnings(Given({"anna": (recording(accelerometer=stream(gravity=gravity)),)})) == ()


def test_gravity_is_looked_for_only_where_it_should_be() -> None:
    streams = {
        "linear_acceleration": stream(gravity=0.3),
        "userAcceleration": stream(gravity=0.3),
        "gyroscope": stream(gravity=0.3, unit="rad/s"),
        "vertical": stream(gravity=0.3, channels=1),
    }
    assert warnings(Given({"anna": (recording(**streams),)}, tuple(streams))) == ()


def test_lost_samples_do_not_hide_gravity() -> None:
    lost = stream(gravity=1.0, seconds=8.0)
    lost.samples[:5] = np.nan
    assert "found 1 m/s^2" in "".join(warnings(Given({"anna": (recording(accelerometer=lost),)})))
    lost.samples[:] = np.nan
    assert "gravity" not in "".join(warnings(Given({"anna": (recording(accelerometer=lost),)})))


def test_the_synthetic_fleet_shows_gravity() -> None:
    data = Synthetic(num_devices=3)
    assert not [warning for warning in warnings_of(data.modalities, summarise(data)) if "gravity" in warning]
