"""Named arrays: a model's parameters and buffers as numpy, and which part of the model each belongs to."""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.float32]]
"""By the model's own dotted names."""

FUSION = "fusion."
"""The part that belongs to no modality: attention, dual branch, shared heads. No modality's name has a dot."""
_MODALITIES = "modalities."


@lru_cache(maxsize=4096)
def part_of(name: str) -> str:
    """Return the part an array belongs to: its modality, or `FUSION`.

    Parts are averaged apart, each over the devices that own it.
    """
    return name.removeprefix(_MODALITIES).split(".", 1)[0] if name.startswith(_MODALITIES) else FUSION


def difference(local: Mapping[str, NDArray[np.float32]], start: Mapping[str, NDArray[np.float32]]) -> Arrays:
    """Return `local - start`, for the names in `local`."""
    return {name: values - start[name] for name, values in local.items()}
