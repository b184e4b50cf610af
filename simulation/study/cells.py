"""Run the cells of a study: several at once, each stored as it ends, stage one shared by those that have the same."""

import fcntl
import itertools
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from traceback import extract_tb

import torch

from clmm_core.errors import ClmmError, ConfigError
from clmm_core.federated.source import client_source
from clmm_core.report.records import RunInfo
from clmm_core.report.run_folder import PARTIAL_SUFFIX, RunFolder
from server.federation import run_stage_one
from server.hosts import Hosts
from server.results import train_and_write
from server.run_config import RunConfig, parse_run_config
from server.stage_one import read_stage_one, write_stage_one
from simulation.in_process import InProcessHosts
from simulation.lockstep import Lockstep
from simulation.overrides import Value
from simulation.study.plan import Cell, by_stage_one

STAGE_ONE = "stage-one"
"""Folder beside the cells for what they share."""
WINDOWS = ".windows"
"""Folder beside the cells for the windows that their processes share, while the study runs."""
LOCK = ".lock"
"""File beside the cells, held while they are added to; no run can have this name."""


@dataclass(frozen=True)
class Done:
    """A job that ended: a cell, or a stage one that several wait for."""

    what: str
    error: str = ""
    """Empty where it went well."""


Tell = Callable[[Done, int, int], None]
RunOne = Callable[[Cell, Path, Hosts], None]


def run_cells(cells: Sequence[Cell], results: Path, jobs: int, tell: Tell, device: str = "") -> list[Done]:
    """Run every cell that is not there yet; return those that failed. However this ends, no process of it goes on.

    Args:
        cells: all of a study; those with the same settings are run once.
        results: the folder of the cells of all studies; a cell's results folder is `results / cell.name`.
        jobs: runs at once: processes, one core each, or with a device the runs trained together on it.
        tell: called as each job ends, with how many have and how many there are.
        device: what to train all runs together on, as PyTorch names it; empty for processes.

    Raises:
        ConfigError: the device cannot be used, another study is adding to these results, or the system killed a process of this one.
    """
    place = _usable(device) if device else None
    (results / STAGE_ONE).mkdir(parents=True, exist_ok=True)
    with _alone_in(results), _windows_in(results / WINDOWS):
        missing = list({cell.name: cell for cell in cells if not (results / cell.name).exists()}.values())
        if place is not None:
            with _on_one_thread(), _matrix_products_in_tf32():
                return _run_together(missing, results, jobs, place, tell)
        with _processes(jobs) as pool:
            return _run_missing(missing, results, pool, tell)


def _run_missing(missing: Sequence[Cell], results: Path, pool: ProcessPoolExecutor, tell: Tell) -> list[Done]:
    groups = by_stage_one(missing)
    failed: list[Done] = []
    waiting: dict[Future[str], Cell | str] = {}
    for key, group in groups.items():
        if len(group) > 1 and key and not _stage_one_file(results, key).exists():
            waiting[pool.submit(_error_of, _run_stage_one, group[0], results)] = key
        else:
            waiting |= {pool.submit(_error_of, _run_cell, cell, results): cell for cell in group}
    total, num_done = len(missing) + sum(isinstance(what, str) for what in waiting.values()), 0
    while waiting:
        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
            what = waiting.pop(future)
            done = Done(what.name if isinstance(what, Cell) else f"stage one {what}", future.result())
            failed += [done] if done.error else []
            num_done += 1
            tell(done, num_done, total)
            if isinstance(what, str):  # those that waited for it run also if it failed: each then says why for itself
                waiting |= {pool.submit(_error_of, _run_cell, cell, results): cell for cell in groups[what]}
    return failed


def _usable(device: str) -> torch.device:
    """Return a device that PyTorch can use here.

    Raises:
        ConfigError: it cannot.
    """
    try:
        place = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # the second where PyTorch was built without CUDA
        raise ConfigError(
            f"--device {device}: PyTorch {torch.__version__} cannot use it here: {str(error).splitlines()[0]}; "
            "install a build for this GPU (`make run TORCH_INDEX=...`), or leave --device out"
        ) from error
    if place.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device: expected cuda, or cpu to try it out, found {device}")
    if place.type == "cuda":
        torch.cuda.set_device(place)  # what kernels and graphs are made on
    return place


@contextmanager
def _on_one_thread() -> Iterator[None]:
    """Keep what the CPU does beside a device to one thread, as in the processes of `_begin`: models this small are slower on many."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _matrix_products_in_tf32() -> Iterator[None]:
    """Let a GPU round what it multiplies to ten bits of mantissa; a CPU goes on in float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _run_together(missing: Sequence[Cell], results: Path, jobs: int, device: torch.device, tell: Tell) -> list[Done]:
    """Run the stages one that several cells need, then the cells, `jobs` side by side; extra trees last, one after the other."""
    needed = {key: group[0] for key, group in by_stage_one(missing).items() if len(group) > 1 and key}
    shared = {f"stage one {key}": cell for key, cell in needed.items() if not _stage_one_file(results, key, device.type).exists()}
    trees = [cell for cell in missing if cell.classifier == "extra-trees"]
    federated = {cell.name: cell for cell in missing if cell.classifier != "extra-trees"}
    failed: list[Done] = []
    ended = itertools.count(1)

    def work(what: str, train: RunOne, cell: Cell, hosts: Hosts) -> None:
        done = Done(what, _error_of(lambda *these: train(*these, hosts), cell, results))
        failed.extend([done] if done.error else [])
        tell(done, next(ended), len(shared) + len(missing))

    for run_one, cells in ((_run_stage_one, shared), (_run_cell, federated)):
        named, train = list(cells.items()), partial(run_one, together_on=device.type)
        for first in range(0, len(named), jobs):
            Lockstep(device).run([partial(work, what, train, cell) for what, cell in named[first : first + jobs]])
    for cell in trees:
        work(cell.name, _run_cell, cell, InProcessHosts(1))
    return failed


@contextmanager
def _alone_in(results: Path) -> Iterator[None]:
    """Hold the folder of cells; the system lets go of them also when this process is killed.

    Raises:
        ConfigError: another process holds them.
    """
    with (results / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"{results}: another `clmm study` is adding to these results: wait for its end, or name others") from error
        yield


@contextmanager
def _windows_in(folder: Path) -> Iterator[None]:
    """Remove the shared windows at the end. What a killed study left of them is used, where it is still what would be made."""
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _processes(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Give processes of one thread each, which end with this one: stopped or killed, it leaves none that writes on.

    Raises:
        ConfigError: the system killed one of them.
    """
    context = get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)  # nobody writes to it: it only closes, with us at the latest
    with ours, theirs, ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(theirs,)) as pool:
        try:
            yield pool
        except BaseException as error:
            ours.close()
            pool.shutdown(cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise ConfigError(
                    "the system killed a process of the study, most likely for lack of memory: what is finished is kept; "
                    "run the same command again with fewer --jobs"
                ) from error
            raise


def _begin(parent: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal: the parent decides what it means
    torch.set_num_threads(1)
    Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Connection) -> None:
    parent.poll(None)
    os._exit(1)  # at once, whatever is being trained: its partial folder is removed when it is run again


def _error_of(work: Callable[[Cell, Path], None], cell: Cell, results: Path) -> str:
    """Do the work; return what went wrong, empty where nothing did: a mistake in one cell does not stop the others."""
    try:
        work(cell, results)
    except ClmmError as error:
        return " ".join(str(error).split())
    except Exception as error:
        place = extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {' '.join(str(error).split())} ({Path(place.filename).name}, line {place.lineno})"
    return ""


def _stage_one_file(results: Path, key: str, together_on: str = "") -> Path:
    """Return where a stage one is kept: other code, or another device, makes its own, so that what a run says of itself is true."""
    return results / STAGE_ONE / f"{'-'.join(filter(None, (key, client_source(), together_on)))}.safetensors"


def _config_of(values: Mapping[str, Value], results: Path) -> RunConfig:
    config = parse_run_config(values)
    return replace(config, data=replace(config.data, shared_folder=str(results.absolute() / WINDOWS)))


def _run_stage_one(cell: Cell, results: Path, hosts: Hosts | None = None, *, together_on: str = "") -> None:
    """Train the stage one of a cell and keep it; what a killed one left is removed."""
    shutil.rmtree(results / STAGE_ONE / f"{cell.stage_one}{PARTIAL_SUFFIX}", ignore_errors=True)
    folder = RunFolder.create(results / STAGE_ONE, cell.stage_one)
    info = RunInfo(name=cell.stage_one, run_config=dict(cell.values), versions={}, machine="", started_at="")
    try:
        stage_one = run_stage_one(hosts or InProcessHosts(1), _config_of(cell.values, results), info, folder, lambda _: None)
        write_stage_one(_stage_one_file(results, cell.stage_one, together_on), stage_one)
    finally:
        folder.discard()


def _run_cell(cell: Cell, results: Path, hosts: Hosts | None = None, *, together_on: str = "") -> None:
    """Run one cell and leave its results folder; what a killed run of it left is removed."""
    shutil.rmtree(results / f"{cell.name}{PARTIAL_SUFFIX}", ignore_errors=True)
    values: dict[str, Value] = {**cell.values, "results-dir": str(results), "run-name": cell.name}
    config, hosts = _config_of(values, results), hosts or InProcessHosts(1)
    if cell.classifier == "extra-trees":
        from simulation.study.classical import train_extra_trees  # noqa: PLC0415  scikit-learn, which no other cell needs

        train_extra_trees(hosts, config, values)
        return
    shared = _stage_one_file(results, cell.stage_one, together_on)
    stage_one = read_stage_one(shared) if shared.exists() else None
    train_and_write(hosts, config, values, lambda _: None, stage_one, together_on=together_on)
