"""A host's share of a round: its devices trained and folded into one weighted mean; or that of many hosts at once, for a study's runs."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from clmm_core.errors import DeviceSkippedError
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.individual import placed
from clmm_core.federated.messages import DeviceTraining, HostUpdate, LeftOut
from clmm_core.federated.source import client_source
from clmm_core.federated.weighted_sum import WeightedSum, Weights
from clmm_core.seeds import derive_seed
from clmm_core.training.alone import CPU
from clmm_core.training.device_tensors import DEVICES_AT_ONCE
from clmm_core.training.engine import train_jobs
from clmm_core.training.job import Job, Mean
from clmm_core.training.lessons import Lesson, lesson_of, trained_together, whole_windows
from clmm_core.training.predict_together import predict
from clmm_core.training.tasks import SelftrainTask, TrainTask, learns, stage_of

Question = tuple[TrainTask, Arrays]
Reply = tuple[HostUpdate, Arrays]
DIVERGED = "training diverged to NaN or infinity: lower the learning rate"


def train_cohort(task: TrainTask, arrays: Arrays, device: torch.device = CPU) -> Reply:
    """Return one host's answer, as `train_cohorts` does, with the windows of a bounded number of devices in memory."""
    replies: list[Reply] = []
    for some in _in_parts(task):
        replies += _trained(_by_update((some, arrays)), device)
    return _joined(task, replies)


def _in_parts(task: TrainTask) -> Iterator[TrainTask]:
    """Yield the task for some devices after the other; those trained as one stay together."""
    devices = sorted(task.devices)
    step = len(devices) if task.config.local.pooled else DEVICES_AT_ONCE
    for first in range(0, len(devices), step):
        yield replace(task, devices=tuple(devices[first : first + step]))


def train_cohorts(questions: Sequence[Question], device: torch.device) -> list[Reply]:
    """Return each host's answer: the mean of its devices' updates, each part of the model over the devices that train it; or each of them.

    A task's clip shortens each device's update before, and then devices count once each instead of by their windows.

    Stage one trains encoders and projections on all windows; stage two the whole network on labelled ones; self-training likewise, on
    labels of the devices' own making.
    """
    asked = [(host, single) for host, question in enumerate(questions) for single in _by_update(question)]
    by_host: dict[int, list[Reply]] = {}
    for (host, _), reply in zip(asked, _trained([single for _, single in asked], device), strict=True):
        by_host.setdefault(host, []).append(reply)
    return [_joined(task, by_host[host]) for host, (task, _) in enumerate(questions)]


def _by_update(question: Question) -> list[Question]:
    """Return what a host is asked, once for each update that it answers with."""
    task, arrays = question
    if task.host_aggregation:
        return [question]
    return [(replace(task, devices=(device,)), arrays) for device in sorted(task.devices)]


def _joined(task: TrainTask, replies: Sequence[Reply]) -> Reply:
    """Return a host's answer from those about some of its devices, in order."""
    left_out = tuple(each for reply, _ in replies for each in reply.left_out)
    if not task.host_aggregation:
        rows = tuple(
            replace(row, weights=reply.weights, num_within_clip=reply.num_within_clip) for reply, _ in replies for row in reply.devices
        )
        return _said(task, {}, rows, left_out), placed([update for reply, update in replies if reply.devices])
    folded = WeightedSum()
    for reply, mean in replies:
        folded.add(mean, reply.weights)
    rows = tuple(row for reply, _ in replies for row in reply.devices)
    said = _said(task, folded.weights, rows, left_out, sum(reply.num_within_clip for reply, _ in replies))
    return said, folded.mean() if rows else {}


def _said(
    task: TrainTask, weights: Weights, rows: tuple[DeviceTraining, ...], left_out: tuple[LeftOut, ...], num_within_clip: int = 0
) -> HostUpdate:
    """Return a reply to this task."""
    return HostUpdate(
        server_round=task.server_round,
        source=client_source(),
        weights=weights,
        devices=rows,
        num_within_clip=num_within_clip,
        left_out=left_out,
    )


def _trained(questions: Sequence[Question], device: torch.device) -> list[Reply]:
    """Return for each question the mean of its devices' updates."""
    lessons = _lessons(questions, device)
    losses, means = train_jobs([_job(questions[host], host, lesson) for host, lesson in lessons], device)
    replies = []
    for host in range(len(questions)):
        own = [(lesson, loss) for (asked, lesson), loss in zip(lessons, losses, strict=True) if asked == host]
        replies.append(_reply(questions[host][0], own, means.get(host, [])))
    return replies


def _lessons(questions: Sequence[Question], device: torch.device) -> list[tuple[int, Lesson]]:
    """Return every lesson with the number of its question; models that label their own windows do so together."""
    asked = [
        (host, together, whole_windows(task, arrays, together))
        for host, (task, arrays) in enumerate(questions)
        for together in trained_together(task)
    ]
    unsure = [(host, windows) for host, _, windows in asked if isinstance(questions[host][0], SelftrainTask)]
    logits = iter(predict([(questions[host][0].model, questions[host][1], windows) for host, windows in unsure], device))
    return [
        (host, lesson_of(task, together, windows, next(logits) if isinstance(task, SelftrainTask) else None))
        for host, together, windows in asked
        for task in (questions[host][0],)
    ]


def _job(question: Question, host: int, lesson: Lesson) -> Job:
    task, arrays = question
    stage = stage_of(task)
    weights = lesson.weights(stage)
    return Job(
        model=task.model,
        config=task.config,
        arrays=arrays,
        windows=lesson.windows,
        rows=lesson.rows,
        classes=lesson.classes,
        key=derive_seed(task.seed, stage, task.server_round, *lesson.devices),
        host=host,
        weights=dict.fromkeys(weights, 1.0) if task.clip else weights,
        clip=task.clip,
    )


def _reply(
    task: TrainTask, lessons: Sequence[tuple[Lesson, float | DeviceSkippedError]], means: Sequence[Mean]
) -> tuple[HostUpdate, Arrays]:
    rows: list[DeviceTraining] = []
    left_out: list[LeftOut] = []
    for lesson, loss in lessons:
        if isinstance(loss, float) and math.isfinite(loss):
            counts = zip(lesson.devices, lesson.num_windows, strict=True)
            rows += [DeviceTraining(device=device, num_windows=count, loss=loss) for device, count in counts]
        else:
            reason = str(loss) if isinstance(loss, DeviceSkippedError) else DIVERGED
            left_out += [LeftOut(device=device, reason=reason) for device in lesson.devices]
    folded = WeightedSum()
    for each in means:
        folded.add({name: values for name, values in each.update.items() if learns(task, name)}, each.weights)
    mean = folded.mean() if rows else {}
    return _said(task, folded.weights, tuple(rows), tuple(left_out), sum(each.num_within_clip for each in means)), mean
