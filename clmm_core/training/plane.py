"""Embeddings in two dimensions without collecting them: hosts sum second moments, the server finds the plane, hosts project.

Source: principal component analysis from the covariance (Pearson 1901), with the covariance as a federated sum.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from clmm_core.data.fleet import device_windows
from clmm_core.data.labels import Rows
from clmm_core.data.windows import DeviceWindows
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.messages import HostMoments, HostPlane, PlanePoint
from clmm_core.federated.principal_plane import AXES, MEAN, SECOND, SUM
from clmm_core.seeds import derive_seed
from clmm_core.training.alone import CPU
from clmm_core.training.lessons import whole_windows
from clmm_core.training.model_arrays import load_arrays
from clmm_core.training.tasks import MomentsTask, PlaneTask


def sum_moments(task: MomentsTask, arrays: Arrays, device: torch.device = CPU) -> tuple[HostMoments, Arrays]:
    """Return the number of embeddings, and their sum `[D]` and second moment `[D, D]` over this host's devices."""
    points = np.concatenate([embedded for _, _, embedded in _embeddings(task, arrays, device)])
    moments = {SUM: points.sum(axis=0).astype(np.float32), SECOND: (points.T @ points).astype(np.float32)}
    return HostMoments(num_windows=len(points)), moments


def project_on_plane(task: PlaneTask, arrays: Arrays, device: torch.device = CPU) -> tuple[HostPlane, Arrays]:
    """Return at most `points_per_device` windows a device as points in the plane that came with the arrays."""
    of_model = {name: values for name, values in arrays.items() if name not in (MEAN, AXES)}
    answer: list[PlanePoint] = []
    for name, labels, embedded in _embeddings(task, of_model, device):
        flat = (embedded - arrays[MEAN]) @ arrays[AXES].T  # [windows, 2]
        answer += [PlanePoint(device=name, label=label, x=float(x), y=float(y)) for (x, y), label in zip(flat, labels, strict=True)]
    return HostPlane(points=tuple(answer)), {}


@torch.no_grad()
def _embeddings(
    task: MomentsTask | PlaneTask, arrays: Arrays, device: torch.device
) -> Iterator[tuple[str, list[str], NDArray[np.float32]]]:
    """Yield for each device its name, and of some of its windows the labels and the embeddings `[windows, D]`."""
    model = load_arrays(task.model, arrays).eval().to(device)
    for name in sorted(task.devices):
        windows = device_windows(task.data, name)
        rows = _sample(windows, task.points_per_device, task.seed)
        chosen = whole_windows(task, arrays, (name,)).select(torch.from_numpy(rows)).to(device)
        yield name, windows.labels[rows].tolist(), model.embed(chosen.streams, chosen.present).cpu().numpy()


def _sample(windows: DeviceWindows, most: int, seed: int) -> Rows:
    random = np.random.default_rng(derive_seed(seed, "plane", windows.device))
    return np.sort(random.permutation(len(windows))[:most])
