import os
import subprocess
import sys
import time

import pytest

from simulation.bench.processes import Watch, kind_of

HOLDS_AND_WORKS = """
import sys, time
held = bytearray(80_000_000)
held[::4096] = b"x" * len(held[::4096])
end = time.process_time() + 0.5
while time.process_time() < end: pass
print("done", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("command_line", "kind"),
    [
        ("/venv/bin/python -P -m simulation.flwr_simulation --run-id 1", "server"),
        ("/venv/bin/python /venv/bin/flwr-simulation --run-id 1", "server"),
        ("/venv/bin/python -P -m server.apart", "apart"),
        ("ray::ClientAppActor.run", "worker"),
        ("ray::IDLE", "worker"),
        ("/venv/lib/ray/core/src/ray/gcs/gcs_server --log_dir=/tmp/x", "ray"),
        ("/venv/bin/python -u /venv/lib/ray/dashboard/agent.py", "ray"),
        ("/venv/bin/python /venv/bin/flower-superlink --insecure", "flower"),
        ("/venv/bin/python /venv/bin/flwr run app", "flower"),
        ("/venv/bin/python /venv/bin/clmm run --name bench-1", "command"),
        ("", "command"),
    ],
)
def test_a_process_is_told_by_its_command_line(command_line: str, kind: str):
    assert kind_of(command_line) == kind


def test_a_watch_adds_up_a_process_and_what_is_below_it_and_remembers_those_that_ended():
    command = [sys.executable, "-c", HOLDS_AND_WORKS, "ray::"]  # its command line does not begin with it: it is no worker
    below = f"import subprocess, sys; subprocess.run({command!r}, check=True)"
    with subprocess.Popen([sys.executable, "-c", below], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        watch = Watch(process.pid)
        process.stdout.readline()
        usage = watch.look()
        process.stdin.close()
        process.wait()
    assert usage.peak_bytes["command"] > 80_000_000
    assert 0.4 < usage.cpu_s["command"] < 5
    assert usage.cpu_s["worker"] == usage.peak_bytes["worker"] == 0
    assert watch.look() == usage


def test_a_watch_of_this_process_sees_its_own_time():
    watch = Watch(os.getpid())
    before = watch.look().cpu_s
    end_s = time.process_time() + 0.2
    while time.process_time() < end_s:
        pass
    after = watch.look().cpu_s
    assert sum(after.values()) - sum(before.values()) >= 0.1
