"""The stock ServerApp: Flower's `FedAvg` over all SuperNodes; how long each round took goes where `clmm run` looks for it."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from clmm_core.data.fleet import device_names
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.codec import from_json
from clmm_core.report.records import RoundRecord, Stage
from clmm_core.report.run_folder import RunFolder
from clmm_core.training.array_names import is_stage_one
from clmm_core.training.model_arrays import new_arrays
from clmm_core.training.profile import sum_channels
from clmm_core.training.tasks import PretrainTask, SumsTask

NORMALISED_BY = 16
"""Devices whose windows give the mean and deviation of every channel."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for as many rounds as the run config asks, every device in each."""
    started_s = time.monotonic()
    task = from_json(PretrainTask, str(context.run_config["task"]))
    devices = device_names(task.data)
    folder = RunFolder.create(Path(str(context.run_config["results-dir"])), str(context.run_config["run-name"]))
    told = _Told(folder, started_s, since_s=started_s)
    arrays = first_arrays(task)
    told.ended("normalise")
    nodes = {"min_train_nodes": len(devices), "min_available_nodes": len(devices)}
    strategy = FedAvg(fraction_evaluate=0.0, **nodes, train_metrics_aggr_fn=told.count)
    record = ArrayRecord({name: Array(np.ascontiguousarray(values)) for name, values in arrays.items()})
    strategy.start(grid, record, num_rounds=int(context.run_config["rounds"]), evaluate_fn=told.after_round)


def first_arrays(task: PretrainTask) -> Arrays:
    """Return what stage one begins with: the model that ours begins with, normalised by a few devices of the fleet."""
    arrays = new_arrays(task.model, task.seed)
    some = SumsTask(data=task.data, devices=device_names(task.data)[:NORMALISED_BY], differences=task.model.differences)
    for modality, sums in sum_channels(some, {})[0].sums.items():
        arrays |= {f"modalities.{modality}.mean": sums.mean, f"modalities.{modality}.std": sums.std}
    return {name: values for name, values in arrays.items() if is_stage_one(name)}


@dataclass
class _Told:
    """Writes a line a step, as our server does."""

    folder: RunFolder
    started_s: float
    since_s: float
    num_replies: int = 0

    def count(self, replies: list[RecordDict], weighted_by: str) -> MetricRecord:
        """Count the replies that a round's mean is of."""
        del weighted_by
        self.num_replies = len(replies)
        return MetricRecord({"replies": len(replies)})

    def after_round(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Write a round's line; `FedAvg` asks before the first round too."""
        del arrays
        if server_round:
            self.ended("pretrain", server_round)
        self.since_s = time.monotonic()
        return None

    def ended(self, stage: Stage, server_round: int | None = None) -> None:
        """Write the line of a step that ends now."""
        now_s = time.monotonic()
        self.folder.append_round(
            RoundRecord(
                stage=stage,
                server_round=server_round,
                num_hosts=self.num_replies,
                num_devices=self.num_replies,
                round_s=now_s - self.since_s,
                elapsed_s=now_s - self.started_s,
            )
        )
