from collections.abc import Callable
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pytest
import torch

from clmm_core.data.fleet import device_windows
from clmm_core.data.labels import LabelDraw, draw_labelled
from clmm_core.federated.arrays import FUSION, Arrays, part_of
from clmm_core.federated.clipping import length_of
from clmm_core.federated.individual import apart
from clmm_core.federated.messages import HostUpdate
from clmm_core.federated.weighted_sum import WeightedSum
from clmm_core.seeds import derive_seed, generator
from clmm_core.training import device_tensors as device_tensors_module
from clmm_core.training import lessons
from clmm_core.training import quality as quality_module
from clmm_core.training.alone import CPU
from clmm_core.training.array_names import is_measured, is_stage_one
from clmm_core.training.cohort import train_cohort
from clmm_core.training.device_tensors import DeviceTensors, device_tensors, zero_filled
from clmm_core.training.drawn_dropout import draws_for
from clmm_core.training.finetune import finetune_device
from clmm_core.training.model_arrays import arrays_of, load_arrays, new_arrays
from clmm_core.training.predict_together import logits_of
from clmm_core.training.pretrain import pretrain_device
from clmm_core.training.pseudo_labels import pseudo_labels
from clmm_core.training.quality import hopkins, measure_quality
from clmm_core.training.settings import FinetuneConfig, LocalConfig, PretrainConfig
from clmm_core.training.tasks import FinetuneTask, PretrainTask, QualityTask, SelftrainTask

Settings = Callable[..., dict[str, Any]]
LOCAL = LocalConfig(epochs=1, batch_size=6, learning_rate=0.001)
PRETRAIN = PretrainConfig(local=LOCAL, num_views=2)
FINETUNE = FinetuneConfig(encoder_rate=0.2, local=LOCAL)
LABELS = LabelDraw(per_class=1, seed=4)


def global_arrays(settings: Settings) -> Arrays:
    return new_arrays(settings()["model"], 0)


def pretrain_task(settings: Settings, *devices: int, config: PretrainConfig = PRETRAIN) -> PretrainTask:
    return PretrainTask(**settings(*devices), config=config)


def finetune_task(settings: Settings, *devices: int, config: FinetuneConfig = FINETUNE) -> FinetuneTask:
    return FinetuneTask(**settings(*devices), config=config, labels=LABELS)


def windows_of(settings: Settings, number: int) -> DeviceTensors:
    task = settings(number)
    return device_tensors(device_windows(task["data"], task["devices"][0]), task["classes"])


def labelled_of(settings: Settings, number: int) -> DeviceTensors:
    task = settings(number)
    rows, _ = draw_labelled(device_windows(task["data"], task["devices"][0]), task["classes"], LABELS)
    return windows_of(settings, number).select(torch.from_numpy(rows))


def trained_on(settings: Settings, stage: str, windows: DeviceTensors, arrays: Arrays, *numbers: int) -> Arrays:
    """What these devices' windows make of the global arrays, with the random numbers of their training."""
    task = settings(*numbers)
    model = load_arrays(task["model"], arrays)
    draws = draws_for(model, derive_seed(4, stage, 3, *task["devices"]))
    if stage == "pretrain":
        pretrain_device(model, windows, PRETRAIN, draws)
    else:
        finetune_device(model, windows, FINETUNE, draws)
    return arrays_of(model)


def trained_alone(settings: Settings, stage: str, number: int, arrays: Arrays) -> Arrays:
    """One device's update, by hand: local minus global."""
    windows = windows_of(settings, number) if stage == "pretrain" else labelled_of(settings, number)
    return {name: values - arrays[name] for name, values in trained_on(settings, stage, windows, arrays, number).items()}


def assert_same(one: Arrays, other: Arrays, tolerance: float = 0.0) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=tolerance, err_msg=name)


def test_stage_one_is_the_mean_over_the_owners_weighted_by_windows(settings: Settings):
    """Devices 0 (no gyroscope), 1 (10 of 12 windows have either sensor) and 3 (all)."""
    arrays = global_arrays(settings)
    reply, update = train_cohort(pretrain_task(settings, 0, 1, 3), arrays)
    assert reply.weights == {"accelerometer": 12 + 10 + 12, "gyroscope": 10 + 12}
    assert [(row.device, row.num_windows) for row in reply.devices] == [("device-00000", 12), ("device-00001", 12), ("device-00003", 12)]
    alone = {number: trained_alone(settings, "pretrain", number, arrays) for number in (0, 1, 3)}
    weights = {"accelerometer": {0: 12, 1: 10, 3: 12}, "gyroscope": {1: 10, 3: 12}}
    assert set(update) == {name for name in arrays if is_stage_one(name) and not is_measured(name)}
    for name, values in update.items():
        owners = weights[part_of(name)]
        mean = sum(weight * alone[number][name].astype(np.float64) for number, weight in owners.items()) / sum(owners.values())
        np.testing.assert_allclose(values, mean, rtol=0, atol=1e-8, err_msg=name)


def test_stage_two_averages_the_whole_network_over_labelled_windows(settings: Settings):
    arrays = global_arrays(settings)
    reply, update = train_cohort(finetune_task(settings, 0, 3), arrays)
    assert reply.weights == {"accelerometer": 12, "gyroscope": 6, FUSION: 12}
    alone = {number: trained_alone(settings, "finetune", number, arrays) for number in (0, 3)}
    assert set(update) == {name for name in arrays if not is_measured(name)}
    for name, values in update.items():
        owners = (3,) if part_of(name) == "gyroscope" else (0, 3)
        mean = sum(alone[number][name].astype(np.float64) for number in owners) / len(owners)
        np.testing.assert_allclose(values, mean, rtol=0, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("changes", [{}, {"shared": False}, {"fusion": "uniform"}])
@pytest.mark.parametrize("encoder_rate", [0.2, 0.0])
def test_an_update_holds_every_array_that_training_changed_and_hardly_another(settings: Settings, changes, encoder_rate: float):
    """What is missing from it stayed as it was sent, to the bit."""
    task = settings(3) | {"model": replace(settings()["model"], **changes)}
    arrays = new_arrays(task["model"], 0)
    _, update = train_cohort(FinetuneTask(**task, config=replace(FINETUNE, encoder_rate=encoder_rate), labels=LABELS), arrays)
    model = load_arrays(task["model"], arrays)
    draws = draws_for(model, derive_seed(4, "finetune", 3, *task["devices"]))
    finetune_device(model, labelled_of(settings, 3), replace(FINETUNE, encoder_rate=encoder_rate), draws)
    changed = {name for name, values in arrays_of(model).items() if not np.array_equal(values, arrays[name])}
    assert changed == {name for name in update if update[name].any()}
    assert len(update) - len(changed) <= 4, "of some the gradient is 0"


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_hosts_folded_together_equal_one_host(settings: Settings, stage: str):
    arrays = global_arrays(settings)

    def ask(*devices: int) -> tuple[HostUpdate, Arrays]:
        if stage == "pretrain":
            return train_cohort(pretrain_task(settings, *devices), arrays)
        return train_cohort(finetune_task(settings, *devices), arrays)

    together, one_host = ask(0, 1, 3, 4)
    folded = WeightedSum()
    for part in ((4,), (1, 0), (3,)):
        reply, update = ask(*part)
        folded.add(update, reply.weights)
    assert folded.weights == together.weights
    assert_same(folded.mean(), one_host, tolerance=1e-8)


def test_the_order_of_devices_changes_nothing(settings: Settings):
    arrays = global_arrays(settings)
    one, update = train_cohort(pretrain_task(settings, 3, 0), arrays)
    other, again = train_cohort(pretrain_task(settings, 0, 3), arrays)
    assert one == other
    assert_same(update, again)


def test_the_global_arrays_are_left_as_they_came(settings: Settings):
    arrays = global_arrays(settings)
    train_cohort(pretrain_task(settings, 3), arrays)
    train_cohort(finetune_task(settings, 3), arrays)
    assert_same(arrays, global_arrays(settings))


def test_a_device_that_is_skipped_is_named(settings: Settings):
    task = settings(3)
    unlabelled = FinetuneTask(**(task | {"classes": ("fly", "swim")}), config=FINETUNE, labels=LABELS)
    reply, update = train_cohort(unlabelled, global_arrays(settings))
    assert (reply.devices, reply.weights, update) == ((), {}, {})
    assert [(each.device, each.reason) for each in reply.left_out] == [
        ("device-00003", "expected labelled windows, found none: label some activities on this device")
    ]


def test_a_device_whose_training_diverges_does_not_spoil_its_host(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    arrays = global_arrays(settings)
    spoilt = device_windows(settings(4)["data"], "device-00004")
    monkeypatch.setitem(spoilt.streams, "gyroscope", np.full_like(spoilt.streams["gyroscope"], 3e38))  # overflows in the encoder
    monkeypatch.setattr(lessons, "_WHOLE", WeakKeyDictionary())  # its tensors are made anew
    reply, update = train_cohort(pretrain_task(settings, 3, 4), arrays)
    alone, update_alone = train_cohort(pretrain_task(settings, 3), arrays)
    assert reply.devices == alone.devices
    assert reply.weights == alone.weights
    assert_same(update, update_alone)
    (left_out,) = reply.left_out
    assert left_out.device == "device-00004"
    assert "diverged" in left_out.reason


def joined(devices: list[DeviceTensors]) -> DeviceTensors:
    """Windows of all devices, one after the other; where a device has no gyroscope stand zeros, marked absent."""
    nothing = torch.zeros(3, 350)
    rows = [(windows, i) for windows in devices for i in range(len(windows))]
    streams = {
        name: torch.stack([windows.streams[name][i] if name in windows.streams else nothing for windows, i in rows])
        for name in ("accelerometer", "gyroscope")
    }
    present = {name: torch.tensor([name in w.present and bool(w.present[name][i]) for w, i in rows]) for name in streams}
    return DeviceTensors(streams, present, torch.cat([windows.classes for windows in devices]))


POOLED = replace(LOCAL, pooled=True)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_pooled_devices_train_as_one_on_all_their_windows(settings: Settings, stage: str):
    """Devices 0 (no gyroscope), 1 (some windows lack either sensor) and 3: plain training on the joined windows, to the bit."""
    arrays, numbers = global_arrays(settings), (0, 1, 3)
    if stage == "pretrain":
        reply, update = train_cohort(pretrain_task(settings, *numbers, config=replace(PRETRAIN, local=POOLED)), arrays)
        devices = [windows_of(settings, number) for number in numbers]
    else:
        reply, update = train_cohort(finetune_task(settings, *numbers, config=replace(FINETUNE, local=POOLED)), arrays)
        devices = [labelled_of(settings, number) for number in numbers]
    windows = joined(devices)
    central = trained_on(settings, stage, windows, arrays, *numbers)
    assert set(update) == {name for name in arrays if not is_measured(name) and (stage == "finetune" or is_stage_one(name))}
    for name, values in update.items():
        assert np.array_equal(values, central[name] - arrays[name]), name
    parts = {name: float(mask.sum()) for name, mask in windows.present.items()}
    assert reply.weights == parts | ({FUSION: float(len(windows))} if stage == "finetune" else {})
    assert [row.num_windows for row in reply.devices] == [len(each) for each in devices]
    assert [row.device for row in reply.devices] == list(settings(*numbers)["devices"])
    assert len({row.loss for row in reply.devices}) == 1


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_device_pooled_alone_trains_as_any_device(settings: Settings, stage: str):
    arrays = global_arrays(settings)
    if stage == "pretrain":
        answers = [train_cohort(pretrain_task(settings, 1, config=replace(PRETRAIN, local=local)), arrays) for local in (LOCAL, POOLED)]
    else:
        answers = [train_cohort(finetune_task(settings, 1, config=replace(FINETUNE, local=local)), arrays) for local in (LOCAL, POOLED)]
    (apart, update), (together, update_together) = answers
    assert apart == together
    assert_same(update, update_together)


def test_pooled_hosts_count_by_their_windows(settings: Settings):
    """Devices pooled on a host weigh as much as they would apart, so the server's mean over hosts is one over windows."""
    arrays, config = global_arrays(settings), replace(PRETRAIN, local=POOLED)
    (first, one), (second, other) = (train_cohort(pretrain_task(settings, *n, config=config), arrays) for n in ((0, 1), (3,)))
    apart, _ = train_cohort(pretrain_task(settings, 0, 1, 3), arrays)
    total = WeightedSum()
    total.add(one, first.weights)
    total.add(other, second.weights)
    assert total.weights == apart.weights
    name = "modalities.gyroscope.projection.0.weight"
    np.testing.assert_allclose(total.mean()[name], (10 * one[name] + 12 * other[name]) / 22, rtol=0, atol=1e-8)


def test_pooled_devices_that_cannot_train_are_named_each(settings: Settings):
    task = settings(3, 4) | {"classes": ("fly", "swim")}
    reply, update = train_cohort(FinetuneTask(**task, config=replace(FINETUNE, local=POOLED), labels=LABELS), global_arrays(settings))
    assert (reply.devices, reply.weights, update) == ((), {}, {})
    assert [each.device for each in reply.left_out] == ["device-00003", "device-00004"]
    local = replace(POOLED, optimizer="sgd", learning_rate=1e30)
    reply, update = train_cohort(pretrain_task(settings, 3, 4, config=replace(PRETRAIN, local=local)), global_arrays(settings))
    assert (reply.devices, reply.weights, update) == ((), {}, {})
    assert [(each.device, "diverged" in each.reason) for each in reply.left_out] == [("device-00003", True), ("device-00004", True)]


def test_l_dawa_averages_locals_scaled_by_their_cosine_with_the_global_arrays(settings: Settings):
    arrays = global_arrays(settings)
    reply, update = train_cohort(pretrain_task(settings, 0, 3, config=replace(PRETRAIN, aggregation="l-dawa")), arrays)
    plain, plain_update = train_cohort(pretrain_task(settings, 0, 3), arrays)
    assert reply == plain
    alone = {number: trained_alone(settings, "pretrain", number, arrays) for number in (0, 3)}
    for name, values in update.items():
        owners = (3,) if part_of(name) == "gyroscope" else (0, 3)
        start = arrays[name].astype(np.float64)
        locals_ = [start + alone[number][name] for number in owners]
        lengths = [np.linalg.norm(local) * np.linalg.norm(start) for local in locals_]
        cosines = [(local * start).sum() / length if length else 1.0 for local, length in zip(locals_, lengths, strict=True)]
        expected = sum(cosine * local for cosine, local in zip(cosines, locals_, strict=True)) / len(owners) - start
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6, err_msg=name)
    assert any(np.abs(values - plain_update[name]).max() > 1e-5 for name, values in update.items())


def test_with_zero_fill_a_device_trains_the_encoder_of_a_sensor_it_lacks(settings: Settings):
    task, arrays = settings(0), global_arrays(settings)
    filled = task | {"data": replace(task["data"], zero_fill=True)}
    windows = zero_filled(windows_of(settings, 0), load_arrays(task["model"], arrays))
    reply, update = train_cohort(PretrainTask(**filled, config=PRETRAIN), arrays)
    assert reply.weights == {"accelerometer": 12, "gyroscope": 12}
    central = trained_on(settings, "pretrain", windows, arrays, 0)
    assert all(np.array_equal(values, central[name] - arrays[name]) for name, values in update.items())
    assert update["modalities.gyroscope.projection.0.weight"].any()
    reply, update = train_cohort(FinetuneTask(**filled, config=FINETUNE, labels=LABELS), arrays)
    assert reply.weights == {"accelerometer": 6, "gyroscope": 6, FUSION: 6}
    assert update["modalities.gyroscope.head.weight"].any()


def test_with_zero_fill_the_order_of_pooling_and_filling_does_not_matter(settings: Settings):
    task, arrays = settings(0, 1, 3), global_arrays(settings)
    model = load_arrays(task["model"], arrays)
    filled = [zero_filled(windows_of(settings, number), model) for number in (0, 1, 3)]
    config = replace(PRETRAIN, local=POOLED)
    reply, update = train_cohort(PretrainTask(**task | {"data": replace(task["data"], zero_fill=True)}, config=config), arrays)
    assert reply.weights == {"accelerometer": 36, "gyroscope": 36}
    central = trained_on(settings, "pretrain", joined(filled), arrays, 0, 1, 3)
    assert all(np.array_equal(values, central[name] - arrays[name]) for name, values in update.items())


def test_zeros_have_no_quality(settings: Settings):
    """A device whose gyroscope is all zeros says nothing of it; one that lost some windows counts those as well."""
    task, arrays = settings(0, 1), global_arrays(settings)
    reply, _ = measure_quality(QualityTask(**task | {"data": replace(task["data"], zero_fill=True)}), arrays)
    assert reply.num_windows == {"accelerometer": 12 + 12, "gyroscope": 12}
    assert 0 < reply.weighted["gyroscope"] < 12


def own_labels(settings: Settings, number: int, arrays: Arrays, confidence: float, known: bool) -> DeviceTensors:
    """What a device learns from in self-training: its drawn labels, if they are known, and what the global model is sure of."""
    task, windows = settings(number), windows_of(settings, number)
    rows, _ = draw_labelled(device_windows(task["data"], task["devices"][0]), task["classes"], LABELS)
    (logits,) = logits_of(load_arrays(task["model"], arrays), [windows], CPU)
    chosen, classes = pseudo_labels(logits, windows.classes, torch.from_numpy(rows if known else rows[:0]), confidence)
    learnt = windows.select(chosen)
    return DeviceTensors(learnt.streams, learnt.present, classes)


def test_self_training_learns_from_known_and_own_labels(settings: Settings):
    """Device 3 gave labels, device 0 did not; each counts by the windows it learnt from."""
    arrays = global_arrays(settings)
    (logits,) = logits_of(load_arrays(settings()["model"], arrays), [windows_of(settings, 0)], CPU)
    confidence = float(np.median(logits.softmax(dim=1).amax(dim=1)))
    task = SelftrainTask(**settings(0, 3), config=FINETUNE, labels=LABELS, labelled=("device-00003",), confidence=confidence, expected=())
    reply, update = train_cohort(task, arrays)
    learnt = {number: own_labels(settings, number, arrays, confidence, known=number == 3) for number in (0, 3)}
    assert [row.num_windows for row in reply.devices] == [len(learnt[0]), len(learnt[3])]
    assert 0 < len(learnt[0]) < 12, "sure of some and not of all"
    updates = {number: trained_on(settings, "selftrain", learnt[number], arrays, number) for number in (0, 3)}
    for name, values in update.items():
        owners = (3,) if part_of(name) == "gyroscope" else (0, 3)
        total = sum(len(learnt[number]) * (updates[number][name].astype(np.float64) - arrays[name]) for number in owners)
        np.testing.assert_allclose(values, total / sum(len(learnt[number]) for number in owners), rtol=0, atol=1e-7, err_msg=name)


def test_a_device_without_a_window_the_model_is_sure_of_is_left_out_of_self_training(settings: Settings):
    task = SelftrainTask(**settings(0, 3), config=FINETUNE, labels=LABELS, labelled=("device-00003",), confidence=1.0, expected=())
    reply, _ = train_cohort(task, global_arrays(settings))
    assert [(row.device, row.num_windows) for row in reply.devices] == [("device-00003", 6)]
    assert [each.device for each in reply.left_out] == ["device-00000"]


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


def test_quality_does_not_depend_on_who_shares_a_batch(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    """Two devices at a time, five windows at a time, against all at once; device 0 has no gyroscope, device 1 lost some windows."""
    arrays, task = global_arrays(settings), QualityTask(**settings(0, 1, 3, 4, 8))
    together, _ = measure_quality(task, arrays)
    monkeypatch.setattr(quality_module, "DEVICES_AT_ONCE", 2)
    monkeypatch.setattr(device_tensors_module, "AT_ONCE", 5)
    parts, _ = measure_quality(task, arrays)
    assert parts.num_windows == together.num_windows
    assert parts.weighted == pytest.approx(together.weighted, rel=1e-5)


def test_quality_of_a_split_fleet_adds_up(settings: Settings):
    arrays = global_arrays(settings)
    together, _ = measure_quality(QualityTask(**settings(0, 1, 3)), arrays)
    parts = [measure_quality(QualityTask(**settings(number)), arrays)[0] for number in (0, 1, 3)]
    for name in together.weighted:
        assert sum(part.weighted.get(name, 0.0) for part in parts) == pytest.approx(together.weighted[name])
        assert sum(part.num_windows.get(name, 0) for part in parts) == together.num_windows[name]


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_with_a_clip_devices_count_once_each_in_the_parts_they_have(settings: Settings, stage: str):
    arrays = global_arrays(settings)
    make = pretrain_task if stage == "pretrain" else finetune_task
    updates = {}
    for number in (0, 1, 3):
        _, updates[number] = train_cohort(make(settings, number), arrays)
    lengths = {
        number: np.sqrt(sum(float((v.astype(np.float64) ** 2).sum()) for v in update.values())) for number, update in updates.items()
    }
    clip = float(sorted(lengths.values())[1])  # one is within it by far, one just, one is longer
    task = replace(make(settings, 0, 1, 3), clip=clip * 1.0001)
    reply, mean = train_cohort(task, arrays)
    assert reply.num_within_clip == 2
    owners = {part: [n for n in (0, 1, 3) if any(part_of(name) == part for name in updates[n])] for part in reply.weights}
    assert reply.weights == {part: len(who) for part, who in owners.items()}
    assert len(owners["gyroscope"]) < len(owners["accelerometer"])
    for name, values in mean.items():
        shortened = [updates[n][name].astype(np.float64) * min(1.0, task.clip / lengths[n]) for n in owners[part_of(name)]]
        np.testing.assert_allclose(values, sum(shortened) / len(shortened), rtol=0, atol=1e-6, err_msg=name)
    apart_reply, placed_updates = train_cohort(replace(task, host_aggregation=False), arrays)
    assert [row.num_within_clip for row in apart_reply.devices].count(1) == 2
    assert apart_reply.num_within_clip == 0
    for row, update in zip(apart_reply.devices, apart(placed_updates, 3), strict=True):
        assert set(row.weights.values()) == {1.0}
        assert length_of(update, row.weights) <= task.clip
