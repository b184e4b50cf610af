"""Normalisation from federated sums: a host sends count, sum and sum of squares per channel, never samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SMALLEST_STD, SMALLEST_SHARE = 1e-6, 1e-7
"""A channel that moves less than this, or than this share of its mean, over the training subjects is centred and not scaled: it may move
on another subject. The share is the resolution of float32 samples: below it stands what rounding leaves of a constant."""


@dataclass(frozen=True, kw_only=True)
class ChannelSums:
    """Sums over all samples of one modality's windows, each `[channels]` in float64."""

    count: float
    total: tuple[float, ...]
    squares: tuple[float, ...]

    def __add__(self, other: "ChannelSums") -> "ChannelSums":
        return ChannelSums(
            count=self.count + other.count,
            total=tuple(a + b for a, b in zip(self.total, other.total, strict=True)),
            squares=tuple(a + b for a, b in zip(self.squares, other.squares, strict=True)),
        )

    @property
    def mean(self) -> NDArray[np.float32]:
        """`[channels]`, in the channel's unit."""
        return (np.array(self.total) / self.count).astype(np.float32)

    @property
    def std(self) -> NDArray[np.float32]:
        """`[channels]`, in the channel's unit; 1 where the channel does not move, see `SMALLEST_STD`."""
        mean = np.array(self.total) / self.count
        variance = np.maximum(np.array(self.squares) / self.count - mean**2, 0.0)
        std = np.sqrt(variance)
        return np.where(std < np.maximum(SMALLEST_STD, SMALLEST_SHARE * np.abs(mean)), 1.0, std).astype(np.float32)


def channel_sums(windows: NDArray[np.float32], present: NDArray[np.bool_]) -> ChannelSums:
    """Return the sums of `[windows, channels, time]` over the windows that are `present` `[windows]`."""
    values = windows[present].astype(np.float64)
    total, squares = values.sum(axis=(0, 2)), np.square(values).sum(axis=(0, 2))
    return ChannelSums(count=float(values.shape[0] * values.shape[2]), total=tuple(total.tolist()), squares=tuple(squares.tolist()))


def add_sums(sums: Sequence[Mapping[str, ChannelSums]]) -> dict[str, ChannelSums]:
    """Return the sums by modality over all of `sums`, added in order."""
    added: dict[str, ChannelSums] = {}
    for each in sums:
        for modality, values in each.items():
            added[modality] = added[modality] + values if modality in added else values
    return added
