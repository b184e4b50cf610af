"""A real federation on loopback, that tests break."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from deploy.federation_folder import FederationFolder
from simulation.bench.loopback_federation import BIN, LIMIT_S, LoopbackFederation, bundle, wait_for
from simulation.local_superlink import free_port
from simulation.overrides import Value

__all__ = ["BIN", "HOSTS", "LEAVER", "LIMIT_S", "Deployment", "wait_for"]
HOSTS = ("ward-1", "ward-2", "ward-3")
LEAVER = "ward-4"
"""A host that is registered and then revoked."""
RUN: dict[str, Value] = {
    **{"data.name": "folder", "data.path": "on the hosts", "data.window-s": 1.28, "data.overlap": 0.0},
    **{"split.num-test": 1, "split.num-validation": 0, "labels.num-devices": 1, "pretrain.rounds": 3, "pretrain.views": 3},
    **{"finetune.rounds": 0, "personalise.per-class": 0, "report.points-per-device": 0, "min-hosts": 3, "round-timeout-s": LIMIT_S},
}


class Deployment(LoopbackFederation):
    """With the settings of these tests' runs."""

    def start_run(self, app: Path, name: str, *, resume: bool = False, **overrides: Value) -> str:
        """Hand a run over, or one that ended again, and return Flower's id of it."""
        return self.hand_over(app, name, {**RUN, "resume": resume, **overrides})


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
    """Return what Flower bundles."""
    return bundle(tmp_path_factory.mktemp("app"))


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
