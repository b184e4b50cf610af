"""One turn of the benchmark: `clmm run` as a user starts it, watched until its rounds are done, then stopped."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from clmm_core.errors import ClmmError, DataError
from clmm_core.report.records import RoundRecord, RunInfo
from clmm_core.report.run_folder import INFO, PARTIAL_SUFFIX, ROUNDS
from clmm_core.report.run_json import read_json
from simulation.bench.fleet import Setting
from simulation.bench.processes import Usage, Watch
from simulation.flwr_run import HOME_NAME, asked_to_end_is_ctrl_c
from simulation.overrides import find_app
from simulation.progress import read_progress

STOCK_APP = Path(__file__).parent / "stock"
LOOK_INTERVAL_S = 0.2
STOP_TIMEOUT_S = 60.0
NUM_LINES = 15
"""Of what a run said, shown where it failed."""


class TurnError(ClmmError):
    """A run of the benchmark ended before its rounds were done, or not all devices trained; the message is the run's."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What one run took."""

    setting: Setting
    first_step_s: float
    """From the start of the command to the beginning of its first round of training."""
    prepared_s: float
    """Of that, the steps over the fleet before it: profile and normalisation, or in the stock way its normalisation."""
    round_s: tuple[float, ...]
    """Each round, from the server's choice of devices to its new model."""
    watched_s: float
    """How long `cpu_s` was taken; the rounds, and at most a look before and after."""
    cpu_s: Mapping[str, float]
    """Processor time in that while, by kind of process (`processes.Kind`)."""
    peak_bytes: Mapping[str, int]
    """By kind, of the process that held most at any time of the run."""
    info: RunInfo | None
    """How it was made; the stock way does not say."""

    @property
    def updates_per_s(self) -> float:
        """Device-updates a second, of the median round."""
        return self.setting.num_devices / median(self.round_s)


def run_turn(setting: Setting) -> Turn:
    """Do one run and return what it took. No process and no folder of it is left.

    Raises:
        TurnError: it ended before its rounds were done, or a round did not have all devices.
        KeyboardInterrupt: Ctrl-C, or the process was asked to end.
    """
    with tempfile.TemporaryDirectory(prefix="clmm-bench-") as folder:
        name, place = f"bench-{os.getpid()}", Path(folder)
        app = find_app(None)
        if setting.way == "stock":  # a copy, in which the run may keep its logs
            app = Path(shutil.copytree(STOCK_APP, place / "app"))
        try:
            with asked_to_end_is_ctrl_c():
                return _watched(setting, app, place, name)
        finally:
            shutil.rmtree(app / HOME_NAME / name, ignore_errors=True)


def _watched(setting: Setting, app: Path, place: Path, name: str) -> Turn:
    results, output = place / "results", place / "output"
    command = [str(Path(sys.executable).with_name("clmm")), "run", "--app", str(app), "--results", str(results), "--name", name]
    since_s = time.time()
    with output.open("wb") as file:
        process = subprocess.Popen([*command, *setting.arguments()], stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
    try:
        seen = _until_done(process, results / f"{name}{PARTIAL_SUFFIX}", setting.rounds)
    finally:
        _end(process)
    if seen.end is None or seen.begin is None:
        last = "\n".join(f"  {line}" for line in output.read_text(errors="replace").splitlines()[-NUM_LINES:])
        raise TurnError(f"{setting}: the run ended after {len(seen.training)} of {setting.rounds} rounds. It said:\n{last}")
    _check_all_trained(setting, seen.training)
    return Turn(
        setting=setting,
        first_step_s=seen.first_step_at_s - since_s,
        prepared_s=sum(record.round_s for record in seen.before),
        round_s=tuple(record.round_s for record in seen.training),
        watched_s=seen.end_s - seen.begin_s,
        cpu_s={kind: seen.end.cpu_s[kind] - seen.begin.cpu_s[kind] for kind in seen.end.cpu_s},
        peak_bytes=seen.end.peak_bytes,
        info=seen.info,
    )


@dataclass
class _Seen:
    """What was seen of a run until now. Times are of the wall clock, in seconds."""

    before: Sequence[RoundRecord] = ()
    """Its steps before the first round of training."""
    training: Sequence[RoundRecord] = ()
    info: RunInfo | None = None
    first_step_at_s: float = 0.0
    begin: Usage | None = None
    """When the first round of training began."""
    begin_s: float = 0.0
    end: Usage | None = None
    """When the last one had ended."""
    end_s: float = 0.0


def _until_done(process: subprocess.Popen[bytes], partial: Path, rounds: int) -> _Seen:
    """Look at a run until it has done its rounds, or ended."""
    watch, seen = Watch(process.pid), _Seen()
    while True:
        has_ended = process.poll() is not None
        usage, now_s, records = watch.look(), time.time(), read_progress(partial).rounds
        seen.training = [record for record in records if record.stage == "pretrain"][:rounds]
        if seen.begin is None and any(record.stage == "normalise" for record in records):
            seen.before = [record for record in records if record.stage != "pretrain"]
            seen.begin, seen.begin_s, seen.info = usage, now_s, _info(partial)
            seen.first_step_at_s = _written_at_s(partial, now_s) - sum(record.round_s for record in seen.training)
        if len(seen.training) == rounds:
            seen.end, seen.end_s = usage, now_s
        if has_ended or seen.end is not None:
            return seen
        time.sleep(LOOK_INTERVAL_S)


def _written_at_s(partial: Path, otherwise_s: float) -> float:
    """Return when the last step was written down."""
    try:
        return (partial / ROUNDS).stat().st_mtime
    except OSError:  # the run is over, and its folder has another name
        return otherwise_s


def _info(partial: Path) -> RunInfo | None:
    try:
        return read_json(partial / INFO, RunInfo)
    except (DataError, OSError):  # the stock way writes none
        return None


def _check_all_trained(setting: Setting, training: Sequence[RoundRecord]) -> None:
    for record in training:
        if record.num_devices != setting.num_devices:
            why = "; ".join(record.left_out) or "the run does not say why"
            raise TurnError(
                f"{setting}: expected {setting.num_devices} devices in round {record.server_round}, found {record.num_devices}: {why}"
            )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask `clmm run` to end, which takes down all it started."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
