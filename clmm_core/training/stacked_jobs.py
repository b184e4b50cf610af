"""What the jobs of a stack begin a round with, side by side: where they start, and the batches of all their steps.

J = jobs, B = batch, N = numbers of the model that a stack takes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clmm_core.federated.arrays import Arrays
from clmm_core.training.device_tensors import batches_of
from clmm_core.training.draws import Draws
from clmm_core.training.job import Job
from clmm_core.training.pretrain import SMALLEST_BATCH
from clmm_core.training.settings import PretrainConfig
from clmm_core.training.stacked_windows import distinct


def starts_of(of_jobs: Sequence[Arrays], names: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return on a device for each job which start it has, `[J]`, and the starts, `[starts, N]`: these arrays one after the other."""
    starts, which = distinct(of_jobs)
    total = sum(starts[0][name].size for name in names)
    # Memory that a GPU reads by itself, and that PyTorch keeps for the next round: new pages cost more than what is written into them.
    flat = torch.empty(len(starts), total, pin_memory=device.type == "cuda")
    for row, arrays in zip(flat.numpy(), starts, strict=True):
        np.concatenate([arrays[name].ravel() for name in names], out=row)
    return torch.tensor(which).to(device), flat.to(device, non_blocking=True)


def brought_back(values: Tensor) -> NDArray[np.float32]:
    """Return a copy of what is on a device, in memory as that of `starts_of`."""
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=values.is_cuda).copy_(values).numpy()


def batches_of_jobs(jobs: Sequence[Job], shape: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_], int]:
    """Return rows, classes and counts of every step, `[steps, J, B]`, and how many steps the longest job takes.

    A short batch is filled up with a window of its job, which does not count.
    """
    rows, classes, counts = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
    num_steps = 0
    for j, (job, orders) in enumerate(zip(jobs, _orders(jobs), strict=True)):
        if not len(job.rows):
            continue
        own_rows, own_classes = job.rows.numpy(), job.classes.numpy()
        rows[:, j], classes[:, j] = own_rows[0], own_classes[0]
        smallest = SMALLEST_BATCH if isinstance(job.config, PretrainConfig) else 1
        for step, chosen in enumerate(batches_of(orders, job.config.local.batch_size, smallest)):
            rows[step, j, : len(chosen)] = own_rows[chosen]
            classes[step, j, : len(chosen)] = own_classes[chosen]
            counts[step, j, : len(chosen)] = True
            num_steps = max(num_steps, step + 1)
    return rows, np.maximum(classes, 0), counts, num_steps


def _orders(jobs: Sequence[Job]) -> list[list[Tensor]]:
    """Return for each job the orders of its rows, an epoch after the other: `Draws.permutation` of all of them at once."""
    draws = Draws(torch.tensor([job.key for job in jobs]))
    counts = torch.tensor([len(job.rows) for job in jobs])
    most = int(counts.max())
    beyond = torch.arange(most) >= counts[:, None]
    epochs = [draws.uniform(most).masked_fill(beyond, torch.inf).argsort(dim=1) for _ in range(jobs[0].config.local.epochs)]
    return [[epoch[j, :count] for epoch in epochs] for j, count in enumerate(counts.tolist())]
