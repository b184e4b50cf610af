"""Turn a sensor upright: its own unlabelled walking says which way it hangs on this person, and every sample is turned back by that.

Source: Mizell 2003, "Using gravity to estimate accelerometer orientation" (the mean acceleration over movement is gravity); the minimal
rotation between two directions is Rodrigues' formula.
Differs: gravity is estimated from windows of movement only, because somebody who lies or sits still holds the sensor otherwise, and for
each recording by itself, because the sensor may be put on anew for the next one. No label is used.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clmm_core.data.recording import Float32
from clmm_core.data.windows import DeviceWindows

ACCELEROMETER = "accelerometer"
GYROSCOPE = "gyroscope"
MOVING = 1.0
"""Deviation of the acceleration within a window, in m/s^2, from which on somebody moves: at rest it is about 0.1, walking 2 or more."""
FEWEST_WINDOWS = 5
"""Moving windows that a recording needs; with fewer its windows stay as they are."""
AXES = 3

Rotation = NDArray[np.float64]


def upright(windows: DeviceWindows) -> DeviceWindows:
    """Return the windows with accelerometer and gyroscope turned so that, while moving, gravity lies along a fixed axis.

    The axis is the signed one of the sensor's own that gravity is nearest to over the recording's moving windows.
    """
    streams = dict(windows.streams)
    accelerometer = windows.streams.get(ACCELEROMETER)
    if accelerometer is None or accelerometer.shape[1] != AXES:
        why = f"'{windows.device}' is not turned upright: it has no accelerometer of {AXES} axes that says which way it hangs"
        return replace(windows, left_out=(*windows.left_out, why))
    for name in (ACCELEROMETER, GYROSCOPE):
        if name in streams and streams[name].shape[1] == AXES:
            streams[name] = streams[name].copy()
    owned, recordings, num_askew = windows.present[ACCELEROMETER], np.unique(windows.recordings), 0
    for recording in recordings:
        rows = np.flatnonzero(windows.recordings == recording)
        turn = _turn(accelerometer[rows[owned[rows]]])
        if turn is None:
            num_askew += 1
            continue
        for name in (ACCELEROMETER, GYROSCOPE):
            if name in streams and streams[name].shape[1] == AXES:
                streams[name][rows] = turn.astype(np.float32) @ streams[name][rows]  # [3, 3] x [rows, 3, time]
    if num_askew:
        whose = f"{num_askew} of {len(recordings)} recordings of '{windows.device}'"
        why = f"{whose} are not turned upright: they move in fewer than {FEWEST_WINDOWS} windows, or without gravity"
        return replace(windows, streams=streams, left_out=(*windows.left_out, why))
    return replace(windows, streams=streams)


def _turn(acceleration: Float32) -> Rotation | None:
    """Return the rotation for one recording's `[windows, 3, time]`, or None where it has too little movement."""
    moving = deviation(acceleration) > MOVING
    if moving.sum() < FEWEST_WINDOWS:
        return None
    return turn_of(acceleration[moving].mean(axis=(0, 2), dtype=np.float64))


def turn_of(gravity: NDArray[np.float64]) -> Rotation | None:
    """Return the rotation that takes the mean acceleration `[3]` while moving to the axis it is nearest to, or None where it is 0."""
    length = float(np.linalg.norm(gravity))
    return minimal_rotation(gravity / length, nearest_axis(gravity)) if length else None


def deviation(acceleration: Float32) -> NDArray[np.float32]:
    """Return how much each of `[windows, 3, time]` moves, `[windows]` in m/s^2: the deviation within the window, over all axes."""
    moved: NDArray[np.float32] = np.sqrt(acceleration.var(axis=2).sum(axis=1))
    return moved


def nearest_axis(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the unit vector `[3]` along the signed axis that `direction` is nearest to."""
    axis = np.zeros(AXES)
    largest = int(np.abs(direction).argmax())
    axis[largest] = np.sign(direction[largest])
    return axis


def minimal_rotation(start: NDArray[np.float64], end: NDArray[np.float64]) -> Rotation:
    """Return the rotation `[3, 3]` about `start x end` that takes unit vector `start` to `end`; they must not be opposite."""
    x, y, z = np.cross(start, end)
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn: Rotation = np.eye(AXES) + skew + skew @ skew / (1 + start @ end)
    return turn
