"""The Flower ServerApp: read the run config, train over the hosts, write the results folder."""

import os
import platform
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from logging import ERROR, INFO
from pathlib import Path

from flwr.app import Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from clmm_core.errors import ClmmError
from clmm_core.federated.source import client_source
from clmm_core.report.lines import describe_round
from clmm_core.report.page import render
from clmm_core.report.records import RoundRecord, RunInfo
from clmm_core.report.run_folder import RunFolder, read_rounds
from server.federation import run_federation
from server.flower_hosts import FlowerHosts
from server.hosts import Hosts
from server.run_config import RunConfig, Value, parse_run_config
from server.stage_one import StageOne

PACKAGES = ("clmm", "flwr", "ray", "torch", "numpy")

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation that the run config describes; the results folder appears whole or not at all."""
    try:
        config = parse_run_config(context.run_config)
        hosts = FlowerHosts(
            grid, min_hosts=config.min_hosts, hosts_timeout_s=config.hosts_timeout_s, round_timeout_s=config.round_timeout_s
        )
        path = train_and_write(hosts, config, context.run_config, lambda line: log(INFO, line))
        log(INFO, "report: %s", path / "report.html")
    except ClmmError as error:
        log(ERROR, "clmm: %s", " ".join(str(error).split()))
        raise


def train_and_write(
    hosts: Hosts, config: RunConfig, values: Mapping[str, Value], say: Callable[[str], None], stage_one: StageOne | None = None
) -> Path:
    """Run the federation, from `stage_one` on if given, and return its results folder.

    A run that fails before its first round leaves nothing; one that fails later leaves `<name>.partial` with its rounds.

    Raises:
        ClmmError: see the class for what to do.
    """
    folder, info = new_folder(config, values)
    rounds_total = config.pretrain_stage.rounds + config.finetune_stage.rounds + config.selftrain_stage.rounds

    def report(record: RoundRecord) -> None:
        say(describe_round(record, rounds_total))

    try:
        record, arrays = run_federation(hosts, config, info, folder, report, stage_one)
    except BaseException:  # stopped, or a mistake of ours: the folder is in nobody's way either
        if not any(record.server_round for record in read_rounds(folder.partial)):
            folder.discard()
        raise
    folder.write_results(record)
    folder.write_model(arrays)
    folder.write_report(render(record))
    return folder.finish()


def new_folder(config: RunConfig, values: Mapping[str, Value]) -> tuple[RunFolder, RunInfo]:
    """Make the results folder of a run that starts now, and say how it is made.

    Raises:
        ConfigError: there is a run of that name.
    """
    started = datetime.now(UTC)
    name = config.run_name or f"{started:%Y%m%d-%H%M%S}-{config.data.name}"
    started_at = started.isoformat(timespec="seconds")
    info = RunInfo(name=name, run_config=dict(values), versions=_versions(), machine=_machine(), started_at=started_at)
    return RunFolder.create(Path(config.results_dir).expanduser().resolve(), name), info


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "code": client_source()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a host without Ray, or an app that runs from its bundle
            continue
    return found


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
