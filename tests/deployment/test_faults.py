"""One run over real processes that are killed while hosts train: the SuperLink, then all SuperNodes, then everything.

The SuperLink keeps its state in a file and the run's ServerApp runs beside it, so a run outlives it. A SuperNode's task dies with it, and
the ServerApp with its machine: then `resume` goes on after the last round that ended. Hosts come back under the numbers that their keys
gave them.
"""

import os
import signal
from pathlib import Path

import pytest

from simulation.overrides import Value
from tests.deployment.conftest import HOSTS, Deployment, wait_for

pytestmark = [pytest.mark.flower, pytest.mark.long]
NAME = "ward"
NUM_ROUNDS = 8
"""More than end while hosts are being started on a busy machine."""
ROUND_S = 60.0
"""A round's time in which one host is stopped: four times of what it takes on an idle machine."""
TASK, WHOLE = "Receiving: train.pretrain message", "Received successfully"
"""In a SuperNode's log: a task is announced, and is there."""


def wait_for_training(deployment: Deployment, num_tasks: int) -> None:
    """Wait until every host, since it was started, has been given its `num_tasks`-th round of training."""

    def is_training(name: str) -> bool:
        tasks = deployment.log_text(name).split(TASK)[1:]
        return len(tasks) == num_tasks and WHOLE in tasks[-1]

    wait_for(lambda: all(is_training(name) for name in HOSTS), f"the hosts train, for the {num_tasks}. time since they were started")


def how_it_ended(deployment: Deployment, run_id: str) -> str:
    """Wait until Flower says that a run is over, and return how."""
    wait_for(lambda: deployment.status(run_id).startswith("finished"), "the run ends", every_s=5.0)
    return deployment.status(run_id)


def rounds(deployment: Deployment) -> list[int]:
    """Return the rounds of training that have ended."""
    return [step["server_round"] for step in deployment.steps(NAME) if step["stage"] == "pretrain"]


def test_a_run_gets_over_the_superlink_all_supernodes_and_everything(deployment: Deployment, app: Path):
    settings: dict[str, Value] = {"pretrain.rounds": NUM_ROUNDS}
    deployment.supervise(*HOSTS)
    run_id = deployment.start_run(app, NAME, **settings)
    wait_for_training(deployment, 1)
    deployment.stop("superlink", number=signal.SIGKILL)
    deployment.start_superlink()
    wait_for(lambda: rounds(deployment) != [], "the round in which the SuperLink died ends")

    deployment.stop(*HOSTS, number=signal.SIGTERM)
    num_done = len(rounds(deployment))
    deployment.supervise(*HOSTS)
    wait_for(lambda: len(rounds(deployment)) > num_done, "the round in which all SuperNodes ended is taken again, and ends")
    repeated = [step for step in deployment.steps(NAME) if step["num_repeats"]]
    assert [step["server_round"] for step in repeated] == [num_done + 1]
    assert not deployment.status(run_id).startswith("finished"), "nobody had to start it again"

    deployment.power_cut()
    num_done = len(rounds(deployment))
    assert num_done < NUM_ROUNDS
    deployment.start_superlink()
    deployment.start_superexec()
    deployment.supervise(*HOSTS)
    run_id = deployment.start_run(app, NAME, resume=True, **settings)
    wait_for((deployment.results / NAME).is_dir, "the run has its results")
    assert how_it_ended(deployment, run_id) == "finished:completed"
    steps = deployment.steps(NAME)
    assert [each["stage"] for each in steps] == ["profile", "normalise", *["pretrain"] * NUM_ROUNDS, "quality", "evaluate"]
    assert rounds(deployment) == list(range(1, NUM_ROUNDS + 1))
    assert [each["num_hosts"] for each in steps] == [len(HOSTS)] * len(steps), "no round was without a host"
    assert (deployment.results / NAME / "report.html").is_file()


def test_a_round_closes_at_its_deadline_without_a_host_that_hangs_and_drops_what_it_says_later(deployment: Deployment, app: Path):
    deployment.stop(*[name for name in HOSTS if name in deployment.processes], number=signal.SIGTERM)
    deployment.supervise(*HOSTS)
    run_id = deployment.start_run(app, "late", **{"round-timeout-s": ROUND_S, "pretrain.rounds": 3})
    wait_for_training(deployment, 1)
    hanging = deployment.processes[HOSTS[0]].pid  # leads the group of all that it starts
    os.killpg(hanging, signal.SIGSTOP)
    try:
        wait_for(lambda: any(step["stage"] == "pretrain" for step in deployment.steps("late")), "the round ends")
    finally:
        os.killpg(hanging, signal.SIGCONT)
    (first,) = [step for step in deployment.steps("late") if step["stage"] == "pretrain"][:1]
    assert ROUND_S - 1 < first["round_s"] < ROUND_S + 2
    assert first["num_hosts"] == len(HOSTS) - 1
    assert any(f"did not answer: no answer within {ROUND_S:g} s" in line for line in first["left_out"])
    wait_for((deployment.results / "late").is_dir, "the run has its results")
    assert how_it_ended(deployment, run_id) == "finished:completed"
    assert sum(step["num_late"] for step in deployment.steps("late")) == 1
