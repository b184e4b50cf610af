"""The figures of finished runs, kept beside the page that shows them: a study goes on, and is drawn again, without their folders."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from clmm_core.errors import DataError
from clmm_core.federated.codec import from_json_strict, to_json
from clmm_core.files import replace_file
from clmm_core.report.records import Group, RunInfo
from simulation.study.outcomes import Outcome
from simulation.study.plan import Cell

FOLDER = "measured"
"""Beside the page; a file a study, a line a run."""


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One run, without what the study file says of it."""

    cell: str
    judged_on: Group
    accuracy: Mapping[str, float]
    macro_f1: float
    gain: Mapping[str, float]
    curve: tuple[float, ...]
    wall_s: float
    num_parameters: int
    versions: Mapping[str, str]
    machine: str
    started_at: str


def file_of(page: Path, study: str) -> Path:
    """Return where the figures behind a study's section of a page are kept."""
    return page.parent / FOLDER / f"{study}.jsonl"


def read_measured(path: Path, cells: Iterable[Cell], judged_on: Group) -> list[Outcome]:
    """Return the outcomes of those cells that the file has, or one beside it: a run that two studies have in common is made once.

    Raises:
        DataError: a line of one of them cannot be read; names it.
    """
    beside = sorted(path.parent.glob(f"*{path.suffix}"))
    lines = {key: line for each in (*beside, path) for key, line in _read(each).items()}
    return [_outcome(cell, lines[cell.name, judged_on]) for cell in cells if (cell.name, judged_on) in lines]


def _read(path: Path) -> dict[tuple[str, Group], _Line]:
    """Return every line by its run and by whom it was judged on."""
    lines: dict[tuple[str, Group], _Line] = {}
    if not path.exists():
        return lines
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            line = from_json_strict(_Line, text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            raise DataError(f"{path}, line {number}: {where}: {first['msg']}; take the line out to measure its run again") from error
        lines[line.cell, line.judged_on] = line
    return lines


def write_measured(path: Path, outcomes: Sequence[Outcome], judged_on: Group) -> None:
    """Write a line a run, in the order of their names; runs that two methods share once.

    Lines of other runs stay: a study that is cut down or changed for once loses nothing.
    """
    path.parent.mkdir(exist_ok=True)
    lines = _read(path) | {(outcome.cell.name, judged_on): _line(outcome, judged_on) for outcome in outcomes}
    replace_file(path, "".join(f"{to_json(lines[key])}\n" for key in sorted(lines)))


def _line(outcome: Outcome, judged_on: Group) -> _Line:
    info = outcome.info
    return _Line(
        cell=outcome.cell.name,
        judged_on=judged_on,
        accuracy=outcome.accuracy,
        macro_f1=outcome.macro_f1,
        gain=outcome.gain,
        curve=outcome.curve,
        wall_s=outcome.wall_s,
        num_parameters=outcome.num_parameters,
        versions=info.versions,
        machine=info.machine,
        started_at=info.started_at,
    )


def _outcome(cell: Cell, line: _Line) -> Outcome:
    info = RunInfo(name=cell.name, run_config=cell.values, versions=line.versions, machine=line.machine, started_at=line.started_at)
    return Outcome(
        cell=cell,
        info=info,
        accuracy=line.accuracy,
        macro_f1=line.macro_f1,
        gain=line.gain,
        curve=line.curve,
        wall_s=line.wall_s,
        num_parameters=line.num_parameters,
    )
