"""Updates of several devices in one message, where the server wants each by itself: their arrays' names end with the device's place."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from clmm_core.federated.arrays import Arrays

PLACE = "@"
"""Between an array's name, which has none, and the place of its device in the reply, from 0."""


def placed(updates: Sequence[Mapping[str, NDArray[np.float32]]]) -> Arrays:
    """Return all updates' arrays, each under its name and its update's place; `part_of` is what it was."""
    return {f"{name}{PLACE}{place}": values for place, update in enumerate(updates) for name, values in update.items()}


def apart(arrays: Mapping[str, NDArray[np.float32]], count: int) -> list[Arrays]:
    """Return the updates that were placed, in order.

    Args:
        arrays: what `placed` made.
        count: how many updates there are.

    Raises:
        ValueError: an array without a place, or with one beyond the last.
    """
    updates: list[Arrays] = [{} for _ in range(count)]
    for placed_name, values in arrays.items():
        name, _, place = placed_name.rpartition(PLACE)
        if not (name and place.isascii() and place.isdecimal() and int(place) < count):
            raise ValueError(
                f"expected arrays whose names end with {PLACE} and the place of one of {count} device(s), found '{placed_name}'"
            )
        updates[int(place)][name] = values
    return updates
