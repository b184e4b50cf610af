"""A real federation on loopback: `clmm provision` makes it, its own start programs run it, and tests break it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.connection import check_connection
from deploy.federation_folder import FederationFolder
from deploy.registration import node_ids
from simulation.flwr_run import to_toml
from simulation.local_superlink import free_port
from simulation.overrides import Value

PROJECT = Path(__file__).parents[2]
HOSTS = ("ward-1", "ward-2", "ward-3")
LEAVER = "ward-4"
"""A host that is registered and then revoked."""
BIN = Path(sys.executable).parent
LIMIT_S = 600.0
"""Nothing is waited for longer; all of it takes seconds on a machine with nothing else to do."""
RUN: dict[str, Value] = {
    **{"data.name": "folder", "data.path": "on the hosts", "data.window-s": 1.28, "data.overlap": 0.0},
    **{"split.num-test": 1, "split.num-validation": 0, "labels.num-devices": 1, "pretrain.rounds": 3, "pretrain.views": 3},
    **{"finetune.rounds": 0, "personalise.per-class": 0, "report.points-per-device": 0, "min-hosts": 3, "round-timeout-s": LIMIT_S},
}


@dataclass
class Deployment:
    """The processes of a federation on this machine, as its operators start them."""

    folder: FederationFolder
    port: int
    results: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def clmm(self, *words: object) -> str:
        """Do a command and return what it says."""
        command = [str(BIN / "clmm"), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=self.environment())
        assert done.returncode == 0, done.stderr
        return done.stdout

    def flwr(self, *words: str) -> dict[str, Any]:
        """Return what Flower's command line answers, in the SuperLink's own FLWR_HOME."""
        command = [str(BIN / "flwr"), *words, "--format", "json"]
        environment = self.environment(FLWR_HOME=str(self.folder.server / "flwr"))
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=environment)
        answer: dict[str, Any] = json.loads(done.stdout)
        assert answer["success"], answer
        return answer

    def start(self, program: Path, name: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a program that `clmm provision` wrote; its log goes on in `log(name)`."""
        return self.start_command([str(program)], name, **environment)

    def start_command(self, command: list[str], name: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start any command; it is known by `name`."""
        with self.log(name).open("ab") as output:
            process = subprocess.Popen(
                command, env=self.environment(**environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self.processes[name] = process
        return process

    def start_superlink(self) -> None:
        """Start the SuperLink and wait until it answers as a host would ask it."""
        self.start(self.folder.server / "start-superlink", "superlink")
        address, authority = f"127.0.0.1:{self.port}", self.folder.server / "ca.crt"
        wait_for(lambda: check_connection(address, authority) == [], "the SuperLink answers")

    def start_superexec(self) -> None:
        """Start what runs a run's ServerApp."""
        self.start(self.folder.server / "start-superexec", "superexec")

    def start_supernode(self, name: str) -> subprocess.Popen[bytes]:
        """Start a host; its log begins anew."""
        self.log(name).unlink(missing_ok=True)
        return self.start(self.folder.host(name) / "start-supernode", name, SUPERNODE_PORT=str(free_port()))

    def supervise(self, *names: str) -> None:
        """Keep hosts started, as systemd would, until all have joined under the numbers that their keys have."""

        def have_joined() -> bool:
            for name in names:
                if name not in self.processes or self.processes[name].poll() is not None:
                    self.start_supernode(name)
            return all(f"SuperNode ID: {self.node_id(name)}" in self.log_text(name) for name in names)

        wait_for(have_joined, "all hosts have joined", every_s=2.0)

    def node_id(self, name: str) -> str:
        """Return the number that Flower knows a host by."""
        host = self.folder.read().host(name)
        assert host is not None
        return node_ids(self.folder.server)[host.fingerprint]

    def stop(self, *names: str, number: signal.Signals) -> None:
        """Send a signal to processes and wait until they are gone."""
        for name in names:
            with suppress(ProcessLookupError):
                os.kill(self.processes[name].pid, number)
        for name in names:
            self.processes.pop(name).wait(timeout=LIMIT_S)

    def power_cut(self) -> None:
        """Kill all that runs in the folder, whoever started it."""
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes.values():
            process.wait(timeout=LIMIT_S)
        self.processes.clear()
        wait_for(lambda: not self._pids(), "all processes are gone")

    def _pids(self) -> list[int]:
        """Return the processes whose FLWR_HOME is in the folder: every program sets it for all it starts."""
        found = []
        mark = f"FLWR_HOME={self.folder.root}/".encode()
        for process in Path("/proc").iterdir():
            with suppress(OSError):
                if process.name.isdigit() and mark in (process / "environ").read_bytes():
                    found.append(int(process.name))
        return found

    def log(self, name: str) -> Path:
        """Return the file of a process's output."""
        return self.results.parent / f"{name}.log"

    def log_text(self, name: str) -> str:
        """Return what a process has said."""
        return self.log(name).read_text(errors="replace")

    def start_run(self, app: Path, name: str, *, resume: bool = False, **overrides: Value) -> str:
        """Hand a run over, or one that ended again, and return Flower's id of it."""
        settings = self.results.parent / f"{name}.toml"
        settings.write_text(to_toml({**RUN, "results-dir": str(self.results), "run-name": name, "resume": resume, **overrides}))
        return str(self.flwr("run", str(app), "--run-config", str(settings))["run-id"])

    def status(self, run_id: str) -> str:
        """Return how a run is, or how it ended."""
        return str(self.flwr("ls", "--run-id", run_id)["runs"][0]["status"])

    def flwr_log(self, run_id: str) -> str:
        """Return what a run's ServerApp has logged."""
        command = [str(BIN / "flwr"), "log", run_id, "--show"]
        environment = self.environment(FLWR_HOME=str(self.folder.server / "flwr"))
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=True, env=environment).stdout

    def steps(self, name: str) -> list[dict[str, Any]]:
        """Return the steps that have ended of a run, finished or not."""
        for folder in (self.results / name, self.results / f"{name}.partial"):
            if (folder / "rounds.jsonl").exists():
                return [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
        return []

    @staticmethod
    def environment(**more: str) -> dict[str, str]:
        """Return this process's environment, with our programs on the path and Flower quiet."""
        quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1"}
        return {**os.environ, **quiet, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **more}


def wait_for(is_so: Callable[[], bool], what: str, every_s: float = 0.2) -> None:
    """Wait until something is so. Flower's command line takes a second or more to say so: not `every_s` of 0.2 then."""
    deadline = time.monotonic() + LIMIT_S
    while not is_so():
        assert time.monotonic() < deadline, f"within {LIMIT_S:.0f} s: {what}"
        time.sleep(every_s)


def record(folder: Path, subject: str, seed: int) -> None:
    """Write 8 s of each of two made-up activities in our folder format."""
    rng = np.random.default_rng(seed)
    for i, label in enumerate(("walk", "sit")):
        session = folder / subject / label
        session.mkdir(parents=True)
        swing = np.sin(2 * np.pi * (1 + i) * np.arange(200) / 25)
        rows = np.stack([swing, 0 * swing, 9.8 + 0 * swing], axis=1) + rng.normal(0, 0.1, (200, 3))
        np.savetxt(session / "accelerometer.csv", rows, "%.3f", ",", header="x,y,z", comments="")
        (session / "recording.yaml").write_text(
            "streams:\n  accelerometer: {file: accelerometer.csv, unit: m/s^2, columns: [x, y, z], rate_hz: 25}\n"
            f"intervals:\n  - {{label: {label}, start_s: 0.0, end_s: 8.0}}\n"
        )


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what Flower bundles: `flwr run` would look at every file of a checkout first."""
    folder = tmp_path_factory.mktemp("app")
    for name in ("clmm_core", "client", "server"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(PROJECT / name, folder)
    return folder


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Provision a federation and start its SuperLink, with four hosts registered and none started."""
    root, port = tmp_path_factory.mktemp("deployment"), free_port()
    here = Deployment(FederationFolder(root / "ward"), port, root / "results")
    here.clmm("provision", "create", here.folder.root, "--address", f"127.0.0.1:{port}", "--listen", "127.0.0.1", *HOSTS, LEAVER)
    for i, name in enumerate((*HOSTS, LEAVER)):
        for j in range(2):  # one of all is only tested: every host has somebody to train
            record(here.folder.host(name) / "recordings", f"person-{i}{j}", 2 * i + j)
    try:
        here.start_superlink()
        here.start_superexec()
        here.clmm("provision", "register", here.folder.root)
        yield here
    finally:
        here.power_cut()
