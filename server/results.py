"""A run from its config to its results folder, whoever the hosts are."""

import importlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from clmm_core.errors import ConfigError
from clmm_core.federated.source import client_source
from clmm_core.report.lines import describe_round
from clmm_core.report.records import RoundRecord, RunInfo
from clmm_core.report.run_folder import RunFolder, read_rounds
from server.apart import Apart
from server.checkpoint import FOLDER
from server.delivery import deliver_model
from server.federation import begin, run_federation
from server.hosts import Hosts
from server.resume import resumed
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
    keeps_checkpoints: bool = False,
) -> Path:
    """Run the federation, from `stage_one` on if given, and return its results folder.

    One that trains `together_on` a device with others says so, and holds neither the model nor the page, which takes longer to draw than
    a small run on a GPU to train.

    A run that fails before its first round leaves nothing; one that fails later leaves `<name>.partial` with its rounds and, if it
    `keeps_checkpoints`, all that `resume` goes on from.

    Raises:
        ClmmError: see the class for what to do.
    """
    rounds_total = config.pretrain_stage.rounds + config.finetune_stage.rounds + config.selftrain_stage.rounds

    def report(record: RoundRecord) -> None:
        say(describe_round(record, rounds_total))

    folder, info = (old_folder if config.resume else new_folder)(config, values)
    info = replace(info, machine=f"{info.machine}; trained together on {together_on}") if together_on else info
    try:
        run = (resumed if config.resume else begin)(hosts, config, info, folder, report)
        run.keeps_checkpoints = keeps_checkpoints
        record, arrays = run_federation(run, stage_one)
    except BaseException:  # stopped, or a mistake of ours: the folder is in nobody's way either
        if config.resume or any(record.server_round for record in read_rounds(folder.partial)):
            folder.release()
        else:
            folder.discard()
        raise
    folder.write_results(record)
    if not together_on:
        folder.write_model(arrays)
        draw_report(folder)
    shutil.rmtree(folder.partial / FOLDER, ignore_errors=True)
    finished = folder.finish()
    deliver_model(run.directory, config.data, finished, say)
    return finished


def draw_report(folder: RunFolder) -> None:
    """Write the page of a run whose results stand in its folder."""
    Apart("matplotlib", "clmm_core.report.page:render_into")(folder.partial)


def new_folder(config: RunConfig, values: Mapping[str, Value]) -> tuple[RunFolder, RunInfo]:
    """Make the results folder of a run that starts now, and say how it is made.

    Raises:
        ConfigError: there is a run of that name.
    """
    info = _info(config, values)
    return RunFolder.create(_results_dir(config), info.name), info


def old_folder(config: RunConfig, values: Mapping[str, Value]) -> tuple[RunFolder, RunInfo]:
    """Return the folder of a run that was killed, and how it is gone on with.

    Raises:
        ConfigError: there is no such run, or it is finished or still goes on.
    """
    if not config.run_name:
        raise ConfigError("resume: expected the name of a run in run-name, found none: say which run is to go on")
    return RunFolder.reopen(_results_dir(config), config.run_name), _info(config, values)


def _info(config: RunConfig, values: Mapping[str, Value]) -> RunInfo:
    started = datetime.now(UTC)
    name = config.run_name or f"{started:%Y%m%d-%H%M%S}-{config.data.name}"
    started_at = started.isoformat(timespec="seconds")
    return RunInfo(name=name, run_config=dict(values), versions=_versions(), machine=_machine(), started_at=started_at)


def _results_dir(config: RunConfig) -> Path:
    return Path(config.results_dir).expanduser().resolve()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "code": client_source()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a host without Ray, or an app that runs from its bundle
            continue
    return found


def _machine() -> str:
    gpu = _gpu()
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores{gpu and f', {gpu}'}"


def _gpu() -> str:
    """Return the name of this machine's first GPU, empty without one."""
    if "torch" in sys.modules:  # as in studies, whose hosts are in this process
        cuda = importlib.import_module("torch.cuda")
        return str(cuda.get_device_name()) if cuda.is_available() else ""
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(GPUS.glob("*/information"))]
    models = [match[1] for text in texts if (match := re.search(r"^Model:\s*(.+?)\s*$", text, re.MULTILINE))]
    return models[0] if models else ""
