"""The first accuracy table: what stage one is worth on people the model never saw. `make bench` runs it.

Every cell is a whole federated run in this process, stored as a results folder when it ends, so that a killed benchmark goes on where
it was. The table goes into docs/results/first-run.md, between the two marks.
"""

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated

import torch
import typer
from scipy.stats import t as student_t

from clmm_core.report.lines import labels_in_words
from clmm_core.report.metrics import chance, group_counts, majority_share, pooled, summarise
from clmm_core.report.records import RunRecord
from clmm_core.report.run_folder import PARTIAL_SUFFIX, read_run
from server.run_config import parse_run_config
from server.server_app import train_and_write
from simulation.in_process import InProcessHosts
from simulation.overrides import Value, apply_overrides, find_app, read_app_config

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
METHODS: dict[str, dict[str, Value]] = {
    "federated CLMM": {},
    "no stage one": {"pretrain.rounds": 0, "personalise.per-class": 0},
    "no stage one, encoders at full rate": {"pretrain.rounds": 0, "personalise.per-class": 0, "finetune.encoder-rate": 1.0},
}
FIRST = next(iter(METHODS))
NO_VALIDATION: dict[str, Value] = {"split.num-validation": 0}
"""Nothing is chosen in these runs, so every subject that is not tested trains."""


@dataclass(frozen=True, kw_only=True)
class Set:
    """A data set of the table and what its runs change in the run config."""

    name: str
    folds: tuple[str, ...]
    """Test subjects of each split; together they are all subjects, each tested in one fold."""
    overrides: dict[str, Value] = field(default_factory=dict)
    num_draws: int = 2
    """Runs a fold, with other labels and initial models."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of the table."""

    data: Set
    method: str
    draw: int
    """Which of a fold's draws of labels and initial models."""
    fold: int

    @property
    def seed(self) -> int:
        """The run's seed: no two cells of a method share one."""
        return self.draw * len(self.data.folds) + self.fold

    @property
    def name(self) -> str:
        """The cell's results folder."""
        return "-".join(f"{self.data.name} {self.method} seed{self.seed}".replace(",", "").split())

    @property
    def overrides(self) -> dict[str, Value]:
        """What the cell changes in the run config."""
        test: dict[str, Value] = {"split.test": self.data.folds[self.fold], "seed": self.seed, "run-name": self.name}
        return NO_VALIDATION | self.data.overrides | METHODS[self.method] | test


SPAR = Set(name="SPAR", folds=("9,10", "1,2", "3,4", "5,6", "7,8"))
UTD_MHAD = Set(
    name="UTD-MHAD",
    folds=("7,8", "1,2", "3,4", "5,6"),
    # Fewer windows a device and four times the classes than SPAR: more passes in both stages.
    overrides={"data.name": "utd-mhad", "pretrain.local-epochs": 2, "finetune.rounds": 40},
)
SPAR_FEW = Set(
    name="SPAR, one labelled window a class",
    folds=SPAR.folds,
    # 14 labels in all; more rounds, because a round has a single step.
    overrides={"labels.unit": "window", "finetune.rounds": 60},
)
SPAR_ALL = Set(name="SPAR, all labels of the two devices", folds=SPAR.folds, overrides={"labels.per-class": 0}, num_draws=1)
SPAR_EIGHT = Set(name="SPAR, one trial a class on all eight devices", folds=SPAR.folds, overrides={"labels.num-devices": 8}, num_draws=1)


def run_cell(cell: Cell, results: Path) -> None:
    """Run one cell, unless it is there with today's settings, and leave its results folder; what a killed run of it left is removed."""
    values = apply_overrides(
        read_app_config(find_app(None)), {**cell.overrides, "results-dir": str(results), "report.points-per-device": 0}
    )
    finished = results / cell.name
    if finished.exists():
        if _settings(read_run(finished).info.run_config) == _settings(values):
            return
        shutil.rmtree(finished)
    shutil.rmtree(results / f"{cell.name}{PARTIAL_SUFFIX}", ignore_errors=True)
    torch.set_num_threads(1)
    train_and_write(InProcessHosts(1), parse_run_config(values), values, say=lambda _: None)


def _settings(run_config: Mapping[str, Value]) -> dict[str, Value]:
    """Return what decides the figures of a run: everything but where files are."""
    return {key: value for key, value in run_config.items() if key not in ("results-dir", "data.path")}


def table(cells: Sequence[Cell], results: Path) -> str:
    """Return the Markdown section of one data set: a row a method, differences paired by run, then a row a run."""
    runs = {(cell.method, cell.seed): read_run(results / cell.name) for cell in cells}
    seeds = sorted({cell.seed for cell in cells})
    lines = [f"### {cells[0].data.name}", "", _setting(runs[FIRST, seeds[0]], len(seeds), len(cells[0].data.folds)), ""]
    lines += ["| method | accuracy | macro-F1 | worst subject | gain of stage one, paired | wall time a run |", "|---|---|---|---|---|---|"]
    accuracy = {key: _unseen(run)[0] for key, run in runs.items()}
    for method in METHODS:
        _, f1s, worst = zip(*(_unseen(runs[method, seed]) for seed in seeds), strict=True)
        differences = [accuracy[FIRST, seed] - accuracy[method, seed] for seed in seeds]
        gain = "" if method == FIRST else f"{_interval(differences)}; better in {sum(d > 0 for d in differences)} of {len(seeds)} runs"
        wall_s = mean(runs[method, seed].rounds[-1].elapsed_s for seed in seeds)
        spread = _spread([accuracy[method, seed] for seed in seeds])
        lines.append(f"| {method} | {spread} | {_spread(f1s)} | {100 * min(worst):.1f} | {gain} | {wall_s:.0f} s |")
    lines += _chance_rows([runs[FIRST, seed] for seed in seeds])
    lines += ["", "| seed | test | labelled | " + " | ".join(METHODS) + " |", "|---|---|---|" + "---|" * len(METHODS)]
    for seed in seeds:
        split = runs[FIRST, seed].split
        figures = " | ".join(f"{100 * accuracy[method, seed]:.1f}" for method in METHODS)
        lines.append(f"| {seed} | {', '.join(split.test)} | {', '.join(split.labelled)} | {figures} |")
    return "\n".join([*lines, "", _confusions([runs[FIRST, seed] for seed in seeds]), ""])


def _setting(run: RunRecord, num_runs: int, num_folds: int) -> str:
    split = run.split
    labels = labels_in_words(split)
    return (
        f"{num_runs} runs a method: {num_folds} folds that test every subject once, and {num_runs // num_folds} draw(s) each of the "
        f"{len(split.labelled)} labelled devices, of {labels} on each, and of the initial model. {len(split.training)} devices train. "
        f"{', '.join(run.card.modalities)}; {run.card.num_parameters:,} parameters; {run.info.run_config['pretrain.rounds']} rounds of "
        f"stage one, {run.info.run_config['finetune.rounds']} of stage two."
    )


def _unseen(run: RunRecord) -> tuple[float, float, float]:
    """Return mean accuracy, mean macro-F1 and worst accuracy over the subjects never seen, of the last round's model."""
    summary = summarise(run.subjects, "unseen")
    assert summary is not None, "every split of this table has test subjects"
    return summary.accuracy_mean, summary.macro_f1_mean, summary.worst_accuracy


def _chance_rows(runs: Sequence[RunRecord]) -> list[str]:
    classes = len(runs[0].split.classes)
    counts = [group_counts(run.subjects, "unseen") for run in runs]
    majority = mean(majority_share(each) or 0.0 for each in counts if each is not None)
    return [
        f"| chance (1 of {classes}) | {100 * chance(classes):.1f} | | | | |",
        f"| always the test subjects' most frequent activity | {100 * majority:.1f} | | | | |",
    ]


def _confusions(runs: Sequence[RunRecord], most: int = 3) -> str:
    """Return which pairs of activities hold most of the errors on subjects never seen, over all runs."""
    counts = pooled(subject.counts for run in runs for subject in run.subjects if subject.group == "unseen")
    assert counts is not None, "every split of this table has test subjects"
    classes = runs[0].split.classes
    errors = counts.confusion + counts.confusion.T
    pairs = sorted(((int(errors[i, j]), classes[i], classes[j]) for j in range(len(classes)) for i in range(j)), reverse=True)
    total = sum(number for number, _, _ in pairs)
    shares = ", ".join(f"{one} with {other} {100 * number / max(total, 1):.0f} %" for number, one, other in pairs[:most])
    return f"Where {FIRST} errs on subjects never seen: {shares} of all errors."


def _spread(values: Sequence[float]) -> str:
    return f"{100 * mean(values):.1f}" + (f" ± {100 * stdev(values):.1f}" if len(values) > 1 else "")


def _interval(differences: Sequence[float]) -> str:
    """Return a mean difference with its 95 % interval (Student's t over runs)."""
    if len(differences) < 2:
        return f"{100 * mean(differences):+.1f}"
    half = float(student_t.ppf(0.975, len(differences) - 1)) * stdev(differences) / len(differences) ** 0.5
    return f"{100 * mean(differences):+.1f} ({100 * (mean(differences) - half):+.1f} to {100 * (mean(differences) + half):+.1f})"


def _between_marks(page: Path, measured: str) -> None:
    """Put the measured section into the page, keeping the words around it."""
    text = page.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{measured}\n{END}{after}", encoding="utf-8")


def cells_of(data: Set) -> list[Cell]:
    """Return every run of a data set: all methods of a fold and draw one after the other."""
    folds = range(len(data.folds))
    return [Cell(data=data, method=method, draw=draw, fold=fold) for draw in range(data.num_draws) for fold in folds for method in METHODS]


def main(
    *,
    utd_mhad: Annotated[Path | None, typer.Option(help="UTD-MHAD folder or archive; without it only SPAR runs.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at once, one core each.")] = 2,
    results: Annotated[Path, typer.Option(help="Where finished cells are kept.")] = Path("results/first-run"),
    page: Annotated[Path, typer.Option(help="The page whose measured section is replaced.")] = Path("docs/results/first-run.md"),
) -> None:
    """Run what is missing of the table, then write it."""
    sets = [SPAR, SPAR_FEW, SPAR_ALL, SPAR_EIGHT]
    if utd_mhad is not None:
        sets.insert(1, replace(UTD_MHAD, overrides={**UTD_MHAD.overrides, "data.path": str(utd_mhad.absolute())}))
    cells = [cell for each in sets for cell in cells_of(each)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(run_cell, cell, results.absolute()): cell for cell in cells}
        for number, done in enumerate(as_completed(running), start=1):
            done.result()
            typer.echo(f"{number}/{len(cells)} {running[done].name}")
    tables = [table(cells_of(each), results) for each in sets]
    info = read_run(results / cells[0].name).info
    heading = (
        f"Measured with {', '.join(f'{name} {number}' for name, number in info.versions.items())} on {info.machine}, "
        f"{jobs} run(s) at once, one thread each."
    )
    _between_marks(page, "\n".join([heading, "", *tables]))
    typer.echo(f"wrote {page}")


if __name__ == "__main__":
    typer.run(main)
