"""The rounds of a training stage: choose devices, ask their hosts, average per part, apply."""

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from clmm_core.errors import ConfigError, RoundFailedError
from clmm_core.federated.arrays import FUSION, Arrays, part_of
from clmm_core.federated.messages import DeviceProfile, HostUpdate
from clmm_core.federated.robust import aggregate
from clmm_core.federated.server_optimizer import ServerOptimizer
from clmm_core.federated.source import client_source
from clmm_core.report.lines import by_reason
from clmm_core.report.records import Refusal
from clmm_core.seeds import derive_seed
from server.availability import Turnout
from server.gate import Expected, Update, admitted, told
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
        ConfigError: no device can keep the deadline of the simulated fleet, or the stage has too few for the way of aggregation.
        RoundFailedError: too few hosts answered, or too few answers can be used, also when asked again.
    """
    _require_somebody_in_time(run, stage)
    _require_enough_devices(run, stage)
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
        asked = _asked(run, stage, _without(stage, held))
        if not asked.turnout.present and not run.stage_privacy:
            run.ended(stage.name, since_s, server_round=run.server_round, num_hosts=0, num_devices=0, **asked.turnout.figures(()))
            run.keep()
            continue
        updates = _updates_or_noise(run, stage, asked, learning_rate)
        private = {"epsilon": run.epsilons[run.server_round - 1], "clip": run.stage_privacy.clip} if run.stage_privacy else {}
        run.arrays = optimizer.apply(run.arrays, _combined(run, stage, updates.usable))
        figures, not_in_them = stage.after_round()
        figures |= private | _figures(updates.usable) | asked.turnout.figures(name for each in updates.usable for name in each.names)
        figures |= {"refused": tuple(updates.refused), "quarantined": held}
        left_out = (*updates.left_out, *not_in_them)
        run.ended(stage.name, since_s, server_round=run.server_round, left_out=left_out, **figures)
        run.keep()


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """Who is asked to train in a round."""

    turnout: Turnout
    waits_for: int
    """Devices that are enough, or 0 where all of them are to answer."""


def _asked(run: Run, stage: TrainingStage, devices: tuple[str, ...]) -> _Asked:
    """Draw a round's cohort: more devices than it waits for, where some may fail.

    Source: over-selection, Bonawitz et al., "Towards Federated Learning at Scale", MLSys 2019, arXiv 1902.01046, section 3.2: 130 %.
    """
    availability = run.config.availability
    if run.stage_privacy:  # the accountant's sample: who is in it does not depend on anybody else
        cohort = poisson_sample(devices, stage.config.participation, run.secret_seed, run.server_round)
        return _Asked(turnout=availability.turnout(_work(run, stage, cohort), run.server_round, len(cohort)), waits_for=0)
    wanted = most = max(1, round(stage.config.participation * len(devices)))
    if availability.is_simulated or not run.directory.shares_data:  # else nobody is ever away, and more would be work for nothing
        most = min(len(devices), math.ceil(wanted * run.config.over_selection))
    cohort = choose_devices(devices, most, run.config.seed, run.server_round)
    turnout = availability.turnout(_work(run, stage, cohort), run.server_round, wanted)
    return _Asked(turnout=turnout, waits_for=wanted if wanted < most and not availability.is_simulated else 0)


@dataclass(frozen=True, kw_only=True)
class _Updates:
    """What came of asking."""

    usable: list[Update]
    refused: list[Refusal]
    left_out: list[str]


def _updates_or_noise(run: Run, stage: TrainingStage, asked: _Asked, learning_rate: float) -> _Updates:
    """Ask hosts to train, again if too few answer. With privacy a round that nobody is in, or that too few answered, is one of noise alone.

    Raises:
        RoundFailedError: too few answered each time, without privacy.
    """
    if not asked.turnout.present:
        return _Updates(usable=[], refused=[], left_out=[])
    try:
        return run.repeated(partial(_updates, run, stage, asked, learning_rate))
    except RoundFailedError as error:
        if run.stage_privacy is None:
            raise
        return _Updates(usable=[], refused=[], left_out=[str(error)])


def _updates(run: Run, stage: TrainingStage, asked: _Asked, learning_rate: float) -> _Updates:
    """Ask hosts to train, and let in what can be used.

    Raises:
        RoundFailedError: of too few devices.
    """
    outgoing = {name: values for name, values in run.arrays.items() if stage.travels(name)}
    answers, left_out = run.directory.ask(
        f"train.{stage.name}",
        asked.turnout.present,
        lambda devices: stage.task_for(devices, learning_rate),
        outgoing,
        HostUpdate,
        asked.waits_for,
    )
    usable, refused = admitted(answers, _expected(run, stage, outgoing), run.config.gate)
    left_out += by_reason((each.device, each.reason) for answer in answers for each in answer.reply.left_out)
    left_out += told(refused, run.quarantine.strike(refused, run.server_round), run.server_round, run.config.gate)
    if fault := _too_few(run, usable):
        raise RoundFailedError(f"{stage.name}, round {run.server_round}: {fault}" + "".join(f"; {line}" for line in left_out))
    return _Updates(usable=usable, refused=refused, left_out=left_out)


def _too_few(run: Run, usable: Sequence[Update]) -> str:
    """Return what is wrong with the number of devices whose updates count, empty if nothing is; of a private round nothing is."""
    if run.stage_privacy:
        return ""
    num_devices = sum(len(update.devices) for update in usable)
    if not num_devices:
        return "no device could be trained"
    if num_devices < run.config.quorum:
        return f"expected updates of at least {run.config.quorum} devices (quorum), found {num_devices}"
    counts = Counter(part for update in usable for part in update.weights)
    return _too_few_for_the_rule(run, counts)


def _too_few_for_the_rule(run: Run, counts: Mapping[str, int]) -> str:
    """Return what the way of aggregation says of so many devices by part, empty if they are enough."""
    try:
        for part, count in sorted(counts.items()):
            run.config.aggregation.require_enough(part, count)
    except ConfigError as error:
        return str(error)
    return ""


def choose_devices(devices: tuple[str, ...], count: int, seed: int, server_round: int) -> tuple[str, ...]:
    """Return this round's cohort, ascending: a function of seed and round only."""
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


def _require_enough_devices(run: Run, stage: TrainingStage) -> None:
    """Refuse a way of aggregation whose assumption no round of a stage can meet."""
    profiles = [profile for name, profile in run.directory.devices.items() if name in stage.devices]
    counts = Counter(part for profile in profiles for part in (*profile.modalities, FUSION))
    parts = {part_of(name) for name in run.arrays if stage.learns(name)}
    expected = {part: round(stage.config.participation * count) for part, count in counts.items() if part in parts}
    if stage.config.rounds and (fault := _too_few_for_the_rule(run, expected)):
        raise ConfigError(f"aggregation.rule: {stage.name}: {fault}")


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


def _combined(run: Run, stage: TrainingStage, updates: Sequence[Update]) -> Arrays:
    """Return what this round's updates make of the model; with privacy their noised mean, and the clip of the next round moves."""
    if run.stage_privacy is None:
        return aggregate([(each.arrays, each.weights) for each in updates], run.config.aggregation)
    config, rate, now = run.config.privacy, stage.config.participation, run.stage_privacy
    expected_cohort = rate * len(stage.devices)
    generator = noise_generator(run.secret_seed, run.server_round)
    learning = {name: values for name, values in run.arrays.items() if stage.travels(name) and stage.learns(name)}
    mean = noised_mean(updates, learning, now, rate, config.noise_on_updates(expected_cohort), generator)
    run.stage_privacy = replace(now, clip=adapted_clip(config, now.clip, updates, expected_cohort, generator))
    return mean


def _figures(updates: Sequence[Update]) -> dict[str, float]:
    trained = [device for update in updates for device in update.devices]
    if not trained:
        return {"num_hosts": 0, "num_devices": 0}
    num_windows = sum(device.num_windows for device in trained)
    loss = sum(device.loss * device.num_windows for device in trained) / num_windows
    num_hosts = len({update.host for update in updates})
    return {"num_hosts": num_hosts, "num_devices": len(trained), "num_windows": num_windows, "loss": loss}
