"""The daemon as a process: what it needs, who reaches it, and that nothing it acknowledged is lost when it is killed."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from client.host.calls import HostCallError
from client.host.daemon import HostConfig
from client.host.sensor import Patience, Sensor
from client.host.tokens import Role, add_token
from clmm_core.errors import ConfigError
from deploy.certificates import new_authority, new_server_certificate

PROJECT = Path(__file__).parents[3]
NS = 1_000_000_000
START_S = 20.0
COMMAND = (sys.executable, "-c", "from simulation.cli import app; app()", "host", "run")


class Daemon:
    """One that runs as a process of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1"}
        command = [*COMMAND, "--folder", str(folder), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        found = re.match(r"listening on .*:(\d+), store in ", said)
        assert found, said + self.process.communicate(timeout=START_S)[1]
        self.port = int(found[1])

    def end(self, number: int) -> tuple[int, str]:
        """Send a signal, and return the exit code and what went to the log."""
        self.process.send_signal(number)
        log = self.process.communicate(timeout=START_S)[1]
        return self.process.returncode, log


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Start daemons; those that still run at the end are killed."""
    started: list[Daemon] = []

    def start(*options: str) -> Daemon:
        started.append(Daemon(tmp_path / "host", *(options or ("--listen", "127.0.0.1:0"))))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.communicate()


def test_it_ends_in_order_when_told_to_and_took_little_memory(daemon):
    running = daemon()
    status = (Path("/proc") / str(running.process.pid) / "status").read_text()
    peak_kb = int(re.search(r"VmHWM:\s+(\d+)", status)[1])
    maps = (Path("/proc") / str(running.process.pid) / "maps").read_text()
    assert peak_kb < 150_000
    assert "/torch/" not in maps
    assert running.end(signal.SIGTERM) == (0, "")


def test_it_loads_no_pytorch_and_no_flower():
    """In a process of its own, because others here have loaded them."""
    heavy = {"torch", "flwr", "ray", "pyarrow", "scipy"}
    code = f"import sys, client.host.daemon, client.host.cli; print(sorted({heavy} & sys.modules.keys()))"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=environment)
    assert found.stdout == "[]\n"


def test_a_second_daemon_of_the_same_folder_is_refused(daemon, tmp_path):
    daemon()
    command = [*COMMAND, "--folder", str(tmp_path / "host"), "--listen", "127.0.0.1:0"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    second = subprocess.run(command, check=False, capture_output=True, text=True, timeout=START_S, env=environment)
    assert second.returncode == 1
    assert "expected no other daemon of this host, found one" in second.stderr


def test_a_port_that_is_taken_is_said(daemon, tmp_path):
    port = daemon().port
    command = [*COMMAND, "--folder", str(tmp_path / "other"), "--listen", f"127.0.0.1:{port}"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    second = subprocess.run(command, check=False, capture_output=True, text=True, timeout=START_S, env=environment)
    assert second.returncode == 1
    assert f"--listen 127.0.0.1:{port}: expected to listen there, cannot" in second.stderr


def test_killed_while_it_takes_samples_it_has_all_that_it_acknowledged(daemon, tmp_path, header_message, kept):
    token = add_token(tmp_path / "host", "watch", Role.SENSOR)

    async def scenario() -> tuple[int, list[int]]:
        running = daemon()
        port = running.port
        patience = Patience(first_wait_s=0.05, longest_wait_s=0.2)
        sensor = Sensor(f"127.0.0.1:{port}", token, header_message(), patience=patience)
        sending = asyncio.create_task(sensor.run())
        given, acknowledged = 0, []
        for _ in range(2):
            before = sensor.acknowledged.get(1, 0)
            while sensor.acknowledged.get(1, 0) < before + 30:
                give(sensor, given)
                given += 1
                await asyncio.sleep(0.002)
            running.end(signal.SIGKILL)
            acknowledged.append(sensor.acknowledged[1])
            running = daemon("--listen", f"127.0.0.1:{port}")
        sensor.finish()
        await sending
        running.end(signal.SIGTERM)
        return given, acknowledged

    given, acknowledged = asyncio.run(asyncio.wait_for(scenario(), 60))
    assert acknowledged[0] < acknowledged[1] < given + 1
    assert [int(each.samples()[0, 0]) for each in kept()] == list(range(given))


def give(sensor: Sensor, number: int) -> None:
    times = 1_700_000_000 * NS + (number * 25 + np.arange(25)) * 20_000_000
    sensor.give(1, times, np.full((25, 3), number, np.float32))


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Return the files of an authority's certificate, and of a certificate for `localhost` with its key."""
    now = datetime.now(UTC)
    authority_key, authority = new_authority("test", now)
    key = load_pem_private_key(authority_key, None)
    own_key, own = new_server_certificate(key, x509.load_pem_x509_certificate(authority), ["localhost", "127.0.0.1"], now)
    files = tuple(tmp_path / name for name in ("ca.crt", "host.crt", "host.key"))
    for file, content in zip(files, (authority, own, own_key), strict=True):
        file.write_bytes(content)
    return files


def test_with_tls_it_answers_those_who_trust_its_authority_and_nobody_in_the_clear(daemon, tmp_path, header_message, certificate, kept):
    authority, own, key = certificate
    running = daemon("--listen", "0.0.0.0:0", "--certificate", str(own), "--key", str(key))
    token = add_token(tmp_path / "host", "watch", Role.SENSOR)
    trusting = Sensor(f"localhost:{running.port}", token, header_message(), authority)
    give(trusting, 0)
    trusting.finish()
    asyncio.run(asyncio.wait_for(trusting.run(), 20))
    once = Patience(first_wait_s=0.01, longest_wait_s=0.01, give_up_s=0.01)
    other = tmp_path / "other.crt"
    other.write_bytes(new_authority("other", datetime.now(UTC))[1])
    for trusted in (None, other):
        with pytest.raises(HostCallError, match="UNAVAILABLE"):
            asyncio.run(asyncio.wait_for(Sensor(f"localhost:{running.port}", token, header_message(), trusted, once).run(), 20))
    running.end(signal.SIGTERM)
    assert len(kept()) == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"listen": "0.0.0.0:50061"}, "--listen 0.0.0.0:50061: expected --certificate and --key"),
        ({"listen": "192.168.1.5:50061"}, "expected --certificate and --key"),
        ({"listen": "[::]:50061"}, "expected --certificate and --key"),
        ({"listen": "hub.local:50061"}, "expected --certificate and --key"),
        ({"listen": "50061"}, "--listen: expected ADDRESS:PORT"),
        ({"listen": "127.0.0.1:x"}, "--listen: expected ADDRESS:PORT"),
        ({"listen": "127.0.0.1:99999"}, "--listen: expected ADDRESS:PORT"),
        ({"certificate": Path("a")}, "expected --certificate and --key together"),
    ],
)
def test_an_address_that_others_reach_needs_tls(tmp_path, changes, expected):
    with pytest.raises(ConfigError, match=re.escape(expected)):
        HostConfig(folder=tmp_path, **changes)


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "localhost:1", "[::1]:1", "127.8.9.1:0"])
def test_on_this_machine_alone_it_may_go_without(tmp_path, listen):
    assert HostConfig(folder=tmp_path, listen=listen).certificate is None
