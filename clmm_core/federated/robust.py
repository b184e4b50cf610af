"""Robust aggregation, a part of the model at a time: faulty or hostile devices, up to a share, cannot move it far.

Source: coordinate-wise median and trimmed mean, Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates",
ICML 2018, arXiv 1803.01498, definitions 1 and 2. Multi-Krum, Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant
Gradient Descent", NeurIPS 2017, arXiv 1703.02757, sections 4 and 6. Geometric median, Pillutla et al., "Robust Aggregation for Federated
Learning", IEEE TSP 2022, arXiv 1912.13445, the smoothed Weiszfeld algorithm; the authors' code, krishnap25/RFA at 40945d2,
`models/model.py::geometric_median_update`. Nearest-neighbour mixing, Allouah et al., "Fixing by Mixing: A Recipe for Optimal Byzantine ML
under Heterogeneity", AISTATS 2023, arXiv 2302.01772; the authors' code, LPD-EPFL/byzfl at 69bd1ac, `preaggregators.py::NNM`.
Differs: each part by itself, over the devices that have it, so that its neighbours, scores and medians are its own. Devices count alike,
also in the geometric median, which Pillutla et al. weight: a hostile device would choose its own weight. The number of faulty devices
follows from a share of those that have the part. Multi-Krum averages the n - f best, a number that Blanchard et al. leave open. The
geometric median begins at the coordinate-wise median, which no outlier moves, instead of the mean, and goes on until it stands still.

In the shapes below, N is devices and P a part's parameters.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clmm_core.errors import ConfigError
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.rows import Update, rows_by_part
from clmm_core.federated.weighted_sum import WeightedSum

Float64 = NDArray[np.float64]
RobustRule = Literal["median", "trimmed-mean", "multi-krum", "geometric-median"]
RuleName = Literal["mean", RobustRule]

BLOCK = 1024
"""Parameters worked on at once: what 100 devices have of them, in float64, fits a core's cache."""
SMOOTHING = 1e-6
"""nu, Pillutla et al.'s smallest distance that counts, as a share of the median distance: an update has no unit of its own."""
STANDSTILL, MAX_STEPS = 1e-7, 1000
"""The geometric median is done when it moves by less than this share of the median distance, and after this many steps in any case."""


@dataclass(frozen=True, kw_only=True)
class AggregationConfig:
    """How updates become one.

    Raises:
        ConfigError: a value out of range.
    """

    rule: RuleName = "mean"
    """`mean` is FedAvg's, weighted by windows, and uses none of what follows."""
    mixing: bool = True
    """Whether each update is first replaced by the mean of the n - f nearest to it."""
    byzantine_share: float = 0.2
    """Of the devices that have a part, how many may be faulty at most; whole devices, and one at least."""

    def __post_init__(self) -> None:
        if not 0 < self.byzantine_share < 0.5:
            raise ConfigError(f"aggregation.byzantine-share: expected a number above 0 and below 0.5, found {self.byzantine_share}")

    def num_faulty(self, num_devices: int) -> int:
        """Return f for a part that this many devices have."""
        return max(1, math.floor(self.byzantine_share * num_devices + 1e-9))  # 0.29 * 100 is a little less than 29

    def require_enough(self, part: str, num_devices: int) -> None:
        """Refuse a part that too few devices have for what the rule assumes.

        Raises:
            ConfigError: fewer than 2 f + 3 for multi-Krum (Blanchard et al., section 4), than 2 f + 1 for another robust rule.
        """
        if self.rule == "mean":
            return
        faulty = self.num_faulty(num_devices)
        smallest = 2 * faulty + (3 if self.rule == "multi-krum" else 1)
        if num_devices < smallest:
            raise ConfigError(
                f"part '{part}': {self.rule} expects at least {smallest} devices in a round where {faulty} may be faulty (byzantine-share "
                f"{self.byzantine_share:g}, at least 1), found {num_devices}: let more devices take part, lower the share where more "
                "than 1 may be faulty, or choose a rule that needs fewer: multi-krum needs 2 f + 3, mean 1, the others 2 f + 1"
            )


def aggregate(updates: Sequence[Update], config: AggregationConfig) -> Arrays:
    """Return one array for each that a device with a weight in its part has; the order of the devices changes no bit of a robust rule.

    Args:
        updates: finite arrays by name, and weights by part; a robust rule asks only whether there is a weight.
        config: the rule.

    Raises:
        ConfigError: too few devices have a part, see `require_enough`.
        ValueError: nothing to aggregate, or devices disagree about a part's arrays.
    """
    if config.rule == "mean":
        total = WeightedSum()
        for arrays, weights in updates:
            total.add(arrays, weights)
        return total.mean()
    combined: Arrays = {}
    for rows in rows_by_part(updates):
        num_devices = len(rows.values)
        config.require_enough(rows.part, num_devices)
        combined |= rows.arrays(robust_mean(rows.values, config.rule, config.num_faulty(num_devices), mixing=config.mixing))
    if not combined:
        raise ValueError("expected at least one update to aggregate, found none")
    return combined


def robust_mean(rows: NDArray[np.float32], rule: RobustRule, num_faulty: int, *, mixing: bool) -> NDArray[np.float32]:
    """Return `[P]`, float32 worked out in float64, from `[N, P]`.

    Args:
        rows: finite; enough of them, see `AggregationConfig.require_enough`.
        rule: what becomes of them.
        num_faulty: f; with 0, trimmed mean, multi-Krum and all that is mixed are the mean.
        mixing: whether they are mixed before.
    """
    num_devices, by_coordinate = len(rows), rule in ("median", "trimmed-mean")
    trimmed = num_faulty if rule == "trimmed-mean" else (num_devices - 1) // 2
    if by_coordinate and not mixing:
        return _by_block(rows, lambda block: _trimmed_mean(block, trimmed))
    gram = _gram(rows)
    mixed = _neighbour_shares(gram, num_faulty) if mixing else np.eye(num_devices)
    if by_coordinate:
        return _by_block(rows, lambda block: _trimmed_mean(mixed @ block, trimmed))
    gram = mixed @ gram @ mixed.T
    shares = (_krum_shares(gram, num_faulty) if rule == "multi-krum" else _geometric_median_shares(gram)) @ mixed
    return _by_block(rows, lambda block: shares @ block)


def _by_block(rows: NDArray[np.float32], combine: Callable[[NDArray[np.float32]], Float64]) -> NDArray[np.float32]:
    """Return `[P]` from `[N, P]`, combined some columns at a time."""
    return np.concatenate([combine(rows[:, block]) for block in _blocks(rows.shape[1])]).astype(np.float32)


def _blocks(num_parameters: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, num_parameters, BLOCK))


def _trimmed_mean(rows: NDArray[np.floating], trimmed: int) -> Float64:
    """Return the mean `[P]` over `[N, P]` without so many of the smallest and the largest in each column.

    With (N - 1) // 2 of them it is the median: of the one in the middle, or the two.
    """
    columns = np.sort(np.ascontiguousarray(rows.T), axis=1)  # [P, N]: sorted where they lie side by side
    middle: Float64 = columns[:, trimmed : len(rows) - trimmed].mean(axis=1, dtype=np.float64)
    return middle


def _gram(rows: NDArray[np.float32]) -> Float64:
    """Return the inner products `[N, N]` of rows `[N, P]`, taken from their coordinate-wise median.

    From there distances among honest rows are differences of numbers of their own size, however far the others are: had the mean been the
    origin, one outlier would move all of them away together and leave nothing of their distances but rounding.
    """
    num_devices = len(rows)
    gram = np.zeros((num_devices, num_devices))
    for block in _blocks(rows.shape[1]):
        centred = rows[:, block] - _trimmed_mean(rows[:, block], (num_devices - 1) // 2)
        gram += centred @ centred.T
    return gram


def _squared_distances(gram: Float64) -> Float64:
    lengths = np.diag(gram)
    squared: Float64 = np.maximum(lengths[:, None] + lengths[None, :] - 2 * gram, 0.0)
    return squared


def _neighbour_shares(gram: Float64, num_faulty: int) -> Float64:
    """Return `[N, N]`: in each row 1 / (n - f) for the n - f nearest, itself among them, and 0 for the others."""
    kept = len(gram) - num_faulty
    nearest = np.argsort(_squared_distances(gram), axis=1, kind="stable")[:, :kept]
    shares = np.zeros_like(gram)
    np.put_along_axis(shares, nearest, 1 / kept, axis=1)
    return shares


def _krum_shares(gram: Float64, num_faulty: int) -> Float64:
    """Return `[N]`: 1 / (n - f) for the n - f with the least sum of squared distances to their n - f - 2 nearest others."""
    kept = len(gram) - num_faulty
    squared = _squared_distances(gram)
    np.fill_diagonal(squared, np.inf)
    scores = np.sort(squared, axis=1)[:, : kept - 2].sum(axis=1)
    shares = np.zeros(len(gram))
    shares[np.argsort(scores, kind="stable")[:kept]] = 1 / kept
    return shares


def _geometric_median_shares(gram: Float64) -> Float64:
    """Return `[N]`, of sum 1: the geometric median as a mean of the rows, from their inner products alone.

    A step weighs each row by its inverse distance from where the last one led. The first is taken from the origin, and the nearer half of
    the rows count alike in it: were one of them the origin, it would hold all steps back.
    """
    squared = np.diag(gram)
    scale = float(np.median(np.sqrt(squared)))
    if scale == 0:  # more than half of the rows are the origin, and so is their geometric median
        return _normalised((squared == 0).astype(np.float64))
    shares = _inverse(squared, scale)
    for _ in range(MAX_STEPS):
        pulled = gram @ shares
        previous, shares = shares, _inverse(shares @ pulled - 2 * pulled + np.diag(gram), SMOOTHING * scale)
        moved = shares - previous
        if moved @ gram @ moved <= (STANDSTILL * scale) ** 2:
            break
    return shares


def _inverse(squared: Float64, smallest: float) -> Float64:
    """Return inverse distances, of sum 1, from squared ones; those below the smallest count as that."""
    return _normalised(1 / np.maximum(np.sqrt(np.maximum(squared, 0.0)), smallest))


def _normalised(weights: Float64) -> Float64:
    shares: Float64 = weights / weights.sum()
    return shares
