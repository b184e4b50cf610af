import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from client.devices import WINDOWS_FOLDER
from simulation import local_superlink as module
from simulation.local_superlink import FlowerRunError, LocalSuperLink, end_group, flower_environment, free_port, local_superlink


def start(code: str) -> subprocess.Popen[bytes]:
    """Start a Python that leads a group, and wait until its code runs."""
    process = subprocess.Popen([sys.executable, "-c", f"{code}"], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == b"up"
    process.stdout.close()
    return process


WAIT = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAIT}"


def is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_free_port_is_free():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))


def test_the_environment_is_safe_and_our_programs_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLWR_HOME", "/of/somebody/else")
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("KEPT", "1")
    environment = flower_environment(tmp_path / "home", tmp_path / "ray")
    assert environment["FLWR_HOME"] == str(tmp_path / "home")
    assert environment["RAY_ADDRESS"] == "local"
    assert environment["PATH"].split(os.pathsep)[:2] == [str(tmp_path / "home" / "bin"), str(Path(sys.executable).parent)]
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["KEPT"] == "1"
    assert Path(environment[WINDOWS_FOLDER]).parent == tmp_path / "ray", "so that it goes with it, also when we are killed"
    assert {environment[name] for name in ("FLWR_TELEMETRY_ENABLED", "RAY_USAGE_STATS_ENABLED")} == {"0"}
    assert {environment[name] for name in ("FLWR_DISABLE_UPDATE_CHECK", "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION")} == {"1"}


def test_a_cluster_is_joined_only_if_asked_for(tmp_path: Path):
    assert flower_environment(tmp_path, tmp_path, "10.0.0.1:6379")["RAY_ADDRESS"] == "10.0.0.1:6379"


@pytest.mark.parametrize("code", [WAIT, STUBBORN])
def test_a_group_ends_even_if_it_does_not_want_to(code: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "STOP_TIMEOUT_S", 0.3)
    process = start(code)
    end_group(process)
    assert process.returncode in (-signal.SIGTERM, -signal.SIGKILL)
    assert not is_alive(process.pid)
    end_group(process)  # ended already: nothing to do


def test_what_a_dead_leader_left_behind_ends_too():
    leader = start(f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {WAIT!r}])")
    leader.wait()
    assert is_alive(leader.pid)
    end_group(leader)
    assert not is_alive(leader.pid)


def test_the_watchdog_ends_the_processes_when_we_are_killed(tmp_path: Path):
    process = start(WAIT)
    (tmp_path / "ray").mkdir()
    watchdog = module._start_watchdog([process], tmp_path / "ray")
    assert watchdog.stdin is not None
    watchdog.stdin.close()  # what the system does when we die
    assert process.wait(timeout=10) == -signal.SIGTERM
    watchdog.wait(timeout=20)
    assert not (tmp_path / "ray").exists()


def test_a_process_that_ended_is_noticed(tmp_path: Path):
    ended, living = start("print('up')"), start(WAIT)
    ended.wait()
    link = LocalSuperLink(home=tmp_path, environment={}, superlink=living, superexec=ended)
    with pytest.raises(FlowerRunError, match="flower-superexec ended with code 0"):
        link.check()
    end_group(living)


def test_a_superlink_that_does_not_come_up_is_told_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_commands", lambda _port: (("flower-superlink", ("--no-such-option",)),) * 2)
    began = time.monotonic()
    with (
        pytest.raises(FlowerRunError, match=r"flower-superlink ended with code .*Its log: .*superlink\.log"),
        local_superlink(tmp_path / "h"),
    ):
        pass
    assert time.monotonic() - began < 30
    assert [path.name for path in (tmp_path / "h").iterdir()] == ["superlink.log"]


def test_a_missing_program_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(FlowerRunError, match=r"clmm\[simulation\]"), local_superlink(tmp_path / "h"):
        pass
