"""Samples with a time each, put on a constant rate."""

import numpy as np
from numpy.typing import NDArray

from clmm_core.data.recording import Stream

MAX_GAP_S = 0.5
"""Across a longer gap nothing is interpolated: it becomes NaN, and windows that touch it are left out."""
ROUNDING_S = 1e-6
"""A gap is no longer for what float64 makes of two times' difference."""
ON_SAMPLE = 1e-3
"""Share of a sample period within which a time is a sample's own, so that rounding does not make it part of a gap."""


def resampled(times_s: NDArray[np.float64], samples: NDArray[np.float64], *, rate_hz: float, unit: str) -> Stream:
    """Return the stream at `rate_hz` between the first and the last of `times_s` (ascending, no two equal), by linear interpolation.

    Its sample times are whole multiples of its period on the clock of `times_s`, so that streams of one clock and one rate share them.
    """
    first = int(np.ceil(times_s[0] * rate_hz - ON_SAMPLE))
    last = max(first, int(np.floor(times_s[-1] * rate_hz + ON_SAMPLE)))
    grid_s = np.arange(first, last + 1) / rate_hz
    before = np.clip(np.searchsorted(times_s, grid_s, side="right") - 1, 0, None)
    gaps_s = np.append(np.diff(times_s), 0.0)  # after each sample, none after the last
    after_s = grid_s - times_s[before]
    inside = (after_s > ON_SAMPLE / rate_hz) & (gaps_s[before] - after_s > ON_SAMPLE / rate_hz)
    values = np.stack([np.interp(grid_s, times_s, channel) for channel in samples.T], axis=1)
    values[inside & (gaps_s[before] > MAX_GAP_S + ROUNDING_S)] = np.nan
    return Stream(samples=values.astype(np.float32), rate_hz=rate_hz, start_s=first / rate_hz, unit=unit)
