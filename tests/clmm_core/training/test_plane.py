from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from clmm_core.data.fleet import device_windows
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.principal_plane import AXES, MEAN, SECOND, SUM, principal_plane
from clmm_core.training.array_names import is_stage_one
from clmm_core.training.device_tensors import device_tensors
from clmm_core.training.model_arrays import load_arrays, new_arrays
from clmm_core.training.plane import project_on_plane, sum_moments
from clmm_core.training.tasks import MomentsTask, PlaneTask

Settings = Callable[..., dict[str, Any]]


def arrays_for(settings: Settings) -> Arrays:
    model = settings()["model"]
    return {name: values for name, values in new_arrays(model, 1).items() if is_stage_one(name)}


def embeddings(settings: Settings, number: int, arrays: Arrays) -> np.ndarray:
    task = settings(number)
    tensors = device_tensors(device_windows(task["data"], task["devices"][0]), ())
    return load_arrays(task["model"], arrays).eval().embed(tensors.streams, tensors.present).detach().numpy().astype(np.float64)


def moments_of(points: np.ndarray) -> Arrays:
    return {SUM: points.sum(axis=0).astype(np.float32), SECOND: (points.T @ points).astype(np.float32)}


@pytest.mark.parametrize("seed", range(3))
def test_the_plane_is_that_of_principal_components(seed: int):
    random = np.random.default_rng(seed)
    points = random.normal(size=(300, 6)) @ np.diag([3, 2, 1, 0.5, 0.2, 0.1]) @ np.linalg.qr(random.normal(size=(6, 6)))[0] + 1
    plane = principal_plane(300, moments_of(points))
    _, _, rows = np.linalg.svd(points - points.mean(axis=0))
    np.testing.assert_allclose(plane[MEAN], points.mean(axis=0), atol=1e-5)
    for axis, expected in zip(plane[AXES], rows[:2], strict=True):
        np.testing.assert_allclose(axis, expected * np.sign(expected @ axis), atol=1e-3)
        assert axis[np.abs(axis).argmax()] > 0  # the sign is fixed: two runs draw the same picture


def test_moments_of_hosts_add_up_to_the_pooled_plane(settings: Settings):
    """Devices over two hosts, one without a gyroscope, against numpy on the pooled embeddings."""
    arrays = arrays_for(settings)
    answers = [sum_moments(MomentsTask(**settings(*devices), points_per_device=100), arrays) for devices in ((0, 3), (4,))]
    pooled = np.concatenate([embeddings(settings, number, arrays) for number in (0, 3, 4)])
    num_windows = sum(reply.num_windows for reply, _ in answers)
    assert num_windows == len(pooled) == 36
    summed = {name: sum(moments[name] for _, moments in answers) for name in (SUM, SECOND)}
    np.testing.assert_allclose(summed[SUM], pooled.sum(axis=0), atol=1e-4)
    np.testing.assert_allclose(summed[SECOND], pooled.T @ pooled, atol=1e-4)
    plane = principal_plane(num_windows, summed)
    _, _, rows = np.linalg.svd(pooled - pooled.mean(axis=0))
    for axis, expected in zip(plane[AXES], rows[:2], strict=True):
        assert abs(axis @ expected) == pytest.approx(1, abs=1e-3)


def test_points_are_the_embeddings_in_that_plane(settings: Settings):
    arrays = arrays_for(settings)
    _, moments = sum_moments(MomentsTask(**settings(0, 3), points_per_device=100), arrays)
    plane = principal_plane(24, moments)
    reply, nothing = project_on_plane(PlaneTask(**settings(3, 0), points_per_device=100), arrays | plane)
    assert nothing == {}
    for number in (0, 3):
        name = f"device-{number:05d}"
        mine = [point for point in reply.points if point.device == name]
        expected = (embeddings(settings, number, arrays) - plane[MEAN]) @ plane[AXES].T
        np.testing.assert_allclose([(point.x, point.y) for point in mine], expected, atol=1e-5)
        assert [point.label for point in mine] == device_windows(settings()["data"], name).labels.tolist()


def test_with_zero_fill_a_window_lies_where_the_filled_one_does(settings: Settings):
    """Device 0 has no gyroscope: its embedding is the mean with that of zeros, not of what it has."""
    arrays, task = arrays_for(settings), settings(0)
    model = load_arrays(task["model"], arrays).eval()
    tensors = device_tensors(device_windows(task["data"], "device-00000"), ())
    gyroscope = model.part("gyroscope")
    zeros = gyroscope.project(gyroscope.encoder(torch.zeros(1, 3, 350))).detach()
    alone = model.embed(tensors.streams, tensors.present).detach()
    filled = task | {"data": replace(task["data"], zero_fill=True)}
    _, moments = sum_moments(MomentsTask(**filled, points_per_device=100), arrays)
    np.testing.assert_allclose(moments[SUM], ((alone + zeros) / 2).sum(dim=0), atol=1e-4)


def test_at_most_so_many_windows_of_a_device_the_same_ones_each_time(settings: Settings):
    arrays = arrays_for(settings)
    reply, moments = sum_moments(MomentsTask(**settings(0, 3), points_per_device=5), arrays)
    assert reply.num_windows == 10
    plane = principal_plane(10, moments)
    task = PlaneTask(**settings(0, 3), points_per_device=5)
    points = project_on_plane(task, arrays | plane)[0].points
    assert points == project_on_plane(task, arrays | plane)[0].points
    assert [point.device for point in points] == ["device-00000"] * 5 + ["device-00003"] * 5
    # Those summed are those shown: their mean is the origin.
    np.testing.assert_allclose(np.mean([(point.x, point.y) for point in points], axis=0), 0, atol=1e-5)
