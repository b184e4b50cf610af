"""`clmm study`: run what is missing of a study, then write its tables, figures and page."""

import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import typer

from clmm_core.files import replace_file
from clmm_core.report.lines import duration, plural
from simulation.marks import check_marks, replace_between_marks
from simulation.overrides import Value, find_app, read_app_config
from simulation.study.cells import Done, run_cells
from simulation.study.figures import study_figures
from simulation.study.measured import file_of, read_measured, write_measured
from simulation.study.outcomes import Outcome, read_outcomes
from simulation.study.page import render_study, study_markdown
from simulation.study.plan import Cell, cells_of, read_study

CELLS = "cells"
"""Folder in the results for the runs of all studies."""
PICTURES = "figures"
"""Folder beside a page for its figures."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """How the runs of a study are made."""

    jobs: int
    """At once."""
    device: str = ""
    """What to train all of them together on; empty for a process each."""
    is_wanted: bool = True
    """Whether to run what is missing, or only to show what is there."""


def run_study(
    file: Path, overrides: Mapping[str, Value], results: Path, running: Running, page: Path | None, command: Sequence[str]
) -> int:
    """Run every cell that is missing, write `results/<name of file>.html` and the page's section; return how many jobs failed.

    A page keeps the figures behind its section (`measured.py`): what it has is not run again.

    Raises:
        ClmmError: the study file, an override, the page or the figures it keeps cannot be used.
    """
    study = read_study(file)
    cells = cells_of(study, read_app_config(find_app(None)), overrides)
    if page is not None:
        check_marks(page, f"study {file.stem}")
    kept = [] if page is None else read_measured(file_of(page, file.stem), cells, study.judged_on)
    folder = results.absolute() / CELLS
    names, there = {cell.name for cell in cells}, {outcome.cell.name for outcome in kept}
    there |= {name for name in names if (folder / name).exists()}
    typer.echo(f"{study.title}: {plural(len(names), 'run')}, {len(there)} of them there already")
    missing = [cell for cell in cells if cell.name not in there] if running.is_wanted else []
    failed = run_cells(missing, folder, running.jobs, _teller(), running.device) if missing else []
    outcomes = _all_of(cells, kept, read_outcomes(cells, folder, study.judged_on))
    said = shlex.join(without_folders(argument) for argument in command)
    results.mkdir(parents=True, exist_ok=True)
    replace_file(results / f"{file.stem}.html", render_study(study, outcomes, failed, said))
    typer.echo(f"wrote {results / f'{file.stem}.html'}")
    if page is not None:
        write_measured(file_of(page, file.stem), outcomes, study.judged_on)
        (page.parent / PICTURES).mkdir(exist_ok=True)
        links = {}
        for name, svg in study_figures(study, outcomes).items():
            links[name] = f"{PICTURES}/{file.stem}-{name}.svg"
            replace_file(page.parent / links[name], svg)
        replace_between_marks(page, f"study {file.stem}", study_markdown(study, outcomes, failed, said, links))
        typer.echo(f"wrote {page}")
    return len(failed)


def _all_of(cells: Sequence[Cell], kept: Sequence[Outcome], measured: Sequence[Outcome]) -> list[Outcome]:
    """Return an outcome a cell, in the cells' order; of two, one kept and one whose folder is here, that of the run which began later."""
    both = sorted((*kept, *measured), key=lambda each: datetime.fromisoformat(each.info.started_at))
    by_cell = {(each.cell.setting, each.cell.method, each.cell.name): each for each in both}
    keys = ((cell.setting, cell.method, cell.name) for cell in cells)
    return [by_cell[key] for key in keys if key in by_cell]


def without_folders(argument: str) -> str:
    """Return an argument with absolute paths cut to their last part: where files are says nothing of a result."""
    return re.sub(r"(?<![\w.~])/(?:[^/\"'=]+/)*([^/\"'=]+)", r"\1", argument)


def _teller() -> Callable[[Done, int, int], None]:
    started_s = time.monotonic()

    def tell(done: Done, number: int, total: int) -> None:
        left_s = (time.monotonic() - started_s) / number * (total - number)
        typer.echo(
            f"{number}/{total} {done.what}" + (f": failed: {done.error}" if done.error else "") + f" (about {duration(left_s)} left)"
        )

    return tell
