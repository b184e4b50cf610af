"""The first accuracy table: what stage one is worth on people the model never saw. `make bench` runs it.

Every cell is a whole federated run in this process, stored as a results folder when it ends, so that a killed benchmark goes on where
it was. The table goes into docs/results/first-run.md, between the two marks.
"""

import os
import platform
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated

import torch
import typer

from clmm_core.report.metrics import chance, majority_share, pooled, summarise
from clmm_core.report.records import RunRecord
from clmm_core.report.run_folder import read_run
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
UTD_MHAD: dict[str, Value] = {"pretrain.local-epochs": 2, "finetune.rounds": 40}
"""Fewer windows a device and four times the classes: more passes in both stages."""


@dataclass(frozen=True, kw_only=True)
class Set:
    """A data set of the table and what its runs change in the run config."""

    name: str
    overrides: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of the table."""

    data: Set
    method: str
    seed: int

    @property
    def name(self) -> str:
        """The cell's results folder."""
        return f"{self.data.name}-{self.method.replace(',', '').replace(' ', '-')}-seed{self.seed}"

    @property
    def overrides(self) -> dict[str, Value]:
        """What the cell changes in the run config."""
        return {**self.data.overrides, **METHODS[self.method], "seed": self.seed, "run-name": self.name}


def run_cell(cell: Cell, results: Path) -> None:
    """Run one cell, unless it is there already, and leave its results folder."""
    if (results / cell.name).exists():
        return
    torch.set_num_threads(1)
    values = apply_overrides(
        read_app_config(find_app(None)), {**cell.overrides, "results-dir": str(results), "report.points-per-device": 0}
    )
    train_and_write(InProcessHosts(1), parse_run_config(values), values, say=lambda _: None)


def table(cells: Sequence[Cell], results: Path) -> str:
    """Return the Markdown section of one data set: a row a method, then the differences to the first, paired by seed."""
    runs = {(cell.method, cell.seed): read_run(results / cell.name) for cell in cells}
    seeds = sorted({cell.seed for cell in cells})
    first = next(iter(runs.values()))
    lines = [
        f"### {cells[0].data.name}",
        "",
        _setting(first, len(seeds)),
        "",
        "| method | accuracy | macro-F1 | worst subject | each seed | gain of stage one, paired | wall time a run |",
        "|---|---|---|---|---|---|---|",
    ]
    for method in METHODS:
        accuracies, f1s, worst = zip(*(_unseen(runs[method, seed]) for seed in seeds), strict=True)
        differences = [_unseen(runs[FIRST, seed])[0] - accuracies[i] for i, seed in enumerate(seeds)]
        gain = "" if method == FIRST else f"{_spread(differences, sign='+')}, smallest {100 * min(differences):+.1f}"
        wall_s = mean(runs[method, seed].rounds[-1].elapsed_s for seed in seeds)
        each = " ".join(f"{100 * value:.1f}" for value in accuracies)
        lines.append(f"| {method} | {_spread(accuracies)} | {_spread(f1s)} | {100 * min(worst):.1f} | {each} | {gain} | {wall_s:.0f} s |")
    return "\n".join([*lines, *_chance_rows([runs[FIRST, seed] for seed in seeds]), ""])


def _setting(run: RunRecord, num_seeds: int) -> str:
    split = run.split
    return (
        f"{num_seeds} seeds; each draws {len(split.test)} test, {len(split.validation)} validation and {len(split.labelled)} labelled "
        f"subjects of {len(split.training) + len(split.test) + len(split.validation)}, and {split.labels_per_class} labelled "
        f"{split.label_unit}(s) a class. {', '.join(run.card.modalities)}; {run.card.num_parameters:,} parameters; "
        f"{run.info.run_config['pretrain.rounds']} rounds of stage one, {run.info.run_config['finetune.rounds']} of stage two."
    )


def _unseen(run: RunRecord) -> tuple[float, float, float]:
    """Return mean accuracy, mean macro-F1 and worst accuracy over the subjects never seen, of the last round's model."""
    summary = summarise(run.subjects, "unseen")
    assert summary is not None, "every split of this table has test subjects"
    return summary.accuracy_mean, summary.macro_f1_mean, summary.worst_accuracy


def _chance_rows(runs: Sequence[RunRecord]) -> list[str]:
    classes = len(runs[0].split.classes)
    counts = [pooled(subject.counts for subject in run.subjects if subject.group == "unseen") for run in runs]
    majority = mean(majority_share(each) or 0.0 for each in counts if each is not None)
    return [
        f"| chance (1 of {classes}) | {100 * chance(classes):.1f} | | | | | |",
        f"| always the test subjects' most frequent activity | {100 * majority:.1f} | | | | | |",
    ]


def _spread(values: Sequence[float], sign: str = "") -> str:
    deviation = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):{sign}.1f}{deviation}"


def _between_marks(page: Path, measured: str) -> None:
    """Put the measured section into the page, keeping the words around it."""
    text = page.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{measured}\n{END}{after}", encoding="utf-8")


def main(
    *,
    utd_mhad: Annotated[Path | None, typer.Option(help="UTD-MHAD folder or archive; without it only SPAR runs.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0 to N - 1.")] = 5,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at once, one core each.")] = 2,
    results: Annotated[Path, typer.Option(help="Where finished cells are kept.")] = Path("results/first-run"),
    page: Annotated[Path, typer.Option(help="The page whose measured section is replaced.")] = Path("docs/results/first-run.md"),
) -> None:
    """Run what is missing of the table, then write it."""
    sets = [Set(name="SPAR")]
    if utd_mhad is not None:
        sets.append(Set(name="UTD-MHAD", overrides={"data.name": "utd-mhad", "data.path": str(utd_mhad.absolute()), **UTD_MHAD}))
    cells = [Cell(data=each, method=method, seed=seed) for each in sets for method in METHODS for seed in range(seeds)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(run_cell, cell, results.absolute()): cell for cell in cells}
        for number, done in enumerate(as_completed(running), start=1):
            done.result()
            typer.echo(f"{number}/{len(cells)} {running[done].name}")
    tables = [table([cell for cell in cells if cell.data == each], results) for each in sets]
    versions = read_run(results / cells[0].name).info.versions
    heading = (
        f"Measured with {', '.join(f'{name} {number}' for name, number in versions.items())} on {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores, {jobs} run(s) at once, one thread each."
    )
    _between_marks(page, "\n".join([heading, "", *tables]))
    typer.echo(f"wrote {page}")


if __name__ == "__main__":
    typer.run(main)
