"""How a sensor hangs on its wearer, found while it is worn: `clmm_core.data.upright` for windows that come one by one."""

from collections.abc import Mapping

import numpy as np

from clmm_core.data.recording import Float32
from clmm_core.data.upright import ACCELEROMETER, AXES, FEWEST_WINDOWS, GYROSCOPE, MOVING, deviation, turn_of


class Hanging:
    """The mean acceleration over the moving windows so far, which is gravity as the sensor sees it.

    Differs: training knows a whole recording; here a window is turned by what came before it and itself, so the first answers come after
    `FEWEST_WINDOWS` windows of movement, and after the last window of a recording both agree.
    """

    def __init__(self) -> None:
        self._sum = np.zeros(AXES)
        self._num_moving = 0

    def look(self, acceleration: Float32) -> None:
        """Take one window `[3, time]` in m/s^2 into account."""
        if deviation(acceleration[None])[0] > MOVING:
            self._sum += acceleration.mean(axis=1, dtype=np.float64)
            self._num_moving += 1

    def turned(self, inputs: Mapping[str, Float32]) -> dict[str, Float32] | None:
        """Return a window's inputs `[channels, time]` with accelerometer and gyroscope upright, or None before enough movement was seen."""
        turn = turn_of(self._sum) if self._num_moving >= FEWEST_WINDOWS else None
        if turn is None:
            return None
        own = turn.astype(np.float32)
        return {
            name: own @ values if name in (ACCELEROMETER, GYROSCOPE) and len(values) == AXES else values for name, values in inputs.items()
        }

    @property
    def missing(self) -> str:
        """Say what has to happen before anything is turned."""
        return f"walk about, so that it shows how the sensor hangs: {self._num_moving} of {FEWEST_WINDOWS} windows of movement so far"
