"""How far a model's probabilities can be believed, and from which on it gives an answer: chosen on people it was not trained on.

N = windows, K = classes.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clmm_core.data.windows import DeviceWindows
from clmm_core.errors import DataError
from clmm_core.recognise.metadata import ModelMetadata
from clmm_core.recognise.onnx_model import Float32

TEMPERATURES = np.geomspace(0.1, 10, 401)
RIGHT = 0.9
"""Share of the answers that is to be right."""
AT_LEAST = 0.5
"""Probability below which nothing is answered, however well the model does: it is more likely wrong than right."""
MOST_UNANSWERED = 0.5
"""Share of the windows that the wish for right answers may leave without one."""
FEWEST_WINDOWS = 50


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What `ModelMetadata` gets of it."""

    temperature: float
    threshold: float


def calibrated(logits: NDArray[np.float64], classes: NDArray[np.int64]) -> Calibration:
    """Return the temperature at which the true classes are likeliest, and the least probability of an answer at it.

    The threshold is the lowest one from which on `RIGHT` of the answers are right; where that would leave more than
    `MOST_UNANSWERED` of the windows without one, the one that leaves so many. Never below `AT_LEAST`.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv 1706.04599, section 4.2 (temperature scaling).

    Args:
        logits: `[N, K]`.
        classes: `[N]`, the true ones.

    Raises:
        DataError: too few windows to choose anything on.
    """
    if len(classes) < FEWEST_WINDOWS:
        raise DataError(f"expected at least {FEWEST_WINDOWS} labelled windows to calibrate on, found {len(classes)}")
    rows = np.arange(len(classes))
    likelihoods = [float(_log_softmax(logits / temperature)[rows, classes].mean()) for temperature in TEMPERATURES]
    temperature = float(TEMPERATURES[int(np.argmax(likelihoods))])
    probabilities = np.exp(_log_softmax(logits / temperature))
    confidence, is_right = probabilities.max(axis=1), probabilities.argmax(axis=1) == classes
    order = np.argsort(-confidence, kind="stable")
    share_right = is_right[order].cumsum() / (rows + 1)  # of the answers from the surest down to each
    enough = np.flatnonzero(share_right >= RIGHT)
    num_answered = max(int(enough[-1]) + 1 if len(enough) else 0, round(len(rows) * (1 - MOST_UNANSWERED)))
    # Where all may be answered, no window says where to stop.
    lowest = float(confidence[order][num_answered - 1]) if num_answered < len(rows) else 0.0
    # Rounded down, so that the window that gave it is answered also where float32 rounds otherwise.
    return Calibration(temperature=round(temperature, 4), threshold=max(AT_LEAST, math.floor(lowest * 1000) / 1000))


def raw_windows(windows: DeviceWindows, metadata: ModelMetadata) -> dict[str, Float32]:
    """Return a device's windows as the exported graph takes them, by modality `[N, channels, time_steps]`, NaN where absent."""
    raw = {}
    for modality in metadata.modalities:
        raw[modality.name] = np.full((len(windows), modality.channels, modality.time_steps), np.nan, np.float32)
        if modality.name in windows.streams:
            rows = windows.present[modality.name]
            raw[modality.name][rows] = windows.streams[modality.name][rows]
    return raw


def labelled_batches(devices: Iterable[DeviceWindows], metadata: ModelMetadata) -> Sequence[tuple[dict[str, Float32], NDArray[np.int64]]]:
    """Return each device's raw windows that have one of the model's classes, and these `[N]`."""
    numbers = {name: number for number, name in enumerate(metadata.classes)}
    batches = []
    for windows in devices:
        classes = np.array([numbers.get(str(label), -1) for label in windows.labels], np.int64)
        rows = np.flatnonzero(classes >= 0)
        batches.append(({name: values[rows] for name, values in raw_windows(windows, metadata).items()}, classes[rows]))
    return batches


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    logs: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs
