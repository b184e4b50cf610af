"""A killed run, gone on with from its newest checkpoint."""

import time

from clmm_core.errors import ConfigError, DataError
from clmm_core.report.records import RunInfo
from clmm_core.report.run_folder import RunFolder
from server.budget import Budget
from server.checkpoint import FOLDER, CheckpointRecord, read_newest
from server.directory import Directory
from server.hosts import Hosts
from server.run import Report, Run
from server.run_config import RunConfig

MAY_DIFFER = ("resume", "results-dir", "run-name", "min-hosts", "hosts-timeout-s", "round-timeout-s", "min-reply-share")
"""Run-config keys that change nothing of what is computed; a run that goes on must have the same values of all others."""


def resumed(hosts: Hosts, config: RunConfig, info: RunInfo, folder: RunFolder, report: Report) -> Run:
    """Return the run that `folder` is of as it was after its last round; steps that it had taken since are taken again.

    Args:
        hosts: those who train; they are profiled anew.
        config: as the run was begun with.
        info: how it goes on; its settings and its code must be those that it was begun with.
        folder: of the run, which has checkpoints.
        report: told of each further step.

    Raises:
        ConfigError: the run was begun with other settings, or by other code; names them. Or its rounds cost more than the budget.
        DataError: there is no checkpoint that can be used, or a host has other sensors than the model.
    """
    since_s = time.monotonic()
    budget = Budget(config)
    checkpoint, wrong = read_newest(folder.partial / FOLDER)
    record = checkpoint.record
    _check_same(record.info, info)
    epsilons = budget.epsilons()
    directory = Directory(hosts, config.data, config.min_reply_share)
    directory.refresh()
    _check_sensors(directory, record)
    folder.write_rounds(record.rounds)
    run = Run(
        config=config,
        info=record.info,
        directory=directory,
        folder=folder,
        report=report,
        split=record.split,
        model=record.model,
        arrays=checkpoint.arrays,
        units=dict(record.units),
        window_s=record.window_s,
        started_s=since_s - record.rounds[-1].elapsed_s,
        server_round=record.server_round,
        first=checkpoint.first,
        second=checkpoint.second,
        epsilons=epsilons,
        stage_privacy=record.stage_privacy,
        embedding=record.embedding,
        quality=record.quality,
        rounds=list(record.rounds),
        notes=list(record.notes),
        is_resumed=True,
    )
    run.quarantine.strikes, run.quarantine.until = dict(record.strikes), dict(record.quarantined_until)
    directory.take_traffic()
    run.note([f"the server was stopped and went on after round {record.server_round} from its checkpoint", *wrong, *directory.left_out()])
    return run


def _check_same(old: RunInfo, new: RunInfo) -> None:
    begun, values = old.run_config, new.run_config
    changed = [key for key in sorted({*begun, *values}) if key not in MAY_DIFFER and begun.get(key) != values.get(key)]
    if changed:
        differences = "; ".join(f"{key} was {begun.get(key)!r}, now {values.get(key)!r}" for key in changed)
        raise ConfigError(f"resume: run '{old.name}' was begun with other settings: {differences}. Set them back, or begin a new run")
    if (code := old.versions.get("code")) != (now := new.versions.get("code")):
        raise ConfigError(
            f"resume: run '{old.name}' was begun by code {code} (clmm {old.versions.get('clmm', '?')}), this is {now}: "
            "install that version again to go on with it, or begin a new run"
        )


def _check_sensors(directory: Directory, record: CheckpointRecord) -> None:
    """Refuse hosts whose windows do not fit the model; a modality that no host has at the moment may come back."""
    shapes = {shape.name: shape for shape in record.model.modalities}
    for name, device in directory.modalities().items():
        found = device.modalities[name]
        shape = shapes.get(name)
        if shape is None or (shape.channels, shape.time_steps) != (found.channels, found.time_steps):
            wanted = "no such modality" if shape is None else f"{shape.channels} channels x {shape.time_steps} samples"
            raise DataError(
                f"resume: device '{device.device}' has windows of '{name}' of {found.channels} channels x {found.time_steps} samples, "
                f"the run's model has {wanted}: give it the recordings that the run was begun with"
            )
