from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from clmm_core.data.fleet import device_windows
from clmm_core.data.labels import LabelDraw, draw_labelled
from clmm_core.federated.arrays import FUSION, Arrays
from clmm_core.training.alone import CPU
from clmm_core.training.array_names import is_measured, is_stage_one
from clmm_core.training.device_tensors import NO_CLASS, DeviceTensors, device_tensors, pooled, zero_filled
from clmm_core.training.lessons import Lesson, lesson_of, trained_together, whole_windows
from clmm_core.training.model_arrays import load_arrays, new_arrays
from clmm_core.training.predict_together import logits_of
from clmm_core.training.pseudo_labels import pseudo_labels
from clmm_core.training.settings import FinetuneConfig, LocalConfig, PretrainConfig
from clmm_core.training.tasks import FinetuneTask, PretrainTask, SelftrainTask, TrainTask, learns, stage_of

Settings = Callable[..., dict[str, Any]]
LOCAL = LocalConfig(epochs=1, batch_size=6, learning_rate=0.001)
POOLED = replace(LOCAL, pooled=True)
LABELS = LabelDraw(per_class=1, seed=4)


def pretrain_task(said: dict[str, Any], local: LocalConfig = LOCAL) -> PretrainTask:
    return PretrainTask(**said, config=PretrainConfig(local=local))


def finetune_task(said: dict[str, Any], local: LocalConfig = LOCAL) -> FinetuneTask:
    return FinetuneTask(**said, config=FinetuneConfig(encoder_rate=0.2, local=local), labels=LABELS)


def selftrain_task(said: dict[str, Any], confidence: float, local: LocalConfig = LOCAL, labelled: tuple[str, ...] = ()) -> SelftrainTask:
    config = FinetuneConfig(encoder_rate=0.2, local=local)
    return SelftrainTask(**said, config=config, labels=LABELS, labelled=labelled, confidence=confidence, expected=())


def windows_of(said: dict[str, Any], device: str) -> DeviceTensors:
    return device_tensors(device_windows(said["data"], device), said["classes"])


def drawn_of(said: dict[str, Any], device: str) -> torch.Tensor:
    return torch.from_numpy(draw_labelled(device_windows(said["data"], device), said["classes"], LABELS)[0])


def lesson(task: TrainTask, arrays: Arrays) -> Lesson:
    """The lesson of all devices of a task as one."""
    windows = whole_windows(task, arrays, task.devices)
    logits = logits_of(load_arrays(task.model, arrays), [windows], CPU)[0] if isinstance(task, SelftrainTask) else None
    return lesson_of(task, task.devices, windows, logits)


def windows_to_learn(learnt: Lesson) -> DeviceTensors:
    chosen = learnt.windows.select(learnt.rows)
    return replace(chosen, classes=learnt.classes)


def assert_same(one: DeviceTensors, other: DeviceTensors) -> None:
    assert one.streams.keys() == one.present.keys() == other.streams.keys()
    for name in one.streams:
        assert torch.equal(one.streams[name], other.streams[name])
        assert torch.equal(one.present[name], other.present[name])
    assert torch.equal(one.classes, other.classes)


def test_each_task_has_its_stage(settings: Settings):
    assert stage_of(pretrain_task(settings(3))) == "pretrain"
    assert stage_of(finetune_task(settings(3))) == "finetune"
    assert stage_of(selftrain_task(settings(3), 0.8)) == "selftrain"


@pytest.mark.parametrize("make", [pretrain_task, finetune_task])
def test_devices_train_alone_in_order_unless_they_are_pooled(settings: Settings, make: Callable[..., TrainTask]):
    assert trained_together(make(settings(3, 0, 1))) == [("device-00000",), ("device-00001",), ("device-00003",)]
    assert trained_together(make(settings(3, 0, 1), POOLED)) == [("device-00000", "device-00001", "device-00003")]


def test_a_devices_windows_are_the_same_object_in_every_round_and_stage(settings: Settings):
    """A stack on a GPU knows them by it."""
    arrays, said = new_arrays(settings()["model"], 0), settings(0, 1)
    first = whole_windows(pretrain_task(said), arrays, ("device-00001",))
    assert_same(first, windows_of(said, "device-00001"))
    later = finetune_task(said | {"server_round": 9, "seed": 1, "devices": said["devices"][1:]})
    assert whole_windows(later, new_arrays(said["model"], 1), ("device-00001",)) is first
    assert whole_windows(pretrain_task(said), arrays, ("device-00000",)) is not first


def test_the_windows_of_pooled_devices_are_those_of_all_in_turn(settings: Settings):
    said = settings(0, 1, 3)
    together = whole_windows(pretrain_task(said, POOLED), {}, said["devices"])
    assert_same(together, pooled([windows_of(said, device) for device in said["devices"]]))
    assert whole_windows(finetune_task(said, POOLED), {}, said["devices"]) is together


def test_with_zero_fill_windows_follow_the_models_means_alone(settings: Settings):
    """Device 0 has no gyroscope."""
    said = settings(0)
    said["data"] = replace(said["data"], zero_fill=True)
    arrays = new_arrays(said["model"], 0)
    arrays["modalities.gyroscope.mean"] += 0.5
    filled = whole_windows(pretrain_task(said), arrays, said["devices"])
    assert_same(filled, zero_filled(windows_of(said, "device-00000"), load_arrays(said["model"], arrays)))
    assert (filled.streams["gyroscope"] == 0.5).all()
    learnt = {name: values if name.endswith((".mean", ".std")) else values + 1 for name, values in arrays.items()}
    assert whole_windows(finetune_task(said), learnt, said["devices"]) is filled
    moved = {**arrays, "modalities.gyroscope.mean": arrays["modalities.gyroscope.mean"] + 1}
    assert (whole_windows(pretrain_task(said), moved, said["devices"]).streams["gyroscope"] == 1.5).all()


@pytest.mark.parametrize("number", [0, 1, 3])
def test_stage_one_learns_from_all_windows(settings: Settings, number: int):
    said = settings(number)
    (device,) = said["devices"]
    learnt = lesson(pretrain_task(said), {})
    assert (learnt.devices, learnt.num_windows) == ((device,), (12,))
    everything = windows_of(said, device)
    assert_same(windows_to_learn(learnt), DeviceTensors(everything.streams, everything.present, torch.full((12,), NO_CLASS)))
    assert learnt.rows.tolist() == list(range(12))


@pytest.mark.parametrize("number", [0, 1, 3])
def test_stage_two_learns_from_the_drawn_labels(settings: Settings, number: int):
    said = settings(number)
    (device,) = said["devices"]
    learnt, drawn = lesson(finetune_task(said), {}), drawn_of(said, device)
    assert learnt.num_windows == (len(drawn),) == (6,)
    assert_same(windows_to_learn(learnt), windows_of(said, device).select(drawn))
    assert NO_CLASS not in learnt.classes


@pytest.mark.parametrize("is_known", [False, True])
def test_self_training_learns_from_what_is_known_and_what_the_model_is_sure_of(settings: Settings, is_known: bool):
    said = settings(3)
    arrays, windows, drawn = new_arrays(said["model"], 0), windows_of(said, "device-00003"), drawn_of(said, "device-00003")
    logits = logits_of(load_arrays(said["model"], arrays), [windows], CPU)[0]
    confidence = float(logits.softmax(dim=1).max(dim=1).values.median())
    learnt = lesson(selftrain_task(said, confidence, labelled=said["devices"] if is_known else ()), arrays)
    rows, classes = pseudo_labels(logits, windows.classes, drawn if is_known else drawn[:0], confidence)
    assert 0 < len(rows) < 12
    assert torch.equal(learnt.rows, rows)
    assert torch.equal(learnt.classes, classes)
    assert learnt.num_windows == (len(rows),)
    assert torch.equal(windows_to_learn(learnt).streams["gyroscope"], windows.streams["gyroscope"][rows])


def test_windows_keep_their_own_classes_whatever_a_lesson_makes_of_them(settings: Settings):
    said = settings(3)
    arrays = new_arrays(said["model"], 0)
    task = selftrain_task(said, 0.0)
    learnt = lesson(task, arrays)
    assert not torch.equal(windows_to_learn(learnt).classes, learnt.windows.classes)
    assert_same(learnt.windows, windows_of(said, "device-00003"))


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "selftrain"])
def test_what_pooled_devices_learn_from_is_what_each_would_in_turn(settings: Settings, stage: str):
    """Devices 0 (no gyroscope), 1 and 3; in self-training only device 1 gave labels."""
    said = settings(0, 1, 3)
    arrays = new_arrays(said["model"], 0)

    def task_of(*numbers: int) -> TrainTask:
        own = settings(*numbers)
        if stage == "selftrain":
            return selftrain_task(own, 0.19, POOLED, labelled=("device-00001",))
        return pretrain_task(own, POOLED) if stage == "pretrain" else finetune_task(own, POOLED)

    together, apart = lesson(task_of(0, 1, 3), arrays), [lesson(task_of(number), arrays) for number in (0, 1, 3)]
    assert together.num_windows == tuple(count for each in apart for count in each.num_windows)
    assert min(together.num_windows) > 0
    assert together.rows.tolist() == [row + 12 * i for i, each in enumerate(apart) for row in each.rows.tolist()]
    assert_same(windows_to_learn(together), pooled([windows_to_learn(each) for each in apart]))
    weights = [each.weights(stage) for each in apart]
    assert together.weights(stage) == {name: sum(each.get(name, 0.0) for each in weights) for name in weights[1]}


def test_a_lesson_counts_by_the_windows_each_part_is_trained_on(settings: Settings):
    """Device 0 has no gyroscope; two of device 1's windows lack either sensor."""
    assert lesson(pretrain_task(settings(0)), {}).weights("pretrain") == {"accelerometer": 12.0}
    gaps = lesson(pretrain_task(settings(1)), {})
    assert gaps.weights("pretrain") == {"accelerometer": 10.0, "gyroscope": 10.0}
    few = replace(gaps, rows=gaps.rows[gaps.windows.present["gyroscope"]])
    assert few.weights("finetune") == {"accelerometer": 8.0, "gyroscope": 10.0, FUSION: 10.0}
    none = replace(gaps, rows=gaps.rows[~gaps.windows.present["gyroscope"]])
    assert none.weights("selftrain") == {"accelerometer": 2.0, FUSION: 2.0}, "a part without a window has no weight"


def test_each_stage_learns_what_it_trains(settings: Settings):
    """Never what is measured; without the shared feature no projections, at an encoder rate of 0 no encoders either."""
    said = settings(3)
    task, names = finetune_task(said), set(new_arrays(said["model"], 0))
    apart = finetune_task(said | {"model": replace(said["model"], shared=False)})
    frozen = replace(task, config=replace(task.config, encoder_rate=0.0))
    trained = {name for name in names if not is_measured(name)}
    assert {name for name in names if learns(pretrain_task(said), name)} == {name for name in trained if is_stage_one(name)}
    for each in (task, selftrain_task(said, 0.5)):
        assert {name for name in names if learns(each, name)} == trained
    assert {name for name in names if learns(apart, name)} == {name for name in trained if ".projection." not in name}
    assert {name for name in names if learns(frozen, name)} == {name for name in trained if not is_stage_one(name)}
