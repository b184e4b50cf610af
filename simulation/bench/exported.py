"""How good, small and quick an exported model is, on real windows of a run's own data: `python -m simulation.bench.exported RUN`."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from clmm_core.data.fleet import device_names, device_windows
from clmm_core.export.calibrate import labelled_batches
from clmm_core.export.golden_vectors import golden_windows, torch_answers
from clmm_core.export.int8 import smaller_models
from clmm_core.export.onnx_file import onnx_model
from clmm_core.export.trained import TrainedModel, read_trained
from clmm_core.recognise.onnx_model import Float32, OnnxModel
from server.run_config import parse_run_config
from simulation.export import with_calibration

TURNS, WARM_UP = 500, 50
STARTS = 7
FIRST_ANSWER = """
import time; began = time.perf_counter()
import json, sys
from pathlib import Path
import numpy as np
from clmm_core.recognise.recogniser import Recogniser
recogniser = Recogniser.load(sys.argv[1])
metadata, answers = recogniser.metadata, []
for modality in metadata.modalities:
    times = np.arange(modality.time_steps + round(modality.rate_hz)) * 1e9 / modality.rate_hz
    answers += recogniser.add(modality.name, times, np.full((len(times), modality.channels), 5.7, np.float32))
assert answers, "an answer"
loaded = [name for name in ("torch", "flwr", "pandas", "pydantic") if name in sys.modules]
seconds = time.perf_counter() - began
peak_kib = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps([seconds, peak_kib / 1024, loaded]))  # getrusage would tell the peak of the process that started this one, too
"""


def main(folder: Path, say: Callable[[str], None]) -> None:
    """Say the rows of docs/results/export.md for one run, each as soon as it is measured."""
    torch.set_num_threads(1)
    trained = with_calibration(read_trained(folder))
    model = onnx_model(trained)
    content = model.SerializeToString()
    fp32 = OnnxModel.from_bytes(content, "fp32")
    windows, classes = real_windows(trained)
    eager, _ = torch_answers(trained, windows)
    logits, probabilities = fp32.run(windows)
    say(f"{len(classes):,} real windows of {trained.record.card.trained_on}; calibrated on {trained.metadata.calibrated_on}")
    say(f"temperature {trained.metadata.temperature:g}, threshold {trained.metadata.threshold:g}")
    sure = probabilities.max(axis=1) >= trained.metadata.threshold
    right = logits.argmax(axis=1) == classes
    say(f"accuracy {right.mean():.1%}; answered {sure.mean():.1%}, of these right {right[sure].mean():.1%}")
    say(f"parameters {trained.record.card.num_parameters:,}")
    one = _one(trained)
    say(f"eager | | {_p50_ms(lambda: torch_answers(trained, one)):.2f} ms")
    say(_row("fp32", content, fp32, logits, eager, one))
    for way in smaller_models(model, trained):
        smaller = OnnxModel.from_bytes(way.content, way.precision)
        say(_row(way.precision, way.content, smaller, smaller.run(windows)[0], logits, one))
    if trained.metadata.window_s and not trained.metadata.same_side:
        seconds, mib = first_answer(content)
        say(f"recogniser: import, load and first answer {seconds:.2f} s, peak memory {mib:.0f} MiB")


def real_windows(trained: TrainedModel) -> tuple[dict[str, Float32], NDArray[np.int64]]:
    """Return every labelled window of the run's data, raw, and its class; people trained on too, for parity asks nothing of them."""
    data = parse_run_config(trained.record.info.run_config).data
    batches = labelled_batches((device_windows(data, name) for name in device_names(data)), trained.metadata)
    names = [modality.name for modality in trained.metadata.modalities]
    windows = {name: np.concatenate([own[name] for own, _ in batches]) for name in names}
    return windows, np.concatenate([classes for _, classes in batches])


def first_answer(content: bytes) -> tuple[float, float]:
    """Return the median seconds from an interpreter that has just started to the first answer, and its largest peak of memory in MiB."""
    found = []
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(content)
        for _ in range(STARTS):
            command = [sys.executable, "-c", FIRST_ANSWER, str(file)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
            seconds, mib, loaded = json.loads(done.stdout)
            assert not loaded, f"the recogniser loaded {loaded}"
            found.append((seconds, mib))
    return median(seconds for seconds, _ in found), max(mib for _, mib in found)


def _one(trained: TrainedModel) -> dict[str, Float32]:
    """Return one window with all modalities."""
    return {name: values[:1] for name, values in golden_windows(trained).items()}


def _row(name: str, content: bytes, model: OnnxModel, logits: Float32, reference: Float32, one: dict[str, Float32]) -> str:
    same = (logits.argmax(axis=1) == reference.argmax(axis=1)).mean()
    furthest = np.abs(logits - reference).max()
    return f"{name} | {len(content):,} bytes | {_p50_ms(lambda: model.run(one)):.2f} ms | {furthest:.1e} | {same:.2%}"


def _p50_ms(work: Callable[[], object]) -> float:
    times = []
    for turn in range(WARM_UP + TURNS):
        began = time.perf_counter()
        work()
        if turn >= WARM_UP:
            times.append(time.perf_counter() - began)
    return median(times) * 1000


def _arguments(arguments: Sequence[str]) -> Path:
    if len(arguments) != 1:
        raise SystemExit("usage: python -m simulation.bench.exported RUN")
    return Path(arguments[0])


if __name__ == "__main__":
    main(_arguments(sys.argv[1:]), typer.echo)
