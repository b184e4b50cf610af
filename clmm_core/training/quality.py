"""Measured quality of a modality: how strongly its unlabelled embeddings cluster.

Source: Hopkins and Skellam 1954; Banerjee and Dave 2004 ("Validating clusters using the Hopkins statistic").
Differs: distances to the first power. The statistic's power d (here 64 or 128) would leave only the largest distance.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from clmm_core.federated.arrays import Arrays
from clmm_core.federated.messages import HostQuality
from clmm_core.models.clmm import ModalityPart
from clmm_core.seeds import generator
from clmm_core.training.alone import CPU
from clmm_core.training.device_tensors import DEVICES_AT_ONCE, DeviceTensors, in_batches
from clmm_core.training.lessons import whole_windows
from clmm_core.training.model_arrays import load_arrays
from clmm_core.training.tasks import QualityTask

SMALLEST_SAMPLE = 4
"""Fewer embeddings say nothing about clusters."""
LARGEST_SAMPLE = 256
ROUNDING = 1e-6
"""Embeddings that differ by less than this share of the largest value are the same ones, computed in another order."""


def hopkins(embeddings: Tensor, generator: Generator) -> float | None:
    """Return the Hopkins statistic in [0, 1] of `[windows, embed]`: near 0.5 for uniform noise, towards 1 for clusters.

    None for fewer than `SMALLEST_SAMPLE` embeddings, or when they are all one point to rounding. Half of the embeddings (at most
    `LARGEST_SAMPLE`) are probes; as many points are drawn uniformly from the embeddings' bounding box.
    """
    count = len(embeddings)
    if count < SMALLEST_SAMPLE:
        return None
    num_probes = min(count // 2, LARGEST_SAMPLE)
    probes = torch.randperm(count, generator=generator)[:num_probes]
    low, high = embeddings.amin(dim=0), embeddings.amax(dim=0)
    if float((high - low).max()) <= ROUNDING * float(embeddings.abs().max()):
        return None  # distances would be nothing but what rounding leaves
    uniform = low + (high - low) * torch.rand(num_probes, embeddings.shape[1], generator=generator).to(embeddings)
    between = torch.cdist(embeddings[probes], embeddings)
    between[torch.arange(num_probes), probes] = torch.inf  # a point is not its own neighbour
    to_data = between.amin(dim=1).sum()
    from_uniform = torch.cdist(uniform, embeddings).amin(dim=1).sum()
    total = to_data + from_uniform
    return float(from_uniform / total) if total > 0 else None


@torch.no_grad()
def measure_quality(task: QualityTask, arrays: Arrays, device: torch.device = CPU) -> tuple[HostQuality, Arrays]:
    """Return the Hopkins values of this host's devices, weighted by windows, and no arrays.

    Devices share the batches in which they are embedded; the windows of a bounded number of devices are in memory.
    """
    model = load_arrays(task.model, arrays).eval().to(device)
    weighted: dict[str, float] = {}
    num_windows: dict[str, int] = {}
    devices = sorted(task.devices)
    for first in range(0, len(devices), DEVICES_AT_ONCE):
        some = devices[first : first + DEVICES_AT_ONCE]
        windows = [whole_windows(task, arrays, (name,)) for name in some]
        for modality in sorted({name for each in windows for name in each.streams}):
            owners = [(name, _owned(each, modality)) for name, each in zip(some, windows, strict=True) if modality in each.streams]
            embedded = _embeddings(model.part(modality), modality, [owned for _, owned in owners], device)
            for (name, owned), embeddings in zip(owners, embedded, strict=True):
                value = hopkins(embeddings, generator(task.seed, "quality", name, modality))
                if value is not None:
                    weighted[modality] = weighted.get(modality, 0.0) + value * len(owned)
                    num_windows[modality] = num_windows.get(modality, 0) + len(owned)
    return HostQuality(weighted=weighted, num_windows=num_windows), {}


def _owned(windows: DeviceTensors, modality: str) -> DeviceTensors:
    """Return the windows that have a modality, and nothing but it."""
    mask = windows.present[modality]
    alone = DeviceTensors({modality: windows.streams[modality]}, {modality: mask}, windows.classes)
    return alone if mask.all() else alone.select(mask.nonzero().flatten())


def _embeddings(part: ModalityPart, modality: str, devices: Sequence[DeviceTensors], device: torch.device) -> Sequence[Tensor]:
    """Return z_m `[windows, embed]` of each device's windows, on the CPU."""
    batches = (batch.to(device) for batch in in_batches(devices))
    normal = (part.normalise(batch.streams[modality], batch.present[modality]) for batch in batches)
    embedded = torch.cat([part.encoder(values).mean(dim=1).cpu() for values in normal])
    return torch.split(embedded, [len(each) for each in devices])
