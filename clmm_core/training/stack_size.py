"""How many devices a stack holds: what memory allows, up to what still gains."""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from clmm_core.models.config import ModelConfig
from clmm_core.models.cost import flops_a_window
from clmm_core.training.device_tensors import NO_CLASS, DeviceTensors
from clmm_core.training.draws import Draws
from clmm_core.training.finetune import finetune_loss
from clmm_core.training.job import Job, StageConfig
from clmm_core.training.pretrain import pretrain_loss
from clmm_core.training.settings import PretrainConfig
from clmm_core.training.stackable import stackable

MOST = 256
"""Devices in one stack; more gain nothing that was measured."""
MOST_ON_CPU = 16
"""With more, what a step computes falls out of a core's cache."""
FLOPS_ON_CPU = 5e9
"""Of one step's forward pass of a whole stack, at most: autograd keeps about 0.5 GB of it."""
LANES = {"cuda": 4, "cpu": 1}
"""Stacks that train at once: few devices leave a GPU idle between their kernels."""
SHARE_OF_FREE = 0.3 / LANES["cuda"]
"""Of a GPU's free memory, at a process's first stack: what a step in one lane may take, not counting what only lives within it."""
SHARE_KEPT = 0.25
"""Likewise: what programs that are kept from round to round may take between them."""
COPIES = 8
"""Of a device's numbers that learn: now, at the start, gradient twice, AdamW's two, and what a step makes of them."""


def devices_at_once(job: Job, device: torch.device) -> int:
    """Return how many devices like this one are trained as one stack, at least 1."""
    if device.type != "cuda":
        return max(1, min(MOST_ON_CPU, int(FLOPS_ON_CPU / forward_flops(job.model, job.way))))
    modalities = tuple(job.windows.streams)
    room = int(SHARE_OF_FREE * _free_bytes(device))
    return max(1, min(MOST, room // bytes_a_device(job.model, job.way, modalities)))


def bytes_kept(device: torch.device) -> float:
    """Return how much of a device's memory the programs that are kept may take."""
    return SHARE_KEPT * _free_bytes(device) if device.type == "cuda" else math.inf


@lru_cache(maxsize=64)
def forward_flops(model: ModelConfig, config: StageConfig) -> int:
    """Return the floating-point operations of the forward pass of one device's step of a full batch."""
    copies = config.num_copies if isinstance(config, PretrainConfig) else 1
    return copies * config.local.batch_size * flops_a_window(model)


@lru_cache(maxsize=8)
def _free_bytes(device: torch.device) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    return free


@lru_cache(maxsize=64)
def bytes_a_device(model: ModelConfig, config: StageConfig, modalities: tuple[str, ...]) -> int:
    """Return the memory one device takes in a stack: what autograd keeps of a step of full batches, as counted, and its parameters."""
    network, held = stackable(model)
    shapes = {shape.name: shape for shape in model.modalities if shape.name in modalities}
    batch = config.local.batch_size
    windows = DeviceTensors(
        {name: torch.zeros(batch, shape.channels, shape.time_steps) for name, shape in shapes.items()},
        {name: torch.ones(batch, dtype=torch.bool) for name in shapes},
        torch.full((batch,), NO_CLASS if isinstance(config, PretrainConfig) else 0),
    )
    kept: dict[int, int] = {}

    def keep(values: Tensor) -> Tensor:
        storage = values.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return values

    draws = Draws(torch.tensor(0))
    held[:] = [draws]
    everyone = torch.ones(batch, dtype=torch.bool)
    with saved_tensors_hooks(keep, lambda values: values):
        if isinstance(config, PretrainConfig):
            loss, _ = pretrain_loss(network.train(), windows, config, draws, everyone)
        else:
            loss = finetune_loss(network.train(), windows, config, draws, everyone)
    del loss
    return sum(kept.values()) + COPIES * sum(p.numel() * p.element_size() for p in network.parameters())
