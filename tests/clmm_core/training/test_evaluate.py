from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from clmm_core.data.fleet import device_windows
from clmm_core.data.labels import LabelDraw, draw_labelled
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.messages import Counts, DeviceEvaluation
from clmm_core.models.clmm import Clmm
from clmm_core.seeds import derive_seed
from clmm_core.training import device_tensors as device_tensors_module
from clmm_core.training import engine, evaluate
from clmm_core.training.device_tensors import DeviceTensors, device_tensors, zero_filled
from clmm_core.training.drawn_dropout import draws_for
from clmm_core.training.evaluate import evaluate_cohort
from clmm_core.training.finetune import finetune_device
from clmm_core.training.model_arrays import arrays_of, load_arrays, new_arrays
from clmm_core.training.settings import Augmentation, FinetuneConfig, LocalConfig
from clmm_core.training.tasks import EvaluateTask

Settings = Callable[..., dict[str, Any]]
LABELS = LabelDraw(per_class=1, seed=4)
PERSONAL = FinetuneConfig(encoder_rate=0.2, local=LocalConfig(epochs=5, batch_size=6, learning_rate=0.003))


def task_for(settings: Settings, *devices: int, **changes: Any) -> EvaluateTask:
    plain = {"labelled": (), "labels": LABELS, "personal_labels": LABELS, "personal_config": PERSONAL, "smooth_s": 0.0}
    return EvaluateTask(**settings(*devices), **(plain | changes))


def arrays_for(settings: Settings) -> Arrays:
    """A model that learned a little from device-00005, so that its predictions differ between windows and are not all right."""
    task = settings(5)
    model = load_arrays(task["model"], new_arrays(task["model"], 1))
    windows = device_tensors(device_windows(task["data"], "device-00005"), task["classes"])
    for name, values in windows.streams.items():
        model.part(name).mean.copy_(values[windows.present[name]].mean(dim=(0, 2)))
        model.part(name).std.copy_(values[windows.present[name]].std(dim=(0, 2)))
    local = LocalConfig(epochs=16, batch_size=6, learning_rate=0.01)
    config = FinetuneConfig(encoder_rate=0.2, local=local, augmentation=Augmentation(modality_dropout=0.5))
    finetune_device(model, windows, config, draws_for(model, 5))
    return arrays_of(model)


def confusion_by_hand(model: Clmm, task: EvaluateTask, device: str, rows: list[int]) -> list[list[int]]:
    windows = device_windows(task.data, device)
    tensors = device_tensors(windows, task.classes)
    table = [[0] * len(task.classes) for _ in task.classes]
    for row in rows:
        one = tensors.select(torch.tensor([row]))
        predicted = int(model.eval()(one.streams, one.present).argmax())
        table[task.classes.index(windows.labels[row])][predicted] += 1
    return table


@torch.no_grad()
def probabilities(model: Clmm, windows: DeviceTensors) -> np.ndarray:
    """Of each class, one window after the other."""
    logits = [model.eval()(one.streams, one.present) for one in (windows.select(torch.tensor([row])) for row in range(len(windows)))]
    return torch.cat(logits).double().softmax(dim=1).numpy()


def listed(counts: Counts | None) -> list[list[int]]:
    assert counts is not None
    return [list(row) for row in counts.confusion]


def test_every_labelled_window_of_an_unlabelled_device_counts(settings: Settings):
    task, arrays = task_for(settings, 3, 0), arrays_for(settings)
    reply, nothing = evaluate_cohort(task, arrays)
    assert nothing == {}
    assert [(each.device, each.modalities) for each in reply.devices] == [
        ("device-00000", ("accelerometer",)),
        ("device-00003", ("accelerometer", "gyroscope")),
    ]
    network = load_arrays(task.model, arrays)
    for each in reply.devices:
        assert listed(each.counts) == confusion_by_hand(network, task, each.device, list(range(12)))
        assert np.count_nonzero(np.sum(each.counts.confusion, axis=0)) > 1  # it does not say the same of every window
        assert each.personal_before is each.personal_after is None


def test_with_zero_fill_a_sensor_that_is_not_there_shows_zeros(settings: Settings):
    """Device 0 has no gyroscope: the model sees its training mean instead, for the shared model and for a personal one."""
    task, arrays = task_for(settings, 0, personalise=("device-00000",)), arrays_for(settings)
    filled = replace(task, data=replace(task.data, zero_fill=True))
    (answer,) = evaluate_cohort(filled, arrays)[0].devices
    network = load_arrays(task.model, arrays)
    windows = device_windows(task.data, "device-00000")
    complete = zero_filled(device_tensors(windows, task.classes), network)
    predicted = probabilities(network, complete).argmax(axis=1)
    expected = np.zeros((len(task.classes), len(task.classes)), int)
    np.add.at(expected, (complete.classes.numpy(), predicted), 1)
    assert listed(answer.counts) == expected.tolist()
    assert answer.modalities == ("accelerometer",), "what it really has"
    (plain,) = evaluate_cohort(task, arrays)[0].devices
    left_out = probabilities(network, device_tensors(windows, task.classes))
    assert not np.allclose(probabilities(network, complete), left_out)
    assert sum(map(sum, listed(plain.counts))) == 12
    given, rest = draw_labelled(windows, task.classes, LABELS)
    draws = draws_for(network, derive_seed(4, "personalise", "device-00000"))
    finetune_device(network, complete.select(torch.from_numpy(given)), PERSONAL, draws)
    kept = complete.select(torch.from_numpy(rest))
    assert int((probabilities(network, kept).argmax(axis=1) == kept.classes.numpy()).sum()) == np.trace(answer.personal_after.confusion)


def test_what_was_trained_on_is_not_evaluated(settings: Settings):
    task, arrays = task_for(settings, 3, 4, labelled=("device-00003",)), arrays_for(settings)
    labelled, other = evaluate_cohort(task, arrays)[0].devices
    _, rest = draw_labelled(device_windows(task.data, "device-00003"), task.classes, LABELS)
    assert len(rest) == 6
    assert listed(labelled.counts) == confusion_by_hand(load_arrays(task.model, arrays), task, "device-00003", rest.tolist())
    assert sum(map(sum, listed(other.counts))) == 12


def test_with_smoothing_neighbours_in_time_speak_too_but_not_those_that_were_trained_on(settings: Settings):
    """Worked out window by window: a labelled device, half of whose windows were trained on, and another one."""
    task, arrays = task_for(settings, 3, 4, labelled=("device-00003",), smooth_s=20.0), arrays_for(settings)
    network = load_arrays(task.model, arrays)
    for device, answer in zip(("device-00003", "device-00004"), evaluate_cohort(task, arrays)[0].devices, strict=True):
        windows = device_windows(task.data, device)
        share = probabilities(network, device_tensors(windows, task.classes))
        trained = set(draw_labelled(windows, task.classes, LABELS)[0].tolist()) if device in task.labelled else set()
        table = [[0] * len(task.classes) for _ in task.classes]
        num_neighbours = 0
        for row in set(range(len(windows))) - trained:
            near = [
                other
                for other in set(range(len(windows))) - trained
                if windows.recordings[other] == windows.recordings[row] and abs(windows.starts_s[other] - windows.starts_s[row]) <= 20
            ]
            num_neighbours += len(near) - 1
            table[task.classes.index(windows.labels[row])][int(share[near].mean(axis=0).argmax())] += 1
        assert num_neighbours > 0
        assert listed(answer.counts) == table
    assert listed(evaluate_cohort(replace(task, smooth_s=0.0), arrays)[0].devices[0].counts) != listed(
        evaluate_cohort(task, arrays)[0].devices[0].counts
    )


def test_a_device_without_windows_to_evaluate_is_named(settings: Settings):
    task = task_for(settings, 3)
    task = replace(task, classes=("fly", "swim"), model=replace(task.model, num_classes=2))
    reply, _ = evaluate_cohort(task, new_arrays(task.model, 1))
    assert reply.devices == ()
    assert [each.device for each in reply.left_out] == ["device-00003"]
    all_drawn = task_for(settings, 3, labelled=("device-00003",), labels=LabelDraw(per_class=0))
    reply, _ = evaluate_cohort(all_drawn, arrays_for(settings))
    assert "no labelled window to evaluate on" in reply.left_out[0].reason


def test_personalisation_by_hand(settings: Settings):
    """A copy is fine-tuned on the drawn windows, and both models are compared on the rest."""
    task, arrays = task_for(settings, 6, personalise=("device-00006",)), arrays_for(settings)
    (answer,) = evaluate_cohort(task, arrays)[0].devices
    windows = device_windows(task.data, "device-00006")
    given, rest = draw_labelled(windows, task.classes, LABELS)
    own = load_arrays(task.model, arrays)
    assert listed(answer.personal_before) == confusion_by_hand(own, task, "device-00006", rest.tolist())
    assert listed(answer.personal_before) != confusion_by_hand(own, task, "device-00006", given.tolist())
    draws = draws_for(own, derive_seed(4, "personalise", "device-00006"))
    finetune_device(own, device_tensors(windows, task.classes).select(torch.from_numpy(given)), PERSONAL, draws)
    assert listed(answer.personal_after) == confusion_by_hand(own, task, "device-00006", rest.tolist())
    assert sum(map(sum, listed(answer.counts))) == 12  # the shared model still answers for all windows


def test_personalisation_changes_neither_the_shared_arrays_nor_other_subjects(settings: Settings):
    arrays, untouched = arrays_for(settings), arrays_for(settings)
    devices = (0, 3, 4)
    plain, _ = evaluate_cohort(task_for(settings, *devices), arrays)
    personal, _ = evaluate_cohort(task_for(settings, *devices, personalise=("device-00000", "device-00003")), arrays)
    assert all(np.array_equal(arrays[name], untouched[name]) for name in untouched)
    for one, other in zip(plain.devices, personal.devices, strict=True):
        assert replace(other, personal_before=None, personal_after=None) == one
    alone, _ = evaluate_cohort(task_for(settings, 3, personalise=("device-00003",)), arrays)
    assert alone.devices[0] == personal.devices[1]  # no matter who was personalised before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"personal_labels": LabelDraw(per_class=0)}, "too few labelled windows to train on some and test on the rest"),
        ({"personal_config": replace(PERSONAL, local=replace(PERSONAL.local, learning_rate=1e30))}, "training diverged"),
    ],
)
def test_who_cannot_be_personalised_is_named_and_still_evaluated(settings: Settings, change: dict[str, Any], reason: str):
    reply, _ = evaluate_cohort(task_for(settings, 3, personalise=("device-00003",), **change), arrays_for(settings))
    answer: DeviceEvaluation = reply.devices[0]
    assert answer.personal_before is answer.personal_after is None
    assert sum(map(sum, listed(answer.counts))) == 12
    assert [(each.device, reason in each.reason) for each in reply.left_out] == [("device-00003", True)]


@pytest.mark.parametrize("zero_fill", [False, True])
def test_who_shares_a_part_of_a_cohort_changes_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch, zero_fill: bool):
    """Personal models as stacks, two at a time, of three devices at a time, against each subject alone and its model trained alone."""
    arrays, numbers = arrays_for(settings), range(1, 12)
    names = settings(*numbers)["devices"]
    task = task_for(settings, *numbers, labelled=names[:2], personalise=names[1:9], smooth_s=15.0)
    task = replace(task, data=replace(task.data, zero_fill=zero_fill))
    monkeypatch.setattr(engine, "is_worth_a_stack", lambda _: False)
    alone = [evaluate_cohort(replace(task, devices=(name,)), arrays)[0] for name in names]
    monkeypatch.setattr(engine, "is_worth_a_stack", lambda _: True)
    monkeypatch.setattr(evaluate, "DEVICES_AT_ONCE", 3)
    monkeypatch.setattr(evaluate, "PERSONAL_AT_ONCE", 2)
    monkeypatch.setattr(device_tensors_module, "AT_ONCE", 7)
    together, _ = evaluate_cohort(replace(task, devices=tuple(reversed(names))), arrays)
    assert [each.counts.confusion for each in together.devices] == [each.counts.confusion for reply in alone for each in reply.devices]
    assert together.left_out == tuple(each for reply in alone for each in reply.left_out)
    assert sum(each.personal_after is not None for each in together.devices) == 8
    for one, other in zip(together.devices, (each for reply in alone for each in reply.devices), strict=True):
        assert (one.device, one.modalities) == (other.device, other.modalities)
        for mine, others in ((one.personal_before, other.personal_before), (one.personal_after, other.personal_after)):
            assert (mine is None) == (others is None)
            assert mine is None or mine.confusion == others.confusion
