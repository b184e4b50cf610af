"""A model that came at the end of a run: it replaces the host's once it is seen to be whole, to answer as it should, and to be no worse."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.host.models import PERSONAL, Models
from clmm_core.data.fleet import DataConfig, device_names, device_windows
from clmm_core.data.windows import NO_LABEL
from clmm_core.errors import ModelFileError
from clmm_core.export.calibrate import raw_windows
from clmm_core.federated.messages import HostReceipt
from clmm_core.files import replace_file
from clmm_core.recognise.golden import Golden, batch_of, differences
from clmm_core.recognise.metadata import from_plain
from clmm_core.recognise.onnx_model import Float32, OnnxModel
from clmm_core.recognise.personal import head_json, learn_head
from clmm_core.recognise.recogniser import Recogniser
from clmm_core.training.tasks import DeliverTask

MAX_BYTES = 64_000_000
MAX_WINDOW_S = 0.1
"""A hundred times what models of ours take."""
FEWEST_WINDOWS = 20
"""Labelled windows of the wearer's own from which on two models are compared; fewer say nothing."""


def receive(task: DeliverTask, content: bytes, folder: Path) -> HostReceipt:
    """Verify a model, compare it with the one that is there on the wearer's own labels, and install it unless it is worse.

    Args:
        task: with the golden vectors, and where the host's recordings are.
        content: of the ONNX file.
        folder: of the host's models.
    """
    try:
        model = _verified(content, task.golden)
    except Exception as error:  # onnxruntime's errors derive from Exception alone; whatever it is, this model is not used
        return HostReceipt(is_installed=False, why=f"it cannot be used: {error}")
    models = Models(folder)
    before, after = _accuracy_of_current(models, model, task.data), accuracy(model, task.data)
    if before is not None and after is not None and after < before:
        return HostReceipt(is_installed=False, why=f"the one that is there is better on the wearer's labels: {before:.1%} to {after:.1%}")
    place = models.install(content, task.golden)
    if after is None:
        return HostReceipt(is_installed=True, why="verified; the wearer has too few labels to judge it on")
    than = "" if before is None else f", {before:.1%} before"
    own = "; made their own" if personalise(model, task.data, place.parent) else ""
    return HostReceipt(is_installed=True, why=f"verified; {after:.1%} of the wearer's labelled windows right{than}{own}")


def personalise(model: OnnxModel, data: DataConfig, folder: Path) -> bool:
    """Write the wearer's own head beside a model, if their labels are enough and it helps; what the server hears is whether.

    A host whose recordings are of several people has none: it would be nobody's own.
    """
    found = list(_labelled(model, data))
    if len(found) != 1:
        return False
    ((logits, labels),) = found
    numbers = {name: number for number, name in enumerate(model.metadata.classes)}
    scaled = logits.astype(np.float64) / model.metadata.temperature
    classes = np.array([numbers.get(label, -1) for label in labels], np.int64)
    head = learn_head(scaled[classes >= 0], classes[classes >= 0])
    if head is not None:
        replace_file(folder / PERSONAL, head_json(head))
    return head is not None


def _verified(content: bytes, golden_text: str) -> OnnxModel:
    """Return a model that is what its golden vectors say, that live sensors can feed, and that is quick enough not to hold them up.

    Raises:
        ModelFileError: it is not.
    """
    if len(content) > MAX_BYTES:
        raise ModelFileError(f"expected at most {MAX_BYTES:,} bytes, found {len(content):,}")
    golden: Golden = from_plain(Golden, json.loads(golden_text))
    model = OnnxModel.from_bytes(content, "the model that was sent")
    if found := differences(content, model, golden):
        raise ModelFileError(f"it is not what its golden vectors say: {'; '.join(found)}")
    Recogniser(model)
    batch = batch_of(golden)
    began_s = time.perf_counter()
    model.run(batch)
    if (window_s := (time.perf_counter() - began_s) / len(golden.vectors)) > MAX_WINDOW_S:
        raise ModelFileError(f"expected a window in {MAX_WINDOW_S:g} s, found {window_s:.2g}: recording would wait for it")
    return model


def _accuracy_of_current(models: Models, new: OnnxModel, data: DataConfig) -> float | None:
    """Return the accuracy of the model that is there, None where there is none that can be compared with the new one."""
    try:
        current = models.current()
        if current is None:
            return None
        model = OnnxModel.open(current)
        return accuracy(model, data) if model.metadata.upright == new.metadata.upright else None
    except Exception:  # a damaged file, one of an older format: the new one is better than that
        return None


def accuracy(model: OnnxModel, data: DataConfig) -> float | None:
    """Return the share of a host's labelled windows that a model recognises, or None where there are too few, or of another length.

    An activity that the model does not know is not recognised.
    """
    names = np.array(model.metadata.classes)
    right = [names[logits.argmax(axis=1)] == labels for logits, labels in _labelled(model, data)]
    num_windows = sum(map(len, right))
    return sum(int(each.sum()) for each in right) / num_windows if num_windows >= FEWEST_WINDOWS else None


def _labelled(model: OnnxModel, data: DataConfig) -> Iterator[tuple[Float32, NDArray[np.str_]]]:
    """Yield each wearer's logits `[windows, classes]` and labels `[windows]`, of windows that have one, in the order of time."""
    lengths = {each.name: each.time_steps for each in model.metadata.modalities}
    for name in device_names(data):
        windows = device_windows(data, name)
        rows = np.flatnonzero(windows.labels != NO_LABEL)
        is_other = any(values.shape[2] != lengths.get(modality, values.shape[2]) for modality, values in windows.streams.items())
        if len(rows) and not is_other:
            logits, _ = model.run({each: values[rows] for each, values in raw_windows(windows, model.metadata).items()})
            yield logits, windows.labels[rows]
