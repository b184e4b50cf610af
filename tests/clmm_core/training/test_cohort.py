from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from clmm_core.data.fleet import device_windows
from clmm_core.data.labels import LabelDraw, draw_labelled
from clmm_core.federated.arrays import FUSION, Arrays, part_of
from clmm_core.federated.messages import HostUpdate
from clmm_core.federated.weighted_sum import WeightedSum
from clmm_core.seeds import generator, seeded
from clmm_core.training.cohort import finetune_cohort, measure_quality, pretrain_cohort
from clmm_core.training.device_tensors import DeviceTensors, device_tensors
from clmm_core.training.finetune import FinetuneConfig, finetune_device
from clmm_core.training.local import LocalConfig
from clmm_core.training.model_arrays import arrays_of, is_stage_one, load_arrays, new_arrays
from clmm_core.training.pretrain import PretrainConfig, pretrain_device
from clmm_core.training.quality import hopkins
from clmm_core.training.tasks import FinetuneTask, PretrainTask, QualityTask

Settings = Callable[..., dict[str, Any]]
LOCAL = LocalConfig(epochs=1, batch_size=6, learning_rate=0.001)
PRETRAIN = PretrainConfig(local=LOCAL, num_views=2)
FINETUNE = FinetuneConfig(encoder_rate=0.2, local=LOCAL)
LABELS = LabelDraw(per_class=1, seed=4)


def global_arrays(settings: Settings) -> Arrays:
    return new_arrays(settings()["model"], 0)


def pretrain_task(settings: Settings, *devices: int, config: PretrainConfig = PRETRAIN) -> PretrainTask:
    return PretrainTask(**settings(*devices), config=config)


def finetune_task(settings: Settings, *devices: int) -> FinetuneTask:
    return FinetuneTask(**settings(*devices), config=FINETUNE, labels=LABELS)


def windows_of(settings: Settings, number: int) -> DeviceTensors:
    task = settings(number)
    return device_tensors(device_windows(task["data"], task["devices"][0]), task["classes"])


def trained_alone(settings: Settings, stage: str, number: int, arrays: Arrays) -> Arrays:
    """One device's update, by hand: local minus global."""
    task, windows = settings(number), windows_of(settings, number)
    model = load_arrays(task["model"], arrays)
    with seeded(4, stage, 3, task["devices"][0]) as draws:
        if stage == "pretrain":
            pretrain_device(model, windows, PRETRAIN, draws)
        else:
            rows, _ = draw_labelled(device_windows(task["data"], task["devices"][0]), task["classes"], LABELS)
            finetune_device(model, windows.select(torch.from_numpy(rows)), FINETUNE, draws)
    return {name: values - arrays[name] for name, values in arrays_of(model).items()}


def assert_same(one: Arrays, other: Arrays, tolerance: float = 0.0) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=tolerance, err_msg=name)


def test_stage_one_is_the_mean_over_the_owners_weighted_by_windows(settings: Settings):
    """Devices 0 (no gyroscope), 1 (10 of 12 windows have either sensor) and 3 (all)."""
    arrays = global_arrays(settings)
    reply, update = pretrain_cohort(pretrain_task(settings, 0, 1, 3), arrays)
    assert reply.weights == {"accelerometer": 12 + 10 + 12, "gyroscope": 10 + 12}
    assert [(row.device, row.num_windows) for row in reply.devices] == [("device-00000", 12), ("device-00001", 12), ("device-00003", 12)]
    alone = {number: trained_alone(settings, "pretrain", number, arrays) for number in (0, 1, 3)}
    weights = {"accelerometer": {0: 12, 1: 10, 3: 12}, "gyroscope": {1: 10, 3: 12}}
    assert set(update) == {name for name in arrays if is_stage_one(name)}
    for name, values in update.items():
        owners = weights[part_of(name)]
        mean = sum(weight * alone[number][name].astype(np.float64) for number, weight in owners.items()) / sum(owners.values())
        np.testing.assert_allclose(values, mean, rtol=0, atol=1e-8, err_msg=name)


def test_stage_two_averages_the_whole_network_over_labelled_windows(settings: Settings):
    arrays = global_arrays(settings)
    reply, update = finetune_cohort(finetune_task(settings, 0, 3), arrays)
    assert reply.weights == {"accelerometer": 12, "gyroscope": 6, FUSION: 12}
    alone = {number: trained_alone(settings, "finetune", number, arrays) for number in (0, 3)}
    assert set(update) == set(arrays)
    for name, values in update.items():
        owners = (3,) if part_of(name) == "gyroscope" else (0, 3)
        mean = sum(alone[number][name].astype(np.float64) for number in owners) / len(owners)
        np.testing.assert_allclose(values, mean, rtol=0, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_hosts_folded_together_equal_one_host(settings: Settings, stage: str):
    arrays = global_arrays(settings)

    def ask(*devices: int) -> tuple[HostUpdate, Arrays]:
        if stage == "pretrain":
            return pretrain_cohort(pretrain_task(settings, *devices), arrays)
        return finetune_cohort(finetune_task(settings, *devices), arrays)

    together, one_host = ask(0, 1, 3, 4)
    folded = WeightedSum()
    for part in ((4,), (1, 0), (3,)):
        reply, update = ask(*part)
        folded.add(update, reply.weights)
    assert folded.weights == together.weights
    assert_same(folded.mean(), one_host, tolerance=1e-8)


def test_the_order_of_devices_changes_nothing(settings: Settings):
    arrays = global_arrays(settings)
    one, update = pretrain_cohort(pretrain_task(settings, 3, 0), arrays)
    other, again = pretrain_cohort(pretrain_task(settings, 0, 3), arrays)
    assert one == other
    assert_same(update, again)


def test_the_global_arrays_are_left_as_they_came(settings: Settings):
    arrays = global_arrays(settings)
    pretrain_cohort(pretrain_task(settings, 3), arrays)
    finetune_cohort(finetune_task(settings, 3), arrays)
    assert_same(arrays, global_arrays(settings))


def test_a_device_that_is_skipped_is_named(settings: Settings):
    task = settings(3)
    unlabelled = FinetuneTask(**(task | {"classes": ("fly", "swim")}), config=FINETUNE, labels=LABELS)
    reply, update = finetune_cohort(unlabelled, global_arrays(settings))
    assert (reply.devices, reply.weights, update) == ((), {}, {})
    assert [(each.device, each.reason) for each in reply.left_out] == [
        ("device-00003", "expected labelled windows, found none: label some activities on this device")
    ]


def test_a_device_whose_training_diverges_does_not_spoil_its_host(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    arrays = global_arrays(settings)
    spoilt = device_windows(settings(4)["data"], "device-00004")
    monkeypatch.setitem(spoilt.streams, "gyroscope", np.full_like(spoilt.streams["gyroscope"], 3e38))  # overflows in the encoder
    reply, update = pretrain_cohort(pretrain_task(settings, 3, 4), arrays)
    alone, update_alone = pretrain_cohort(pretrain_task(settings, 3), arrays)
    assert reply.devices == alone.devices
    assert reply.weights == alone.weights
    assert_same(update, update_alone)
    (left_out,) = reply.left_out
    assert left_out.device == "device-00004"
    assert "diverged" in left_out.reason


def test_quality_is_the_hopkins_value_times_windows(settings: Settings):
    arrays = global_arrays(settings)
    reply, nothing = measure_quality(QualityTask(**settings(0, 1)), arrays)
    assert nothing == {}
    assert reply.num_windows == {"accelerometer": 12 + 10, "gyroscope": 10}
    model = load_arrays(settings()["model"], arrays).eval()
    expected = dict.fromkeys(reply.num_windows, 0.0)
    for number in (0, 1):
        windows = windows_of(settings, number)
        for name, mask in windows.present.items():
            tokens = model.part(name).encoder(windows.streams[name][mask])
            value = hopkins(tokens.mean(dim=1).detach(), generator(4, "quality", f"device-{number:05d}", name))
            expected[name] += value * int(mask.sum())
    assert reply.weighted == pytest.approx(expected)


def test_quality_of_a_split_fleet_adds_up(settings: Settings):
    arrays = global_arrays(settings)
    together, _ = measure_quality(QualityTask(**settings(0, 1, 3)), arrays)
    parts = [measure_quality(QualityTask(**settings(number)), arrays)[0] for number in (0, 1, 3)]
    for name in together.weighted:
        assert sum(part.weighted.get(name, 0.0) for part in parts) == pytest.approx(together.weighted[name])
        assert sum(part.num_windows.get(name, 0) for part in parts) == together.num_windows[name]
