"""`clmm bench export`: how exact exported models are on real windows, and what each runtime takes on one core."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from clmm_core.data.fleet import device_names, device_windows
from clmm_core.errors import ConfigError
from clmm_core.export.calibrate import labelled_batches
from clmm_core.export.executorch_file import ExecutorchModel
from clmm_core.export.golden_vectors import golden_of, torch_answers
from clmm_core.export.int8 import TOLERANCES, smaller_models
from clmm_core.export.onnx_file import onnx_model
from clmm_core.export.trained import TrainedModel, read_trained
from clmm_core.recognise.golden import OpenedModel, golden_file
from clmm_core.recognise.onnx_model import Float32, OnnxModel
from server.run_config import parse_run_config
from simulation.bench.browser import BrowserFigures, measure_in_browser
from simulation.bench.on_device import OnDevice, Runtime
from simulation.bench.tables import table
from simulation.export import Exported, as_executorch, page_files, with_calibration, write_exported
from simulation.marks import check_marks, replace_between_marks

MARK = "bench export"
TURNS = 3
"""Processes of each runtime, in turn: medians are over them."""
HOUR_S = 3600.0
EAGER, FP32, EXECUTORCH = "PyTorch eager", "ONNX fp32", "ExecuTorch"


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far a model file's answers are from those it should give, over the real windows of a run's data."""

    file: str
    num_bytes: int
    furthest: float
    """Largest difference of a logit: of fp32 to PyTorch, of int8 to the fp32 file."""
    agreement: float
    """Share of the windows with the same class."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What was found of one run's model."""

    data: str
    num_windows: int
    num_parameters: int
    accuracy: float
    """Over all windows, those trained on among them."""
    answered: float
    """Share of the windows above the threshold."""
    right: float
    """Share of these that are right."""
    parities: tuple[Parity, ...]
    """The one `--int8` would take comes first of the int8 files."""


def run_export_bench(runs: Sequence[Path], page: Path | None, command: str, say: Callable[[str], None]) -> None:
    """Measure runs' models, the first one's also as a budget of time and memory, and say the tables or write them into a page.

    Raises:
        ClmmError: a run's model or recordings cannot be read, or the page cannot be used.
    """
    if page is not None:
        check_marks(page, MARK)
    torch.set_num_threads(1)
    found: list[Run] = []
    budget: dict[str, list[OnDevice]] = {}
    browsers: dict[str, list[BrowserFigures]] = {}
    window_s = 0.0
    with TemporaryDirectory() as folder:
        for folder_of_run in runs:
            say(f"{folder_of_run}: on real windows")
            trained = with_calibration(read_trained(folder_of_run))
            files = _export(trained, Path(folder))
            found.append(_compared(trained, files))
            if not budget:
                say(f"{folder_of_run}: {TURNS} processes of each runtime, in turn")
                window_s = trained.metadata.window_s
                budget = measured_budget(folder_of_run, Path(folder), files, is_live=bool(window_s) and not trained.metadata.same_side)
                browsers = measured_browsers(Path(folder), files, say)
    text = "\n\n".join((_how(command), parity_table(found), budget_table(found[0], budget, window_s), browser_table(browsers)))
    if page is None:
        say(text)
    else:
        replace_between_marks(page, MARK, text)
        say(f"wrote {page}")


def _export(trained: TrainedModel, folder: Path) -> dict[str, Path]:
    """Return a file of each kind by its name in words: fp32, int8 each way, ExecuTorch where it is installed."""
    model = onnx_model(trained)
    made = {FP32: (model.SerializeToString(), 1e-4)}
    for way in smaller_models(model, trained):
        made[way.precision] = (way.content, TOLERANCES[way.precision])
    files = {}
    for name, (content, tolerance) in made.items():
        files[name] = folder / f"{name.replace(' ', '-')}.onnx"
        write_exported(files[name], Exported(content, golden_of(trained, content, OnnxModel.from_bytes(content, name), tolerance)))
    if find_spec("executorch"):
        files[EXECUTORCH] = folder / "model.pte"
        write_exported(files[EXECUTORCH], as_executorch(trained))
    return files


def _compared(trained: TrainedModel, files: dict[str, Path]) -> Run:
    windows, classes = real_windows(trained)
    eager, _ = torch_answers(trained, windows)
    fp32, probabilities = OnnxModel.open(files[FP32]).run(windows)
    is_sure, is_right = probabilities.max(axis=1) >= trained.metadata.threshold, fp32.argmax(axis=1) == classes
    parities = []
    for name, file in files.items():
        model: OpenedModel = ExecutorchModel.open(file) if name == EXECUTORCH else OnnxModel.open(file)
        reference = eager if name in (FP32, EXECUTORCH) else fp32
        logits, _ = model.run(windows)
        same = float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean())
        furthest = float(np.abs(logits - reference).max())
        parities.append(Parity(file=name, num_bytes=file.stat().st_size, furthest=furthest, agreement=same))
    return Run(
        data=str(trained.record.info.run_config["data.name"]),
        num_windows=len(classes),
        num_parameters=trained.record.card.num_parameters,
        accuracy=float(is_right.mean()),
        answered=float(is_sure.mean()),
        right=float(is_right[is_sure].mean()) if is_sure.any() else 0.0,
        parities=tuple(parities),
    )


def real_windows(trained: TrainedModel) -> tuple[dict[str, Float32], NDArray[np.int64]]:
    """Return every labelled window of the run's data, raw, and its class; people trained on too, for parity asks nothing of them."""
    data = parse_run_config(trained.record.info.run_config).data
    batches = labelled_batches((device_windows(data, name) for name in device_names(data)), trained.metadata)
    names = [modality.name for modality in trained.metadata.modalities]
    windows = {name: np.concatenate([own[name] for own, _ in batches]) for name in names}
    return windows, np.concatenate([classes for _, classes in batches])


def measured_budget(run: Path, folder: Path, files: dict[str, Path], *, is_live: bool) -> dict[str, list[OnDevice]]:
    """Return what each runtime took, one figure a turn.

    Args:
        run: the results folder, for PyTorch.
        folder: with the exported files.
        files: by name in words.
        is_live: whether the model can be fed from a stream.
    """
    int8 = next(name for name in files if name.startswith("int8"))
    asked = {
        EAGER: (Runtime.EAGER, run, files[FP32]),
        FP32: (Runtime.ONNX, files[FP32], files[FP32]),
        int8: (Runtime.ONNX, files[int8], files[int8]),
    }
    if EXECUTORCH in files:
        asked[EXECUTORCH] = (Runtime.EXECUTORCH, files[EXECUTORCH], files[EXECUTORCH])
    if is_live:
        asked["recogniser, fp32"] = (Runtime.RECOGNISER, files[FP32], files[FP32])
        asked["recogniser, int8"] = (Runtime.RECOGNISER, files[int8], files[int8])
    found: dict[str, list[OnDevice]] = {name: [] for name in asked}
    for _ in range(TURNS):
        for name, (runtime, file, of_golden) in asked.items():
            command = [sys.executable, "-m", "simulation.bench.on_device", runtime, str(file.absolute()), str(golden_file(of_golden))]
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )
            found[name].append(OnDevice(**json.loads(done.stdout.splitlines()[-1])))
    return found


def measured_browsers(folder: Path, files: dict[str, Path], say: Callable[[str], None]) -> dict[str, list[BrowserFigures]]:
    """Return what a page took in Chromium, one figure a turn, of fp32 and of the int8 file that `--int8` takes; nothing where it cannot.

    Args:
        folder: gets a page for each.
        files: by name in words.
        say: told why where there is no browser.
    """
    found: dict[str, list[BrowserFigures]] = {}
    try:
        page = page_files(None, say)
        for name in (FP32, next(name for name in files if name.startswith("int8"))):
            to = folder / f"browser-{files[name].stem}"
            to.mkdir()
            model = {"model.onnx": files[name].read_bytes(), "model.golden.json": golden_file(files[name]).read_bytes()}
            for each, content in (page | model).items():
                (to / each).write_bytes(content)
            found[name] = [measure_in_browser(to) for _ in range(TURNS)]
    except ConfigError as error:
        say(f"not measured in a browser: {error}")
    return found


def browser_table(browsers: dict[str, list[BrowserFigures]]) -> str:
    """Return what a page takes in a browser."""
    if not browsers:
        return "No browser was there to be measured."
    header = ("in the browser", "a window, p50", "p95", "load to first answer", "memory of the page")
    rows = [
        (
            f"{name}, {turns[0].browser}",
            *(f"{median(getattr(each, field) for each in turns):.2f} ms" for field in ("p50_ms", "p95_ms")),
            *(f"{median(each.load_s for each in turns):.2f} s", f"{max(each.memory_bytes for each in turns) / 2**20:.0f} MiB"),
        )
        for name, turns in browsers.items()
    ]
    return (
        f"{table(header, rows)}\n\nonnxruntime-web, one thread, from this machine and nothing cached; medians of {TURNS} loads of the page."
    )


def parity_table(runs: Sequence[Run]) -> str:
    """Return how exact each file of each run is."""
    header = ("run on", "real windows", "file", "bytes", "largest difference of a logit", "same class")
    rows = [
        (
            *((run.data, f"{run.num_windows:,}") if i == 0 else ("", "")),
            *(each.file, f"{each.num_bytes:,}", f"{each.furthest:.1e}", f"{each.agreement:.2%}"),
        )
        for run in runs
        for i, each in enumerate(run.parities)
    ]
    says = "fp32 and ExecuTorch against PyTorch, int8 against the fp32 file; the first int8 of a run is what `--int8` takes."
    models = [
        f"{run.data}: {run.num_parameters:,} parameters; {run.accuracy:.1%} of all windows right, those trained on among them; with "
        f'"not sure" {run.answered:.1%} are answered, {run.right:.1%} of these right.'
        for run in runs
    ]
    return "\n\n".join((table(header, rows), says, "\n".join(f"- {each}" for each in models)))


def budget_table(run: Run, budget: dict[str, list[OnDevice]], window_s: float) -> str:
    """Return what each runtime takes on one core."""
    sizes = {each.file: f"{each.num_bytes:,}" for each in run.parities}
    eager_ms = median(each.p50_ms for each in budget[EAGER])
    header = (
        "",
        "bytes",
        "a window, p50",
        "eager / this",
        "core time a window",
        "an hour of recognition",
        "import to first answer",
        "peak memory",
    )
    rows = []
    for name, turns in budget.items():
        p50_ms, cpu_ms = (median(getattr(each, field) for each in turns) for field in ("p50_ms", "cpu_ms"))
        hour = f"{HOUR_S / (window_s / 2) * cpu_ms / 1000:.1f} s of a core" if window_s else "no stream: whole trials"
        rows.append(
            (
                *(name, sizes.get(name, ""), f"{p50_ms:.2f} ms", "" if "recogniser" in name else f"{eager_ms / p50_ms:.1f}"),
                *(f"{cpu_ms:.2f} ms", hour, f"{median(each.first_s for each in turns):.2f} s"),
                f"{max(each.peak_mib for each in turns):.0f} MiB",
            )
        )
    says = (
        f"{run.data}, one window a call, each in a process of its own with one thread on one core; medians of {TURNS} processes in "
        "turn. "
        "A recogniser takes samples in tenths of a second; its core time is with buffering, resampling and cutting, its p50 that of the "
        f"samples that complete a window. An hour of recognition: a window every {window_s / 2:g} s."
    )
    return "\n\n".join((table(header, rows), says))


def _how(command: str) -> str:
    packages = [name for name in ("torch", "onnxruntime", "executorch", "numpy") if find_spec(name)]
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the end"
    return f"    {command}\n\nMeasured with python {platform.python_version()}, {versions} on {machine}."
