"""The fleet that both ways train in the benchmark, from one run config: what ours is told, and what the stock app is told."""

import json
from dataclasses import dataclass
from typing import Literal

from clmm_core.data.fleet import device_names, device_windows, modalities_of, open_dataset
from clmm_core.federated.codec import to_json
from clmm_core.models.config import ModalityShape, sized
from clmm_core.training.tasks import PretrainTask
from server.run_config import RunConfig, parse_run_config
from simulation.flwr_run import num_cpus
from simulation.overrides import Value, apply_overrides, find_app, read_app_config

Way = Literal["ours", "stock"]
Device = Literal["cpu", "cuda"]
HOSTS_A_WORKER = 2
"""One to four, says docs/simulation.md."""
MAX_STOCK_WORKERS = 16
"""That share a GPU in the stock way, one a core: each has a CUDA context of some hundred megabytes."""
DEVICES: dict[str, Value] = {
    "data.name": "synthetic",
    "data.modalities": "accelerometer,gyroscope",
    "data.window-s": 2.56,
    "data.overlap": 0.0,
}
"""32 windows of 2.56 s from one or two sensors: four steps at a batch of 8, one at 32."""
ALL_TRAIN: dict[str, Value] = {
    "split.num-test": 1,
    "split.num-validation": 0,
    "labels.num-devices": 1,
    "pretrain.participation": 1.0,
    "report.points-per-device": 0,
}
"""Ours keeps a device to test, beside those that train; nothing but rounds of stage one is measured."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What one turn runs."""

    way: Way
    num_devices: int
    """That train in each round."""
    batch_size: int
    rounds: int
    device: Device

    @property
    def hosts(self) -> int:
        """SuperNodes: a few for each worker, or in the stock way one a device."""
        if self.way == "stock":
            return self.num_devices
        return min(self.num_devices, HOSTS_A_WORKER * self.workers)

    @property
    def workers(self) -> int:
        """Ray workers: one a core; on a GPU one for ours, which fills it with one stack, and one a core for the stock way."""
        if self.device == "cpu":
            return min(self.num_devices, num_cpus())
        return 1 if self.way == "ours" else min(self.num_devices, num_cpus(), MAX_STOCK_WORKERS)

    def arguments(self) -> list[str]:
        """Return the options of `clmm run` for it, but for where results go."""
        values = ours(self) if self.way == "ours" else {"task": to_json(task_of(self)), "rounds": self.rounds}
        settings = [part for key, value in values.items() for part in ("--set", f"{key}={json.dumps(value)}")]
        gpu = ["--workers-per-gpu", str(self.workers)] if self.device == "cuda" else []
        return ["--hosts", str(self.hosts), *gpu, *settings]


def ours(setting: Setting) -> dict[str, Value]:
    """Return the run-config values of our way."""
    trained = {"pretrain.batch-size": setting.batch_size, "pretrain.rounds": setting.rounds, "model.preset": "edge"}
    return {**DEVICES, **ALL_TRAIN, **trained, "data.num-devices": setting.num_devices + 1}


def task_of(setting: Setting) -> PretrainTask:
    """Return what the stock way's devices are asked, of the same run config: the task that our server would send."""
    values: dict[str, Value] = {**ours(setting), "data.num-devices": setting.num_devices}
    config = parse_run_config(apply_overrides(read_app_config(find_app(None)), values))
    shapes, classes = _seen(config)
    return PretrainTask(
        data=config.data,
        model=sized(config.model, shapes, len(classes)),
        classes=classes,
        seed=config.seed,
        server_round=0,
        devices=(),
        config=config.pretrain,
    )


def _seen(config: RunConfig) -> tuple[tuple[ModalityShape, ...], tuple[str, ...]]:
    """Return what our server learns from profiles: each modality's shape, from the first device that has it, and the activities."""
    wanted, shapes, classes = modalities_of(config.data, open_dataset(config.data)), {}, set()
    for device in device_names(config.data):
        windows = device_windows(config.data, device)
        classes |= {str(label) for label in windows.labels if label}
        for name, values in windows.streams.items():
            shapes.setdefault(name, ModalityShape(name=name, channels=values.shape[1], time_steps=values.shape[2]))
        if len(shapes) == len(wanted):
            break
    return tuple(shapes[name] for name in wanted if name in shapes), tuple(sorted(classes))
