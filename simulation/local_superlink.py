"""A private Flower SuperLink for one run: in its own folder, on its own port, and taken down with everything below it.

    clmm ─┬─ flower-superlink          the run's state, in memory
          ├─ flwr run                  hands the app over, then follows its log
          └─ flower-superexec          leads the process group of all that follows
               └─ flwr-simulation      the ServerApp and the Ray driver (`simulation.flwr_simulation`: Flower's, with a pool that survives)
                    └─ Ray             gcs_server, raylet, a worker (ClientApp) a CPU; with `ray_address` a cluster's workers instead

`flwr run` would start a SuperLink of its own, detached, on a fixed port and in the user's directory, and leave it running.
Starting it here instead tells us its process, lets it and SuperExec load at the same time (2 s less), keeps two runs apart,
and lets us choose the working directory. That matters: Ray puts the driver's working directory ahead of the app on a worker's
`sys.path`, so a `client` package lying there would run in place of the app's. The folder used here is empty.
"""

import http.client
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from client.devices import WINDOWS_FOLDER
from clmm_core.errors import ClmmError

HOST = "127.0.0.1"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
"""A process that was asked to end and still lives after this is killed."""
OWN_CLUSTER = "local"
"""As Ray's address: start a cluster for this run on this machine."""
LOGS = ("run.log", "superlink.log", "superexec.log", "ray-logs")
"""What stays in the folder of a run that did not complete."""


class FlowerRunError(ClmmError):
    """A run did not complete; the operator reads its log."""


@dataclass(frozen=True, kw_only=True)
class LocalSuperLink:
    """A SuperLink and a SuperExec that this process started, and how to call `flwr` with them."""

    home: Path
    """FLWR_HOME of this run; holds the logs."""
    environment: dict[str, str]
    superlink: subprocess.Popen[bytes]
    superexec: subprocess.Popen[bytes]

    def start_flwr(self, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
        """Start the official command line, its output going to `log`."""
        return _start(["flwr", *arguments], environment=self.environment, home=self.home, log=log)

    def flwr(self, *arguments: str, timeout_s: float = 60.0) -> str:
        """Return the standard output of the official command line.

        Raises:
            FlowerRunError: it failed or did not answer in time.
        """
        command = [_program("flwr"), *arguments]
        try:
            done = subprocess.run(
                command, env=self.environment, cwd=_neutral(self.home), capture_output=True, text=True, timeout=timeout_s, check=True
            )
        except (subprocess.SubprocessError, OSError) as error:
            raise FlowerRunError(f"`flwr {' '.join(arguments)}` failed: {getattr(error, 'stderr', None) or error}") from error
        return done.stdout

    def check(self) -> None:
        """Make sure that both processes live.

        Raises:
            FlowerRunError: one ended.
        """
        for name, process in (("flower-superlink", self.superlink), ("flower-superexec", self.superexec)):
            if process.poll() is not None:
                raise FlowerRunError(f"{name} ended with code {process.returncode} while the run went on")


@contextmanager
def local_superlink(home: Path, ray_address: str = OWN_CLUSTER) -> Iterator[LocalSuperLink]:
    """Keep a SuperLink for one run; at the end no process and no temporary file of it is left.

    Args:
        home: A new folder; afterwards it holds only the logs.
        ray_address: HOST:PORT of the Ray cluster to join, which stays; else one is started and taken down.

    Raises:
        FlowerRunError: it does not start.
    """
    _neutral(home).mkdir(parents=True)
    # A short path: the name of a unix socket in it must stay below 108 characters. A folder a run, so it can be removed after.
    ray_folder = Path(tempfile.mkdtemp(prefix="clmm-", dir="/tmp" if os.path.isdir("/tmp") else None))
    port = free_port()
    (home / "config.toml").write_text(f'[superlink]\ndefault = "run"\n\n[superlink.run]\naddress = "{HOST}:{port}"\ninsecure = true\n')
    environment = flower_environment(home, ray_folder, ray_address)
    _write_programs(home)
    started: list[subprocess.Popen[bytes]] = []
    watchdogs: list[subprocess.Popen[bytes]] = []
    try:
        for name, arguments in _commands(port):
            log = home / f"{name.removeprefix('flower-')}.log"
            started.append(_start([name, *arguments], environment=environment, home=home, log=log))
        superlink, superexec = started
        watchdogs.append(_start_watchdog(started, ray_folder))
        _wait_until_healthy(superlink, port, home / "superlink.log")
        yield LocalSuperLink(home=home, environment=environment, superlink=superlink, superexec=superexec)
    finally:
        for process in reversed(started):
            end_group(process)
        for watchdog in watchdogs:
            _end_watchdog(watchdog)
        _keep_logs_only(home, ray_folder)


def flower_environment(home: Path, ray_folder: Path, ray_address: str = OWN_CLUSTER) -> dict[str, str]:
    """Return this process's environment with what makes a Flower run quiet, offline and apart from others."""
    return {
        **os.environ,
        # Flower's processes call one another by name: take our own, then those of this interpreter.
        "PATH": os.pathsep.join((str(_programs(home)), str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        # Else every run installs the app's dependencies anew.
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        # Seconds; default 1. SuperExec asks on while the run goes on: at 0.05 that took a tenth of a core, SuperLink's answers included.
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.25",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Said even if it is our own: never join another user's cluster on this machine. `flwr run` has no option for it.
        "RAY_ADDRESS": ray_address,
        "RAY_TMPDIR": str(ray_folder),
        "OMP_NUM_THREADS": "1",
        # The windows are cut once and lie where all workers map them; the folder goes with Ray's.
        WINDOWS_FOLDER: str(ray_folder / "windows"),
    }


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a group, and the whole group: ask first, then kill. It may have ended, and left others behind."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        if _wait_for(lambda: process.poll() is not None and not _group_lives(process.pid), STOP_TIMEOUT_S):
            return


def _commands(port: int) -> tuple[tuple[str, tuple[str, ...]], ...]:
    address = f"{HOST}:{port}"
    # SuperExec ends when the process of this number does, and then so does all below it.
    parent = ("--parent-pid", str(os.getpid()))
    return (
        ("flower-superlink", ("--insecure", "--simulation", "--isolation", "process", "--host", HOST, "--port", str(port))),
        ("flower-superexec", ("--insecure", "--runtime-api-address", address, *parent)),
    )


def _program(name: str) -> str:
    """Return the path of the program beside this interpreter."""
    path = Path(sys.executable).parent / name
    if not path.is_file():
        raise FlowerRunError(f"{name} is not beside {sys.executable}: install the project with its simulation part, `clmm[simulation]`")
    return str(path)


def _neutral(home: Path) -> Path:
    """Return the empty folder in which Flower and Ray run."""
    return home / "empty"


def _programs(home: Path) -> Path:
    """Return the folder of the programs that stand in for Flower's of the same name."""
    return home / "bin"


def _write_programs(home: Path) -> None:
    _programs(home).mkdir()
    program = _programs(home) / "flwr-simulation"
    # -P: the working directory stays off the path, as it is for Flower's own program.
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m simulation.flwr_simulation "$@"\n', encoding="utf-8")
    program.chmod(0o755)


def _start(command: list[str], *, environment: dict[str, str], home: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, so that Ctrl-C reaches only us and the group can be ended as one."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [_program(command[0]), *command[1:]],
            env=environment,
            cwd=_neutral(home),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _start_watchdog(started: list[subprocess.Popen[bytes]], ray_folder: Path) -> subprocess.Popen[bytes]:
    """Start a shell that waits on a pipe only we hold: should we be killed, it reads the end of it and ends the rest.

    SuperExec's own `--parent-pid` is not enough: the simulation it started goes on until its ServerApp returns.
    """
    script = 'read -r _; kill -s TERM -- "$@"; sleep 5; kill -s KILL -- "$@"; rm -rf "$0"'
    groups = (f"-{process.pid}" for process in started)
    return subprocess.Popen(
        ["/bin/sh", "-c", script, str(ray_folder), *groups],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _end_watchdog(watchdog: subprocess.Popen[bytes]) -> None:
    watchdog.kill()
    watchdog.communicate()


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    def is_up() -> bool:
        if process.poll() is not None:
            raise FlowerRunError(f"flower-superlink ended with code {process.returncode} before it was up. Its log: {log}")
        connection = http.client.HTTPConnection(HOST, port, timeout=1)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    if not _wait_for(is_up, START_TIMEOUT_S):
        raise FlowerRunError(f"flower-superlink is not up after {START_TIMEOUT_S:.0f} s. Its log: {log}")


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):  # macOS: EPERM where only zombies are left
        return False
    return True


def _wait_for(is_so: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _keep_logs_only(home: Path, ray_folder: Path) -> None:
    with suppress(OSError):
        for logs in sorted(ray_folder.glob("ray/session_2*/logs")):
            shutil.move(logs, home / "ray-logs")
    shutil.rmtree(ray_folder, ignore_errors=True)
    for path in home.iterdir():
        if path.is_dir() and path.name not in LOGS:
            shutil.rmtree(path, ignore_errors=True)
        elif path.name not in LOGS:
            path.unlink(missing_ok=True)
