import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from clmm_core.errors import ConfigError
from clmm_core.report.metrics import counts_of
from clmm_core.report.records import Embedding, ModelCard, RoundRecord, RunInfo, RunRecord, Split, SubjectRecord
from clmm_core.report.run_folder import RunFolder
from simulation import cli, flwr_run, overrides
from simulation.local_superlink import FlowerRunError

PROJECT = """
[tool.flwr.app]
[tool.flwr.app.config]
results-dir = ""
run-name = ""
seed = 1
[tool.flwr.app.config.data]
name = "spar"
path = ""
"""


def small_run() -> RunRecord:
    counts = counts_of([[0.9, 0.1], [0.2, 0.8]], [0, 0])
    people = [("S01", "unseen", counts), ("S02", "unseen", counts + counts_of([[0.9, 0.1]], [1]))]
    return RunRecord(
        info=RunInfo(name="one", run_config={"seed": 1}, versions={}, machine="x", started_at="2026-11-23T18:00:00Z"),
        split=Split(
            seed=1,
            training=("S03",),
            validation=(),
            test=("S01", "S02"),
            labelled=("S03",),
            labels_per_class=0,
            label_unit="window",
            classes=("a", "b"),
        ),
        rounds=(RoundRecord(stage="evaluate", num_hosts=1, num_devices=2, round_s=1.0, elapsed_s=1.0),),
        subjects=tuple(SubjectRecord(subject=name, group=group, modalities=("accelerometer",), counts=its) for name, group, its in people),
        embedding=Embedding(),
        quality={"accelerometer": 1.0},
        card=ModelCard(
            modalities={},
            window_s=2.0,
            classes=("a", "b"),
            mean={},
            std={},
            architecture={},
            num_parameters=1,
            flops_a_window=0,
            trained_on="nothing",
        ),
    )


def finish(folder: RunFolder) -> Path:
    folder.write_results(small_run())
    (folder.partial / "report.html").write_text("old")
    return folder.finish()


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the command in a folder with a project `app`."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "pyproject.toml").write_text(PROJECT)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(cli.app, [*arguments])

    return call


@pytest.fixture
def flower(monkeypatch: pytest.MonkeyPatch) -> list[flwr_run.FlowerRun]:
    """Put a run that finishes at once in Flower's place; it lists the runs asked for."""
    asked: list[flwr_run.FlowerRun] = []

    def run_flower(job: flwr_run.FlowerRun, home: Path, *, on_tick) -> Path:
        asked.append(job)
        on_tick()
        return finish((RunFolder.reopen if job.resume else RunFolder.create)(job.results_dir, job.name))

    monkeypatch.setattr(flwr_run, "run_flower", run_flower)
    return asked


def test_a_run_ends_with_its_table_and_the_page(invoke, flower, tmp_path: Path):
    result = invoke("run", "--app", "app", "--data", "spar", "--path", "rec", "--hosts", "3", "--name", "one", "-c", "seed=7")
    assert result.exit_code == 0, result.output
    [job] = flower
    assert (job.app, job.hosts, job.name, job.final) == (tmp_path / "app", 3, "one", tmp_path / "results" / "one")
    assert job.overrides == {"seed": 7, "data.name": "spar", "data.path": str(tmp_path / "rec")}
    lines = result.output.splitlines()
    assert lines[-1] == "Report: results/one/report.html"
    rows = [line for line in lines if "S0" in line and "│" in line]
    assert [("S02" in row, "S01" in row) for row in rows] == [(True, False), (False, True)]  # the worst first


SCENARIO = """
title: five watches
devices: 5
label-share: 0.5
drop-out: 0.25
hosts: 3
workers-per-gpu: 2
run: {seed: 4, split.num-test: 1, split.num-validation: 0}
"""


def test_a_scenario_is_a_run_with_its_values(invoke, flower, tmp_path: Path):
    (tmp_path / "fleet.yaml").write_text(SCENARIO)
    result = invoke("simulate", "fleet.yaml", "--name", "one", "--set", "seed=7")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("five watches\nrun one: 3 hosts")
    [job] = flower
    assert (job.app, job.hosts, job.workers_per_gpu, job.ray_address) == (Path(cli.__file__).parents[1], 3, 2, "")
    expected = {"data.num-devices": 5, "labels.num-devices": 2, "fleet.drop-out": 0.25, "seed": 7, "min-hosts": 3}
    assert expected.items() <= job.overrides.items()


def test_options_stand_over_a_scenario(invoke, flower, tmp_path: Path):
    (tmp_path / "fleet.yaml").write_text(SCENARIO)
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        result = invoke("simulate", "fleet.yaml", "--hosts", "4", "--workers-per-gpu", "0", "--ray-address", address)
    assert result.exit_code == 0, result.output
    [job] = flower
    assert (job.hosts, job.workers_per_gpu, job.ray_address) == (4, 0, address)


def test_a_wrong_scenario_ends_before_flower_starts(invoke, flower, tmp_path: Path):
    (tmp_path / "fleet.yaml").write_text(SCENARIO.replace("drop-out: 0.25", "drop-out: 2.5"))
    for arguments, message in (
        (("fleet.yaml",), "fleet.drop-out: expected a probability"),
        (("none.yaml",), "none.yaml: expected a scenario file"),
        (("fleet.yaml", "--set", "fleet.drop-out=0.1", "--ray-address", "somewhere"), "Ray address: expected HOST:PORT"),
    ):
        result = invoke("simulate", *arguments)
        assert (result.exit_code, "Traceback" in result.output) == (1, False)
        assert message in result.stderr
    assert flower == []


def test_of_many_people_the_first_are_shown(invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cli, "MAX_ROWS", 1)
    finish(RunFolder.create(tmp_path / "results", "one"))
    result = invoke("report", "results/one")
    rows = [line for line in result.output.splitlines() if "S0" in line and "│" in line]
    assert len(rows) == 1
    assert "S02" in rows[0], "the worst"
    assert "and 1 more in results/one/subjects.csv" in result.output


def test_default_names_differ_within_a_second(invoke, flower):
    for _ in range(2):
        assert invoke("run", "--app", "app").exit_code == 0
    first, second = flower
    assert first.name != second.name
    assert first.name.split("-")[2] == "spar"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "seeed=1"), "did you mean 'seed'"),
        (("--set", "data.name=spar"), "a string needs quotes"),
        (("--app", "nowhere"), "expected a pyproject.toml"),
        (("--name", "a/b"), "run name: expected"),
        (("--set", 'results-dir="out"'), "expected the option --results"),
    ],
)
def test_a_wrong_option_ends_before_flower_starts(invoke, flower, tmp_path: Path, arguments, message: str):
    result = invoke("run", *(() if "--app" in arguments else ("--app", "app")), *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert flower == []
    assert not (tmp_path / "app" / ".flwr-home").exists()


def test_the_servers_own_check_runs_first(invoke, flower, monkeypatch: pytest.MonkeyPatch):
    seen = []

    def refuse(app: Path, config: dict) -> None:
        seen.append(config)
        raise ConfigError("seed: expected an int, found 'abc'")

    monkeypatch.setattr(overrides, "check_run_config", refuse)
    result = invoke("run", "--app", "app", "--name", "one", "-c", 'seed="abc"')
    assert (result.exit_code, result.stderr, flower) == (1, "seed: expected an int, found 'abc'\n", [])
    assert seen[0]["seed"] == "abc"
    assert seen[0]["run-name"] == "one"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [(FlowerRunError("the cause"), 1, "the cause\n"), (KeyboardInterrupt(), 130, "Stopped. No process of the run is left.\n")],
)
def test_a_run_that_does_not_finish_says_what_is_left(
    invoke, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, message: str
):
    def fail(job: flwr_run.FlowerRun, home: Path, *, on_tick) -> Path:
        (job.partial / "checkpoints").mkdir(parents=True)
        raise error

    monkeypatch.setattr(flwr_run, "run_flower", fail)
    result = invoke("run", "--app", "app", "--name", "one")
    assert result.exit_code == code
    assert message in result.stderr
    assert "Left: results/one.partial (unfinished results)" in result.stderr
    assert "To go on with it: clmm run --resume results/one.partial" in result.stderr
    assert "Left: app/.flwr-home/one (logs)" in result.stderr
    assert "Traceback" not in result.output


def begun(results: Path, name: str = "one") -> RunFolder:
    """Leave the folder of a run that was killed."""
    folder = RunFolder.create(results, name)
    config = {"seed": 7, "data.name": "spar", "data.path": "", "min-hosts": 3, "results-dir": "x", "run-name": name, "resume": False}
    folder.write_info(RunInfo(name=name, run_config=config, versions={}, machine="x", started_at=""))
    folder.release()
    return folder


@pytest.mark.parametrize("asked", ["one", "results/one", "results/one.partial"])
def test_a_killed_run_goes_on_as_it_was_begun(invoke, flower, tmp_path: Path, asked: str):
    begun(tmp_path / "results")
    result = invoke("run", "--app", "app", "--resume", asked)
    assert result.exit_code == 0, result.output
    (job,) = flower
    assert (job.name, job.hosts, job.resume, job.results_dir.name) == ("one", 3, True, "results")
    assert job.overrides == {"seed": 7, "data.name": "spar", "data.path": ""}
    assert job.run_config["resume"] is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--resume", "none"), "--resume: expected the folder of a killed run, results/none.partial, found none\n"),
        (("--resume", "one", "--name", "other"), "--name: a run that is gone on with has its name already: leave this option out\n"),
    ],
)
def test_what_cannot_go_on_is_said(invoke, flower, tmp_path: Path, arguments: tuple[str, ...], message: str):
    begun(tmp_path / "results")
    result = invoke("run", "--app", "app", *arguments)
    assert (result.exit_code, result.stderr, flower) == (1, message, [])


def test_a_finished_run_cannot_go_on(invoke, flower, tmp_path: Path):
    finish(RunFolder.create(tmp_path / "results", "one"))
    result = invoke("run", "--app", "app", "--resume", "one")
    assert "that run is finished: results/one" in result.stderr


def test_report_writes_the_page_again(invoke, tmp_path: Path):
    folder = finish(RunFolder.create(tmp_path / "results", "one"))
    result = invoke("report", "results/one")
    assert result.exit_code == 0, result.output
    assert "<html" in (folder / "report.html").read_text().lower()
    assert "S01" in result.output
    assert invoke("report", "results/none").exit_code == 1


def test_data_is_the_clients_own_command(invoke):
    result = invoke("data", "list")
    assert result.exit_code == 0
    assert "spar" in result.output
    assert "inspect" in invoke("data", "--help").output


def test_help_loads_nothing_heavy():
    code = "import json, sys, simulation.cli; print(json.dumps([name for name in sys.modules if '.' not in name]))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert not {"torch", "ray", "flwr", "numpy", "matplotlib", "pydantic", "grpc"} & set(loaded)
