"""Devices trained one after the other: what `together.py` is held against, and the quickest way where one device fills the processor."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from clmm_core.errors import DeviceSkippedError
from clmm_core.federated.arrays import Arrays, difference
from clmm_core.federated.clipping import factor_within, length_of
from clmm_core.federated.l_dawa import scale_by_agreement
from clmm_core.federated.weighted_sum import WeightedSum
from clmm_core.training.device_tensors import DeviceTensors
from clmm_core.training.drawn_dropout import draws_for
from clmm_core.training.finetune import finetune_device
from clmm_core.training.job import Job, Losses, Mean
from clmm_core.training.model_arrays import arrays_of, load_arrays
from clmm_core.training.pretrain import pretrain_device
from clmm_core.training.settings import PretrainConfig

CPU = torch.device("cpu")


def train_alone(jobs: Sequence[Job], device: torch.device = CPU) -> tuple[Losses, dict[int, list[Mean]]]:
    """Return what `together.train_together` returns of the same jobs, to rounding."""
    losses: Losses = []
    folded: dict[int, WeightedSum] = {}
    within: Counter[int] = Counter()
    for job in jobs:
        update, loss = train_one(job, device)
        losses.append(loss)
        if update:
            factor = factor_within(length_of(update, job.weights), job.clip) if job.clip else 1.0
            within[job.host] += bool(job.clip) and factor == 1
            folded.setdefault(job.host, WeightedSum()).add(update, job.weights, factor)
    return losses, {host: [Mean(total.mean(), total.weights, within[host])] for host, total in folded.items()}


def train_one(job: Job, device: torch.device = CPU) -> tuple[Arrays, float | DeviceSkippedError]:
    """Return a job's update and its mean loss; no update where training diverged (NaN), or why it was left out."""
    model = load_arrays(job.model, job.arrays).to(device)
    draws = draws_for(model, job.key)
    chosen = job.windows.select(job.rows)
    windows = DeviceTensors(chosen.streams, chosen.present, job.classes).to(device)
    try:
        if isinstance(job.config, PretrainConfig):
            loss = pretrain_device(model, windows, job.config, draws)
        else:
            loss = finetune_device(model, windows, job.config, draws)
    except DeviceSkippedError as skipped:
        return {}, skipped
    trained = {name: values for name, values in arrays_of(model).items() if name in job.arrays}
    if isinstance(job.config, PretrainConfig) and job.config.aggregation == "l-dawa":
        trained = scale_by_agreement(trained, job.arrays)
    update = difference(trained, job.arrays)
    is_finite = math.isfinite(loss) and all(bool(np.isfinite(values).all()) for values in update.values())
    return (update, loss) if is_finite else ({}, math.nan)
