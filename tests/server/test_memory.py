"""What a device costs the server: bytes of Python's own, counted, whatever else the machine does. Hosts' answers are made up."""

import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clmm_core.federated.arrays import Arrays, part_of
from clmm_core.federated.channel_sums import ChannelSums
from clmm_core.federated.codec import from_json, to_json
from clmm_core.federated.messages import (
    Counts,
    DeviceEvaluation,
    DeviceProfile,
    DeviceTraining,
    HostEvaluation,
    HostProfile,
    HostQuality,
    HostSums,
    HostUpdate,
    ModalityProfile,
)
from clmm_core.federated.source import client_source
from clmm_core.report.records import NUM_CALIBRATION_BINS
from clmm_core.training.tasks import EvaluateTask, ProfileTask, QualityTask, SumsTask, TrainTask, learns
from server import results
from server.hosts import Answer, Enough, Question
from server.run_config import parse_run_config

MOST_BYTES = 8000
"""A device; it is its profile, its subject's counts and, while they are read, its last answer."""
LABELS = ("run", "still", "walk")
MODALITIES = ("accelerometer", "gyroscope")
WINDOWS = 30


class MadeUpHosts:
    """Ten hosts of a simulation that answer at once."""

    def __init__(self, num_devices: int) -> None:
        self._devices = [f"device-{number:05d}" for number in range(num_devices)]

    def recover(self) -> None:
        raise AssertionError("they never fail")

    def take_late(self) -> int:
        return 0

    def names(self) -> tuple[int, ...]:
        return tuple(range(10))

    def ask(
        self, message_type: str, questions: Mapping[int, Question], reply_kind: type, enough: Enough | None = None
    ) -> tuple[dict[int, Answer], dict[int, str]]:
        del message_type
        return {host: self._answer(host, question, reply_kind) for host, question in questions.items()}, {}

    def _answer(self, host: int, question: Question, reply_kind: type) -> Answer:
        reply, arrays = self._reply(host, question.task, question.arrays)
        return Answer(from_json(reply_kind, to_json(reply)), arrays)

    def _reply(self, host: int, task: Any, arrays: Arrays) -> tuple[Any, Arrays]:
        match task:
            case ProfileTask():
                return self._profile(host), {}
            case SumsTask():
                sums = ChannelSums(count=9.0, total=(0.0,) * 3, squares=(9.0,) * 3)
                return HostSums(sums=dict.fromkeys(MODALITIES, sums)), {}
            case QualityTask():
                return HostQuality(weighted=dict.fromkeys(MODALITIES, 6.0), num_windows=dict.fromkeys(MODALITIES, 10)), {}
            case EvaluateTask():
                return HostEvaluation(devices=tuple(map(_evaluation, task.devices))), {}
            case _:
                return _update(task, arrays)

    def _profile(self, host: int) -> HostProfile:
        modalities = {name: ModalityProfile(channels=3, time_steps=64, num_windows=WINDOWS, unit="m/s^2") for name in MODALITIES}
        counts = {"labelled_windows": dict.fromkeys(LABELS, 10), "labelled_trials": dict.fromkeys(LABELS, 2)}
        profiles = [DeviceProfile(device=name, num_windows=WINDOWS, modalities=modalities, **counts) for name in self._devices[host::10]]
        return HostProfile(source=client_source(), modalities=MODALITIES, window_s=1.28, devices=tuple(profiles), shares_data=True)


def _update(task: TrainTask, arrays: Arrays) -> tuple[HostUpdate, Arrays]:
    update = {name: np.zeros_like(values) for name, values in arrays.items() if learns(task, name)}
    devices = tuple(DeviceTraining(device=name, num_windows=WINDOWS, loss=1.5) for name in task.devices)
    said = {"server_round": task.server_round, "source": client_source()}
    return HostUpdate(**said, weights={part_of(name): float(WINDOWS) for name in update}, devices=devices), update


def _evaluation(device: str) -> DeviceEvaluation:
    confusion = tuple(tuple(300 + row + column for column in range(len(LABELS))) for row in range(len(LABELS)))
    calibration = tuple((float(number), number * 0.7, float(number)) for number in range(NUM_CALIBRATION_BINS))
    return DeviceEvaluation(device=device, modalities=MODALITIES, counts=Counts(confusion=confusion, calibration=calibration))


def test_a_device_costs_the_server_a_few_kilobytes(tmp_path: Path, run_config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(results, "draw_report", lambda folder: None)

    def peak_bytes(num_devices: int) -> int:
        fleet = {"data.num-devices": num_devices, "data.modalities": ",".join(MODALITIES), "model.embed": 16, "model.differences": False}
        rounds = {"pretrain.participation": 10 / num_devices, "personalise.per-class": 0, "report.points-per-device": 0}
        place = {"results-dir": str(tmp_path), "run-name": f"of-{num_devices}"}
        values = run_config(fleet | rounds | place, small=True)
        tracemalloc.reset_peak()
        results.train_and_write(MadeUpHosts(num_devices), parse_run_config(values), values, lambda line: None)
        return tracemalloc.get_traced_memory()[1]

    tracemalloc.start()
    try:
        peak_bytes(20)  # whatever is loaded or kept by the first run is not a device's
        few, many = peak_bytes(200), peak_bytes(2000)
    finally:
        tracemalloc.stop()
    assert many - few < 1800 * MOST_BYTES
