"""The benchmark, small, with real Flower and Ray processes of both ways."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clmm_core.errors import ConfigError
from simulation.bench import limits
from simulation.bench.command import run_benchmark
from simulation.bench.fleet import Setting
from simulation.bench.measure import Benchmark
from simulation.bench.turn import TurnError, run_turn
from simulation.flwr_run import HOME_NAME
from simulation.overrides import find_app

PAGE = "# Title\n\n<!-- bench simulation {0}: begin -->\n<!-- bench simulation {0}: end -->\nafter\n"


@pytest.mark.flower
@pytest.mark.long
def test_both_ways_are_measured_and_the_page_gets_their_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(limits.MATRIX, "cpu", 64)
    monkeypatch.setitem(limits.COPIED, "cpu", 2**16)
    page = tmp_path / "page.md"
    page.write_text(PAGE.format("cpu"))
    benchmark = Benchmark(num_devices=4, batch_sizes=(8,), fleet_sizes=(), rounds=1, turns=1)
    run_benchmark(benchmark, tmp_path / "results", page, ["clmm", "bench", "simulation", "--page", str(page)])
    text = page.read_text()
    assert text.startswith("# Title\n\n<!-- bench simulation cpu: begin -->\nMeasured with python")
    assert text.endswith("<!-- bench simulation cpu: end -->\nafter\n")
    assert "    clmm bench simulation --page page.md\n" in text
    assert "| 8 | ours | 4 |" in text
    assert "| 8 | stock | 4 |" in text
    assert "device-updates a second of a whole round over the stock way's, 4 devices, batch 8" in text
    assert not (find_app(None) / HOME_NAME / f"bench-{os.getpid()}").exists(), "nothing of the runs is left"


def test_a_run_that_fails_says_why_and_leaves_nothing():
    with pytest.raises(
        TurnError, match=r"ended after 0 of 1 rounds\. It said:\n.*pretrain\.batch-size: expected a whole number of at least 2"
    ):
        run_turn(Setting(way="ours", num_devices=2, batch_size=1, rounds=1, device="cpu"))
    assert not (find_app(None) / HOME_NAME / f"bench-{os.getpid()}").exists()


@pytest.mark.flower
def test_asked_to_end_it_ends_its_run_too(tmp_path: Path):
    program = "from simulation.bench.fleet import Setting; from simulation.bench.turn import run_turn; run_turn(Setting(**{}))".format(
        {"way": "ours", "num_devices": 2, "batch_size": 8, "rounds": 1, "device": "cpu"}
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.DEVNULL) as process:
        home = find_app(None) / HOME_NAME / f"bench-{process.pid}"
        while not home.exists() and process.poll() is None:
            pass  # until its run is on its way
        runs = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.terminate()
    assert runs
    assert not [run for run in runs if Path(f"/proc/{run}").exists()]
    assert not home.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_page_without_marks_and_a_gpu_that_is_not_there_are_refused_before_anything_is_run(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("no marks")
    with pytest.raises(ConfigError, match="add the two lines"):
        run_benchmark(Benchmark(), tmp_path, page, ["clmm"])
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"--device cuda: PyTorch .* finds no GPU here"):
            run_benchmark(Benchmark(device="cuda"), tmp_path, None, ["clmm"])
    assert not (tmp_path / "bench").exists()
