"""Tell a sensor worn on the other side of the body by how it leans at rest, and take its mirror image.

Our own: left and right of a body are each other's mirror images, and so is what a sensor at the left hip and one at the right hip see.
Nobody writes down which it was; but who lies down lies mostly on the back, and then gravity leaves the axis it had while walking towards
one side of the sensor, or towards the other one. No label is used. It takes for granted that most people lie, or lean back, alike.
"""

from dataclasses import replace

import numpy as np

from clmm_core.data.recording import Float32
from clmm_core.data.upright import ACCELEROMETER, AXES, FEWEST_WINDOWS, GYROSCOPE, MOVING, deviation, nearest_axis
from clmm_core.data.windows import DeviceWindows

STILL = 0.5
"""Deviation of the acceleration within a window, in m/s^2, up to which somebody is at rest."""
TILTED = 0.7
"""Share of gravity along the axis it has while walking, below which the sensor is tilted: about 45 degrees."""
SIGNS = {ACCELEROMETER: 1, GYROSCOPE: -1}
"""Of the axes in the mirror's plane; the one across it has the other sign."""
LEAN = 1.0
"""Mean gravity across that axis, in m/s^2, from which on its sign is believed."""


def same_side(windows: DeviceWindows) -> DeviceWindows:
    """Return upright windows in which recordings that lean to the negative side of the next axis at rest are mirrored at that axis.

    The acceleration along that axis changes its sign, and the rotation about both others: a rotation is no arrow but a sense of turning.
    """
    accelerometer = windows.streams.get(ACCELEROMETER)
    if accelerometer is None or accelerometer.shape[1] != AXES:
        return windows
    streams = {name: values.copy() if name in SIGNS else values for name, values in windows.streams.items()}
    owned, recordings, num_mirrored = windows.present[ACCELEROMETER], np.unique(windows.recordings), 0
    for recording in recordings:
        rows = np.flatnonzero(windows.recordings == recording)
        across = _mirrored_axis(accelerometer[rows[owned[rows]]])
        if across is None:
            continue
        num_mirrored += 1
        for name in SIGNS.keys() & streams.keys():
            if streams[name].shape[1] == AXES:
                mirror = np.full((AXES, 1), SIGNS[name], np.float32)
                mirror[across] *= -1
                streams[name][rows] *= mirror
    if not num_mirrored:
        return windows
    said = f"{num_mirrored} of {len(recordings)} recordings of '{windows.device}' are mirrored: worn on the other side"
    return replace(windows, streams=streams, left_out=(*windows.left_out, said))


def _mirrored_axis(acceleration: Float32) -> int | None:
    """Return the axis at which one recording's upright `[windows, 3, time]` has to be mirrored, or None where it need not."""
    spread = deviation(acceleration)
    moving = spread > MOVING
    if moving.sum() < FEWEST_WINDOWS:
        return None
    axis = nearest_axis(acceleration[moving].mean(axis=(0, 2), dtype=np.float64))
    gravity = acceleration.mean(axis=2, dtype=np.float64)  # [windows, 3]
    tilted = (spread < STILL) & (gravity @ axis < TILTED * np.linalg.norm(gravity, axis=1))
    across = (int(np.abs(axis).argmax()) + 1) % AXES
    if tilted.sum() < FEWEST_WINDOWS or gravity[tilted, across].mean() > -LEAN:
        return None
    return across
