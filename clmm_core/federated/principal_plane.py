"""The plane in which embeddings vary most, from their summed moments: see `training/plane.py`, whose hosts sum and project.

Source: principal component analysis from the covariance (Pearson 1901), with the covariance as a federated sum.
"""

import numpy as np

from clmm_core.federated.arrays import Arrays

SUM, SECOND, MEAN, AXES = "plane.sum", "plane.second", "plane.mean", "plane.axes"


def principal_plane(num_windows: int, moments: Arrays) -> Arrays:
    """Return the mean `[D]` and the two leading axes `[2, D]` of embeddings with these summed moments; signs are fixed."""
    mean = moments[SUM].astype(np.float64) / num_windows
    covariance = moments[SECOND].astype(np.float64) / num_windows - np.outer(mean, mean)
    _, vectors = np.linalg.eigh(covariance)
    axes = vectors[:, [-1, -2]].T
    axes *= np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])[:, None]
    return {MEAN: mean.astype(np.float32), AXES: axes.astype(np.float32)}
