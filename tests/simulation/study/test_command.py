"""The command itself, on a study of two tiny runs trained together in this process."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from clmm_core.errors import DataError
from server.run_config import Value
from simulation.study.command import CELLS, Running, run_study, without_folders
from simulation.study.plan import SET_BY_STUDY

STUDY = """
title: Two ways to weigh sensors
reference: CLMM
splits: [{test: device-00003}]
seeds: [0]
run: {report.points-per-device: 0}
methods:
  CLMM: {}
  uniform fusion: {set: {model.fusion: uniform}}
"""
PAGE = "# Results\n\n<!-- study tiny: begin -->\n<!-- study tiny: end -->\n\nThe end.\n"
TOGETHER = Running(jobs=9, device="cpu")
ONLY_SHOW = Running(jobs=1, is_wanted=False)


@pytest.fixture
def study(tmp_path: Path, run_config: Callable[..., dict[str, Value]]) -> Callable[[Running], int]:
    """Run the study into this test's folder."""
    (tmp_path / "tiny.yaml").write_text(STUDY)
    (tmp_path / "page.md").write_text(PAGE)
    small = {key: value for key, value in run_config(small=True).items() if not key.startswith((*SET_BY_STUDY, "model.fusion", "report."))}

    def run(running: Running) -> int:
        return run_study(tmp_path / "tiny.yaml", small, tmp_path / "results", running, tmp_path / "page.md", ["clmm", "study", "tiny.yaml"])

    return run


def test_a_study_leaves_its_runs_its_pages_and_the_figures_behind_them(
    study: Callable[[Running], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert study(TOGETHER) == 0
    assert "2 runs, 0 of them there already" in capsys.readouterr().out
    page = (tmp_path / "page.md").read_text()
    assert page.startswith("# Results\n")
    assert page.endswith("The end.\n")
    assert "| uniform fusion |" in page
    assert "not finished" not in page
    assert "Two ways to weigh sensors" in (tmp_path / "results" / "tiny.html").read_text()
    assert len((tmp_path / "measured" / "tiny.jsonl").read_text().splitlines()) == 2

    shutil.rmtree(tmp_path / "results")  # another machine, which has the page alone
    assert study(TOGETHER) == 0
    assert "2 runs, 2 of them there already" in capsys.readouterr().out
    assert not (tmp_path / "results" / CELLS).exists()
    assert (tmp_path / "page.md").read_text() == page


@pytest.mark.parametrize("is_newer", [True, False])
def test_of_a_run_kept_by_the_page_and_found_here_too_the_later_one_stands(study: Callable[[Running], int], tmp_path: Path, is_newer: bool):
    """Another machine measured it again, or this one did."""
    study(TOGETHER)
    kept = tmp_path / "measured" / "tiny.jsonl"
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    for line in lines:
        line |= {"wall_s": 12345.0, "started_at": "2099-01-01T00:00:00+00:00" if is_newer else "2001-01-01T00:00:00+00:00"}
    kept.write_text("".join(json.dumps(line) + "\n" for line in lines))
    study(ONLY_SHOW)
    assert [json.loads(line)["wall_s"] == 12345.0 for line in kept.read_text().splitlines()] == [is_newer] * 2


def test_a_study_can_be_shown_without_running_what_is_missing(
    study: Callable[[Running], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert study(ONLY_SHOW) == 0
    assert "2 runs, 0 of them there already" in capsys.readouterr().out
    assert (tmp_path / "page.md").read_text().count("not finished") == 3  # each method, and the sentence above the table
    assert not (tmp_path / "results" / CELLS).exists()


def test_kept_figures_that_cannot_be_read_stop_the_study_before_it_begins(study: Callable[[Running], int], tmp_path: Path):
    (tmp_path / "measured").mkdir()
    (tmp_path / "measured" / "tiny.jsonl").write_text("{\n")
    with pytest.raises(DataError, match=r"tiny.jsonl, line 1: .*; take the line out to measure its run again"):
        study(TOGETHER)
    assert (tmp_path / "page.md").read_text() == PAGE


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("simulation/studies/a.yaml", "simulation/studies/a.yaml"),
        ("/data/sets/a.tar", "a.tar"),
        ('data.path="/data/a.tar"', 'data.path="a.tar"'),
    ],
)
def test_a_command_is_shown_without_the_folders_of_this_machine(argument: str, shown: str):
    assert without_folders(argument) == shown
