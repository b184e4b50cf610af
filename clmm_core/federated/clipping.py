"""How long a device's whole update is, and what makes it no longer than a clip: what bounds a device's influence on a sum of updates.

Source: McMahan et al. 2018, "Learning Differentially Private Recurrent Language Models", arXiv 1710.06963, section 3 (FlatClip) and
algorithm 1: `update * min(1, clip / length)`, over all arrays as one vector.
Differs: what is too long ends a millionth below the clip, so that rounding to float32 never makes it longer.
"""

import math
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from clmm_core.federated.arrays import part_of

MARGIN = 1e-6
"""Share of the clip that is given away to rounding; float32 rounds each value by at most 6e-8 of it."""


def length_of(update: Mapping[str, NDArray[np.float32]], parts: Collection[str]) -> float:
    """Return the Euclidean length of an update over all arrays of these parts, in float64."""
    return math.sqrt(sum(_squared(values) for name, values in update.items() if part_of(name) in parts))


def factor_within(length: float, clip: float) -> float:
    """Return what an update of this length is multiplied by to be at most `clip` long: 1 where it is so already."""
    return 1.0 if length <= clip else clip / length * (1 - MARGIN)


def _squared(values: NDArray[np.float32]) -> float:
    flat = values.astype(np.float64).ravel()
    return float(np.dot(flat, flat))
