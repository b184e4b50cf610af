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
from clmm_core.federated.messages import DeviceTraining, HostQuality, HostUpdate, LeftOut
from clmm_core.federated.weighted_sum import WeightedSum
from clmm_core.models.clmm import Clmm, ModalityPart
from clmm_core.seeds import generator, seeded
from clmm_core.training.device_tensors import DeviceTensors, device_tensors
from clmm_core.training.finetune import finetune_device
from clmm_core.training.model_arrays import arrays_of, is_stage_one, load_arrays
from clmm_core.training.pretrain import pretrain_device
from clmm_core.training.quality import hopkins
from clmm_core.training.tasks import FinetuneTask, ModelTask, PretrainTask, QualityTask

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


def _train_cohort(
    task: ModelTask, arrays: Arrays, stage: str, windows_of: Callable[[DeviceWindows], DeviceTensors], train: TrainDevice
) -> tuple[HostUpdate, Arrays]:
    folded = WeightedSum()
    rows: list[DeviceTraining] = []
    left_out: list[LeftOut] = []
    for device in sorted(task.devices):
        windows = windows_of(device_windows(task.data, device))
        with seeded(task.seed, stage, task.server_round, device) as draws:
            model = load_arrays(task.model, arrays)
            try:
                loss = train(model, windows, draws)
            except DeviceSkippedError as reason:
                left_out.append(LeftOut(device=device, reason=str(reason)))
                continue
        trained = {name: values for name, values in arrays_of(model).items() if stage == "finetune" or is_stage_one(name)}
        change = difference(trained, arrays)
        if not (math.isfinite(loss) and all(bool(np.isfinite(values).all()) for values in change.values())):
            left_out.append(LeftOut(device=device, reason="training diverged to NaN or infinity: lower the learning rate"))
            continue
        folded.add(change, _weights(windows, stage))
        rows.append(DeviceTraining(device=device, num_windows=len(windows), loss=loss))
    mean = folded.mean() if rows else {}
    return HostUpdate(weights=folded.weights, devices=tuple(rows), left_out=tuple(left_out)), mean


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
