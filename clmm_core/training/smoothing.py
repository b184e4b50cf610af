"""Smoothing of predictions over time: people go on with what they do for longer than a window."""

import numpy as np
from numpy.typing import NDArray

from clmm_core.data.windows import DeviceWindows

SLACK_S = 1e-6
"""Starts are multiples of a step, and floats."""


def smoothed(
    probabilities: NDArray[np.float64], windows: DeviceWindows, reach_s: float, counting: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return each window's probabilities, `[windows, classes]`, averaged over the windows of its recording near it in time.

    Args:
        probabilities: `[windows, classes]` of all windows of a device, labelled or not.
        windows: those windows.
        reach_s: windows that start at most so much earlier or later count; 0 leaves everything as it is. What comes later is looked at
            too, so a live device would answer that much later.
        counting: `[windows]`, False for those that may not speak for their neighbours, because the model was trained on them; they keep
            what they have.
    """
    if not reach_s:
        return probabilities
    averaged = probabilities.copy()
    for recording in np.unique(windows.recordings):
        rows = np.flatnonzero((windows.recordings == recording) & counting)
        rows = rows[np.argsort(windows.starts_s[rows], kind="stable")]
        starts_s = windows.starts_s[rows]
        first = np.searchsorted(starts_s, starts_s - reach_s - SLACK_S, side="left")
        end = np.searchsorted(starts_s, starts_s + reach_s + SLACK_S, side="right")
        sums = np.concatenate([np.zeros((1, probabilities.shape[1])), probabilities[rows].cumsum(axis=0)])
        averaged[rows] = (sums[end] - sums[first]) / (end - first)[:, None]
    return averaged
