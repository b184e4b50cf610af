"""`clmm study`: run what is missing of a study, then write its tables, figures and page."""

import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import typer

from clmm_core.report.lines import duration, plural
from clmm_core.report.run_folder import replace_file
from simulation.overrides import Value, find_app, read_app_config
from simulation.study.cells import Done, run_cells
from simulation.study.figures import study_figures
from simulation.study.outcomes import read_outcomes
from simulation.study.page import check_marks, render_study, replace_between_marks, study_markdown
from simulation.study.plan import cells_of, read_study

CELLS = "cells"
"""Folder in the results for the runs of all studies."""
PICTURES = "figures"
"""Folder beside a page for its figures."""


def run_study(file: Path, overrides: Mapping[str, Value], results: Path, jobs: int, page: Path | None, command: Sequence[str]) -> int:
    """Run every cell that is missing, write `results/<name of file>.html` and the page's section; return how many jobs failed.

    Raises:
        ClmmError: the study file, an override or the page cannot be used.
    """
    study = read_study(file)
    cells = cells_of(study, read_app_config(find_app(None)), overrides)
    if page is not None:
        check_marks(page, file.stem)
    folder = results.absolute() / CELLS
    names = {cell.name for cell in cells}
    typer.echo(f"{study.title}: {plural(len(names), 'run')}, {sum((folder / name).exists() for name in names)} of them there already")
    failed = run_cells(cells, folder, jobs, _teller())
    outcomes = read_outcomes(cells, folder, study.judged_on)
    said = shlex.join(without_folders(argument) for argument in command)
    replace_file(results / f"{file.stem}.html", render_study(study, outcomes, failed, said))
    typer.echo(f"wrote {results / f'{file.stem}.html'}")
    if page is not None:
        (page.parent / PICTURES).mkdir(exist_ok=True)
        links = {}
        for name, svg in study_figures(study, outcomes).items():
            links[name] = f"{PICTURES}/{file.stem}-{name}.svg"
            replace_file(page.parent / links[name], svg)
        replace_between_marks(page, file.stem, study_markdown(study, outcomes, failed, said, links))
        typer.echo(f"wrote {page}")
    return len(failed)


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
