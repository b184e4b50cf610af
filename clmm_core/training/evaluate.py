"""How well the model recognises each subject of a host, shared and personalised."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clmm_core.data.fleet import device_windows
from clmm_core.data.labels import LabelDraw, Rows, draw_labelled
from clmm_core.data.windows import DeviceWindows
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.messages import Counts, DeviceEvaluation, HostEvaluation, LeftOut
from clmm_core.models.clmm import Clmm
from clmm_core.report.metrics import counts_as_lists, counts_of
from clmm_core.seeds import derive_seed
from clmm_core.training.device_tensors import NO_CLASS, DeviceTensors, device_tensors, zero_filled
from clmm_core.training.drawn_dropout import draws_for
from clmm_core.training.finetune import finetune_device
from clmm_core.training.model_arrays import load_arrays
from clmm_core.training.smoothing import smoothed
from clmm_core.training.tasks import EvaluateTask

ALL = LabelDraw(per_class=0)
NOTHING_TO_EVALUATE = "no labelled window to evaluate on (besides those trained on)"


@torch.no_grad()
def logits_of(model: Clmm, windows: DeviceTensors) -> Tensor:
    """Return the primary head's logits of each window, `[windows, classes]`, without dropout."""
    model.eval()
    return torch.cat([model(batch.streams, batch.present) for batch in windows.in_order()])


def predict(model: Clmm, windows: DeviceTensors) -> NDArray[np.float64]:
    """Return the probability of each class for each window, `[windows, classes]`, without dropout."""
    probabilities: NDArray[np.float64] = logits_of(model, windows).double().softmax(dim=1).numpy()
    return probabilities


def evaluate_cohort(task: EvaluateTask, arrays: Arrays) -> tuple[HostEvaluation, Arrays]:
    """Return the counts of each device's subject, and no arrays."""
    model = load_arrays(task.model, arrays)
    evaluated: list[DeviceEvaluation] = []
    left_out: list[LeftOut] = []
    for device in sorted(task.devices):
        windows = device_windows(task.data, device)
        rows = evaluated_rows(windows, task.classes, task.labels if device in task.labelled else None)
        if not len(rows):
            left_out.append(LeftOut(device=device, reason=NOTHING_TO_EVALUATE))
            continue
        answer = DeviceEvaluation(device=device, modalities=tuple(windows.streams), counts=_counts(model, windows, rows, task))
        if device in task.personalise:
            answer = _personalised(answer, windows, task, arrays, left_out)
        evaluated.append(answer)
    return HostEvaluation(devices=tuple(evaluated), left_out=tuple(left_out)), {}


def evaluated_rows(windows: DeviceWindows, classes: Sequence[str], trained_on: LabelDraw | None) -> Rows:
    """Return the rows to evaluate on: all that have a label, but those that were drawn to train on (and what overlaps them)."""
    return draw_labelled(windows, classes, trained_on)[1] if trained_on else draw_labelled(windows, classes, ALL)[0]


def _counts(model: Clmm, windows: DeviceWindows, rows: Rows, task: EvaluateTask) -> Counts:
    if task.smooth_s:  # neighbours are looked at too
        everything = _tensors(model, windows, np.arange(len(windows)), task)
        return smoothed_counts(predict(model, everything), everything.classes.numpy(), windows, rows, task.smooth_s)
    chosen = _tensors(model, windows, rows, task)
    return counts_as_lists(counts_of(predict(model, chosen), chosen.classes.numpy()))


def smoothed_counts(
    probabilities: NDArray[np.float64], classes: NDArray[np.int64], windows: DeviceWindows, rows: Rows, reach_s: float
) -> Counts:
    """Return the counts over `rows` of all windows' probabilities `[windows, classes]`, averaged over neighbours in time.

    Labelled windows that are not evaluated were trained on, or overlap such windows: they speak for nobody.
    """
    is_evaluated = np.isin(np.arange(len(windows)), rows)
    averaged = smoothed(probabilities, windows, reach_s, is_evaluated | (classes == NO_CLASS))
    return counts_as_lists(counts_of(averaged[rows], classes[rows]))


def _tensors(model: Clmm, windows: DeviceWindows, rows: Rows, task: EvaluateTask) -> DeviceTensors:
    chosen = device_tensors(windows, task.classes).select(torch.from_numpy(rows))
    return zero_filled(chosen, model) if task.data.zero_fill else chosen


def _personalised(
    shared: DeviceEvaluation, windows: DeviceWindows, task: EvaluateTask, arrays: Arrays, left_out: list[LeftOut]
) -> DeviceEvaluation:
    """Return `shared` with the counts before and after fine-tuning on a few labels of this subject, on the rest of its windows."""
    given, rest = draw_labelled(windows, task.classes, task.personal_labels)
    if not len(given) or not len(rest):
        reason = "not personalised: too few labelled windows to train on some and test on the rest"
        left_out.append(LeftOut(device=shared.device, reason=reason))
        return shared
    own = load_arrays(task.model, arrays)
    before = _counts(own, windows, rest, task)
    labelled = _tensors(own, windows, given, task)
    draws = draws_for(own, derive_seed(task.seed, "personalise", shared.device))
    loss = finetune_device(own, labelled, task.personal_config, draws)
    if not math.isfinite(loss):
        left_out.append(LeftOut(device=shared.device, reason="not personalised: training diverged; lower personalise.lr"))
        return shared
    return replace(shared, personal_before=before, personal_after=_counts(own, windows, rest, task))
