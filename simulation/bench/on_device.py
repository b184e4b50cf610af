"""What one runtime takes to recognise, measured in a process that has nothing else.

`python -m simulation.bench.on_device RUNTIME FILE GOLDEN` imports what its runtime needs and no more, so that the peak of its memory is
that of a device.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BEGAN = time.perf_counter()
TURNS, WARM_UP = 500, 50
STREAM_S, PIECE_S = 300.0, 0.1
"""Seconds of sensors that a recogniser is given, and how many at once, as a phone would."""
NS = 1_000_000_000


class Runtime(StrEnum):
    """What runs a model."""

    EAGER = "eager"
    """PyTorch, from a results folder."""
    ONNX = "onnx"
    EXECUTORCH = "executorch"
    RECOGNISER = "recogniser"
    """onnxruntime inside `Recogniser`, from sensor samples to answers."""


@dataclass(frozen=True, kw_only=True)
class OnDevice:
    """What one process took, on one core."""

    first_s: float
    """From the first import to the first answer."""
    p50_ms: float
    """Of one window; of a recogniser, of one piece of samples that completes a window."""
    cpu_ms: float
    """Time of the core a window; of a recogniser with all that leads to it."""
    peak_mib: float


def main(runtime: Runtime, file: Path, golden: Path) -> OnDevice:
    """Measure one runtime on the first golden window, or a recogniser on a stream of it."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if runtime is Runtime.RECOGNISER:
        return _recogniser(file, golden)
    answer = _eager(file, golden) if runtime is Runtime.EAGER else _exported(runtime, file, golden)
    answer()
    first_s = time.perf_counter() - BEGAN
    for _ in range(WARM_UP):
        answer()
    times_s = []
    gc.collect()
    cpu_began = time.process_time()
    for _ in range(TURNS):
        began = time.perf_counter()
        answer()
        times_s.append(time.perf_counter() - began)
    cpu_ms = (time.process_time() - cpu_began) * 1000 / TURNS
    return OnDevice(first_s=first_s, p50_ms=median(times_s) * 1000, cpu_ms=cpu_ms, peak_mib=_peak_mib())


def _eager(folder: Path, golden: Path) -> Callable[[], object]:
    import torch  # noqa: PLC0415

    from clmm_core.export.golden_vectors import torch_answers  # noqa: PLC0415
    from clmm_core.export.trained import read_trained  # noqa: PLC0415
    from clmm_core.recognise.golden import batch_of, read_golden  # noqa: PLC0415

    torch.set_num_threads(1)
    trained = read_trained(folder)
    window = {name: values[:1] for name, values in batch_of(read_golden(golden)).items()}
    return lambda: torch_answers(trained, window)


def _exported(runtime: Runtime, file: Path, golden: Path) -> Callable[[], object]:
    from clmm_core.recognise.golden import OpenedModel, batch_of, read_golden  # noqa: PLC0415

    model: OpenedModel
    if runtime is Runtime.EXECUTORCH:
        import torch  # noqa: PLC0415

        from clmm_core.export.executorch_file import ExecutorchModel  # noqa: PLC0415

        torch.set_num_threads(1)
        model = ExecutorchModel.open(file)
    else:
        from clmm_core.recognise.onnx_model import OnnxModel  # noqa: PLC0415

        model = OnnxModel.open(file)
    window = {name: values[:1] for name, values in batch_of(read_golden(golden)).items()}
    return lambda: model.run(window)


def _recogniser(file: Path, golden: Path) -> OnDevice:
    """Give a recogniser five minutes of the first golden window, over and over, in pieces and without waiting between them."""
    import numpy as np  # noqa: PLC0415

    from clmm_core.recognise.recogniser import Recogniser  # noqa: PLC0415

    recogniser = Recogniser.load(file)
    streams = _endless(golden)
    first_s, took_s, num_answers, cpu_began = 0.0, [], 0, 0.0
    for piece in range(round(STREAM_S / PIECE_S)):
        for name, (rate_hz, window) in streams.items():
            rows = np.arange(round(piece * PIECE_S * rate_hz), round((piece + 1) * PIECE_S * rate_hz))
            times, samples = (rows * (NS / rate_hz)).astype(np.int64), window[rows % len(window)]
            began = time.perf_counter()
            answers = recogniser.add(name, times, samples)
            if answers and num_answers:
                took_s.append(time.perf_counter() - began)
            elif answers:
                first_s, cpu_began = time.perf_counter() - BEGAN, time.process_time()
            num_answers += len(answers)
    cpu_ms = (time.process_time() - cpu_began) * 1000 / (num_answers - 1)
    strangers = [name for name in ("torch", "flwr", "pandas", "pydantic") if name in sys.modules]
    assert not strangers, f"the recogniser loaded {strangers}"
    return OnDevice(first_s=first_s, p50_ms=median(took_s) * 1000, cpu_ms=cpu_ms, peak_mib=_peak_mib())


def _endless(golden: Path) -> "dict[str, tuple[float, NDArray[np.float32]]]":
    """Return for each stream its rate and one window `[time, channels]`, to be repeated."""
    from clmm_core.data.windows import JOIN  # noqa: PLC0415
    from clmm_core.recognise.golden import batch_of, read_golden  # noqa: PLC0415

    vectors = read_golden(golden)
    windows, streams = batch_of(vectors), {}
    for modality in vectors.metadata.modalities:
        names = modality.name.split(JOIN)
        for i, name in enumerate(names):
            width = modality.channels // len(names)
            streams[name] = (modality.rate_hz, windows[modality.name][0, i * width : (i + 1) * width].T.copy())
    return streams


def _peak_mib() -> float:
    """Return the most memory this process has held; getrusage would tell the peak of the process that started it, too."""
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


if __name__ == "__main__":
    _runtime, _file, _golden = sys.argv[1:]
    sys.stdout.write(json.dumps(asdict(main(Runtime(_runtime), Path(_file), Path(_golden)))))
