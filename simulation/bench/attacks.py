"""What hostile devices send that know every honest update of their round: the attacks that robust aggregation is measured against.

Source: sign flip as in LPD-EPFL/byzfl at 69bd1ac, `attacks.py::SignFlipping`. Inner-product manipulation, Xie et al., "Fall of Empires",
UAI 2019, arXiv 1903.03936. A little is enough (ALIE), Baruch et al., NeurIPS 2019, arXiv 1902.06156, algorithm 3. Mimic, Karimireddy et
al., "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022, arXiv 2006.09365; the authors' code,
epfml/byzantine-robust-noniid-optimizer at 0e27349, `codes/attacks`.
Differs: each part of the model is attacked by itself, as it is aggregated. ALIE knows all honest updates, not only what hostile devices
learned themselves. Mimic finds whom to copy in each round anew, where its authors choose in a first epoch and keep to it.

In the shapes below, N is honest devices and P a part's parameters.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from clmm_core.federated.arrays import Arrays
from clmm_core.federated.rows import Update, rows_by_part

Float64 = NDArray[np.float64]
Attack = Callable[[Float64, int], Float64]
"""From honest rows `[N, P]` and the number of hostile devices to what each of them sends, `[P]`."""

EPSILON = 0.1
"""How long the vector of inner-product manipulation is: Karimireddy et al.'s, short enough to hide among updates that differ."""


def attacked(honest: Sequence[Update], attack: Attack, num_hostile: int) -> Arrays:
    """Return the update that each hostile device sends."""
    sent: Arrays = {}
    for rows in rows_by_part(honest):
        sent |= rows.arrays(attack(rows.values.astype(np.float64), num_hostile).astype(np.float32))
    return sent


def sign_flip(honest: Float64, _num_hostile: int) -> Float64:
    """Return the honest mean with its signs turned round."""
    return -honest.mean(axis=0)


def inner_product(honest: Float64, _num_hostile: int) -> Float64:
    """Return a short vector against the honest mean, so that the aggregate's inner product with it may turn negative."""
    return -EPSILON * honest.mean(axis=0)


def little_is_enough(honest: Float64, num_hostile: int) -> Float64:
    """Return the honest mean less so many standard deviations that just enough honest devices lie farther out."""
    num_honest = len(honest)
    supporters = math.floor((num_honest + num_hostile) / 2 + 1) - num_hostile
    deviations = NormalDist().inv_cdf((num_honest - supporters) / num_honest)
    return honest.mean(axis=0) - deviations * honest.std(axis=0, ddof=1)


def mimic(honest: Float64, _num_hostile: int) -> Float64:
    """Return the honest update that goes farthest along the direction in which they differ most, so that it counts too often."""
    centred = honest - honest.mean(axis=0)
    _, vectors = np.linalg.eigh(centred @ centred.T)  # [N, N]: the last column holds how far each goes in that direction
    return honest[int(np.abs(vectors[:, -1]).argmax())]


ATTACKS: dict[str, Attack] = {"sign-flip": sign_flip, "inner-product": inner_product, "alie": little_is_enough, "mimic": mimic}
