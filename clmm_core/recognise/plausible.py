"""Whether samples can be in the unit that the model was trained in: g for m/s^2 would be answered wrong, and silently."""

import numpy as np
from numpy.typing import NDArray

from clmm_core.data.recording import STANDARD_GRAVITY

AXES = 3
GRAVITY = (4.0, 30.0)
"""m/s^2 between which the median length of an acceleration with gravity lies in a window: 7 to 14 over whole sessions
(`data/summary.py`), further in a window of jumping."""
WITHOUT_GRAVITY = ("linear", "user")
"""Words in the name of an acceleration that had its gravity taken out."""
TURNING = 15.0
"""rad/s that the mean angular velocity of a window stays below: two turns a second, all the time. Somebody who walks has 1 to 5, or 50 to
300 where the samples are in deg/s."""
LARGEST = 1e6
"""No sensor of people's movement shows more, in any SI unit."""


def implausible(name: str, unit: str, window: NDArray[np.float32]) -> str | None:
    """Return in words why a stream's window `[channels, time]` cannot be in this unit, or None where it can."""
    largest = float(np.abs(window).max())
    if largest > LARGEST:
        return f"expected {unit}, found samples up to {largest:.2g}"
    if window.shape[0] != AXES:
        return None
    lengths = np.sqrt((window.astype(np.float64) ** 2).sum(axis=0))  # [time]
    if unit == "m/s^2" and not any(word in name.lower() for word in WITHOUT_GRAVITY):
        median = float(np.median(lengths))
        if not GRAVITY[0] <= median <= GRAVITY[1]:
            return (
                f"expected m/s^2 with gravity, a length of about {STANDARD_GRAVITY:.1f} at rest, found {median:.2g}: is it in g or mg, or "
                "without gravity?"
            )
    if unit == "rad/s" and (mean := float(lengths.mean())) > TURNING:
        return f"expected rad/s, found {mean:.0f} in the mean: is it in deg/s?"
    return None
