"""`clmm export`: a finished run's model as one file that any device can run, calibrated on the run's validation people; or as a page."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import client
from clmm_core.data.fleet import device_windows
from clmm_core.errors import ClmmError, ConfigError
from clmm_core.export.calibrate import Calibration, calibrated, labelled_batches
from clmm_core.export.executorch_file import ExecutorchModel, executorch_program
from clmm_core.export.golden_vectors import golden_of, torch_answers
from clmm_core.export.int8 import TOLERANCES, smaller_models
from clmm_core.export.onnx_file import onnx_model
from clmm_core.export.trained import TrainedModel, read_trained
from clmm_core.files import replace_file
from clmm_core.recognise.golden import Golden, golden_file, golden_json
from clmm_core.recognise.onnx_model import OnnxModel
from server.run_config import parse_run_config
from simulation.onnxruntime_web import runtime_files

PAGE = Path(client.__file__).parent / "browser"
"""The page and its modules."""


@dataclass(frozen=True, eq=False)
class Exported:
    """A model file's content, and what belongs beside it."""

    content: bytes
    golden: Golden


def export_model(folder: Path, file: Path, make: Callable[[TrainedModel], Exported], say: Callable[[str], None]) -> None:
    """Write a run's model and its golden vectors, and say what was made.

    Args:
        folder: the results folder.
        file: where the model goes; the golden vectors go beside it.
        make: `as_onnx`, `as_int8` or `as_executorch`.
        say: called with each sentence.

    Raises:
        ClmmError: the run's model cannot be read, or not be exported.
    """
    trained = read_trained(folder)
    if not file.parent.is_dir():
        raise ConfigError(f"-o {file}: expected a folder {file.parent} to write into, found none: make it")
    trained = with_calibration(trained)
    chosen = trained.metadata
    say(f"calibrated on {chosen.calibrated_on}: temperature {chosen.temperature:g}, threshold {chosen.threshold:g}")
    exported = make(trained)
    write_exported(file, exported)
    size, vectors = f"{len(exported.content):,} bytes, {exported.golden.metadata.precision}", len(exported.golden.vectors)
    say(f"wrote {file}: {size}; {golden_file(file).name}: {vectors} golden vectors")


def as_onnx(trained: TrainedModel) -> Exported:
    """Return the model as an ONNX file."""
    content = onnx_model(trained).SerializeToString()
    return Exported(content, golden_of(trained, content, OnnxModel.from_bytes(content, "the exported model")))


def as_int8(trained: TrainedModel, say: Callable[[str], None]) -> Exported:
    """Return the model as an ONNX file with weights of 8 bits, made the way that keeps most answers; says what each way keeps."""
    ways = smaller_models(onnx_model(trained), trained)
    for way in ways:
        say(f"{way.precision}: {len(way.content):,} bytes, the class of fp32 in {way.agreement:.2%} of drawn windows")
    content, tolerance = ways[0].content, TOLERANCES[ways[0].precision]
    return Exported(content, golden_of(trained, content, OnnxModel.from_bytes(content, "the exported model"), tolerance))


def as_executorch(trained: TrainedModel) -> Exported:
    """Return the model as an ExecuTorch program, which takes half a minute."""
    content = executorch_program(trained)
    return Exported(content, golden_of(trained, content, ExecutorchModel.from_bytes(content, "the exported model")))


def write_exported(file: Path, exported: Exported) -> None:
    """Write a model file, and its golden vectors beside it."""
    replace_file(file, exported.content)
    replace_file(golden_file(file), golden_json(exported.golden))


def export_browser(
    folder: Path, to: Path, make: Callable[[TrainedModel], Exported], runtime: Path | None, say: Callable[[str], None]
) -> None:
    """Write a folder that a static file server serves: the page, its modules, the model, and what runs it.

    Args:
        folder: the results folder.
        to: the folder to write; files of an export before are written over.
        make: `as_onnx` or `as_int8`.
        runtime: the archive of onnxruntime-web, else the one that npm fetches.
        say: called with each sentence.

    Raises:
        ClmmError: the run's model cannot be exported, or there is no onnxruntime-web.
    """
    if not to.parent.is_dir():
        raise ConfigError(f"-o {to}: expected a folder {to.parent} to write into, found none: make it")
    files = page_files(runtime, say)
    to.mkdir(exist_ok=True)
    export_model(folder, to / "model.onnx", make, say)
    for name, content in files.items():
        replace_file(to / name, content)
    size = sum((to / name).stat().st_size for name in (*files, "model.onnx", "model.golden.json"))
    say(f"wrote {to}: {size / 1e6:.1f} MB; look at it with: python -m http.server --bind 127.0.0.1 --directory {to}")


def page_files(runtime: Path | None, say: Callable[[str], None]) -> dict[str, bytes]:
    """Return all files of a page by name but its model and golden vectors; see `export_browser`.

    Raises:
        ClmmError: there is no onnxruntime-web.
    """
    return runtime_files(runtime, say) | {file.name: file.read_bytes() for file in PAGE.iterdir()}


def with_calibration(trained: TrainedModel) -> TrainedModel:
    """Return the model with temperature and threshold from the run's validation people, or with why there are none."""
    try:
        found, on = _calibration(trained)
    except ClmmError as error:
        return replace(trained, metadata=replace(trained.metadata, calibrated_on=f"nobody: {error}"))
    metadata = replace(trained.metadata, temperature=found.temperature, threshold=found.threshold, calibrated_on=on)
    return replace(trained, metadata=metadata)


def _calibration(trained: TrainedModel) -> tuple[Calibration, str]:
    people = trained.record.split.validation
    if not people:
        raise ConfigError("the run had no validation people")
    data = parse_run_config(trained.record.info.run_config).data
    batches = labelled_batches((device_windows(data, person) for person in people), trained.metadata)
    logits = np.concatenate([torch_answers(trained, windows)[0] for windows, _ in batches]).astype(np.float64)
    classes = np.concatenate([own for _, own in batches])
    return calibrated(logits, classes), f"{len(classes):,} windows of {len(people)} validation people"
