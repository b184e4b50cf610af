"""L-DAWA: layers that turned away from the global model's count less.

Source: Rehman et al., "L-DAWA: Layer-wise Divergence Aware Weight Aggregation in Federated Self-Supervised Visual Representation
Learning", ICCV 2023, arXiv 2307.07393, eq. 4; the authors' code, yasar-rehman/L-DAWA at 2ae58ba, `L-DAWA-Agg.py`.
Differs: the cosine is taken where the layer was trained, which knows both sides of it, so that a host's devices can still be summed before
they are sent; the mean that follows is FedAvg's, weighted by windows, where the authors' code divides by the number of clients, and it
is used from the first round on, where their script begins with plain averaging.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from clmm_core.federated.arrays import Arrays


def scale_by_agreement(local: Mapping[str, NDArray[np.float32]], start: Mapping[str, NDArray[np.float32]]) -> Arrays:
    """Return each local array times its cosine with the array it started from; one of length 0, on either side, as it is."""
    return {name: values * _cosine(values, start[name]) for name, values in local.items()}


def _cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> np.float32:
    first, second = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    return np.float32(min(float(first @ second / lengths), 1.0)) if lengths > 0 else np.float32(1)
