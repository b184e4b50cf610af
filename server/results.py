"""A run from its config to its results folder, whoever the hosts are."""

import os
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from clmm_core.federated.source import client_source
from clmm_core.report.lines import describe_round
from clmm_core.report.records import RoundRecord, RunInfo, RunRecord
from clmm_core.report.run_folder import RunFolder, read_rounds
from server.apart import apart
from server.federation import run_federation
from server.hosts import Hosts
from server.run_config import RunConfig, Value
from server.stage_one import StageOne

GPUS = Path("/proc/driver/nvidia/gpus")
"""Where Nvidia's driver says what there is, a folder each: so that the server need not load PyTorch to know."""
PACKAGES = ("clmm", "flwr", "ray", "torch", "numpy")


def train_and_write(
    hosts: Hosts,
    config: RunConfig,
    values: Mapping[str, Value],
    say: Callable[[str], None],
    stage_one: StageOne | None = None,
    *,
    together_on: str = "",
) -> Path:
    """Run the federation, from `stage_one` on if given, and return its results folder.

    One that trains `together_on` a device with others says so, and holds neither the model nor the page, which takes longer to draw than
    a small run on a GPU to train.

    A run that fails before its first round leaves nothing; one that fails later leaves `<name>.partial` with its rounds.

    Raises:
        ClmmError: see the class for what to do.
    """
    folder, info = new_folder(config, values)
    if together_on:
        info = replace(info, machine=f"{info.machine}; trained together on {together_on}")
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
    if not together_on:
        folder.write_model(arrays)
        folder.write_report(render(record))
    return folder.finish()


def render(record: RunRecord) -> str:
    """Return the page of a run."""
    page: str = apart("matplotlib", "clmm_core.report.page:render", record)
    return page


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
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(GPUS.glob("*/information"))]
    models = [match[1] for text in texts if (match := re.search(r"^Model:\s*(.+?)\s*$", text, re.MULTILINE))]
    gpu = f", {models[0]}" if models else ""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores{gpu}"
