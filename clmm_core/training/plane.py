"""Embeddings in two dimensions without collecting them: hosts sum second moments, the server finds the plane, hosts project.

Source: principal component analysis from the covariance (Pearson 1901), with the covariance as a federated sum.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from clmm_core.data.fleet import device_windows
from clmm_core.data.windows import DeviceWindows
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.messages import HostMoments, HostPlane, PlanePoint
from clmm_core.federated.principal_plane import AXES, MEAN, SECOND, SUM
from clmm_core.models.clmm import Clmm
from clmm_core.seeds import derive_seed
from clmm_core.training.device_tensors import device_tensors, zero_filled
from clmm_core.training.model_arrays import load_arrays
from clmm_core.training.tasks import ModelTask, MomentsTask, PlaneTask


def sum_moments(task: MomentsTask, arrays: Arrays) -> tuple[HostMoments, Arrays]:
    """Return the number of embeddings, and their sum `[D]` and second moment `[D, D]` over this host's devices."""
    model = load_arrays(task.model, arrays)
    points = np.concatenate([_embeddings(model, task, device, task.points_per_device)[0] for device in sorted(task.devices)])
    moments = {SUM: points.sum(axis=0).astype(np.float32), SECOND: (points.T @ points).astype(np.float32)}
    return HostMoments(num_windows=len(points)), moments


def project_on_plane(task: PlaneTask, arrays: Arrays) -> tuple[HostPlane, Arrays]:
    """Return at most `points_per_device` windows a device as points in the plane that came with the arrays."""
    model = load_arrays(task.model, {name: values for name, values in arrays.items() if name not in (MEAN, AXES)})
    answer: list[PlanePoint] = []
    for device in sorted(task.devices):
        points, labels = _embeddings(model, task, device, task.points_per_device)
        flat = (points - arrays[MEAN]) @ arrays[AXES].T  # [windows, 2]
        answer += [PlanePoint(device=device, label=label, x=float(x), y=float(y)) for (x, y), label in zip(flat, labels, strict=True)]
    return HostPlane(points=tuple(answer)), {}


@torch.no_grad()
def _embeddings(model: Clmm, task: ModelTask, device: str, most: int) -> tuple[NDArray[np.float32], list[str]]:
    windows = _sample(device_windows(task.data, device), most, task.seed)
    tensors = device_tensors(windows, task.classes)
    tensors = zero_filled(tensors, model) if task.data.zero_fill else tensors
    model.eval()
    return model.embed(tensors.streams, tensors.present).numpy(), [str(label) for label in windows.labels]


def _sample(windows: DeviceWindows, most: int, seed: int) -> DeviceWindows:
    random = np.random.default_rng(derive_seed(seed, "plane", windows.device))
    return windows.select(np.sort(random.permutation(len(windows))[:most]))
