"""`clmm export`: a finished run's model as one file that any device can run, calibrated on the run's validation people; or as a page."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

import client
from clmm_core.data.fleet import device_windows
from clmm_core.errors import ClmmError, ConfigError
from clmm_core.export.calibrate import Calibration, calibrated, labelled_batches
from clmm_core.export.golden_vectors import TOLERANCE, golden_of, torch_answers
from clmm_core.export.int8 import TOLERANCES, smaller_models
from clmm_core.export.onnx_file import onnx_model
from clmm_core.export.trained import TrainedModel, read_trained
from clmm_core.files import replace_file
from clmm_core.recognise.golden import golden_file, golden_json
from server.run_config import parse_run_config
from simulation.onnxruntime_web import runtime_files

PAGE = Path(client.__file__).parent / "browser"
"""The page and its modules."""


def export_onnx(folder: Path, file: Path, *, int8: bool, say: Callable[[str], None]) -> None:
    """Write a run's model and its golden vectors, and say what was made.

    Args:
        folder: the results folder.
        file: where the model goes; the golden vectors go beside it.
        int8: whether its weights get 8 bits.
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
    model = onnx_model(trained)
    content, tolerance = model.SerializeToString(), TOLERANCE
    if int8:
        ways = smaller_models(model, trained)
        for way in ways:
            say(f"{way.precision}: {len(way.content):,} bytes, the class of fp32 in {way.agreement:.2%} of drawn windows")
        content, tolerance = ways[0].content, TOLERANCES[ways[0].precision]
    golden = golden_of(trained, content, tolerance)
    replace_file(file, content)
    replace_file(golden_file(file), golden_json(golden))
    say(
        f"wrote {file}: {len(content):,} bytes, {golden.metadata.precision}; {golden_file(file).name}: {len(golden.vectors)} golden vectors"
    )


def export_browser(folder: Path, to: Path, *, int8: bool, runtime: Path | None, say: Callable[[str], None]) -> None:
    """Write a folder that a static file server serves: the page, its modules, the model, and what runs it.

    Args:
        folder: the results folder.
        to: the folder to write; files of an export before are written over.
        int8: whether the model's weights get 8 bits.
        runtime: the archive of onnxruntime-web, else the one that npm fetches.
        say: called with each sentence.

    Raises:
        ClmmError: the run's model cannot be exported, or there is no onnxruntime-web.
    """
    if not to.parent.is_dir():
        raise ConfigError(f"-o {to}: expected a folder {to.parent} to write into, found none: make it")
    files = runtime_files(runtime, say) | {file.name: file.read_bytes() for file in PAGE.iterdir()}
    to.mkdir(exist_ok=True)
    export_onnx(folder, to / "model.onnx", int8=int8, say=say)
    for name, content in files.items():
        replace_file(to / name, content)
    size = sum((to / name).stat().st_size for name in (*files, "model.onnx", "model.golden.json"))
    say(f"wrote {to}: {size / 1e6:.1f} MB; look at it with: python -m http.server --bind 127.0.0.1 --directory {to}")


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
