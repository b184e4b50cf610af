"""A real federation on this machine's loopback: `clmm provision` makes it, its own start programs run it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clmm_core.errors import ClmmError
from deploy.connection import check_connection
from deploy.federation_folder import FederationFolder
from deploy.registration import node_ids
from simulation.flwr_run import to_toml
from simulation.local_superlink import free_port
from simulation.overrides import Value

PROJECT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
LIMIT_S = 600.0
"""Nothing is waited for longer; all of it takes seconds on a machine with nothing else to do."""


@dataclass
class LoopbackFederation:
    """The processes of a federation on this machine, as its operators start them."""

    folder: FederationFolder
    port: int
    results: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def clmm(self, *words: object) -> str:
        """Do a command and return what it says.

        Raises:
            ClmmError: it failed.
        """
        command = [str(BIN / "clmm"), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=self.environment())
        if done.returncode:
            raise ClmmError(f"{' '.join(command[:4])}: {done.stderr}")
        return done.stdout

    def flwr(self, *words: str) -> dict[str, Any]:
        """Return what Flower's command line answers, in the SuperLink's own FLWR_HOME.

        Raises:
            ClmmError: it failed.
        """
        command = [str(BIN / "flwr"), *words, "--format", "json"]
        environment = self.environment(FLWR_HOME=str(self.folder.server / "flwr"))
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=environment)
        answer: dict[str, Any] = json.loads(done.stdout)
        if not answer["success"]:
            raise ClmmError(f"flwr {' '.join(words)}: {answer}")
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
            with suppress(ProcessLookupError):
                process.kill()
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

    def hand_over(self, app: Path, name: str, settings: Mapping[str, Value]) -> str:
        """Start a run and return Flower's id of it.

        Args:
            app: from `bundle`.
            name: of the run.
            settings: its run config, by dotted key.
        """
        file = self.results.parent / f"{name}.toml"
        file.write_text(to_toml({**settings, "results-dir": str(self.results), "run-name": name}))
        return str(self.flwr("run", str(app), "--run-config", str(file))["run-id"])

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
    """Wait until something is so. Flower's command line takes a second or more to say so: not `every_s` of 0.2 then.

    Raises:
        ClmmError: it was not within `LIMIT_S`.
    """
    deadline = time.monotonic() + LIMIT_S
    while not is_so():
        if time.monotonic() > deadline:
            raise ClmmError(f"expected within {LIMIT_S:.0f} s: {what}")
        time.sleep(every_s)


def bundle(folder: Path) -> Path:
    """Copy what Flower bundles into a folder and return it: `flwr run` would look at every file of a checkout first."""
    for name in ("clmm_core", "client", "server"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(PROJECT / name, folder)
    return folder
