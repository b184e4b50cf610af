"""The epsilon that rounds of DP-FedAvg cost, by opacus' accountant of privacy-loss random variables.

Opacus loads PyTorch, so the server asks in a process of its own (`apart.Apart`).

Source: Gopi et al. 2021, "Numerical Composition of Differential Privacy", arXiv 2106.02848, as opacus 1.6 has it; the bound that sets its
mesh, and stands in above `LARGEST`: Renyi DP of the sampled Gaussian mechanism, Mironov et al. 2019, arXiv 1908.10530.
Differs: the mesh follows from the epsilon at hand instead of an absolute error, and rounds of about the same epsilon share one.
"""

import math
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import accumulate, groupby
from typing import Any

import numpy as np

from clmm_core.errors import ConfigError

try:
    from opacus.accountants.analysis import rdp as renyi
    from opacus.accountants.analysis.prv import (
        Domain,
        PoissonSubsampledGaussianPRV,
        TruncatedPrivacyRandomVariable,
        compose_heterogeneous,
        compute_safe_domain_size,
        discretize,
    )
    from opacus.accountants.rdp import RDPAccountant
except ImportError as missing:
    _MISSING: ImportError | None = missing
else:
    _MISSING = None

ERROR = 0.002
"""Share of epsilon that a mesh may be off by; what is returned is the upper end."""
DELTA_ERROR = 1e-3
"""Share of delta that is spent on the same."""
MOST_EXACT = 60
"""Rounds whose epsilon is found one by one; in longer runs the others count as the next of them, which costs a little more."""
LARGEST = 300.0
"""Epsilon from which on float64 has no room for its exponential, and Renyi DP's bound, a few per cent above, is returned."""


@lru_cache(maxsize=64)
def epsilons(rates: tuple[float, ...], noise_multiplier: float, delta: float) -> tuple[float, ...]:
    """Return epsilon after each round, never falling.

    Args:
        rates: of each round in order, the probability that a device is in it.
        noise_multiplier: the noise's deviation over what one device can change.
        delta: the probability that epsilon does not hold.

    Raises:
        ConfigError: opacus is not installed.
    """
    if _MISSING is not None:
        raise ConfigError(
            f"privacy.noise-multiplier: expected opacus on the server, to say what privacy costs, found none ({_MISSING}): "
            "pip install 'clmm[privacy]', or set it to 0"
        )
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # a logarithm of 0 at a rate of 1; orders of Renyi DP at the end of their range
        bounds = _renyi_bounds(rates, noise_multiplier, delta)
        found = list(bounds)
        exact = range(len(rates), 0, -math.ceil(len(rates) / MOST_EXACT))[::-1]
        while exact:
            largest = bounds[exact[-1] - 1]
            alike = [n for n in exact if bounds[n - 1] >= largest / 2]
            if 0 < largest <= LARGEST:
                with suppress(RuntimeError, ValueError):  # epsilon about 0, or delta below what float64 tells apart: the bound stands
                    for n, epsilon in zip(alike, _tight(rates, alike, noise_multiplier, delta, ERROR * largest), strict=True):
                        found[n - 1] = max(0.0, min(epsilon, found[n - 1]))
            exact = exact[: -len(alike)]
    # From the end: no round has cost more than those after it.
    return tuple(accumulate(reversed(found), min))[::-1]


def _renyi_bounds(rates: Sequence[float], noise_multiplier: float, delta: float) -> list[float]:
    """Return an upper bound of epsilon after each round."""
    orders = RDPAccountant.DEFAULT_ALPHAS
    of_rate = {rate: renyi.compute_rdp(q=rate, noise_multiplier=noise_multiplier, steps=1, orders=orders) for rate in set(rates)}
    spent = np.cumsum([of_rate[rate] for rate in rates], axis=0)  # [rounds, orders]
    return [max(0.0, float(renyi.get_privacy_spent(orders=orders, rdp=each, delta=delta)[0])) for each in spent]


def _tight(rates: Sequence[float], after: Sequence[int], noise_multiplier: float, delta: float, error: float) -> list[float]:
    """Return epsilon after each of these rounds, ascending, from 1; on one mesh: that of the last is fine enough for all."""
    rates = rates[: after[-1]]
    delta_error = DELTA_ERROR * delta
    losses = {rate: PoissonSubsampledGaussianPRV(rate, noise_multiplier) for rate in dict.fromkeys(rates)}
    counts = [rates.count(rate) for rate in losses]
    reach = compute_safe_domain_size(prvs=list(losses.values()), max_self_compositions=counts, eps_error=error, delta_error=delta_error)
    mesh = error / np.sqrt(len(rates) * np.log(12 / delta_error) / 2)
    domain = Domain.create_aligned(-reach, reach, mesh)
    discrete: dict[float, Any] = {
        rate: discretize(TruncatedPrivacyRandomVariable(loss, domain.t_min, domain.t_max), domain) for rate, loss in losses.items()
    }
    found = []
    for last in after:
        so_far = {rate: len(list(some)) for rate, some in groupby(sorted(rates[:last]))}
        composed = compose_heterogeneous(dprvs=[discrete[rate] for rate in so_far], num_self_compositions=list(so_far.values()))
        found.append(float(composed.compute_epsilon(delta, delta_error, error)[2]))
    return found
