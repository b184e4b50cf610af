"""A host's share of a round: train its devices one after the other, fold their updates into one weighted mean."""

import math
from collections.abc import Callable

import numpy as np
import torch

from clmm_core.data.fleet import device_windows
from clmm_core.data.labels import draw_labelled
from clmm_core.data.windows import DeviceWindows
from clmm_core.errors import DeviceSkippedError
from clmm_core.federated.arrays import FUSION, Arrays, difference
from clmm_core.federated.l_dawa import scale_by_agreement
from clmm_core.federated.messages import DeviceTraining, HostQuality, HostUpdate, LeftOut
from clmm_core.federated.weighted_sum import WeightedSum
from clmm_core.models.clmm import Clmm, ModalityPart
from clmm_core.seeds import generator, seeded
from clmm_core.training.device_tensors import DeviceTensors, device_tensors, pooled, zero_filled
from clmm_core.training.finetune import finetune_device
from clmm_core.training.model_arrays import arrays_of, is_stage_one, load_arrays
from clmm_core.training.pretrain import pretrain_device
from clmm_core.training.pseudo_labels import pseudo_labelled
from clmm_core.training.quality import hopkins
from clmm_core.training.tasks import FinetuneTask, PretrainTask, QualityTask, SelftrainTask

TrainDevice = Callable[[Clmm, DeviceTensors, torch.Generator], float]


def pretrain_cohort(task: PretrainTask, arrays: Arrays) -> tuple[HostUpdate, Arrays]:
    """Return one host's update of stage one: encoders and projections, each over the devices that own the modality."""

    def train(model: Clmm, windows: DeviceTensors, draws: torch.Generator) -> float:
        return pretrain_device(model, windows, task.config, draws)

    def unlabelled(device: DeviceWindows) -> DeviceTensors:
        return device_tensors(device, ())

    return _train_cohort(task, arrays, "pretrain", unlabelled, train)


def finetune_cohort(task: FinetuneTask, arrays: Arrays) -> tuple[HostUpdate, Arrays]:
    """Return one host's update of stage two: the whole network, over its labelled devices."""

    def train(model: Clmm, windows: DeviceTensors, draws: torch.Generator) -> float:
        return finetune_device(model, windows, task.config, draws)

    def labelled(device: DeviceWindows) -> DeviceTensors:
        rows, _ = draw_labelled(device, task.classes, task.labels)
        return device_tensors(device, task.classes).select(torch.from_numpy(rows))

    return _train_cohort(task, arrays, "finetune", labelled, train)


def selftrain_cohort(task: SelftrainTask, arrays: Arrays) -> tuple[HostUpdate, Arrays]:
    """Return one host's update of self-training: the whole network, over all its devices, each with labels of its own making."""
    teacher = load_arrays(task.model, arrays)

    def train(model: Clmm, windows: DeviceTensors, draws: torch.Generator) -> float:
        return finetune_device(model, windows, task.config, draws)

    def own_labels(device: DeviceWindows) -> DeviceTensors:
        windows = device_tensors(device, task.classes)
        windows = zero_filled(windows, teacher) if task.data.zero_fill else windows
        is_labelled = device.device in task.labelled
        known = draw_labelled(device, task.classes, task.labels)[0] if is_labelled else np.zeros(0, np.int64)
        return pseudo_labelled(teacher, windows, torch.from_numpy(known), task.confidence)

    return _train_cohort(task, arrays, "selftrain", own_labels, train)


def _train_cohort(
    task: PretrainTask | FinetuneTask, arrays: Arrays, stage: str, windows_of: Callable[[DeviceWindows], DeviceTensors], train: TrainDevice
) -> tuple[HostUpdate, Arrays]:
    folded = WeightedSum()
    rows: list[DeviceTraining] = []
    left_out: list[LeftOut] = []
    for together in _trained_together(task):
        parts = [windows_of(device_windows(task.data, device)) for device in together]
        windows = pooled(parts) if len(parts) > 1 else parts[0]
        with seeded(task.seed, stage, task.server_round, *together) as draws:
            model = load_arrays(task.model, arrays)
            windows = zero_filled(windows, model) if task.data.zero_fill else windows
            try:
                loss = train(model, windows, draws)
            except DeviceSkippedError as skipped:
                left_out += [LeftOut(device=device, reason=str(skipped)) for device in together]
                continue
        trained = {name: values for name, values in arrays_of(model).items() if stage != "pretrain" or is_stage_one(name)}
        if isinstance(task, PretrainTask) and task.config.aggregation == "l-dawa":
            trained = scale_by_agreement(trained, arrays)
        change = difference(trained, arrays)
        if not (math.isfinite(loss) and all(bool(np.isfinite(values).all()) for values in change.values())):
            reason = "training diverged to NaN or infinity: lower the learning rate"
            left_out += [LeftOut(device=device, reason=reason) for device in together]
            continue
        folded.add(change, _weights(windows, stage))
        rows += [DeviceTraining(device=device, num_windows=len(part), loss=loss) for device, part in zip(together, parts, strict=True)]
    mean = folded.mean() if rows else {}
    return HostUpdate(weights=folded.weights, devices=tuple(rows), left_out=tuple(left_out)), mean


def _trained_together(task: PretrainTask | FinetuneTask) -> list[tuple[str, ...]]:
    """Return the devices, ascending, each alone or all as one."""
    devices = sorted(task.devices)
    return [tuple(devices)] if task.config.local.pooled else [(device,) for device in devices]


def _weights(windows: DeviceTensors, stage: str) -> dict[str, float]:
    """Return how much this device counts in each part: the windows it trained that part on."""
    owned = {name: float(mask.sum()) for name, mask in windows.present.items() if bool(mask.any())}
    return owned if stage == "pretrain" else {**owned, FUSION: float(len(windows))}


@torch.no_grad()
def measure_quality(task: QualityTask, arrays: Arrays) -> tuple[HostQuality, Arrays]:
    """Return the Hopkins values of this host's devices, weighted by windows, and no arrays."""
    model = load_arrays(task.model, arrays).eval()
    weighted: dict[str, float] = {}
    num_windows: dict[str, int] = {}
    for device in sorted(task.devices):
        windows = device_tensors(device_windows(task.data, device), ())
        windows = zero_filled(windows, model) if task.data.zero_fill else windows
        for modality, mask in windows.present.items():
            owned = windows.select(mask.nonzero().flatten())
            value = hopkins(_embeddings(model.part(modality), modality, owned), generator(task.seed, "quality", device, modality))
            if value is not None:
                weighted[modality] = weighted.get(modality, 0.0) + value * len(owned)
                num_windows[modality] = num_windows.get(modality, 0) + len(owned)
    return HostQuality(weighted=weighted, num_windows=num_windows), {}


def _embeddings(part: ModalityPart, modality: str, windows: DeviceTensors) -> torch.Tensor:
    """Return z_m `[windows, embed]`, a batch at a time."""
    batches = [part.normalise(batch.streams[modality], batch.present[modality]) for batch in windows.in_order()]
    return torch.cat([part.encoder(normal).mean(dim=1) for normal in batches])
