"""The Flower ClientApp of a host: thin, one function a question; the work is in `clmm_core.training`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.devices import devices_of_host, local_data
from clmm_core.errors import ClmmError
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.codec import ARRAYS, ERROR, REPLY, TASK, from_json, to_json
from clmm_core.federated.messages import HostProfile
from clmm_core.training.cohort import measure_quality, train_cohort
from clmm_core.training.evaluate import evaluate_cohort
from clmm_core.training.plane import project_on_plane, sum_moments
from clmm_core.training.profile import profile_host, sum_channels
from clmm_core.training.tasks import (
    EvaluateTask,
    FinetuneTask,
    MomentsTask,
    PlaneTask,
    PretrainTask,
    ProfileTask,
    QualityTask,
    SelftrainTask,
    SumsTask,
)

torch.set_num_threads(1)  # a worker has one core; two threads for layers of this size are slower, not faster

app = ClientApp()


@app.query("profile")
def profile(message: Message, context: Context) -> Message:
    """Say which devices this host has, in counts."""

    def work(task: ProfileTask, _: Arrays) -> tuple[HostProfile, Arrays]:
        return profile_host(task, devices_of_host(task.data, context.node_config)), {}

    return _answer(message, context, ProfileTask, work)


@app.query("sums")
def sums(message: Message, context: Context) -> Message:
    """Add up what normalisation needs."""
    return _answer(message, context, SumsTask, sum_channels)


@app.train("pretrain")
def pretrain(message: Message, context: Context) -> Message:
    """Train a round of stage one."""
    return _answer(message, context, PretrainTask, train_cohort)


@app.query("quality")
def quality(message: Message, context: Context) -> Message:
    """Measure each modality's quality."""
    return _answer(message, context, QualityTask, measure_quality)


@app.train("finetune")
def finetune(message: Message, context: Context) -> Message:
    """Train a round of stage two."""
    return _answer(message, context, FinetuneTask, train_cohort)


@app.train("selftrain")
def selftrain(message: Message, context: Context) -> Message:
    """Train a round of self-training."""
    return _answer(message, context, SelftrainTask, train_cohort)


@app.evaluate("subjects")
def subjects(message: Message, context: Context) -> Message:
    """Evaluate each subject."""
    return _answer(message, context, EvaluateTask, evaluate_cohort)


@app.query("moments")
def moments(message: Message, context: Context) -> Message:
    """Add up what the plane of the embedding picture needs."""
    return _answer(message, context, MomentsTask, sum_moments)


@app.query("plane")
def plane(message: Message, context: Context) -> Message:
    """Project embeddings on the plane of the picture."""
    return _answer(message, context, PlaneTask, project_on_plane)


def _answer(message: Message, context: Context, kind: type, work: Callable[[Any, Arrays], tuple[Any, Arrays]]) -> Message:
    """Read the task, do the work, write the reply; what we raise on purpose goes back to the server in words."""
    try:
        task = from_json(kind, str(message.content[TASK]["json"]))
        task = replace(task, data=local_data(task.data, context.node_config))
        reply, arrays = work(task, {name: array.numpy() for name, array in message.content[ARRAYS].items()})
    except ClmmError as error:
        refusal = ConfigRecord({"class": type(error).__name__, "message": str(error)})
        return Message(RecordDict({ERROR: refusal}), reply_to=message)
    record = RecordDict({REPLY: ConfigRecord({"json": to_json(reply)})})
    record[ARRAYS] = ArrayRecord({name: Array(np.ascontiguousarray(values)) for name, values in arrays.items()})
    return Message(record, reply_to=message)
