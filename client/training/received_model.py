"""A model that came at the end of a run: it replaces the host's once it is seen to be whole, to answer as it should, and to be no worse."""

import json
from pathlib import Path

import numpy as np

from client.host.models import Models
from clmm_core.data.fleet import DataConfig, device_names, device_windows
from clmm_core.data.windows import NO_LABEL
from clmm_core.errors import ModelFileError
from clmm_core.export.calibrate import raw_windows
from clmm_core.federated.messages import HostReceipt
from clmm_core.recognise.golden import Golden, differences
from clmm_core.recognise.metadata import from_plain
from clmm_core.recognise.onnx_model import OnnxModel
from clmm_core.training.tasks import DeliverTask

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
        golden: Golden = from_plain(Golden, json.loads(task.golden))
        model = OnnxModel.from_bytes(content, "the model that was sent")
        if found := differences(content, model, golden):
            return HostReceipt(is_installed=False, why=f"it is not what its golden vectors say: {'; '.join(found)}")
        models = Models(folder)
        current = models.current()
        before, after = (None if each is None else accuracy(each, task.data) for each in (current and OnnxModel.open(current), model))
    except (ModelFileError, ValueError, TypeError) as error:
        return HostReceipt(is_installed=False, why=f"it cannot be used: {error}")
    if before is not None and after is not None and after < before:
        return HostReceipt(is_installed=False, why=f"the one that is there is better on the wearer's labels: {before:.1%} to {after:.1%}")
    models.install(content, task.golden)
    if after is None:
        return HostReceipt(is_installed=True, why="verified; the wearer has too few labels to judge it on")
    than = "" if before is None else f", {before:.1%} before"
    return HostReceipt(is_installed=True, why=f"verified; {after:.1%} of the wearer's labelled windows right{than}")


def accuracy(model: OnnxModel, data: DataConfig) -> float | None:
    """Return the share of a host's labelled windows that a model recognises, or None where there are too few, or of another length.

    An activity that the model does not know is not recognised.
    """
    num_right = num_windows = 0
    for name in device_names(data):
        windows = device_windows(data, name)
        rows = np.flatnonzero(windows.labels != NO_LABEL)
        if len(rows) == 0:
            continue
        lengths = {each.name: each.time_steps for each in model.metadata.modalities}
        if any(values.shape[2] != lengths.get(modality, values.shape[2]) for modality, values in windows.streams.items()):
            return None
        raw = raw_windows(windows, model.metadata)
        logits, _ = model.run({name: values[rows] for name, values in raw.items()})
        found = np.array(model.metadata.classes)[logits.argmax(axis=1)]
        num_right += int((found == windows.labels[rows]).sum())
        num_windows += len(rows)
    return num_right / num_windows if num_windows >= FEWEST_WINDOWS else None
