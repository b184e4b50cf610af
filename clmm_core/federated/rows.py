"""Updates as rows of one matrix for each part of the model, for rules that compare whole devices."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clmm_core.federated.arrays import Arrays, part_of
from clmm_core.federated.weighted_sum import Weights

Update = tuple[Mapping[str, NDArray[np.float32]], Weights]
"""A device's arrays and its weight in each part it trained."""


@dataclass(frozen=True, kw_only=True)
class PartRows:
    """One part's arrays of the devices that have it."""

    part: str
    shapes: Mapping[str, tuple[int, ...]]
    """Of the arrays, by name, in the order in which they stand in a row."""
    values: NDArray[np.float32]
    """`[devices, parameters]`; ordered by what is in them, so that whoever goes through them sees no device's place."""

    def arrays(self, row: NDArray[np.float32]) -> Arrays:
        """Return the arrays that a row `[parameters]` stands for."""
        ends = np.cumsum([np.prod(shape, dtype=int) for shape in self.shapes.values()])
        pieces = np.split(row, ends[:-1])
        return {name: piece.reshape(shape) for piece, (name, shape) in zip(pieces, self.shapes.items(), strict=True)}


def rows_by_part(updates: Sequence[Update]) -> Iterator[PartRows]:
    """Yield each part's rows over the devices that have a weight in it; nothing for a part without any.

    Raises:
        ValueError: devices have other arrays, or arrays of other shapes, of the same part.
    """
    for part in sorted({part_of(name) for arrays, weights in updates for name in arrays if part_of(name) in weights}):
        owned = [{name: arrays[name] for name in sorted(arrays) if part_of(name) == part} for arrays, weights in updates if part in weights]
        shapes = [{name: values.shape for name, values in arrays.items()} for arrays in owned]
        for each in shapes:
            if each != shapes[0]:
                raise ValueError(f"part '{part}': expected every device's arrays to have the shapes {shapes[0]}, found {each}")
        rows = [np.concatenate([values.ravel() for values in arrays.values()]) for arrays in owned]
        rows.sort(key=lambda row: row.tobytes())
        yield PartRows(part=part, shapes=shapes[0], values=np.stack(rows))
