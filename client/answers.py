"""What a host answers to each question: the work is in `clmm_core.training`, the records around it are Flower's.

Apart from `client_app`, because Flower loads that also where nothing is trained: into the process of a simulation's server, which stays
200 MB smaller without PyTorch.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from client.devices import NodeConfig, devices_of_host, local_data, shares_data
from client.refusal import refusal
from clmm_core.errors import ClmmError, CodeMismatchError, DeviceSkippedError
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.codec import ARRAYS, REPLY, TASK, from_json, join_arrays, split_arrays, to_json
from clmm_core.federated.error_feedback import Residual
from clmm_core.federated.messages import HostProfile, HostReceipt, HostUpdate
from clmm_core.training.cohort import train_cohort
from clmm_core.training.evaluate import evaluate_cohort
from clmm_core.training.outgoing import outgoing_update
from clmm_core.training.plane import project_on_plane, sum_moments
from clmm_core.training.profile import profile_host, sum_channels
from clmm_core.training.quality import measure_quality
from clmm_core.training.tasks import (
    MODEL,
    DeliverTask,
    EvaluateTask,
    FinetuneTask,
    MomentsTask,
    PlaneTask,
    PretrainTask,
    ProfileTask,
    QualityTask,
    SelftrainTask,
    SumsTask,
    TrainTask,
)

torch.set_num_threads(1)  # a worker has one core; two threads for layers of this size are slower, not faster
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""Where this host's models work: a GPU, or the share of one, that it was given."""

RESIDUAL, RESIDUAL_OF = "residual", "residual-of"
"""Records of a host's state: what its packed updates left out, and of which stage and round. They end with the SuperNode."""


class HostContext(Protocol):
    """What stays at a host from message to message: Flower's `Context`, or what a daemon keeps of it."""

    @property
    def node_config(self) -> NodeConfig:
        """What the host was started with."""
        ...

    @property
    def state(self) -> RecordDict:
        """Of this run; may be written to."""
        ...


MODELS = "models"
"""Key of the node config, set by a host's daemon: the folder of the models it recognises with."""
Work = Callable[[Any, Arrays], tuple[Any, Any]]
"""Makes a reply and the arrays beside it of a task and those that came with it."""


def answer(message_type: str, content: RecordDict, context: HostContext) -> RecordDict:
    """Read the task, do the work, return the reply's content; what we raise on purpose goes back to the server in words."""
    kind, work = _asked(message_type, context)
    try:
        task = from_json(kind, str(content[TASK]["json"]))
        task = replace(task, data=local_data(task.data, context.node_config))
        reply, arrays = work(task, _arrays_in(content[ARRAYS]))
    except ClmmError as error:
        return refusal(error)
    record = RecordDict({REPLY: ConfigRecord({"json": to_json(reply)})})
    record[ARRAYS] = _record_of(arrays)
    return record


def _asked(message_type: str, context: HostContext) -> tuple[type, Work]:
    """Return what kind of task a question has, and what answers it."""
    questions: dict[str, tuple[type, Work]] = {
        "query.profile": (ProfileTask, _profiling(context)),
        "query.sums": (SumsTask, sum_channels),
        "train.pretrain": (PretrainTask, _training(context)),
        "query.quality": (QualityTask, partial(measure_quality, device=DEVICE)),
        "train.finetune": (FinetuneTask, _training(context)),
        "train.selftrain": (SelftrainTask, _training(context)),
        "evaluate.subjects": (EvaluateTask, partial(evaluate_cohort, device=DEVICE)),
        "query.moments": (MomentsTask, partial(sum_moments, device=DEVICE)),
        "query.plane": (PlaneTask, partial(project_on_plane, device=DEVICE)),
        "query.model": (DeliverTask, _receiving(context)),
    }
    return questions[message_type]


def _profiling(context: HostContext) -> Work:
    def work(task: ProfileTask, _: Arrays) -> tuple[HostProfile, Arrays]:
        devices = devices_of_host(task.data, context.node_config)
        takes_model = MODELS in context.node_config
        return profile_host(task, devices, shares_data=shares_data(context.node_config), takes_model=takes_model), {}

    return work


def _receiving(context: HostContext) -> Work:
    def work(task: DeliverTask, arrays: Arrays) -> tuple[HostReceipt, Arrays]:
        if MODELS not in context.node_config:
            raise DeviceSkippedError("this host recognises nothing: it needs no model")
        from client.training.received_model import receive  # noqa: PLC0415  it loads onnxruntime, on hosts that recognise

        return receive(task, arrays[MODEL].tobytes(), Path(str(context.node_config[MODELS]))), {}

    return work


def _training(context: HostContext) -> Work:
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
    return ArrayRecord({name: Array(values) for name, values in join_arrays(arrays).items()})


def _arrays_in(record: ArrayRecord) -> Arrays:
    try:
        return split_arrays({name: array.numpy() for name, array in record.items()})
    except ValueError as error:
        raise CodeMismatchError(f"{error}: server and hosts run different versions; reinstall both") from error
