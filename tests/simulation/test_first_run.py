"""The benchmark's cells, table and page, on a fleet of a few seconds."""

from dataclasses import replace
from pathlib import Path

import pytest

from clmm_core.report.metrics import summarise
from clmm_core.report.run_folder import read_run
from simulation import first_run
from simulation.first_run import BEGIN, END, Set, cells_of, run_cell, table
from simulation.overrides import Value

TINY: dict[str, Value] = {
    **{"data.name": "synthetic", "data.num-devices": 5, "data.window-s": 1.28, "labels.num-devices": 1},
    **{"pretrain.rounds": 1, "pretrain.views": 3, "finetune.rounds": 1, "finetune.local-epochs": 1, "personalise.local-epochs": 1},
}
DATA = Set(name="Tiny, two folds", folds=("device-00000", "device-00001,device-00002"), overrides=TINY, num_draws=1)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cells")
    for cell in cells_of(DATA):
        run_cell(cell, folder)
    return folder


def test_every_cell_has_its_own_seed_within_a_method_and_tests_its_fold(results: Path):
    cells = cells_of(DATA)
    assert len(cells) == 2 * len(first_run.METHODS)
    assert len({cell.name for cell in cells}) == len(cells)
    for cell in cells:
        split = read_run(results / cell.name).split
        assert (split.seed, ",".join(split.test), split.validation) == (cell.seed, DATA.folds[cell.fold], ())


def test_methods_share_split_labels_and_first_model_but_not_stage_one(results: Path):
    runs = [read_run(results / cell.name) for cell in cells_of(DATA) if cell.fold == 0]
    assert len({run.split for run in runs}) == 1
    assert [sum(step.stage == "pretrain" for step in run.rounds) for run in runs] == [1, 0, 0]


def test_the_table_says_what_the_runs_say(results: Path):
    text = table(cells_of(DATA), results)
    accuracies = []
    for cell in cells_of(DATA)[:: len(first_run.METHODS)]:
        summary = summarise(read_run(results / cell.name).subjects, "unseen")
        assert summary is not None
        accuracies.append(100 * summary.accuracy_mean)
        assert f"| {cell.seed} | {DATA.folds[cell.fold].replace(',', ', ')} |" in text
        assert f"{accuracies[-1]:.1f}" in text
    assert f"| federated CLMM | {sum(accuracies) / 2:.1f} ± " in text
    assert "| chance (1 of 6) | 16.7 |" in text


def test_a_killed_cell_is_run_again_and_a_finished_one_is_not(results: Path):
    cell = cells_of(DATA)[1]
    finished = (results / cell.name / "report.html").stat().st_mtime_ns
    run_cell(cell, results)
    assert (results / cell.name / "report.html").stat().st_mtime_ns == finished
    (results / cell.name).rename(results / f"{cell.name}.partial")
    run_cell(cell, results)
    assert (results / cell.name / "report.html").stat().st_mtime_ns != finished
    assert not (results / f"{cell.name}.partial").exists()


def test_a_cell_made_with_other_settings_is_run_again(results: Path):
    cell = cells_of(DATA)[1]
    changed = replace(cell, data=replace(DATA, overrides={**TINY, "finetune.lr": 0.002}))
    run_cell(changed, results)
    assert read_run(results / cell.name).info.run_config["finetune.lr"] == 0.002
    run_cell(cell, results)
    assert read_run(results / cell.name).info.run_config["finetune.lr"] == 0.003


def test_the_page_keeps_the_words_around_the_figures(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    first_run._between_marks(page, "new")
    assert page.read_text(encoding="utf-8") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"


def test_an_interval_is_students_over_runs():
    # scipy's quantile for 2 degrees of freedom is 4.3027; deviation 0.1, so the half-width is 4.3027 * 0.1 / sqrt(3) = 24.8 points.
    assert first_run._interval([0.1, 0.2, 0.3]) == "+20.0 (-4.8 to +44.8)"
