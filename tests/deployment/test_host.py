"""Wearers' hosts end to end: sensors through gRPC, both stages of a federation with TLS and keys, a host that is killed and comes back."""

import csv
import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from client.host.models import FOLDER, Models
from simulation.local_superlink import free_port
from tests.deployment.conftest import BIN, HOSTS, Deployment, wait_for

pytestmark = pytest.mark.flower
SUBJECTS = dict(zip(HOSTS, ("1", "2", "3"), strict=True))
"""Wearer of each host: real people of SPAR."""
WITH_LABELS = ("ward-1", "ward-3")
"""The one that is learnt from, and the one that is judged."""
RUN = {
    "data.window-s": 4.0,
    "data.overlap": 0.5,
    "split.test": "3",
    "labels.devices": "1",
    "pretrain.rounds": 3,
    "finetune.rounds": 2,
    "finetune.local-epochs": 1,
}


@dataclass
class Host:
    """A wearer's daemon, as its owner starts it."""

    name: str
    folder: Path
    port: int
    deployment: Deployment
    token: str = ""

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        command = [str(BIN / "clmm"), "host", "run", "--folder", str(self.folder), "--listen", f"127.0.0.1:{self.port}"]
        command += ["--federation", str(self.deployment.folder.host(self.name)), "--train-load", "0", "--train-on-battery"]
        self.deployment.start_command(command, self.name, SUPERNODE_PORT=str(free_port()))
        wait_for(lambda: f"listening on 127.0.0.1:{self.port}" in self.deployment.log_text(self.name), f"{self.name} listens")

    def clmm(self, *words: object) -> str:
        """Do a command of `clmm host` with this host."""
        return self.deployment.clmm("host", *words, "--target", f"127.0.0.1:{self.port}", "--token", self.token)

    def last_answered(self) -> str:
        """Return what the federation asked last."""
        return str(json.loads(self.clmm("status", "--json"))["federation"]["lastAnswered"])


@pytest.fixture(scope="module")
def hosts(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Host]]:
    running = {}
    for name, subject in SUBJECTS.items():
        host = Host(name, tmp_path_factory.mktemp("h") / name, free_port(), deployment)
        host.token = deployment.clmm("host", "token", "add", "owner", "--role", "admin", "--folder", host.folder).strip()
        host.start()
        host.clmm("replay", "spar", "--subject", subject, *([] if name in WITH_LABELS else ["--no-labels"]))
        running[name] = host
    yield running
    deployment.stop(*(name for name in running if name in deployment.processes), number=signal.SIGTERM)


def test_a_federation_of_wearers_hosts_learns_and_one_of_them_dies_and_comes_back(
    deployment: Deployment, hosts: dict[str, Host], app: Path
):
    for name, host in hosts.items():
        wait_for(lambda name=name, host=host: f"SuperNode ID: {deployment.node_id(name)}" in log(host), f"{name} has joined", every_s=2.0)
    run_id = deployment.start_run(app, "wearers", **RUN)
    wait_for(lambda: trained(deployment, 1), "a round of stage one", every_s=1.0)
    deployment.stop("ward-2", number=signal.SIGKILL)
    hosts["ward-2"].start()
    wait_for(lambda: deployment.status(run_id).startswith("finished"), "the run ends", every_s=3.0)
    assert deployment.status(run_id) == "finished:completed", deployment.flwr_log(run_id)
    with (deployment.results / "wearers" / "subjects.csv").open() as file:
        groups = {row["subject"]: row["group"] for row in csv.DictReader(file)}
    assert groups == {"1": "labelled", "3": "unseen"}, "who gave no labels cannot be judged, and trained all the same"
    assert hosts["ward-2"].last_answered(), "the host that died took part again"
    assert hosts["ward-1"].last_answered() == "query.model"
    assert hosts["ward-3"].last_answered() == "query.model"

    log_of_run = deployment.flwr_log(run_id)
    for host in hosts.values():
        assert Models(host.folder / FOLDER).current() is not None, log_of_run
    recognises(hosts["ward-2"], SUBJECTS["ward-2"])


def recognises(host: Host, subject: str) -> None:
    """Watch a host while its wearer moves again."""
    command = [str(BIN / "clmm"), "host", "watch", "--target", f"127.0.0.1:{host.port}", "--token", host.token]
    host.deployment.start_command(command, "watch", PYTHONUNBUFFERED="1")
    wait_for(lambda: "no model" not in host.deployment.log_text("watch"), "the model is there")
    for _ in range(5):  # the first may come before the watcher is there
        host.clmm("replay", "spar", "--subject", subject, "--no-labels")
        if f"  {subject}  " in host.deployment.log_text("watch"):
            break
    assert f"  {subject}  " in host.deployment.log_text("watch")
    host.deployment.stop("watch", number=signal.SIGTERM)


def trained(deployment: Deployment, rounds: int) -> bool:
    return sum(step["stage"] == "pretrain" for step in deployment.steps("wearers")) >= rounds


def log(host: Host) -> str:
    file = host.folder / "supernode.log"
    return file.read_text(errors="replace") if file.exists() else ""
