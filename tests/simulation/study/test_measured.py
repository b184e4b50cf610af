from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from clmm_core.errors import DataError
from simulation.study.measured import file_of, read_measured, write_measured
from simulation.study.outcomes import Outcome
from simulation.study.plan import Study

Fake = Callable[..., tuple[Study, list[Outcome]]]


@pytest.fixture
def outcomes(outcome: Callable[..., Outcome]) -> list[Outcome]:
    """Return three runs of which two methods have one in common."""
    one = outcome({"S1": 0.75, "S2": 1 / 3}, gain={"S1": 0.1}, curve=(0.25, 0.5))
    shared = replace(one, cell=replace(one.cell, method="the same by another name"))
    return [one, shared, outcome({"S3": 0.5}, seed=1)]


def test_what_is_written_is_read_back(tmp_path: Path, outcomes: list[Outcome]):
    path = file_of(tmp_path / "accuracy.md", "study")
    write_measured(path, outcomes, "unseen")
    read = read_measured(path, [each.cell for each in outcomes], "unseen")
    for mine, its in zip(outcomes, read, strict=True):
        info = replace(mine.info, name=its.info.name, run_config=mine.cell.values)
        assert its == replace(mine, info=info)


def test_a_run_that_two_methods_share_is_one_line_and_lines_are_in_order(tmp_path: Path, outcomes: list[Outcome]):
    paths = [tmp_path / "a" / "x.jsonl", tmp_path / "b" / "x.jsonl"]
    for path, order in zip(paths, (outcomes, outcomes[::-1]), strict=True):
        write_measured(path, order, "unseen")
    assert paths[0].read_text() == paths[1].read_text()
    assert len(paths[0].read_text().splitlines()) == 2


def test_nothing_is_read_where_there_is_no_file_or_of_other_cells_or_of_other_people(tmp_path: Path, outcomes: list[Outcome]):
    path, cells = tmp_path / "measured" / "x.jsonl", [each.cell for each in outcomes]
    assert read_measured(path, cells, "unseen") == []
    write_measured(path, outcomes, "unseen")
    assert read_measured(path, [replace(cells[0], seed=7)], "unseen") == []
    assert read_measured(path, cells, "validation") == []


def test_lines_of_other_runs_stay_when_a_study_is_changed_for_once(tmp_path: Path, outcomes: list[Outcome]):
    path = tmp_path / "measured" / "x.jsonl"
    write_measured(path, outcomes, "unseen")
    write_measured(path, [replace(outcomes[0], macro_f1=0.125)], "validation")
    write_measured(path, [replace(outcomes[2], macro_f1=0.25)], "unseen")
    cells = [outcomes[0].cell, outcomes[2].cell]
    assert [each.macro_f1 for each in read_measured(path, cells, "unseen")] == [0.5, 0.25]
    assert [each.macro_f1 for each in read_measured(path, cells, "validation")] == [0.125]


def test_a_run_of_another_study_is_not_made_again_and_the_studys_own_line_counts_more(tmp_path: Path, outcomes: list[Outcome]):
    page, cells = tmp_path / "accuracy.md", [outcomes[0].cell, outcomes[2].cell]
    write_measured(file_of(page, "its"), [outcomes[0], outcomes[2]], "unseen")
    write_measured(file_of(page, "mine"), [replace(outcomes[2], macro_f1=0.25)], "unseen")
    read = read_measured(file_of(page, "mine"), cells, "unseen")
    assert [each.macro_f1 for each in read] == [outcomes[0].macro_f1, 0.25]
    write_measured(file_of(page, "mine"), read, "unseen")
    assert file_of(page, "mine").read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda line: line[:-5], r"line 1: the line: Invalid JSON"),
        (lambda line: line.replace('"wall_s":60.0', '"wall_s":"60"'), r"line 1: wall_s: Input should be a valid number"),
        (lambda line: line.replace('"wall_s":60.0', '"wall_s":60.0,"more":1'), r"line 1: more: Unexpected keyword argument"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, outcomes: list[Outcome], spoil: Callable[[str], str], message: str):
    path = tmp_path / "measured" / "x.jsonl"
    write_measured(path, outcomes[:1], "unseen")
    path.write_text(spoil(path.read_text().strip()) + "\n")
    with pytest.raises(DataError, match=message):
        read_measured(path, [outcomes[0].cell], "unseen")
