"""The Flower ClientApp of a host: thin, one function a question; the work is in `clmm_core.training`."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from client.devices import devices_of_host, local_data, shares_data
from clmm_core.errors import ClmmError
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.codec import ARRAYS, ERROR, REPLY, TASK, from_json, to_json
from clmm_core.federated.error_feedback import Residual
from clmm_core.federated.messages import HostProfile, HostUpdate
from clmm_core.training.cohort import train_cohort
from clmm_core.training.evaluate import evaluate_cohort
from clmm_core.training.lessons import TrainTask
from clmm_core.training.outgoing import outgoing_update
from clmm_core.training.plane import project_on_plane, sum_moments
from clmm_core.training.profile import profile_host, sum_channels
from clmm_core.training.quality import measure_quality
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
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""What this host trains on: a GPU, or the share of one, that it was given."""

RESIDUAL, RESIDUAL_OF = "residual", "residual-of"
"""Records of a host's state: what its packed updates left out, and of which stage and round. They end with the SuperNode."""

app = ClientApp()


@app.query("profile")
def profile(message: Message, context: Context) -> Message:
    """Say which devices this host has, in counts."""

    def work(task: ProfileTask, _: Arrays) -> tuple[HostProfile, Arrays]:
        devices = devices_of_host(task.data, context.node_config)
        return profile_host(task, devices, shares_data=shares_data(context.node_config)), {}

    return _answer(message, context, ProfileTask, work)


@app.query("sums")
def sums(message: Message, context: Context) -> Message:
    """Add up what normalisation needs."""
    return _answer(message, context, SumsTask, sum_channels)


@app.train("pretrain")
def pretrain(message: Message, context: Context) -> Message:
    """Train a round of stage one."""
    return _answer(message, context, PretrainTask, _training(context))


@app.query("quality")
def quality(message: Message, context: Context) -> Message:
    """Measure each modality's quality."""
    return _answer(message, context, QualityTask, measure_quality)


@app.train("finetune")
def finetune(message: Message, context: Context) -> Message:
    """Train a round of stage two."""
    return _answer(message, context, FinetuneTask, _training(context))


@app.train("selftrain")
def selftrain(message: Message, context: Context) -> Message:
    """Train a round of self-training."""
    return _answer(message, context, SelftrainTask, _training(context))


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


def _training(context: Context) -> Callable[[TrainTask, Arrays], tuple[HostUpdate, Any]]:
    """Return the work of a round of training; what a packed update leaves out stays in the host's state until the next round."""

    def work(task: TrainTask, arrays: Arrays) -> tuple[HostUpdate, Any]:
        reply, update = train_cohort(task, arrays, DEVICE)
        outgoing, residual = outgoing_update(task, update, _residual_in(context.state))
        if residual is not None:
            context.state[RESIDUAL] = _record_of(residual.arrays)
            context.state[RESIDUAL_OF] = ConfigRecord({"stage": residual.stage, "server-round": residual.server_round})
        return reply, outgoing

    return work


def _residual_in(state: RecordDict) -> Residual | None:
    if RESIDUAL not in state or RESIDUAL_OF not in state:
        return None
    said, arrays = state[RESIDUAL_OF], state[RESIDUAL]
    return Residual(stage=str(said["stage"]), server_round=int(said["server-round"]), arrays=_arrays_in(arrays))


def _record_of(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    return ArrayRecord({name: Array(np.ascontiguousarray(values)) for name, values in arrays.items()})


def _arrays_in(record: ArrayRecord) -> Arrays:
    return {name: array.numpy() for name, array in record.items()}


def _answer(message: Message, context: Context, kind: type, work: Callable[[Any, Arrays], tuple[Any, Arrays]]) -> Message:
    """Read the task, do the work, write the reply; what we raise on purpose goes back to the server in words."""
    try:
        task = from_json(kind, str(message.content[TASK]["json"]))
        task = replace(task, data=local_data(task.data, context.node_config))
        reply, arrays = work(task, _arrays_in(message.content[ARRAYS]))
    except ClmmError as error:
        refusal = ConfigRecord({"class": type(error).__name__, "message": str(error)})
        return Message(RecordDict({ERROR: refusal}), reply_to=message)
    record = RecordDict({REPLY: ConfigRecord({"json": to_json(reply)})})
    record[ARRAYS] = _record_of(arrays)
    return Message(record, reply_to=message)
