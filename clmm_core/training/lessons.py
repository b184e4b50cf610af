"""What a device learns from in one round of each stage: which of its windows, and what they count as showing."""

from dataclasses import dataclass
from functools import lru_cache
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from clmm_core.byte_cache import ByteCache
from clmm_core.data.fleet import DataConfig, device_windows
from clmm_core.data.labels import LabelDraw, draw_labelled
from clmm_core.data.windows import DeviceWindows
from clmm_core.federated.arrays import FUSION, Arrays
from clmm_core.models.clmm import Clmm
from clmm_core.models.config import ModelConfig
from clmm_core.training.device_tensors import NO_CLASS, DeviceTensors, device_tensors, pooled, zero_filled
from clmm_core.training.model_arrays import load_arrays
from clmm_core.training.pseudo_labels import pseudo_labels
from clmm_core.training.tasks import ModelTask, PretrainTask, SelftrainTask, TrainTask

MAX_COPIED_BYTES = 2 * 2**30
"""Of windows pooled in one place or filled with zeros, which are copies."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """One device's, or that of several trained as one."""

    devices: tuple[str, ...]
    windows: DeviceTensors
    """All of theirs; the same object in every round, while they are kept (see `whole_windows`)."""
    rows: Tensor
    """`[rows]` int64, those to learn from."""
    classes: Tensor
    """`[rows]` int64, what they count as showing; nothing, in stage one."""
    num_windows: tuple[int, ...]
    """How many of the rows are each device's."""

    def weights(self, stage: str) -> dict[str, float]:
        """Return how much it counts in each part of the model: the windows that part is trained on."""
        owned = {name: float(mask[self.rows].sum()) for name, mask in self.windows.present.items()}
        owned = {name: weight for name, weight in owned.items() if weight}
        return owned if stage == "pretrain" else {**owned, FUSION: float(len(self.rows))}


def trained_together(task: TrainTask) -> list[tuple[str, ...]]:
    """Return the devices, ascending, each alone or all as one."""
    devices = sorted(task.devices)
    return [tuple(devices)] if task.config.local.pooled else [(device,) for device in devices]


def whole_windows(task: ModelTask, arrays: Arrays, devices: tuple[str, ...]) -> DeviceTensors:
    """Return all windows of devices that train as one; the same object for the same ones, until many others were asked for."""
    if not task.data.zero_fill:
        return _pooled(task.data, devices, task.classes) if len(devices) > 1 else _whole(task.data, devices[0], task.classes)
    means = {name: values.tobytes() for name, values in arrays.items() if name.endswith(".mean")}
    return _whole_filled(task.data, devices, task.classes, task.model, tuple(sorted(means.items())))


def lesson_of(task: TrainTask, devices: tuple[str, ...], windows: DeviceTensors, logits: Tensor | None) -> Lesson:
    """Return what these devices learn from in this round.

    Args:
        task: the round's.
        devices: those that train as one.
        windows: all of theirs, as `whole_windows` gives them.
        logits: `[windows, classes]` of the model that was sent; needed for self-training alone.
    """
    rows, classes, counts, first = [], [], [], 0
    for device in devices:
        own = device_windows(task.data, device)
        here = torch.arange(first, first + len(own))
        if isinstance(task, PretrainTask):
            chosen, shown = here, torch.full_like(here, NO_CLASS)
        else:
            is_known = not isinstance(task, SelftrainTask) or device in task.labelled
            drawn = _drawn(task.data, device, task.classes, task.labels) if is_known else torch.zeros(0, dtype=torch.int64)
            chosen = drawn + first
            shown = windows.classes[chosen]
            if isinstance(task, SelftrainTask):
                assert logits is not None
                within, shown = pseudo_labels(logits[here], windows.classes[here], drawn, task.confidence, task.expected)
                chosen = within + first
        rows.append(chosen)
        classes.append(shown)
        counts.append(len(chosen))
        first += len(own)
    return Lesson(devices, windows, torch.cat(rows), torch.cat(classes), tuple(counts))


@lru_cache(maxsize=1024)
def _drawn(data: DataConfig, device: str, classes: tuple[str, ...], labels: LabelDraw) -> Tensor:
    return torch.from_numpy(draw_labelled(device_windows(data, device), classes, labels)[0])


def _whole(data: DataConfig, device: str, classes: tuple[str, ...]) -> DeviceTensors:
    windows = device_windows(data, device)
    by_classes = _WHOLE.setdefault(windows, {})
    if classes not in by_classes:
        by_classes[classes] = device_tensors(windows, classes)
    return by_classes[classes]


_WHOLE: WeakKeyDictionary[DeviceWindows, dict[tuple[str, ...], DeviceTensors]] = WeakKeyDictionary()
"""The tensors of windows, whose memory they are, while the windows are kept."""
_COPIES: ByteCache[tuple[object, ...], DeviceTensors] = ByteCache(MAX_COPIED_BYTES, lambda copied: copied.num_bytes)


def _pooled(data: DataConfig, devices: tuple[str, ...], classes: tuple[str, ...]) -> DeviceTensors:
    return _COPIES.get((data, devices, classes), lambda: pooled([_whole(data, device, classes) for device in devices]))


def _whole_filled(
    data: DataConfig, devices: tuple[str, ...], classes: tuple[str, ...], model: ModelConfig, means: tuple[tuple[str, bytes], ...]
) -> DeviceTensors:
    def fill() -> DeviceTensors:
        windows = _pooled(data, devices, classes) if len(devices) > 1 else _whole(data, devices[0], classes)
        return zero_filled(windows, _knowing(model, means))

    return _COPIES.get((data, devices, classes, model, means), fill)


@lru_cache(maxsize=4)
def _knowing(model: ModelConfig, means: tuple[tuple[str, bytes], ...]) -> Clmm:
    """Return a network that knows the training means, and nothing else."""
    return load_arrays(model, {name: np.frombuffer(values, np.float32) for name, values in means})
