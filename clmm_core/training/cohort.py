"""A host's share of a round: train its devices one after the other, fold their updates into one weighted mean."""

import math

import numpy as np
import torch

from clmm_core.data.fleet import device_windows
from clmm_core.errors import DeviceSkippedError
from clmm_core.federated.arrays import Arrays, difference
from clmm_core.federated.l_dawa import scale_by_agreement
from clmm_core.federated.messages import DeviceTraining, HostQuality, HostUpdate, LeftOut
from clmm_core.federated.weighted_sum import WeightedSum
from clmm_core.models.clmm import Clmm, ModalityPart
from clmm_core.seeds import generator, seeded
from clmm_core.training.device_tensors import DeviceTensors, device_tensors, zero_filled
from clmm_core.training.draws import Draws, GeneratorDraws
from clmm_core.training.evaluate import logits_of
from clmm_core.training.finetune import finetune_device
from clmm_core.training.lessons import Lesson, TrainTask, learns, lesson_of, stage_of, trained_together, whole_windows
from clmm_core.training.model_arrays import arrays_of, load_arrays
from clmm_core.training.pretrain import pretrain_device
from clmm_core.training.quality import hopkins
from clmm_core.training.tasks import PretrainTask, QualityTask, SelftrainTask

DIVERGED = "training diverged to NaN or infinity: lower the learning rate"


def train_cohort(task: TrainTask, arrays: Arrays) -> tuple[HostUpdate, Arrays]:
    """Return one host's update: the mean of its devices', each part of the model over the devices that train it.

    Stage one trains encoders and projections on all windows; stage two the whole network on labelled ones; self-training likewise, on
    labels of the devices' own making.
    """
    stage = stage_of(task)
    teacher = load_arrays(task.model, arrays) if isinstance(task, SelftrainTask) else None
    folded = WeightedSum()
    rows: list[DeviceTraining] = []
    left_out: list[LeftOut] = []
    for together in trained_together(task):
        windows = whole_windows(task, arrays, together)
        lesson = lesson_of(task, together, windows, logits_of(teacher, windows) if teacher else None)
        with seeded(task.seed, stage, task.server_round, *together) as draws:
            model = load_arrays(task.model, arrays)
            try:
                loss = _train_device(task, model, lesson.learnt(), GeneratorDraws(draws))
            except DeviceSkippedError as skipped:
                left_out += [LeftOut(device=device, reason=str(skipped)) for device in together]
                continue
        trained = {name: values for name, values in arrays_of(model).items() if learns(task, name)}
        if isinstance(task, PretrainTask) and task.config.aggregation == "l-dawa":
            trained = scale_by_agreement(trained, arrays)
        change = difference(trained, arrays)
        if not (math.isfinite(loss) and all(bool(np.isfinite(values).all()) for values in change.values())):
            left_out += [LeftOut(device=device, reason=DIVERGED) for device in together]
            continue
        folded.add(change, lesson.weights(stage))
        rows += training_rows(lesson, loss)
    mean = folded.mean() if rows else {}
    return HostUpdate(weights=folded.weights, devices=tuple(rows), left_out=tuple(left_out)), mean


def _train_device(task: TrainTask, model: Clmm, windows: DeviceTensors, draws: Draws) -> float:
    if isinstance(task, PretrainTask):
        return pretrain_device(model, windows, task.config, draws)
    return finetune_device(model, windows, task.config, draws)


def training_rows(lesson: Lesson, loss: float) -> list[DeviceTraining]:
    """Return a row for each device of a lesson."""
    return [
        DeviceTraining(device=device, num_windows=count, loss=loss)
        for device, count in zip(lesson.devices, lesson.num_windows, strict=True)
    ]


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
