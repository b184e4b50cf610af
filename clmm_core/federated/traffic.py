"""Bytes that cross the wire: arrays by the part of the model they belong to, and the words around them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from clmm_core.federated.arrays import part_of
from clmm_core.federated.codec import to_json

WORDS = "words."
"""The part of what is no array: tasks and replies as JSON. No modality's name has a dot."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Messages of one kind in one step of a run, in bytes by part: a modality, `FUSION` or `WORDS`."""

    message: str
    """As hosts are asked, `train.pretrain`."""
    down: Mapping[str, int]
    """From the server to all hosts asked."""
    up: Mapping[str, int]
    """From all hosts that answered to the server."""


def array_bytes(arrays: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """Return how many bytes the arrays of each part have, as they travel."""
    counted: Counter[str] = Counter()
    for name, values in arrays.items():
        counted[part_of(name)] += values.nbytes
    return dict(counted)


def word_bytes(message: object) -> int:
    """Return how many bytes a task or a reply has as JSON."""
    return len(to_json(message).encode())
