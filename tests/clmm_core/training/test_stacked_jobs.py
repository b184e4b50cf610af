"""Where the jobs of a stack start: each start once, its arrays one after the other."""

import numpy as np
import torch

from clmm_core.federated.arrays import Arrays
from clmm_core.training.stacked_jobs import brought_back, starts_of

CPU = torch.device("cpu")


def arrays(w: list[list[float]], mean: float) -> Arrays:
    return {"w": np.array(w, np.float32), "mean": np.array([mean], np.float32), "not asked for": np.array([9], np.float32)}


def test_jobs_that_share_a_start_share_its_row():
    one, other = arrays([[1, 2], [3, 4]], 5), arrays([[6, 7], [8, 9]], 0)
    one["w"] = one["w"].T  # does not lie in memory as it reads
    which, starts = starts_of([one, other, one], ["mean", "w"], CPU)
    assert which.tolist() == [0, 1, 0]
    assert starts.tolist() == [[5, 1, 3, 2, 4], [0, 6, 7, 8, 9]]


def test_what_is_brought_back_is_a_copy():
    values = torch.arange(6.0).view(2, 3)
    copy = brought_back(values)
    values += 1
    assert copy.tolist() == [[0, 1, 2], [3, 4, 5]]
