"""`clmm export`: a finished run's model as one file that any device can run, calibrated on the run's validation people."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from clmm_core.data.fleet import device_windows
from clmm_core.errors import ClmmError, ConfigError
from clmm_core.export.calibrate import Calibration, calibrated, labelled_batches
from clmm_core.export.executorch_file import ExecutorchModel, executorch_program
from clmm_core.export.golden_vectors import TOLERANCE, golden_of, torch_answers
from clmm_core.export.int8 import TOLERANCES, smaller_models
from clmm_core.export.onnx_file import onnx_model
from clmm_core.export.trained import TrainedModel, read_trained
from clmm_core.files import replace_file
from clmm_core.recognise.golden import Golden, golden_file, golden_json
from clmm_core.recognise.onnx_model import OnnxModel
from server.run_config import parse_run_config


def export_onnx(folder: Path, file: Path, *, int8: bool, say: Callable[[str], None]) -> None:
    """Write a run's model as ONNX with its golden vectors, and say what was made.

    Args:
        folder: the results folder.
        file: where the model goes; the golden vectors go beside it.
        int8: whether its weights get 8 bits.
        say: called with each sentence.

    Raises:
        ClmmError: the run's model cannot be read, or not be exported.
    """
    trained = _calibrated_for(folder, file, say)
    model = onnx_model(trained)
    content, tolerance = model.SerializeToString(), TOLERANCE
    if int8:
        ways = smaller_models(model, trained)
        for way in ways:
            say(f"{way.precision}: {len(way.content):,} bytes, the class of fp32 in {way.agreement:.2%} of drawn windows")
        content, tolerance = ways[0].content, TOLERANCES[ways[0].precision]
    golden = golden_of(trained, content, OnnxModel.from_bytes(content, "the exported model"), tolerance)
    _write(file, content, golden, say)


def export_executorch(folder: Path, file: Path, say: Callable[[str], None]) -> None:
    """Write a run's model as an ExecuTorch program with its golden vectors; as `export_onnx`."""
    trained = _calibrated_for(folder, file, say)
    say("lowering to XNNPACK, which takes half a minute")
    content = executorch_program(trained)
    _write(file, content, golden_of(trained, content, ExecutorchModel.from_bytes(content, "the exported model")), say)


def _calibrated_for(folder: Path, file: Path, say: Callable[[str], None]) -> TrainedModel:
    """Return a run's model as it goes into a file."""
    trained = read_trained(folder)
    if not file.parent.is_dir():
        raise ConfigError(f"-o {file}: expected a folder {file.parent} to write into, found none: make it")
    trained = with_calibration(trained)
    chosen = trained.metadata
    say(f"calibrated on {chosen.calibrated_on}: temperature {chosen.temperature:g}, threshold {chosen.threshold:g}")
    return trained


def _write(file: Path, content: bytes, golden: Golden, say: Callable[[str], None]) -> None:
    replace_file(file, content)
    replace_file(golden_file(file), golden_json(golden))
    say(
        f"wrote {file}: {len(content):,} bytes, {golden.metadata.precision}; {golden_file(file).name}: {len(golden.vectors)} golden vectors"
    )


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
