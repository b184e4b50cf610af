"""How many devices a stack holds: what the memory of the device it is trained on allows, or a CPU's cache."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from clmm_core.models.config import ModelConfig
from clmm_core.training.device_tensors import NO_CLASS, DeviceTensors
from clmm_core.training.draws import KeyedDraws
from clmm_core.training.finetune import finetune_loss
from clmm_core.training.job import Job, StageConfig
from clmm_core.training.pretrain import PretrainConfig, pretrain_loss
from clmm_core.training.stackable import stackable

MOST = 256
"""Devices in one stack; more gain nothing that was measured."""
MOST_ON_CPU = 16
"""With more, what a step computes falls out of a core's cache; docs/results/simulation.md."""
SHARE_OF_FREE = 0.5
"""Of a GPU's free memory, at a process's first stack: others may share it."""
COPIES = 8
"""Of a device's numbers that learn: now, at the start, gradient twice, AdamW's two, and what a step makes of them."""


def devices_at_once(job: Job, device: torch.device) -> int:
    """Return how many devices like this one are trained as one stack, at least 1."""
    if device.type != "cuda":
        return MOST_ON_CPU
    modalities = tuple(job.windows.streams)
    return max(1, min(MOST, _free_bytes(device) // bytes_a_device(job.model, job.config, modalities)))


@lru_cache(maxsize=8)
def _free_bytes(device: torch.device) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    return int(SHARE_OF_FREE * free)


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

    draws = KeyedDraws(torch.tensor(0))
    held[:] = [draws]
    everyone = torch.ones(batch, dtype=torch.bool)
    with saved_tensors_hooks(keep, lambda values: values):
        if isinstance(config, PretrainConfig):
            loss, _ = pretrain_loss(network.train(), windows, config, draws, everyone)
        else:
            loss = finetune_loss(network.train(), windows, config, draws, everyone)
    del loss
    return sum(kept.values()) + COPIES * sum(p.numel() * p.element_size() for p in network.parameters())
