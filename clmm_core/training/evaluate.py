"""How well the model recognises each subject of a host, shared and personalised; or those of many hosts at once, for a study's runs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clmm_core.data.fleet import device_windows
from clmm_core.data.labels import LabelDraw, Rows, draw_labelled
from clmm_core.data.windows import DeviceWindows
from clmm_core.federated.arrays import FUSION, Arrays
from clmm_core.federated.messages import Counts, DeviceEvaluation, HostEvaluation, LeftOut
from clmm_core.report.metrics import counts_as_lists, counts_of
from clmm_core.seeds import derive_seed
from clmm_core.training.alone import CPU
from clmm_core.training.device_tensors import DEVICES_AT_ONCE, NO_CLASS, DeviceTensors
from clmm_core.training.engine import train_jobs
from clmm_core.training.job import Job
from clmm_core.training.lessons import whole_windows
from clmm_core.training.predict_together import predict
from clmm_core.training.smoothing import smoothed
from clmm_core.training.tasks import EvaluateTask

PERSONAL_AT_ONCE = 64
"""Devices whose own models are in memory at a time."""
NOTHING_TO_EVALUATE = "no labelled window to evaluate on (besides those trained on)"
TOO_FEW = "not personalised: too few labelled windows to train on some and test on the rest"
DIVERGED = "not personalised: training diverged; lower personalise.lr"
Question = tuple[EvaluateTask, Arrays]


def evaluate_cohort(task: EvaluateTask, arrays: Arrays, device: torch.device = CPU) -> tuple[HostEvaluation, Arrays]:
    """Return the counts of each device's subject, and no arrays, with the windows of a bounded number of devices in memory."""
    devices = sorted(task.devices)
    parts = [tuple(devices[first : first + DEVICES_AT_ONCE]) for first in range(0, len(devices), DEVICES_AT_ONCE)]
    replies = [reply for some in parts for reply, _ in evaluate_cohorts([(replace(task, devices=some), arrays)], device)]
    evaluated = tuple(each for reply in replies for each in reply.devices)
    return HostEvaluation(devices=evaluated, left_out=tuple(each for reply in replies for each in reply.left_out)), {}


def evaluate_cohorts(questions: Sequence[Question], device: torch.device) -> list[tuple[HostEvaluation, Arrays]]:
    """Return for each question the counts of its devices' subjects, and no arrays."""
    subjects = [[_subject(*question, name) for name in sorted(question[0].devices)] for question in questions]
    tested = [each for own in subjects for each in own if len(each.rows)]
    logits = dict(zip(tested, predict([(each.task.model, each.arrays, each.whole) for each in tested], device), strict=True))
    personal = dict(_personalised([each for each in tested if each.device in each.task.personalise], device))
    return [(_reply(own, logits, personal), {}) for own in subjects]


def evaluated_rows(windows: DeviceWindows, classes: Sequence[str], trained_on: LabelDraw | None) -> Rows:
    """Return the rows to evaluate on: all that have a label, but those that were drawn to train on (and what overlaps them)."""
    return draw_labelled(windows, classes, trained_on)[1] if trained_on else np.flatnonzero(np.isin(windows.labels, classes))


def smoothed_counts(
    probabilities: NDArray[np.float64], classes: NDArray[np.int64], windows: DeviceWindows, rows: Rows, reach_s: float
) -> Counts:
    """Return the counts over `rows` of all windows' probabilities `[windows, classes]`, averaged over neighbours in time.

    Labelled windows that are not evaluated were trained on, or overlap such windows: they speak for nobody.
    """
    is_evaluated = np.isin(np.arange(len(windows)), rows)
    averaged = smoothed(probabilities, windows, reach_s, is_evaluated | (classes == NO_CLASS))
    return counts_as_lists(counts_of(averaged[rows], classes[rows]))


@dataclass(frozen=True, eq=False)
class _Subject:
    """One device of an evaluation."""

    task: EvaluateTask
    arrays: Arrays
    windows: DeviceWindows
    whole: DeviceTensors
    rows: Rows
    """Those to evaluate the shared model on."""

    @property
    def device(self) -> str:
        return self.windows.device

    def counts(self, logits: Tensor, rows: Rows) -> Counts:
        """Return the counts over `rows`, of logits `[windows, classes]` of all windows."""
        probabilities = logits.double().softmax(dim=1).numpy()
        return smoothed_counts(probabilities, self.whole.classes.numpy(), self.windows, rows, self.task.smooth_s)

    @cached_property
    def drawn(self) -> tuple[Rows, Rows]:
        """Return the rows to personalise on, and those to compare both models on."""
        return draw_labelled(self.windows, self.task.classes, self.task.personal_labels)


def _subject(task: EvaluateTask, arrays: Arrays, device: str) -> _Subject:
    windows = device_windows(task.data, device)
    rows = evaluated_rows(windows, task.classes, task.labels if device in task.labelled else None)
    return _Subject(task, arrays, windows, whole_windows(task, arrays, (device,)), rows)


def _reply(subjects: Sequence[_Subject], logits: Mapping[_Subject, Tensor], personal: Mapping[_Subject, Tensor | str]) -> HostEvaluation:
    """Return one host's answer from the logits of the model they share and of their own, or why there are none."""
    evaluated: list[DeviceEvaluation] = []
    left_out: list[LeftOut] = []
    for each in subjects:
        if each not in logits:
            left_out.append(LeftOut(device=each.device, reason=NOTHING_TO_EVALUATE))
            continue
        counts = each.counts(logits[each], each.rows)
        answer = DeviceEvaluation(device=each.device, modalities=tuple(each.windows.streams), counts=counts)
        own = personal.get(each)
        if isinstance(own, str):
            left_out.append(LeftOut(device=each.device, reason=own))
        elif own is not None:
            _, rest = each.drawn
            answer = replace(answer, personal_before=each.counts(logits[each], rest), personal_after=each.counts(own, rest))
        evaluated.append(answer)
    return HostEvaluation(devices=tuple(evaluated), left_out=tuple(left_out))


def _personalised(subjects: Sequence[_Subject], device: torch.device) -> Iterator[tuple[_Subject, Tensor | str]]:
    """Yield the logits of each subject's own model, fine-tuned on a few labels of theirs; or why there is none."""
    can = []
    for each in subjects:
        if all(len(rows) for rows in each.drawn):
            can.append(each)
        else:
            yield each, TOO_FEW
    for first in range(0, len(can), PERSONAL_AT_ONCE):
        some = can[first : first + PERSONAL_AT_ONCE]
        losses, means = train_jobs([_job(each, number) for number, each in enumerate(some)], device)
        own: dict[_Subject, Arrays] = {}
        for number, (each, loss) in enumerate(zip(some, losses, strict=True)):
            if isinstance(loss, float) and math.isfinite(loss):
                (mean,) = means[number]
                own[each] = each.arrays | {name: each.arrays[name] + values for name, values in mean.update.items()}
            else:
                yield each, DIVERGED
        yield from zip(own, predict([(each.task.model, arrays, each.whole) for each, arrays in own.items()], device), strict=True)


def _job(subject: _Subject, number: int) -> Job:
    """Return the fine-tuning of a subject's own model, which is folded with no other's."""
    task, given = subject.task, torch.from_numpy(subject.drawn[0])
    return Job(
        model=task.model,
        config=task.personal_config,
        arrays=subject.arrays,
        windows=subject.whole,
        rows=given,
        classes=subject.whole.classes[given],
        key=derive_seed(task.seed, "personalise", subject.device),
        host=number,
        weights=dict.fromkeys((*subject.whole.streams, FUSION), 1.0),
    )
