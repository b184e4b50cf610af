"""The benchmark of exported models, on a run of a second or two."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clmm_core.errors import ConfigError
from server import results as results_module
from server.run_config import parse_run_config
from simulation import cli
from simulation.bench import exported
from simulation.bench.browser import BrowserFigures
from simulation.bench.exported import Parity, Run, browser_table, budget_table, parity_table
from simulation.bench.on_device import OnDevice
from simulation.in_process import InProcessHosts


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, run_config) -> Path:
    place = {"results-dir": str(tmp_path_factory.mktemp("results")), "run-name": "run", "split.num-test": 1}
    values = run_config(place, small=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results_module, "draw_report", lambda folder: None)
        return results_module.train_and_write(InProcessHosts(1), parse_run_config(values), values, lambda line: None)


def no_page(*_: object) -> dict[str, bytes]:
    raise ConfigError("no npm here")


def test_a_run_is_compared_and_timed_and_the_page_gets_it(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exported, "TURNS", 1)
    monkeypatch.setattr(exported, "find_spec", lambda name: None if name == "executorch" else find_spec(name))  # half a minute
    monkeypatch.setattr(exported, "page_files", no_page)
    page = tmp_path / "export.md"
    page.write_text("before\n<!-- bench export: begin -->\nold\n<!-- bench export: end -->\nafter\n")
    done = CliRunner().invoke(cli.app, ["bench", "export", str(finished), "--page", str(page)])
    assert done.exit_code == 0, done.output
    assert "not measured in a browser: no npm here" in done.output
    text = page.read_text()
    assert "No browser was there" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    lines = text.splitlines()
    (fp32,) = (line for line in lines if line.startswith("| synthetic |"))
    assert float(fp32.split("|")[5]) <= 1e-4
    assert "100.00%" in fp32
    timed = [line.split("|") for line in lines if line.startswith(("| PyTorch eager", "| ONNX fp32", "| recogniser"))]
    assert len(timed) == 4
    assert all(float(cells[3].split()[0]) > 0 for cells in timed)


def test_a_page_without_marks_is_refused_before_anything_is_measured(finished: Path, tmp_path: Path):
    page = tmp_path / "export.md"
    page.write_text("nothing\n")
    done = CliRunner().invoke(cli.app, ["bench", "export", str(finished), "--page", str(page)])
    assert done.exit_code == 1
    assert "expected each of the marks" in done.output
    assert "measured" not in done.output


RUN = Run(
    data="hapt",
    num_windows=1000,
    num_parameters=200_000,
    accuracy=0.5,
    answered=0.25,
    right=0.9,
    parities=(Parity(file="ONNX fp32", num_bytes=900_000, furthest=2e-5, agreement=1.0),),
)


def took(p50_ms: float, peak_mib: float = 50.0) -> OnDevice:
    return OnDevice(first_s=0.2, p50_ms=p50_ms, cpu_ms=2 * p50_ms, peak_mib=peak_mib)


def test_an_hour_is_as_many_windows_as_begin_in_it_and_ratios_are_to_eager():
    budget = {"PyTorch eager": [took(4.0), took(6.0), took(5.0)], "ONNX fp32": [took(0.5), took(0.5, peak_mib=60.0)]}
    lines = budget_table(RUN, budget, window_s=2.0).splitlines()
    assert "| ONNX fp32 | 900,000 | 0.50 ms | 10.0 | 1.00 ms | 3.6 s of a core | 0.20 s | 60 MiB |" in lines  # 3,600 windows of 1 ms
    assert "no stream" in budget_table(RUN, budget, window_s=0.0)


def test_a_browser_s_figures_are_medians_of_its_loads():
    loads = [BrowserFigures(browser="chrome 1", load_s=1.0, p50_ms=each, p95_ms=3 * each, memory_bytes=2**21) for each in (0.5, 9.0, 1.0)]
    assert "| ONNX fp32, chrome 1 | 1.00 ms | 3.00 ms | 1.00 s | 2 MiB |" in browser_table({"ONNX fp32": loads}).splitlines()


def test_a_run_is_named_once_over_its_files():
    twice = Run(**{**vars(RUN), "parities": RUN.parities * 2})
    assert [line.split("|")[1].strip() for line in parity_table([twice]).splitlines()[2:4]] == ["hapt", ""]
