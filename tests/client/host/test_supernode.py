"""A SuperNode's supervision, with a program of the test in its place."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from client.host.supernode import RESTART_S, START, Supernode
from clmm_core.errors import ConfigError

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Write a program that notes its number and the socket it was told of, starts another, and waits."""
    folder = tmp_path / "hosts" / "kitchen"
    folder.mkdir(parents=True)
    start = folder / START
    start.write_text(f'#!/bin/sh\necho "$$ $CLMM_HOST_SOCKET" >> {tmp_path}/started\nsleep 600 &\necho $! >> {tmp_path}/children\nwait\n')
    start.chmod(0o755)
    return folder


async def until_started(tmp_path: Path, times: int) -> list[int]:
    for _ in range(400):
        children = (tmp_path / "children").read_text().split() if (tmp_path / "children").exists() else []
        if len(children) >= times:
            return [int(line.split()[0]) for line in (tmp_path / "started").read_text().splitlines()]
        await asyncio.sleep(0.02)
    raise AssertionError("waited for 8 s")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(*pids: int) -> bool:
    for _ in range(200):
        if not any(map(is_alive, pids)):
            return True
        time.sleep(0.02)
    return False


def test_it_is_started_again_after_a_pause_and_ended_with_all_it_started(program: Path, tmp_path: Path):
    pauses = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async def run() -> list[int]:
        supernode = Supernode(program, Path("/run/host.sock"), tmp_path / "log", pause)
        running = asyncio.create_task(supernode.run())
        (first,) = await until_started(tmp_path, 1)
        assert supernode.is_running
        os.kill(first, 9)
        pids = await until_started(tmp_path, 2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not supernode.is_running
        return pids

    pids = asyncio.run(run())
    assert pauses == [RESTART_S]
    assert gone(*pids, *map(int, (tmp_path / "children").read_text().split()))
    assert {line.split()[1] for line in (tmp_path / "started").read_text().splitlines()} == {"/run/host.sock"}


def test_it_ends_when_its_daemon_is_killed(program: Path, tmp_path: Path):
    code = (
        "import asyncio, sys; from pathlib import Path; from client.host.supernode import Supernode;"
        "asyncio.run(Supernode(Path(sys.argv[1]), Path('/run/host.sock'), Path(sys.argv[2]) / 'log').run())"
    )
    daemon = subprocess.Popen([sys.executable, "-c", code, str(program), str(tmp_path)], cwd=PROJECT)
    (pid,) = asyncio.run(until_started(tmp_path, 1))
    assert is_alive(pid)
    daemon.kill()
    daemon.wait(10)
    assert gone(pid), "or a second SuperNode with the same key would be refused"


def test_it_is_tried_again_where_it_could_not_be_started(program: Path, tmp_path: Path):
    log = tmp_path / "log"
    log.mkdir()  # no file can be opened there

    async def pause(_: float) -> None:
        log.rmdir()

    async def run() -> None:
        supernode = Supernode(program, Path("/run/host.sock"), log, pause)
        running = asyncio.create_task(supernode.run())
        await until_started(tmp_path, 1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(run())


def test_a_folder_without_the_program_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="expected a host's folder of `clmm provision`"):
        Supernode(tmp_path, Path("s"), tmp_path / "log")
