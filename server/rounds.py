"""The rounds of a training stage: choose devices, ask their hosts, average per part, apply."""

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from clmm_core.errors import ConfigError, RoundFailedError
from clmm_core.federated.arrays import FUSION, Arrays
from clmm_core.federated.messages import DeviceProfile, HostUpdate
from clmm_core.federated.server_optimizer import ServerOptimizer
from clmm_core.federated.source import client_source
from clmm_core.federated.weighted_sum import WeightedSum
from clmm_core.report.lines import by_reason
from clmm_core.seeds import derive_seed
from server.gate import Expected, Update, admitted, told
from server.run import Run
from server.run_config import StageConfig


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
    most_windows: Callable[[DeviceProfile], int]
    """Different windows it can train on in a round, at most."""
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
        held = tuple(device for device in stage.devices if run.quarantine.holds(device, run.server_round))
        cohort = choose_devices(_without(stage, held), stage.config.participation, run.config.seed, run.server_round)
        turnout = run.config.availability.turnout(_work(run, stage, cohort), run.server_round)
        outgoing = {name: values for name, values in run.arrays.items() if stage.travels(name)}
        if not turnout.present:
            run.ended(stage.name, since_s, server_round=run.server_round, num_hosts=0, num_devices=0, **turnout.figures(()))
            run.keep()
            continue
        answers, left_out = run.directory.ask(
            f"train.{stage.name}", turnout.present, lambda devices, rate=learning_rate: stage.task_for(devices, rate), outgoing, HostUpdate
        )
        usable, refused = admitted(answers, _expected(run, stage, outgoing), run.config.gate)
        left_out += by_reason((each.device, each.reason) for answer in answers for each in answer.reply.left_out)
        left_out += told(refused, run.quarantine.strike(refused, run.server_round), run.server_round, run.config.gate)
        if not usable:
            raise RoundFailedError(f"{stage.name}, round {run.server_round}: no device could be trained. {'; '.join(left_out)}")
        run.arrays = optimizer.apply(run.arrays, _mean_of(usable))
        figures, not_in_them = stage.after_round()
        left_out += not_in_them
        figures |= _figures(usable) | turnout.figures(name for update in usable for name in update.names)
        figures |= {"refused": tuple(refused), "quarantined": held}
        run.ended(stage.name, since_s, server_round=run.server_round, left_out=tuple(left_out), **figures)
        run.keep()


def choose_devices(devices: tuple[str, ...], participation: float, seed: int, server_round: int) -> tuple[str, ...]:
    """Return this round's cohort, ascending: a function of seed and round only, at least one device."""
    count = max(1, round(min(participation, 1.0) * len(devices)))
    return tuple(sorted(random.Random(derive_seed(seed, "cohort", server_round)).sample(sorted(devices), count)))


def _without(stage: TrainingStage, held: tuple[str, ...]) -> tuple[str, ...]:
    """Return the stage's devices but those in quarantine.

    Raises:
        RoundFailedError: all of them are.
    """
    if len(held) == len(stage.devices):
        raise RoundFailedError(f"{stage.name}: every device is in quarantine: see which of their updates were refused, and why")
    left_out = set(held)
    return tuple(device for device in stage.devices if device not in left_out)


def _expected(run: Run, stage: TrainingStage, outgoing: Arrays) -> Expected:
    """Return what this round's replies are held against."""
    devices, zero_fill = run.directory.devices, run.config.data.zero_fill

    def most_windows(device: str, part: str) -> int:
        if device not in devices:  # its host left meanwhile
            return 0
        profile = devices[device]
        if part == FUSION or zero_fill:
            return stage.most_windows(profile)
        return min(stage.most_windows(profile), profile.modalities[part].num_windows) if part in profile.modalities else 0

    return Expected(
        server_round=run.server_round,
        source=client_source(),
        learning={name: values for name, values in outgoing.items() if stage.learns(name)},
        most_windows=most_windows,
        update_bits=run.config.update_bits,
        is_folded=run.config.host_aggregation,
    )


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


def _mean_of(updates: Sequence[Update]) -> Arrays:
    total = WeightedSum()
    for update in updates:
        total.add(update.arrays, update.weights)
    return total.mean()


def _figures(updates: Sequence[Update]) -> dict[str, float]:
    trained = [device for update in updates for device in update.devices]
    num_windows = sum(device.num_windows for device in trained)
    loss = sum(device.loss * device.num_windows for device in trained) / num_windows
    num_hosts = len({update.host for update in updates})
    return {"num_hosts": num_hosts, "num_devices": len(trained), "num_windows": num_windows, "loss": loss}
