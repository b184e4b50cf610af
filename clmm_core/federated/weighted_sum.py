"""A weighted sum of updates, per part of the model: what a host folds its cohort into, and the server its hosts."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from clmm_core.federated.arrays import Arrays, part_of

Weights = Mapping[str, float]
"""By part; a part that did not take part has none."""


class WeightedSum:
    """Sums `weight x array`, each part with its own weight, so that a device without a modality neither trains nor dilutes it.

    Law: folding devices into hosts and hosts into a server gives the mean that folding all devices at once gives (to float
    rounding), in any grouping: a sum is associative. Sums are float64; means are float32. The mean of one update is its own arrays,
    not copies: what multiplying and dividing by its weight in float64 would give, to the last bit.

    Source: FedAvg, McMahan et al. 2017, arXiv 1602.05629, algorithm 1.
    Differs: one weight per part instead of one per client.
    """

    def __init__(self) -> None:
        self._only: tuple[Mapping[str, NDArray[np.float32]], Weights] = {}, {}
        """The first update, until there is a second one."""
        self._totals: dict[str, NDArray[np.float64]] = {}
        self._weights: dict[str, float] = {}

    @property
    def weights(self) -> dict[str, float]:
        """Total weight of each part, by part."""
        return dict(self._weights)

    @property
    def sums(self) -> dict[str, NDArray[np.float64]]:
        """The weighted sum of each array, by name."""
        self._sum_the_first()
        return dict(self._totals)

    def add(self, arrays: Mapping[str, NDArray[np.float32]], weights: Weights, factor: float = 1.0) -> None:
        """Add arrays times `factor`, each with its part's weight; arrays of parts without a weight are left out.

        Raises:
            ValueError: a weight is not a finite positive number.
        """
        is_first = not self._weights
        for part, weight in weights.items():
            if not (np.isfinite(weight) and weight > 0):
                raise ValueError(f"part '{part}': expected a finite weight above 0, found {weight}")
            self._weights[part] = self._weights.get(part, 0.0) + weight
        counted = {name: values for name, values in arrays.items() if part_of(name) in weights}
        if is_first and factor == 1:
            self._only = counted, weights
            return
        self._sum_the_first()
        self._sum(counted, weights, factor)

    def _sum_the_first(self) -> None:
        self._sum(*self._only, 1.0)
        self._only = {}, {}

    def _sum(self, arrays: Mapping[str, NDArray[np.float32]], weights: Weights, factor: float) -> None:
        for name, values in arrays.items():
            weighted = np.asarray(values, np.float64) * (weights[part_of(name)] * factor)
            self._totals[name] = self._totals[name] + weighted if name in self._totals else weighted

    def mean(self) -> Arrays:
        """Return the weighted mean of each array, float32; nothing for a part nobody added.

        Raises:
            ValueError: nothing was added at all.
        """
        only, _ = self._only
        if not (only or self._totals):
            raise ValueError("expected at least one update to average, found none")
        if only:
            return {name: np.asarray(values, np.float32) for name, values in only.items()}
        return {name: (total / self._weights[part_of(name)]).astype(np.float32) for name, total in self._totals.items()}
