"""Our app over real Flower and Ray, by the official `flwr run`."""

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from client.devices import WINDOWS_FOLDER
from clmm_core.federated.traffic import WORDS
from clmm_core.report.metrics import num_windows_of
from clmm_core.report.records import RoundRecord
from clmm_core.report.run_folder import WEIGHTS, read_rounds, read_run
from server.results import train_and_write
from server.run_config import Value, parse_run_config
from simulation.flwr_run import FlowerRun, new_home, run_flower
from simulation.in_process import InProcessHosts
from simulation.local_superlink import FlowerRunError

pytestmark = pytest.mark.flower
PROJECT = Path(__file__).parents[1]
OVERRIDES: dict[str, Value] = {
    **{"data.name": "synthetic", "data.num-devices": 6, "data.window-s": 1.28, "data.overlap": 0.0, "pretrain.views": 3},
    **{"pretrain.rounds": 1, "finetune.rounds": 2, "finetune.local-epochs": 1, "personalise.local-epochs": 1, "min-hosts": 2},
    **{"split.num-test": 1, "report.points-per-device": 4, "communication.update-bits": 4},
}


def traffic_of(record: RoundRecord) -> list[tuple[str, dict[str, int], dict[str, int]]]:
    """Return the bytes of arrays by message and part; the loss that replies say may differ in its last digit."""
    return [
        (each.message, *({part: count for part, count in counts.items() if part != WORDS} for counts in (each.down, each.up)))
        for each in record.traffic
    ]


@pytest.fixture
def flower_run(tmp_path: Path) -> Callable[..., Path]:
    """Run this checkout on two simulated SuperNodes; return the results folder."""

    def make(
        on_tick: Callable[[Path], None] = lambda home: None, name: str = "over-flower", *, resume: bool = False, **overrides: Value
    ) -> Path:
        settings = OVERRIDES | overrides
        run = FlowerRun(app=PROJECT, results_dir=tmp_path / "results", name=name, overrides=settings, hosts=2, resume=resume)
        home = new_home(tmp_path, "home")
        return run_flower(run, home, on_tick=lambda: on_tick(home))

    return make


def windows_of(home: Path) -> set[Path]:
    """Return the files of windows that a run's workers share just now."""
    folders = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            variables = dict(line.split("=", 1) for line in (process / "environ").read_text(errors="replace").split("\0") if "=" in line)
            if variables.get("FLWR_HOME") == str(home) and WINDOWS_FOLDER in variables:
                folders.add(Path(variables[WINDOWS_FOLDER]))
    return {file for folder in folders for file in folder.glob("*/*.windows")}


def test_flower_computes_what_hosts_in_one_process_compute(flower_run, run_config, tmp_path: Path):
    """And its workers share windows, of which nothing is left."""
    torch.set_num_threads(1)
    shared: set[Path] = set()
    over_flower = flower_run(lambda home: shared.update(windows_of(home)))
    assert len(shared) == OVERRIDES["data.num-devices"]
    assert not any(file.parents[2].exists() for file in shared)
    values = run_config({**OVERRIDES, "results-dir": str(tmp_path / "results"), "run-name": "in-process"})
    in_process = train_and_write(InProcessHosts(2), parse_run_config(values), values, lambda line: None)
    expected, found = load_file(in_process / WEIGHTS), load_file(over_flower / WEIGHTS)
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5, err_msg=name)
    here, there = read_run(in_process), read_run(over_flower)
    assert there.split == here.split
    assert [(r.stage, r.server_round, r.num_hosts, r.num_devices, r.num_windows, r.left_out) for r in there.rounds] == [
        (r.stage, r.server_round, r.num_hosts, r.num_devices, r.num_windows, r.left_out) for r in here.rounds
    ]
    assert [r.loss for r in there.rounds] == [r.loss and pytest.approx(r.loss, abs=1e-5) for r in here.rounds]
    assert [(subject.subject, subject.group, num_windows_of(subject.counts)) for subject in there.subjects] == [
        (subject.subject, subject.group, num_windows_of(subject.counts)) for subject in here.subjects
    ]
    assert there.notes == here.notes
    assert [traffic_of(each) for each in there.rounds] == [traffic_of(each) for each in here.rounds]
    assert {"clmm", "flwr", "ray", "torch"} <= set(there.info.versions)


def kill_all_of(home: Path) -> None:
    """As a power cut does: every process that was started for a run, Ray's included."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"FLWR_HOME={home}\0".encode() in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


def test_killed_by_a_power_cut_it_goes_on_and_ends_in_the_same_model(flower_run, run_config, tmp_path: Path):
    """To the bit it is in `clmm bench reliability` (R1) and tests/server/test_resume.py; here it is held against hosts in this process."""
    settings: dict[str, Value] = {"communication.update-bits": 32, "finetune.rounds": 4, "finetune.server-optimizer": "fedavgm"}
    partial = tmp_path / "results" / "cut.partial"

    def cut(home: Path) -> None:
        if partial.exists() and max((each.server_round or 0 for each in read_rounds(partial)), default=0) >= 3:
            kill_all_of(home)

    with pytest.raises(FlowerRunError):
        flower_run(cut, "cut", **settings)
    num_done = max(each.server_round or 0 for each in read_rounds(partial))
    resumed = flower_run(name="cut", resume=True, **settings)
    values = run_config({**OVERRIDES, **settings, "results-dir": str(tmp_path / "results"), "run-name": "whole"})
    torch.set_num_threads(1)
    whole = train_and_write(InProcessHosts(2), parse_run_config(values), values, lambda line: None)
    found, expected = load_file(resumed / WEIGHTS), load_file(whole / WEIGHTS)
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5, err_msg=name)
    record = read_run(resumed)
    assert [each.server_round for each in record.rounds] == [each.server_round for each in read_run(whole).rounds]
    assert any(f"went on after round {done}" in note for note in record.notes for done in (num_done - 1, num_done, num_done + 1))


@pytest.mark.long
def test_another_client_in_the_folder_that_flower_was_started_from_is_refused(flower_run, tmp_path: Path):
    """Ray puts that folder ahead of the app on a worker's path, so the `client` package lying there would answer in silence."""

    def leave_another_client(home: Path) -> None:
        folder = home / "empty" / "client"
        if not folder.exists():
            shutil.copytree(PROJECT / "client", folder, ignore=shutil.ignore_patterns("__pycache__"))
            (folder / "devices.py").write_text((folder / "devices.py").read_text() + "# another version\n")

    with pytest.raises(
        FlowerRunError, match=r"^host \d+ runs client code [0-9a-f]{16}, this server expects [0-9a-f]{16}: another checkout"
    ):
        flower_run(leave_another_client)
    assert list((tmp_path / "results").iterdir()) == []
