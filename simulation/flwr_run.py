"""What `clmm run` does around the official `flwr run`: start it safely, follow it, and say truly how it ended.

`flwr run` exits with 0 even when the run failed, and its status says "completed" even when every client was lost. So a run counts
as done here only when Flower says `finished:completed` **and** the results folder has its final name and its report.
"""

import json
import os
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import numpy as np

from clmm_core.errors import ConfigError
from clmm_core.report.run_folder import PARTIAL_SUFFIX, REPORT, SUBJECTS, check_name
from simulation.local_superlink import OWN_CLUSTER, FlowerRunError, LocalSuperLink, end_group, local_superlink
from simulation.overrides import Value

HOME_NAME = ".flwr-home"
"""In the project, git-ignored: a folder a run, removed when the run succeeded, else only its logs."""
RESULT_FILES = (REPORT, SUBJECTS)
MAX_WORKERS_PER_GPU = 100
FOLLOW_INTERVAL_S = 0.2
STATUS_INTERVAL_S = 5.0
"""Between questions about the status, should the log end before the run."""
CLUSTER_TIMEOUT_S = 10.0
NUM_LOG_LINES = 15
"""Lines of the log shown where our own message is missing."""

_ADDRESS = re.compile(r"[^\s:/]+:[0-9]+")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_OUR_LINE = re.compile(r"^(?:[A-Z]+\s*:\s+)?clmm: (.+)$", re.MULTILINE)
_DETAILS_PREFIX = "Simulation failed with exception: "
_IN_BUNDLE = (".py", ".toml", ".md", ".yaml", ".yml", ".json", ".jsonl", ".gitignore", "LICENSE")
"""How the names of files end that Flower bundles or reads while bundling."""


@dataclass(frozen=True, kw_only=True)
class FlowerRun:
    """One run to do. Checks itself."""

    app: Path
    """The project: the folder of its pyproject.toml."""
    results_dir: Path
    name: str
    overrides: Mapping[str, Value] = field(default_factory=dict)
    """Run-config overrides by dotted key, without `results-dir` and `run-name`."""
    hosts: int = 2
    """Simulated SuperNodes."""
    ray_address: str = ""
    """HOST:PORT of a Ray cluster that this machine is a node of; empty starts one for the run, on this machine."""
    workers_per_gpu: int = 0
    """Workers that share a GPU; 0 keeps GPUs from them."""
    resume: bool = False
    """Whether to go on with the killed run of that name."""

    def __post_init__(self) -> None:
        if self.hosts < 1:
            raise ConfigError(f"hosts: expected at least 1, found {self.hosts}")
        if not 0 <= self.workers_per_gpu <= MAX_WORKERS_PER_GPU:
            raise ConfigError(f"workers per GPU: expected 0 (none) to {MAX_WORKERS_PER_GPU}, found {self.workers_per_gpu}")
        if self.ray_address and not _ADDRESS.fullmatch(self.ray_address):
            raise ConfigError(f"Ray address: expected HOST:PORT, as `ray start --head` says it, found {self.ray_address!r}")
        check_name(self.name)
        for key, option in (("run-name", "--name"), ("results-dir", "--results"), ("resume", "--resume")):
            if key in self.overrides:
                raise ConfigError(f"run config: {key}: expected the option {option}, found a setting: use {option}")
        if not self.resume and (self.final.exists() or self.partial.exists()):
            raise ConfigError(f"{self.final}: a run of that name exists, finished or not. Choose another name, or move the folder away")

    @property
    def final(self) -> Path:
        """The results folder of the finished run."""
        return self.results_dir.absolute() / self.name

    @property
    def partial(self) -> Path:
        """The results folder while the run goes on."""
        return self.final.with_name(f"{self.name}{PARTIAL_SUFFIX}")

    @property
    def run_config(self) -> dict[str, Value]:
        """What is handed to `flwr run --run-config`."""
        own: dict[str, Value] = {"results-dir": str(self.results_dir.absolute()), "run-name": self.name}
        return {**self.overrides, **own, **({"resume": True} if self.resume else {})}

    @property
    def federation_config(self) -> str:
        """What is handed to `flwr run --federation-config`: one Ray worker a host, but no more than there are CPUs.

        In a cluster that is joined, its nodes say how many CPUs there are.
        """
        words = [f"num-supernodes={self.hosts}", "client-resources-num-cpus=1"]
        if self.workers_per_gpu:
            words.append(f"client-resources-num-gpus={gpu_share(self.workers_per_gpu)}")
        if not self.ray_address:
            words.append(f"init-args-num-cpus={min(self.hosts, num_cpus())}")
        return " ".join(words)


def run_flower(run: FlowerRun, home: Path, *, on_tick: Callable[[], None], sleep: Callable[[float], None] = time.sleep) -> Path:
    """Do a run and return its results folder. No process is left behind, however it ends.

    Args:
        run: What to do.
        home: The new folder of this run, from `new_home`.
        on_tick: Called a few times a second while it goes on.
        sleep: Waits, in seconds.

    Raises:
        FlowerRunError: the run did not complete; the message is the ServerApp's, if it raised one of our errors.
        KeyboardInterrupt: Ctrl-C, or the process was asked to end; the run has been stopped by then.
    """
    with asked_to_end_is_ctrl_c(), local_superlink(home, run.ray_address or OWN_CLUSTER) as superlink:
        try:
            _start_and_follow(run, superlink, on_tick=on_tick, sleep=sleep)
        except KeyboardInterrupt:
            with _deaf_to_ctrl_c():
                _stop_run(superlink)
            raise
    missing = [name for name in RESULT_FILES if not (run.final / name).is_file()]
    if missing:
        raise FlowerRunError(
            f"Flower calls the run completed, but {run.final} has no {', '.join(missing)}, so it did not.\nIts log: {home / 'run.log'}"
        )
    shutil.rmtree(home, ignore_errors=True)
    return run.final


def new_home(app: Path, name: str) -> Path:
    """Make and return a folder that no other run has: `.flwr-home/<name>`, or with a number behind."""
    parent = app / HOME_NAME
    parent.mkdir(exist_ok=True)
    number = 1
    while True:
        home = parent / (name if number == 1 else f"{name}-{number}")
        try:
            home.mkdir()
        except FileExistsError:
            number += 1
        else:
            return home


def to_toml(values: Mapping[str, Value]) -> str:
    """Return dotted keys as TOML: free of the quoting rules of a command line."""
    # A JSON string is a TOML string, if it is not cut to ASCII. repr: 1e-05, inf and nan are TOML floats.
    texts = {key: json.dumps(value, ensure_ascii=False) if isinstance(value, bool | str) else repr(value) for key, value in values.items()}
    return "".join(f"{key} = {text}\n" for key, text in texts.items())


def cause_of(log: str, details: str) -> str:
    """Return why a run failed: our own message if the ServerApp logged one, else what Flower says and the end of the log."""
    log = _ANSI.sub("", log)
    ours: list[str] = _OUR_LINE.findall(log)
    if ours:
        return ours[-1].strip()
    last = [line for line in log.splitlines() if line.strip()][-NUM_LOG_LINES:]
    says = details.removeprefix(_DETAILS_PREFIX).strip()
    return "\n".join((f"The run failed: {says or 'Flower gives no reason'}", "The end of its log:", *(f"  {line}" for line in last)))


def check_cluster(address: str) -> None:
    """See that a Ray head answers, where one is to be joined.

    Raises:
        ConfigError: nobody listens there.
    """
    if not address:
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CLUSTER_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"Ray address: expected a Ray head at {address}, found none ({error}): start one with `ray start --head`, and this machine as "
            "a node of it"
        ) from error


def gpu_share(num_workers: int) -> float:
    """Return the share of a GPU a worker asks for so that exactly `num_workers` fit on one.

    Flower passes it on as a 32-bit float and rounds the number of workers down: 0.2, which is a little more there, would give four. Ray
    counts in ten-thousandths.
    """
    steps = 10_000 // num_workers
    while float(np.float32(steps / 10_000)) * num_workers > 1:
        steps -= 1
    return steps / 10_000


def num_cpus() -> int:
    """Return the CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_and_follow(run: FlowerRun, superlink: LocalSuperLink, *, on_tick: Callable[[], None], sleep: Callable[[float], None]) -> None:
    log, overrides = superlink.home / "run.log", superlink.home / "run-config.toml"
    overrides.write_text(to_toml(run.run_config), encoding="utf-8")
    bundle = _stage(run.app, superlink.home / "app")
    process = superlink.start_flwr(
        *("run", str(bundle), "--stream", "--run-config", str(overrides), "--federation-config", run.federation_config), log=log
    )
    try:
        while process.poll() is None:
            on_tick()
            superlink.check()
            sleep(FOLLOW_INTERVAL_S)
    finally:
        end_group(process)
    if process.returncode != 0:
        raise FlowerRunError(f"{cause_of(log.read_text(errors='replace'), 'it did not start')}\nFull log: {log}")
    status, details = _final_status(superlink, on_tick=on_tick, sleep=sleep)
    on_tick()
    if status != "finished:completed":
        cause = cause_of(log.read_text(errors="replace"), details or status)
        raise FlowerRunError(f"{cause}\nFull log: {log}")


def _final_status(superlink: LocalSuperLink, *, on_tick: Callable[[], None], sleep: Callable[[float], None]) -> tuple[str, str]:
    """Return the status and its details once the run is over. The log may have ended before, for it is one long HTTP reply."""
    while True:
        entry = _run_entry(superlink)
        if entry is None:
            raise FlowerRunError(f"Flower knows of no run.\nFull log: {superlink.home / 'run.log'}")
        if entry["status"].startswith("finished"):
            return entry["status"], entry.get("status-details", "")
        for _ in range(round(STATUS_INTERVAL_S / FOLLOW_INTERVAL_S)):
            on_tick()
            superlink.check()
            sleep(FOLLOW_INTERVAL_S)


def _run_entry(superlink: LocalSuperLink) -> dict[str, str] | None:
    """Return what `flwr ls` says about the one run this SuperLink has had, None before it knows of it."""
    listed = superlink.flwr("ls", "--format", "json")
    try:
        runs = json.loads(listed)["runs"]
    except (ValueError, KeyError, TypeError) as error:
        raise FlowerRunError(f"`flwr ls --format json`: expected a list of runs, found {listed!r}") from error
    return runs[0] if runs else None


def _stop_run(superlink: LocalSuperLink) -> None:
    """Ask Flower to stop the run; if it cannot, ending its processes does."""
    with suppress(FlowerRunError):
        entry = _run_entry(superlink)
        if entry is not None and not entry["status"].startswith("finished"):
            superlink.flwr("stop", entry["run-id"], timeout_s=20)


def _stage(app: Path, bundle: Path) -> Path:
    """Copy what Flower may bundle to a folder of the run, and return it.

    `flwr run` walks every file below the app before it looks at .gitignore: 5 s with a virtual environment of 46,000 files.
    """

    def left_out(folder: str, names: list[str]) -> set[str]:
        skipped = {"__pycache__", "node_modules"} | ({"results", "tests"} if Path(folder) == app else set())
        return {name for name in names if name in skipped or not _may_be_bundled(Path(folder, name))}

    return Path(shutil.copytree(app, bundle, ignore=left_out))


def _may_be_bundled(path: Path) -> bool:
    if path.is_symlink():
        return False
    if path.is_dir():
        return not path.name.startswith(".") and not (path / "pyvenv.cfg").exists()
    return path.name.endswith(_IN_BUNDLE)


@contextmanager
def asked_to_end_is_ctrl_c() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP (a closed terminal) like Ctrl-C, so that they clean up too."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _signals({signal.SIGTERM: interrupt, signal.SIGHUP: interrupt}):
        yield


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    with _signals(dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), signal.SIG_IGN)):
        yield


@contextmanager
def _signals(handlers: Mapping[signal.Signals, Callable[[int, FrameType | None], None] | signal.Handlers]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
