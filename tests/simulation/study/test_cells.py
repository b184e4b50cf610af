"""Whole studies of a few seconds, in processes of their own as `clmm study` runs them."""

import dataclasses
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from clmm_core.errors import ConfigError
from clmm_core.federated.source import client_source
from clmm_core.federated.traffic import WORDS, Traffic
from clmm_core.report.records import RunRecord
from clmm_core.report.run_folder import PARTIAL_SUFFIX, WEIGHTS, read_run
from server import results as results_module
from server.run_config import Value, parse_run_config
from simulation.in_process import InProcessHosts
from simulation.study import cells as module
from simulation.study.cells import STAGE_ONE, WINDOWS, Done, run_cells
from simulation.study.plan import Cell, Method, Split, Study, cells_of

PROJECT = Path(__file__).parents[3]
STUDY = Study(
    title="T",
    reference="CLMM",
    splits=(Split(test="device-00003", validation="device-00002"),),
    seeds=(0,),
    methods={"CLMM": Method(), "uniform fusion": Method(set={"model.fusion": "uniform"})},
    settings={"two": {"labels.num-devices": 2}, "one": {"labels.num-devices": 1}},
    run={"report.points-per-device": 0},
)
KILLED = """
import os, signal, sys, time
from pathlib import Path
from simulation.study.cells import run_cells
from simulation.study.plan import cells_of, read_study
from simulation.overrides import find_app, read_app_config
import json

def tell(done, number, total):
    print(done.what, done.error, flush=True)
    if not done.what.startswith("stage one"):
        while not list(results.glob("*.partial")):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    study, results, small = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    run_cells(cells_of(read_study(study), read_app_config(find_app(None)), small), results, 1, tell)
"""
"""A study that kills itself once a run is finished and another one has begun."""

RunConfig = Callable[..., dict[str, Value]]


def no_word(done: Done, number: int, total: int) -> None:
    """Tell nobody."""


@pytest.fixture(scope="module")
def cells(run_config: RunConfig) -> list[Cell]:
    """Return two methods in two settings, all with the same stage one."""
    return cells_of(STUDY, run_config(small=True), {})


@pytest.fixture(scope="module")
def broken(cells: list[Cell]) -> list[Cell]:
    """Return two cells with a stage one of their own that cannot be: its test subject is nobody."""
    return [dataclasses.replace(cell, values={**cell.values, "split.test": "device-99999"}) for cell in cells[:2]]


@pytest.fixture(scope="module")
def trees(cells: list[Cell]) -> Cell:
    return dataclasses.replace(cells[0], method="trees", classifier="extra-trees")


@dataclasses.dataclass(frozen=True)
class Finished:
    results: Path
    failed: list[Done]
    told: list[tuple[Done, int, int]]


@pytest.fixture(scope="module")
def study(cells: list[Cell], broken: list[Cell], trees: Cell, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Return a study whose cells go well, fail and are trees, run once for the tests that only look at it."""
    results, told = tmp_path_factory.mktemp("study"), []
    failed = run_cells([*broken, *cells, trees], results, 1, lambda *each: told.append(each))
    return Finished(results, failed, told)


def without_times(run: RunRecord) -> RunRecord:
    """Return what a run says, but when and where it ran, how long it took, and how long tasks are: they also name later stages."""
    rounds = tuple(
        dataclasses.replace(each, round_s=0, elapsed_s=0, traffic=tuple(map(without_words, each.traffic))) for each in run.rounds
    )
    info = dataclasses.replace(run.info, name="", started_at="", run_config={**run.info.run_config, "results-dir": "", "run-name": ""})
    return dataclasses.replace(run, info=info, rounds=rounds)


def without_words(traffic: Traffic) -> Traffic:
    return dataclasses.replace(traffic, down={**traffic.down, WORDS: 0}, up={**traffic.up, WORDS: 0})


def left_in(results: Path) -> set[str]:
    return {path.name for path in results.iterdir()} - {STAGE_ONE, module.LOCK}


def test_every_cell_leaves_its_folder_and_is_told_once(study: Finished, cells: list[Cell], broken: list[Cell], trees: Cell):
    assert left_in(study.results) == {cell.name for cell in [*cells, trees]}
    assert len({cell.stage_one for cell in cells}) == 1
    (shared,) = (study.results / STAGE_ONE).iterdir()
    assert shared.name == f"{cells[0].stage_one}-{client_source()}.safetensors"
    assert [(number, total) for _, number, total in study.told] == [(number, 9) for number in range(1, 10)]
    names = [cells[0].stage_one, broken[0].stage_one]
    assert sorted(done.what for done, _, _ in study.told) == sorted(
        [*(cell.name for cell in [*cells, *broken, trees]), *(f"stage one {name}" for name in names)]
    )


def test_what_fails_is_reported_and_does_not_stop_the_others(study: Finished, broken: list[Cell]):
    """A stage one that fails is told once, then by each cell that needs it."""
    assert [done.what for done in study.failed] == [f"stage one {broken[0].stage_one}", *(cell.name for cell in broken)]
    assert all("no host has a subject 'device-99999'" in done.error for done in study.failed)
    assert [done for done, _, _ in study.told if done.error] == study.failed


def test_a_mistake_in_the_code_is_reported_with_its_place(cells: list[Cell], tmp_path: Path):
    def work(cell: Cell, results: Path) -> None:
        raise KeyError(cell.method)

    line = work.__code__.co_firstlineno + 1
    assert module._error_of(work, cells[0], tmp_path) == f"KeyError: 'CLMM' (test_cells.py, line {line})"


def test_a_stopped_study_leaves_no_process_and_does_not_wait_for_what_it_was_at():
    with pytest.raises(KeyboardInterrupt), module._processes(1) as pool:  # noqa: PT012
        pool.submit(os.getpid).result()
        pool.submit(time.sleep, 600)
        raise KeyboardInterrupt
    assert multiprocessing.active_children() == []


def test_a_stopped_study_leaves_no_windows(cells: list[Cell], tmp_path: Path):
    seen: list[bool] = []

    def stop(*_: object) -> None:
        seen.append((tmp_path / WINDOWS).exists())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cells(cells[:1], tmp_path, 1, stop)
    assert seen == [True]
    assert left_in(tmp_path) == {cells[0].name}


def test_a_process_that_the_system_killed_is_an_error_that_says_what_to_do():
    with pytest.raises(ConfigError, match=r"lack of memory.*fewer --jobs"), module._processes(1):
        raise BrokenProcessPool


def test_the_processes_of_a_study_share_windows_until_it_ends(
    cells: list[Cell], trees: Cell, tmp_path: Path, run_config: RunConfig, monkeypatch: pytest.MonkeyPatch
):
    """Recorded ones: what a run then says is what it says with windows of its own, to the last bit."""
    torch.set_num_threads(1)
    recorded = {"data.name": "spar", "data.modalities": "gyroscope", "split.test": "4", "split.validation": "5", "pretrain.views": 3}
    cells = [dataclasses.replace(cell, values=run_config({**recorded, "seed": cell.seed}, small=True)) for cell in (cells[0], trees)]
    cells = [
        dataclasses.replace(cell, values={key: value for key, value in cell.values.items() if key not in ("run-name", "results-dir")})
        for cell in cells
    ]
    folders: list[set[str]] = []
    assert run_cells(cells, tmp_path, 2, lambda *_: folders.append({path.name for path in (tmp_path / WINDOWS).iterdir()})) == []
    assert folders[0] == folders[1]
    assert len(folders[0]) == 1
    assert not (tmp_path / WINDOWS).exists()
    monkeypatch.setattr(results_module, "draw_report", lambda folder: None)
    values = {**cells[0].values, "results-dir": str(tmp_path), "run-name": "whole"}
    results_module.train_and_write(InProcessHosts(1), parse_run_config(values), values, lambda _: None)
    shared, whole = tmp_path / cells[0].name, tmp_path / "whole"
    assert (shared / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert without_times(read_run(shared)) == without_times(read_run(whole))


@pytest.mark.parametrize("i", [0, 3])
def test_a_cell_with_shared_stage_one_is_the_run_made_whole_to_the_last_bit(
    study: Finished, cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, i: int
):
    torch.set_num_threads(1)
    # The picture of a run says no more than the run.
    monkeypatch.setattr(results_module, "draw_report", lambda folder: None)
    values = {**cells[i].values, "results-dir": str(tmp_path), "run-name": "whole"}
    results_module.train_and_write(InProcessHosts(1), parse_run_config(values), values, lambda _: None)
    shared, whole = study.results / cells[i].name, tmp_path / "whole"
    one, other = load_file(shared / WEIGHTS), load_file(whole / WEIGHTS)
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name].view(np.uint8), other[name].view(np.uint8)), name
    assert without_times(read_run(shared)) == without_times(read_run(whole))


def test_a_second_start_runs_nothing_again(study: Finished, cells: list[Cell], trees: Cell):
    before = {path: path.stat().st_mtime_ns for path in study.results.rglob("*") if path.is_file() and path.name != module.LOCK}
    told: list[Done] = []
    assert run_cells([*cells, trees], study.results, 1, lambda done, *_: told.append(done)) == []
    assert told == []
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_two_studies_at_once_on_the_same_results_are_refused(study: Finished, cells: list[Cell]):
    with module._alone_in(study.results), pytest.raises(ConfigError, match="another `clmm study` is adding to these results"):
        run_cells(cells, study.results, 1, no_word)
    run_cells(cells, study.results, 1, no_word)  # let go of, it can be held again


def test_a_study_killed_half_way_leaves_no_process_and_goes_on_where_it_was(cells: list[Cell], tmp_path: Path):
    results, file = tmp_path / "results", tmp_path / "study.yaml"
    content = dataclasses.asdict(dataclasses.replace(STUDY, settings={"two": STUDY.settings["two"]}))
    content["methods"] = {name: {"set": dict(method.set)} for name, method in STUDY.methods.items()}
    file.write_text(json.dumps(content), encoding="utf-8")
    cells = cells[:2]
    small = json.dumps({key: value for key, value in cells[0].values.items() if not key.startswith(("labels.", "model."))})
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(file), str(results), small],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )  # it only returns when nobody holds its output any more: the process that was training has ended, too
    assert process.returncode == -9, process.stderr
    (partial,) = results.glob(f"*{PARTIAL_SUFFIX}")
    finished = left_in(results) - {partial.name, WINDOWS}
    assert len(finished) == 1
    (partial / "mark").write_text("left by the killed run")
    before = {name: (results / name / "config.json").stat().st_mtime_ns for name in finished}

    told: list[Done] = []
    assert run_cells(cells, results, 1, lambda done, *_: told.append(done)) == []
    assert {done.what for done in told} == {cell.name for cell in cells} - finished  # and stage one is not trained again
    assert before == {name: (results / name / "config.json").stat().st_mtime_ns for name in finished}
    assert left_in(results) == {cell.name for cell in cells}
    assert not list(results.glob("*/mark"))


@pytest.fixture(scope="module")
def lockstep(cells: list[Cell], broken: list[Cell], trees: Cell, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Return the same study run three side by side on one device."""
    results, told, threads = tmp_path_factory.mktemp("lockstep"), [], torch.get_num_threads()
    failed = run_cells([*broken, *cells, trees], results, 3, lambda *each: told.append((*each, torch.get_num_threads())), device="cpu")
    assert {each[-1] for each in told} == {1}
    assert torch.get_num_threads() == threads
    told = [each[:-1] for each in told]
    return Finished(results, failed, told)


def test_runs_side_by_side_leave_the_same_folders_and_words(lockstep: Finished, study: Finished, broken: list[Cell]):
    assert left_in(lockstep.results) == left_in(study.results)
    (together,), (alone,) = ([path.stem for path in (each.results / STAGE_ONE).iterdir()] for each in (lockstep, study))
    assert together == f"{alone}-cpu", "neither takes the other's for its own"
    assert [(number, total) for _, number, total in lockstep.told] == [(number, 9) for number in range(1, 10)]
    assert sorted(done.what for done, _, _ in lockstep.told) == sorted(done.what for done, _, _ in study.told)
    assert torch.get_float32_matmul_precision() == "highest"  # as a process begins; it was lowered meanwhile
    assert {done.what for done in lockstep.failed} == {f"stage one {broken[0].stage_one}", *(cell.name for cell in broken)}
    assert all("no host has a subject 'device-99999'" in done.error for done in lockstep.failed)
    assert [done for done, _, _ in lockstep.told if done.error] == lockstep.failed


def test_runs_side_by_side_leave_figures_but_no_model(lockstep: Finished, study: Finished, cells: list[Cell]):
    """What is trained differs by its random numbers alone."""
    for cell in cells:
        assert not (lockstep.results / cell.name / WEIGHTS).exists()
        one, other = read_run(lockstep.results / cell.name), read_run(study.results / cell.name)
        assert one.split == other.split
        assert one.info.run_config == {**other.info.run_config, "results-dir": str(lockstep.results)}
        assert [(each.stage, each.server_round, each.num_devices) for each in one.rounds] == [
            (each.stage, each.server_round, each.num_devices) for each in other.rounds
        ]
        assert [each.subject for each in one.subjects] == [each.subject for each in other.subjects]
        assert [each.counts.confusion.sum() for each in one.subjects] == [each.counts.confusion.sum() for each in other.subjects]


def test_trees_are_the_same_whatever_else_is_trained(lockstep: Finished, study: Finished, trees: Cell):
    one, other = (without_times(read_run(each.results / trees.name)) for each in (lockstep, study))
    assert one == other


def test_a_cell_run_side_by_side_is_the_cell_run_alone(lockstep: Finished, cells: list[Cell], tmp_path: Path):
    """Also where it trains its stage one itself."""
    assert run_cells(cells[:1], tmp_path, 1, no_word, device="cpu") == []
    assert not list((tmp_path / STAGE_ONE).iterdir())
    assert without_times(read_run(tmp_path / cells[0].name)) == without_times(read_run(lockstep.results / cells[0].name))


def test_a_second_start_side_by_side_runs_what_is_missing_with_the_stage_one_there_is(
    lockstep: Finished, cells: list[Cell], trees: Cell, tmp_path: Path
):
    results = shutil.copytree(lockstep.results, tmp_path / "results")
    told: list[Done] = []
    assert run_cells([*cells, trees], results, 3, lambda done, *_: told.append(done), device="cpu") == []
    assert told == []
    for cell in cells[:2]:
        shutil.rmtree(results / cell.name)
    assert run_cells([*cells, trees], results, 3, lambda done, *_: told.append(done), device="cpu") == []
    assert {done.what for done in told} == {cell.name for cell in cells[:2]}
    again, before = (without_times(read_run(each / cells[0].name)) for each in (results, lockstep.results))
    assert again == before


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_a_device_that_cannot_be_used_is_refused_before_anything_is_made(cells: list[Cell], tmp_path: Path, device: str):
    with pytest.raises(ConfigError, match=f"--device {device}: PyTorch .* cannot use it here: .*leave --device out"):
        run_cells(cells, tmp_path / "results", 1, no_word, device=device)
    assert not (tmp_path / "results").exists()


def test_a_device_that_is_neither_a_gpu_nor_the_cpu_is_refused(cells: list[Cell], tmp_path: Path):
    with pytest.raises(ConfigError, match="--device: expected cuda, or cpu to try it out, found meta"):
        run_cells(cells, tmp_path / "results", 1, no_word, device="meta")
