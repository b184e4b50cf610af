"""A synthetic fleet: parametric body motion of any number of people, each made from (seed, device) on the device that asks.

For scale, tests and demonstrations. Never used for an accuracy claim: the activities are as separable as the numbers below make them.

The body swings by small angles around a posture (harmonics of a cadence) and moves along its axes; the sensor sits somewhere on it, turned.
Accelerometer = movement + gravity seen from the swinging sensor; gyroscope = rate of the swing; magnetometer = the earth's field seen
from the swinging sensor. So the three modalities of a device show one movement, as real ones do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from clmm_core.data.recording import STANDARD_GRAVITY, LabelledInterval, Recording, Stream
from clmm_core.data.windows import WindowSpec
from clmm_core.errors import ConfigError

Float64 = NDArray[np.float64]

NUM_SESSIONS = 2
ACTIVITY_S = 7.0
"""Seconds of each activity in a session: 62 windows a device in all."""
RATES_HZ: Mapping[str, tuple[float, ...]] = {
    "accelerometer": (50.0, 52.0, 100.0),
    "gyroscope": (50.0, 52.0, 100.0),
    "magnetometer": (20.0, 25.0),
}
"""A device has one of these in each stream."""
NOISE: Mapping[str, float] = {"accelerometer": 0.1, "gyroscope": 0.02, "magnetometer": 0.8}
SI_UNITS: Mapping[str, str] = {"accelerometer": "m/s^2", "gyroscope": "rad/s", "magnetometer": "uT"}
WITHOUT_GYROSCOPE = 0.2
WITHOUT_MAGNETOMETER = 0.3
WITH_DROPOUT = 0.25
"""Share of the devices that lack a sensor, or whose sensors drop out now and then."""
GRAVITY: Float64 = np.array([0.0, 0.0, STANDARD_GRAVITY])
"""What a resting accelerometer shows, in m/s^2: x forward, y left, z up."""
EARTH_FIELD: Float64 = np.array([20.0, 0.0, -44.0])
"""Magnetic field of central Europe in uT, north and down; each session faces its own way."""
HARMONICS: Float64 = np.array([1.0, 2.0, 3.0])


@dataclass(frozen=True, kw_only=True)
class Activity:
    """How one activity moves the body."""

    cadence_hz: float
    movement: tuple[float, float, float]
    """Amplitude along x, y, z in m/s^2."""
    swing: tuple[float, float, float]
    """Amplitude around x, y, z in rad."""
    harmonics: tuple[float, float, float]
    """Share of the cadence and its multiples."""
    lean: float
    """Posture: turned around y, in rad."""


ACTIVITIES: Mapping[str, Activity] = {
    "still": Activity(cadence_hz=0.3, movement=(0.05, 0.03, 0.05), swing=(0.01, 0.01, 0.01), harmonics=(1.0, 0.2, 0.0), lean=0.1),
    "walk": Activity(cadence_hz=1.8, movement=(1.5, 0.8, 2.5), swing=(0.08, 0.25, 0.1), harmonics=(0.9, 0.5, 0.2), lean=0.0),
    "run": Activity(cadence_hz=2.7, movement=(3.5, 2.0, 8.0), swing=(0.15, 0.4, 0.15), harmonics=(1.0, 0.4, 0.3), lean=0.2),
    "stairs": Activity(cadence_hz=1.5, movement=(1.2, 1.0, 2.8), swing=(0.1, 0.35, 0.08), harmonics=(0.8, 0.7, 0.4), lean=0.35),
    "cycle": Activity(cadence_hz=1.2, movement=(0.9, 0.4, 0.8), swing=(0.05, 0.3, 0.05), harmonics=(1.0, 0.1, 0.05), lean=0.7),
    "hand_wash": Activity(cadence_hz=3.3, movement=(2.0, 2.5, 1.0), swing=(0.3, 0.15, 0.35), harmonics=(0.8, 0.4, 0.4), lean=0.9),
}
PLACEMENTS: tuple[tuple[float, float], ...] = ((1.0, 1.0), (0.7, 1.2), (1.2, 0.5))
"""How much of the movement and of the swing arrives at the wrist, in the pocket, at the waist."""


@dataclass(frozen=True)
class Synthetic:
    """`num_devices` synthetic people with one device each; device i is the same in a fleet of any size."""

    num_devices: int = 40
    seed: int = 0
    modalities: tuple[str, ...] = field(default=("accelerometer", "gyroscope", "magnetometer"), init=False)

    def __post_init__(self) -> None:
        if self.num_devices < 1:
            raise ConfigError(f"data.num-devices: expected at least 1, found {self.num_devices}")
        if self.seed < 0:
            raise ConfigError(f"seed: expected 0 or more, found {self.seed}")

    @property
    def window(self) -> WindowSpec:
        """Windows of 2.56 s, half overlapping: 50 Hz, and 25 Hz for the magnetometer."""
        return WindowSpec(length_s=2.56, overlap=0.5, time_steps={"accelerometer": 128, "gyroscope": 128, "magnetometer": 64})

    def subjects(self) -> tuple[str, ...]:
        """Return "device-00000" and so on."""
        return tuple(f"device-{i:05d}" for i in range(self.num_devices))

    def recordings(self, subject: str) -> tuple[Recording, ...]:
        """Return this device's two sessions, each with every activity once, in an order of its own."""
        _, _, number = subject.partition("device-")
        if not (number.isdecimal() and int(number) < self.num_devices and subject == f"device-{int(number):05d}"):
            return ()
        random = np.random.default_rng([self.seed, int(number)])
        person = _person(random)
        return tuple(_session(subject, f"session-{i}", person, random) for i in range(NUM_SESSIONS))


@dataclass(frozen=True, kw_only=True)
class _Person:
    """What stays the same in all sessions of a device."""

    rates_hz: Mapping[str, float]
    drops_out: bool
    placement: tuple[float, float]
    turn: Float64
    """`[3, 3]`, body to sensor."""
    cadence: float
    """Factor on every cadence."""
    vigour: Float64
    """`[6]`, factor on each amplitude."""
    phases: Mapping[str, Float64]
    """By activity `[6, 3]`, one for each amplitude and harmonic, in rad."""
    bias: Mapping[str, Float64]
    """By modality `[3]`."""


def _person(random: Generator) -> _Person:
    rates_hz = {modality: float(random.choice(rates)) for modality, rates in RATES_HZ.items()}
    lacks_gyroscope, lacks_magnetometer = random.random(2) < (WITHOUT_GYROSCOPE, WITHOUT_MAGNETOMETER)
    if lacks_gyroscope:
        del rates_hz["gyroscope"]
    if lacks_magnetometer:
        del rates_hz["magnetometer"]
    return _Person(
        rates_hz=rates_hz,
        drops_out=bool(random.random() < WITH_DROPOUT),
        placement=PLACEMENTS[random.integers(len(PLACEMENTS))],
        turn=_rotation(random.normal(0, 0.4, 3)),
        cadence=float(np.exp(random.normal(0, 0.08))),
        vigour=np.exp(random.normal(0, 0.2, 6)),
        # People move alike but not equally: a common phase pattern, and a style of their own on top.
        phases={name: np.arange(18).reshape(6, 3) * (i + 1) + random.normal(0, 0.4, (6, 3)) for i, name in enumerate(ACTIVITIES)},
        bias={
            modality: random.normal(0, scale, 3) for modality, scale in (("accelerometer", 0.1), ("gyroscope", 0.02), ("magnetometer", 3.0))
        },
    )


def _session(subject: str, session: str, person: _Person, random: Generator) -> Recording:
    order = random.permutation(list(ACTIVITIES))
    cadences_hz = np.array([ACTIVITIES[name].cadence_hz for name in order]) * person.cadence * np.exp(random.normal(0, 0.03, len(order)))
    north = _rotation(np.array([0.0, 0.0, random.uniform(0, 2 * np.pi)])) @ EARTH_FIELD
    movements = _movements(person, [str(name) for name in order], cadences_hz)
    streams = {}
    for modality, rate_hz in person.rates_hz.items():
        samples = _measured(modality, movements, north, rate_hz) @ person.turn.T + person.bias[modality]  # [time, 3] in the sensor's axes
        samples += random.normal(0, NOISE[modality], samples.shape)
        if person.drops_out:
            start = random.integers(len(samples))
            samples[start : start + round(random.uniform(0.2, 1.0) * rate_hz)] = np.nan
        streams[modality] = Stream(samples=samples.astype(np.float32), rate_hz=rate_hz, unit=SI_UNITS[modality])
    intervals = tuple(LabelledInterval(label=str(name), start_s=i * ACTIVITY_S, end_s=(i + 1) * ACTIVITY_S) for i, name in enumerate(order))
    return Recording(subject=subject, session=session, streams=streams, intervals=intervals)


@dataclass(frozen=True, kw_only=True)
class _Movements:
    """A session's activities, in order: what its sensors have in common. A = activities."""

    amplitudes: Float64
    """`[A, 6]`: along x, y, z in m/s^2, around them in rad."""
    shares: Float64
    """`[A, 3]`, of the harmonics."""
    omega: Float64
    """`[A, 3]`, of the harmonics, in rad/s."""
    phases: Float64
    """`[A, 6, 3]`, in rad."""
    postures: Float64
    """`[A, 3, 3]`, rotations."""


def _movements(person: _Person, names: Sequence[str], cadences_hz: Float64) -> _Movements:
    activities = [ACTIVITIES[name] for name in names]
    movement, swing = person.placement
    return _Movements(
        amplitudes=np.array([each.movement + each.swing for each in activities]) * person.vigour * np.repeat([movement, swing], 3),
        shares=np.array([each.harmonics for each in activities]),
        omega=2 * np.pi * cadences_hz[:, None] * HARMONICS,
        phases=np.stack([person.phases[name] for name in names]),
        postures=np.stack([_rotation(np.array([0.0, each.lean, 0.0])) for each in activities]),
    )


def _measured(modality: str, movements: _Movements, north: Float64, rate_hz: float) -> Float64:
    """Return `[time, 3]`, what a sensor in the body's axes shows, one activity after the other."""
    seen = _seen_of_each(modality, movements, north, rate_hz)  # [A, time, 3]
    return seen.reshape(-1, 3)


def _seen_of_each(modality: str, movements: _Movements, north: Float64, rate_hz: float) -> Float64:
    around = movements.amplitudes[:, None, 3:]  # [A, 1, 3]
    starts_s = np.arange(len(movements.omega)) * ACTIVITY_S
    times = starts_s[:, None] + np.arange(round(ACTIVITY_S * rate_hz)) / rate_hz  # [A, time]
    # Only the accelerometer feels the movement along the axes as well; the others see the three swings alone.
    first = 0 if modality == "accelerometer" else 3
    angles = times[:, :, None, None] * movements.omega[:, None, None] + movements.phases[:, None, first:]  # [A, time, 6 or 3, 3 harmonics]
    if modality == "gyroscope":
        return _weighted(np.cos(angles), movements.shares * movements.omega) * around
    waves = _weighted(np.sin(angles), movements.shares) * movements.amplitudes[:, None, first:]
    if modality == "magnetometer":
        return _seen_from(waves, movements.postures @ north)
    force: Float64 = waves[..., :3] + _seen_from(waves[..., 3:], movements.postures @ GRAVITY)
    return force


def _weighted(waves: Float64, shares: Float64) -> Float64:
    """Return `[A, time, n]`, the sums of `[A, time, n, 3]` over the harmonics, weighted by `[A, 3]`."""
    # One product for each activity: one for all would be of [time * n, 3] by [3] for each of its times.
    sums: Float64 = np.stack([one.reshape(-1, 3) @ share for one, share in zip(waves, shares, strict=True)])
    return sums.reshape(waves.shape[:-1])


def _seen_from(swing: Float64, vectors: Float64) -> Float64:
    """Return each `vectors` `[A, 3]` in the axes of a body turned by small angles `swing` `[A, time, 3]`, to second order, as long."""
    vectors = vectors[:, None]  # [A, 1, 3]
    first = -_cross(swing, vectors)
    turned = vectors + first - _cross(swing, first) / 2
    seen: Float64 = turned * (np.linalg.norm(vectors, axis=-1, keepdims=True) / np.linalg.norm(turned, axis=-1, keepdims=True))
    return seen


def _cross(one: Float64, other: Float64) -> Float64:
    """Return the cross product along the last axis; `np.cross` takes as long again to move axes about."""
    (x, y, z), (u, v, w) = np.moveaxis(one, -1, 0), np.moveaxis(other, -1, 0)
    return np.stack([y * w - z * v, z * u - x * w, x * v - y * u], axis=-1)


def _rotation(vector: Float64) -> Float64:
    """Return the `[3, 3]` rotation by |vector| rad around `vector` (Rodrigues' formula)."""
    angle = float(np.linalg.norm(vector))
    x, y, z = vector / max(angle, 1e-12)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    rotation: Float64 = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return rotation
