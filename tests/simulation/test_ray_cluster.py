"""A run that joins a Ray cluster of two nodes, which are real processes on the loopback interface."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from clmm_core.errors import ConfigError
from clmm_core.report.run_folder import read_run
from simulation.flwr_run import FlowerRun, check_cluster, new_home, run_flower
from simulation.local_superlink import HOST, end_group, free_port
from simulation.overrides import Value, read_app_config
from simulation.scenario import overrides_of, read_scenario

PROJECT = Path(__file__).parents[2]
TAG = "CLMM_TEST_NODE"
"""In the environment of a node's processes, which Ray's workers inherit: which node they are of."""


def processes_of(node: str) -> list[str]:
    """Return the command lines of a node's processes, workers included."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{TAG}={node}\0".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.fixture
def start_node(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Start a Ray node of one CPU, as `ray start` does on each machine of a cluster, and wait until it says it is up."""
    nodes = []
    with ExitStack() as at_end:
        # A short path: the name of a unix socket in it must stay below 108 characters.
        ray_folder = at_end.enter_context(tempfile.TemporaryDirectory(prefix="clmm-", dir="/tmp", ignore_cleanup_errors=True))

        def start(node: str, *arguments: str) -> None:
            agents = ("--dashboard-agent-listen-port", "--dashboard-agent-grpc-port", "--runtime-env-agent-port", "--metrics-export-port")
            ports = [f"{option}={free_port()}" for option in agents]
            command = [str(Path(sys.executable).with_name("ray")), "start", *arguments, *ports, "--block", "--num-cpus=1"]
            command += [f"--node-ip-address={HOST}", "--object-store-memory=100000000", "--disable-usage-stats"]
            environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {TAG: f"{node}-{os.getpid()}"}
            environment["RAY_TMPDIR"] = ray_folder
            nodes.append(environment[TAG])
            process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True)
            at_end.callback(end_group, process)
            assert process.stdout is not None
            at_end.enter_context(process.stdout)
            said = []
            for line in process.stdout:
                said.append(line)
                if "Ray runtime started" in line:
                    return
            raise AssertionError("".join(said))

        yield start
    assert [line for node in nodes for line in processes_of(node)] == []


def test_a_cluster_that_is_not_there_is_named_before_anything_starts():
    check_cluster("")
    with pytest.raises(ConfigError, match=r"expected a Ray head at 127\.0\.0\.1:\d+, found none"):
        check_cluster(f"{HOST}:{free_port()}")


@pytest.mark.flower
def test_a_scenario_runs_on_both_nodes_of_a_cluster_and_leaves_it_as_it_was(start_node: Callable[..., None], tmp_path: Path):
    port, nodes = free_port(), [f"{name}-{os.getpid()}" for name in ("head", "second")]
    start_node("head", "--head", f"--port={port}", f"--ray-client-server-port={free_port()}", "--include-dashboard=false")
    start_node("second", f"--address={HOST}:{port}")
    settings: dict[str, Value] = {
        "finetune.rounds": 1,
        "pretrain.local-epochs": 3,
        "fleet.windows-per-s": 60.0,
        "personalise.per-class": 0,
        "report.points-per-device": 0,
    }
    overrides = overrides_of(read_scenario(PROJECT / "simulation" / "scenarios" / "small.yaml"), read_app_config(PROJECT), settings)
    run = FlowerRun(
        app=PROJECT, results_dir=tmp_path, name="joined", overrides={**overrides, "min-hosts": 4}, hosts=4, ray_address=f"{HOST}:{port}"
    )
    seen: set[str] = set()

    def look_who_works() -> None:
        seen.update(node for node in nodes if any(line.startswith("ray::ClientAppActor.run") for line in processes_of(node)))

    folder = run_flower(run, new_home(tmp_path, "home"), on_tick=look_who_works)
    record = read_run(folder)
    assert seen == set(nodes)
    assert [step.num_hosts for step in record.rounds if step.stage == "pretrain"] == [4, 4, 4, 4]
    assert sum(step.num_dropped_out + step.num_stragglers for step in record.rounds) > 0
    left = [line for node in nodes for line in processes_of(node)]
    assert any("raylet" in line for line in left), "the cluster stays"
    assert not any("ClientAppActor" in line for line in left), "the run's workers do not"
