"""The stock ClientApp: a SuperNode is a device, which trains as ours do and replies with its model."""

from dataclasses import replace
from functools import lru_cache

import torch
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from client.devices import local_data
from clmm_core.data.fleet import device_names
from clmm_core.errors import DeviceSkippedError
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.codec import from_json
from clmm_core.seeds import derive_seed
from clmm_core.training.alone import train_one
from clmm_core.training.job import Job
from clmm_core.training.lessons import lesson_of, whole_windows
from clmm_core.training.tasks import PretrainTask

torch.set_num_threads(1)  # a worker has one core, as ours
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train this SuperNode's device for a round; what it trained on counts as `num-examples`.

    Raises:
        DeviceSkippedError: the device has nothing to train on; its reply is then an error, which `FedAvg` leaves out.
    """
    # Windows are shared by a machine's workers as ours are, so that the comparison is not about how data are made.
    task = _task(str(context.run_config["task"]))
    task = replace(task, data=local_data(task.data, context.node_config), server_round=int(message.content["config"]["server-round"]))
    device = device_names(task.data)[int(context.node_config["partition-id"])]
    sent = {name: array.numpy() for name, array in message.content["arrays"].items()}
    job = _job(task, sent, device)
    update, loss = train_one(job, DEVICE)
    if isinstance(loss, DeviceSkippedError):
        raise loss
    trained = sent | {name: sent[name] + values for name, values in update.items()}
    content = RecordDict({"arrays": ArrayRecord({name: Array(values) for name, values in trained.items()})})
    content["metrics"] = MetricRecord({"train_loss": loss, "num-examples": len(job.rows)})
    return Message(content, reply_to=message)


@lru_cache(maxsize=1)
def _task(text: str) -> PretrainTask:
    return from_json(PretrainTask, text)


def _job(task: PretrainTask, sent: Arrays, device: str) -> Job:
    lesson = lesson_of(task, (device,), whole_windows(task, sent, (device,)), None)
    return Job(
        model=task.model,
        config=task.config,
        arrays=sent,
        windows=lesson.windows,
        rows=lesson.rows,
        classes=lesson.classes,
        key=derive_seed(task.seed, "pretrain", task.server_round, device),
        host=0,
        weights=lesson.weights("pretrain"),
    )
