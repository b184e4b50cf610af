"""The rounds of a training stage: choose devices, ask their hosts, average per part, apply."""

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from clmm_core.errors import ConfigError, RoundFailedError
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.individual import apart
from clmm_core.federated.messages import DeviceProfile, DeviceTraining, HostUpdate
from clmm_core.federated.quantise import unpack
from clmm_core.federated.server_optimizer import ServerOptimizer
from clmm_core.federated.weighted_sum import WeightedSum, Weights
from clmm_core.report.lines import by_reason, listed
from clmm_core.seeds import derive_seed
from server.hosts import Answer
from server.run import Run
from server.run_config import RunConfig, StageConfig


@dataclass(frozen=True, kw_only=True)
class TrainingStage:
    """What differs between the two stages."""

    name: Literal["pretrain", "finetune", "selftrain"]
    config: StageConfig
    starts_after: int
    """The round before its first, counted over all stages."""
    devices: tuple[str, ...]
    """Those that may take part."""
    work: Callable[[DeviceProfile], int]
    """Windows a device trains on in a round, each as often as it is trained on."""
    learning_rate: float
    """A device's, before decay."""
    task_for: Callable[[tuple[str, ...], float], Any]
    """Makes a host's task from its devices and the round's learning rate."""
    travels: Callable[[str], bool]
    """Which arrays the stage needs, by name."""
    learns: Callable[[str], bool]
    """Which of them it trains: those that come back, as updates."""
    after_round: Callable[[], tuple[dict[str, float], list[str]]]
    """More figures for the round's record, and what is not in them and why."""


def train_stage(run: Run, stage: TrainingStage) -> None:
    """Run every round of `stage` that the run has not had yet, replacing `run.arrays` after each.

    Raises:
        ConfigError: no device can keep the deadline of the simulated fleet.
        RoundFailedError: too few hosts answered, or no answer can be used.
    """
    _require_somebody_in_time(run, stage)
    num_done = max(0, run.server_round - stage.starts_after)
    if not num_done:
        run.first, run.second = {}, {}
    optimizer = ServerOptimizer(stage.config.server, run.first, run.second)
    for round_of_stage in range(num_done + 1, stage.config.rounds + 1):
        since_s = time.monotonic()
        run.server_round += 1
        learning_rate = decayed(stage.learning_rate, stage.config, round_of_stage)
        cohort = choose_devices(stage.devices, stage.config.participation, run.config.seed, run.server_round)
        turnout = run.config.availability.turnout(_work(run, stage, cohort), run.server_round)
        outgoing = {name: values for name, values in run.arrays.items() if stage.travels(name)}
        if not turnout.present:
            run.ended(stage.name, since_s, server_round=run.server_round, num_hosts=0, num_devices=0, **turnout.figures(()))
            run.keep()
            continue
        answers, left_out = run.directory.ask(
            f"train.{stage.name}", turnout.present, lambda devices, rate=learning_rate: stage.task_for(devices, rate), outgoing, HostUpdate
        )
        learning = {name: values for name, values in outgoing.items() if stage.learns(name)}
        usable, refused = _usable(answers, run.config, learning)
        left_out += refused
        if not usable:
            raise RoundFailedError(f"{stage.name}, round {run.server_round}: no device could be trained. {'; '.join(left_out)}")
        run.arrays = optimizer.apply(run.arrays, _mean_of(usable))
        figures, not_in_them = stage.after_round()
        left_out += not_in_them
        figures |= _figures(usable) | turnout.figures(each.device for update in usable for each in update.devices)
        run.ended(stage.name, since_s, server_round=run.server_round, left_out=tuple(left_out), **figures)
        run.keep()


def choose_devices(devices: tuple[str, ...], participation: float, seed: int, server_round: int) -> tuple[str, ...]:
    """Return this round's cohort, ascending: a function of seed and round only, at least one device."""
    count = max(1, round(min(participation, 1.0) * len(devices)))
    return tuple(sorted(random.Random(derive_seed(seed, "cohort", server_round)).sample(sorted(devices), count)))


def _require_somebody_in_time(run: Run, stage: TrainingStage) -> None:
    """Refuse a deadline that no device of a stage can ever keep; a round that happens to be without a device is passed over."""
    availability = run.config.availability
    fastest_s = min(availability.takes_s(_work(run, stage, stage.devices)).values(), default=0.0)
    if stage.config.rounds and availability.deadline_s and fastest_s > availability.deadline_s:
        raise ConfigError(
            f"fleet.deadline-s: {stage.name}: expected at most {availability.deadline_s:g} s a round, but the fastest of "
            f"{len(stage.devices)} device(s) needs {fastest_s:.3g}: raise it or fleet.windows-per-s, or ask for fewer local epochs"
        )


def _work(run: Run, stage: TrainingStage, cohort: tuple[str, ...]) -> dict[str, int]:
    """Return what each device of a cohort has to do; nothing for one whose host is away."""
    devices = run.directory.devices
    return {device: stage.work(devices[device]) if device in devices else 0 for device in cohort}


def decayed(learning_rate: float, stage: StageConfig, round_of_stage: int) -> float:
    """Return a device's learning rate in a round of its stage, counted from 1.

    Source: half a cosine from 1 towards 0, Loshchilov and Hutter 2017, arXiv 1608.03983, eq. 5, without restarts.
    """
    if stage.decay == "none":
        return learning_rate
    return learning_rate * 0.5 * (1 + math.cos(math.pi * (round_of_stage - 1) / stage.rounds))


@dataclass(frozen=True, kw_only=True)
class _Update:
    """What one host's devices, or one device, would change in the model."""

    host: int
    """Which of the answers it is from."""
    arrays: Arrays
    weights: Weights
    devices: tuple[DeviceTraining, ...]


def _usable(answers: list[Answer], config: RunConfig, learning: Arrays) -> tuple[list[_Update], list[str]]:
    """Return the updates that count, and why devices of the others (and devices left out by their host) do not."""
    usable: list[_Update] = []
    refused = by_reason((each.device, each.reason) for answer in answers for each in answer.reply.left_out)
    for host, answer in enumerate(answers):
        if not answer.reply.devices:
            continue
        try:
            updates = _updates_of(host, answer, config, learning)
        except ValueError as error:
            refused.append(f"{_sender(answer.reply.devices)} sent an update that cannot be read; it was refused: {error}")
            continue
        for update in updates:
            if all(bool(np.isfinite(values).all()) for values in update.arrays.values()):
                usable.append(update)
            else:
                refused.append(f"{_sender(update.devices)} sent an update with NaN or infinity; it was refused")
    return usable, refused


def _updates_of(host: int, answer: Answer, config: RunConfig, learning: Arrays) -> list[_Update]:
    """Return the mean update of a host, unpacked, or that of each of its devices.

    Raises:
        ValueError: it is neither.
    """
    devices = answer.reply.devices
    if config.host_aggregation:
        arrays = answer.arrays if config.update_bits == 32 else unpack(answer.arrays, config.update_bits, learning)
        return [_Update(host=host, arrays=arrays, weights=answer.reply.weights, devices=devices)]
    each = zip(devices, apart(answer.arrays, len(devices)), strict=True)
    return [_Update(host=host, arrays=arrays, weights=device.weights, devices=(device,)) for device, arrays in each]


def _sender(devices: Sequence[DeviceTraining]) -> str:
    return f"the host of device(s) {listed([device.device for device in devices])}"


def _mean_of(updates: Sequence[_Update]) -> Arrays:
    total = WeightedSum()
    for update in updates:
        total.add(update.arrays, update.weights)
    return total.mean()


def _figures(updates: Sequence[_Update]) -> dict[str, float]:
    trained = [device for update in updates for device in update.devices]
    num_windows = sum(device.num_windows for device in trained)
    loss = sum(device.loss * device.num_windows for device in trained) / num_windows
    num_hosts = len({update.host for update in updates})
    return {"num_hosts": num_hosts, "num_devices": len(trained), "num_windows": num_windows, "loss": loss}
