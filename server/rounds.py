"""The rounds of a training stage: choose devices, ask their hosts, average per part, apply."""

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from clmm_core.errors import ConfigError, RoundFailedError
from clmm_core.federated.arrays import FUSION, Arrays, part_of
from clmm_core.federated.messages import DeviceProfile, HostUpdate
from clmm_core.federated.server_optimizer import ServerOptimizer
from clmm_core.federated.source import client_source
from clmm_core.federated.weighted_sum import WeightedSum
from clmm_core.report.lines import by_reason
from clmm_core.seeds import derive_seed
from server.gate import Expected, Update, admitted, told
from server.hosts import Answer
from server.privacy import StagePrivacy, adapted_clip, begin_stage, noise_generator, noised_mean, poisson_sample
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
        run.stage_privacy = _private(run, stage)
    optimizer = ServerOptimizer(stage.config.server, run.first, run.second)
    for round_of_stage in range(num_done + 1, stage.config.rounds + 1):
        since_s = time.monotonic()
        run.server_round += 1
        learning_rate = decayed(stage.learning_rate, stage.config, round_of_stage)
        held = tuple(device for device in stage.devices if run.quarantine.holds(device, run.server_round))
        choose = poisson_sample if run.stage_privacy else choose_devices
        cohort = choose(_without(stage, held), stage.config.participation, run.config.seed, run.server_round)
        turnout = run.config.availability.turnout(_work(run, stage, cohort), run.server_round)
        outgoing = {name: values for name, values in run.arrays.items() if stage.travels(name)}
        if not turnout.present and not run.stage_privacy:
            run.ended(stage.name, since_s, server_round=run.server_round, num_hosts=0, num_devices=0, **turnout.figures(()))
            run.keep()
            continue
        answers, left_out = _answers(run, stage, turnout.present, learning_rate, outgoing)
        usable, refused = admitted(answers, _expected(run, stage, outgoing), run.config.gate)
        left_out += by_reason((each.device, each.reason) for answer in answers for each in answer.reply.left_out)
        left_out += told(refused, run.quarantine.strike(refused, run.server_round), run.server_round, run.config.gate)
        if not usable and not run.stage_privacy:
            raise RoundFailedError(f"{stage.name}, round {run.server_round}: no device could be trained. {'; '.join(left_out)}")
        private = {"epsilon": run.epsilons[run.server_round - 1], "clip": run.stage_privacy.clip} if run.stage_privacy else {}
        run.arrays = optimizer.apply(run.arrays, _private_mean(run, stage, usable, outgoing) if private else _mean_of(usable))
        figures, not_in_them = stage.after_round()
        left_out += not_in_them
        figures |= private | _figures(usable) | turnout.figures(name for update in usable for name in update.names)
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
    return Expected(
        server_round=run.server_round,
        source=client_source(),
        learning={name: values for name, values in outgoing.items() if stage.learns(name)},
        most_windows=_most_windows(run, stage),
        update_bits=run.config.update_bits,
        is_folded=run.config.host_aggregation,
        clip=run.stage_privacy.clip if run.stage_privacy else 0.0,
    )


def _most_windows(run: Run, stage: TrainingStage) -> Callable[[str, str], int]:
    """Return what says, by device and part of the model, how many windows it can train on in a round at most."""
    devices, zero_fill = run.directory.devices, run.config.data.zero_fill

    def most_windows(device: str, part: str) -> int:
        if device not in devices:  # its host left meanwhile
            return 0
        profile = devices[device]
        if part == FUSION or zero_fill:
            return stage.most_windows(profile)
        return min(stage.most_windows(profile), profile.modalities[part].num_windows) if part in profile.modalities else 0

    return most_windows


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


def _private(run: Run, stage: TrainingStage) -> StagePrivacy | None:
    """Return the privacy of a stage that begins; None where the run has none."""
    if not run.config.privacy.is_on:
        return None
    parts = {part_of(name) for name in run.arrays if stage.travels(name) and stage.learns(name)}
    most_windows = _most_windows(run, stage)
    return begin_stage(run.config.privacy, stage.devices, sorted(parts), lambda device, part: most_windows(device, part) > 0)


def _answers(
    run: Run, stage: TrainingStage, devices: tuple[str, ...], learning_rate: float, outgoing: Arrays
) -> tuple[list[Answer], list[str]]:
    """Return the hosts' answers, and what is not in them and why.

    With privacy a round that nobody is in, or that too few hosts answered, is one of noise alone.

    Raises:
        RoundFailedError: too few hosts answered, without privacy.
    """
    if not devices:
        return [], []
    try:
        return run.directory.ask(f"train.{stage.name}", devices, lambda some: stage.task_for(some, learning_rate), outgoing, HostUpdate)
    except RoundFailedError as error:
        if run.stage_privacy is None:
            raise
        return [], [str(error)]


def _private_mean(run: Run, stage: TrainingStage, updates: Sequence[Update], outgoing: Arrays) -> Arrays:
    """Return the noised mean of this round's updates, and move the clip of the next one."""
    assert run.stage_privacy is not None
    config, rate, now = run.config.privacy, stage.config.participation, run.stage_privacy
    expected_cohort = rate * len(stage.devices)
    generator = noise_generator(run.config.seed, run.server_round)
    learning = {name: values for name, values in outgoing.items() if stage.learns(name)}
    mean = noised_mean(updates, learning, now, rate, config.noise_on_updates(expected_cohort), generator)
    run.stage_privacy = replace(now, clip=adapted_clip(config, now.clip, updates, expected_cohort, generator))
    return mean


def _mean_of(updates: Sequence[Update]) -> Arrays:
    total = WeightedSum()
    for update in updates:
        total.add(update.arrays, update.weights)
    return total.mean()


def _figures(updates: Sequence[Update]) -> dict[str, float]:
    trained = [device for update in updates for device in update.devices]
    if not trained:
        return {"num_hosts": 0, "num_devices": 0}
    num_windows = sum(device.num_windows for device in trained)
    loss = sum(device.loss * device.num_windows for device in trained) / num_windows
    num_hosts = len({update.host for update in updates})
    return {"num_hosts": num_hosts, "num_devices": len(trained), "num_windows": num_windows, "loss": loss}
