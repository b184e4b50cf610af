"""`clmm bench simulation`: measure what is missing, and write the tables and the figure as they come."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
import typer

from clmm_core.errors import ConfigError
from clmm_core.files import replace_file
from simulation.bench.figures import scaling_figure
from simulation.bench.fleet import Device
from simulation.bench.measure import Benchmark, Measurements, measure
from simulation.bench.processes import check_can_be_watched
from simulation.bench.tables import markdown
from simulation.marks import check_marks, replace_between_marks
from simulation.study.command import PICTURES, without_folders

KEPT = "bench"
"""Folder in the results for what was measured."""


def benchmark_of(device: str, devices: int, batch_sizes: str, fleet_sizes: str, rounds: int, turns: int) -> Benchmark:
    """Return what the command line asks for.

    Raises:
        ConfigError: a device or a list of numbers that cannot be.
    """
    if device not in get_args(Device):
        raise ConfigError(f"--device: expected {' or '.join(get_args(Device))}, found '{device}'")
    return Benchmark(
        device=device,
        num_devices=devices,
        batch_sizes=_numbers("--batch-sizes", batch_sizes),
        fleet_sizes=_numbers("--fleet-sizes", fleet_sizes),
        rounds=rounds,
        turns=turns,
    )


def _numbers(option: str, text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) >= 2 for word in words):
        raise ConfigError(f"{option}: expected numbers from 2 on with commas between, found '{text}'")
    return tuple(dict.fromkeys(int(word) for word in words))


def run_benchmark(benchmark: Benchmark, results: Path, page: Path | None, command: Sequence[str]) -> None:
    """Measure what `results/bench` does not have of this code, then say the tables, or write them into a page with its figure.

    Raises:
        ClmmError: it cannot be measured here, a run failed, or the page cannot be used.
    """
    check_can_be_watched()
    _check_device(benchmark)
    mark = f"bench simulation {benchmark.device}"
    if page is not None:
        check_marks(page, mark)
    said = shlex.join(without_folders(argument) for argument in command)

    def so_far(found: Measurements) -> None:
        if page is not None:
            replace_between_marks(page, mark, markdown(benchmark, found, said, _figure(benchmark, found, page)))

    found = measure(benchmark, results.absolute() / KEPT, typer.echo, so_far)
    typer.echo(f"wrote {page}" if page is not None else markdown(benchmark, found, said, None))


def _figure(benchmark: Benchmark, found: Measurements, page: Path) -> str | None:
    """Write the figure beside the page and return where it lies as seen from there; None before there is one."""
    svg = scaling_figure(found.scaled)
    if svg is None:
        return None
    link = f"{PICTURES}/simulation-{benchmark.device}-scaling.svg"
    (page.parent / PICTURES).mkdir(exist_ok=True)
    replace_file(page.parent / link, svg)
    return link


def _check_device(benchmark: Benchmark) -> None:
    if benchmark.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"--device cuda: PyTorch {torch.__version__} finds no GPU here: install a build for it "
            "(`make run TORCH_INDEX=...`), or leave --device out"
        )
