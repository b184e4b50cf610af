"""Many hosts at once, their devices as stacks, against the same ones asked alone, their devices one after the other."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from clmm_core.data.labels import LabelDraw
from clmm_core.federated.arrays import FUSION, Arrays, part_of
from clmm_core.federated.individual import apart
from clmm_core.training import engine
from clmm_core.training.cohort import Question, train_cohort, train_cohorts
from clmm_core.training.evaluate import evaluate_cohort, evaluate_cohorts
from clmm_core.training.model_arrays import new_arrays
from clmm_core.training.settings import FinetuneConfig, LocalConfig, PretrainConfig
from clmm_core.training.tasks import EvaluateTask, FinetuneTask, ModelTask, PretrainTask, SelftrainTask
from clmm_core.training.together import forget

Settings = Callable[..., dict[str, Any]]
CPU = torch.device("cpu")
LOCAL = LocalConfig(epochs=1, batch_size=6, learning_rate=0.01, optimizer="sgd", proximal=0.1)
PRETRAIN = PretrainConfig(local=LOCAL, num_views=2, temperature=0.2)
FINETUNE = FinetuneConfig(encoder_rate=0.2, local=LOCAL)
LABELS = LabelDraw(per_class=1, seed=4)


@pytest.fixture(autouse=True)
def _stacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train whatever can be as a stack."""
    forget()
    monkeypatch.setattr(engine, "is_worth_a_stack", lambda _: True)


@pytest.fixture
def said(settings: Settings) -> Settings:
    """Make what every task says."""
    return lambda *devices, **changes: settings(*devices) | changes


@pytest.fixture
def starts(said: Settings) -> list[Arrays]:
    """Return two global models."""
    return [new_arrays(said()["model"], seed) for seed in range(2)]


def assert_same_mean(one: Arrays, other: Arrays, tolerance: float = 1e-5) -> None:
    assert one.keys() == other.keys()
    for name, values in other.items():
        np.testing.assert_allclose(one[name], values, rtol=0, atol=tolerance, err_msg=name)


def assert_as_one_by_one(questions: Sequence[Question]) -> None:
    replies = train_cohorts(questions, CPU)
    assert len(replies) == len(questions)
    for (task, arrays), (reply, mean) in zip(questions, replies, strict=True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine, "is_worth_a_stack", lambda _: False)
            expected, expected_mean = train_cohort(task, arrays)
        assert reply.weights == expected.weights
        assert reply.left_out == expected.left_out
        assert [(row.device, row.num_windows) for row in reply.devices] == [(row.device, row.num_windows) for row in expected.devices]
        assert [row.loss for row in reply.devices] == pytest.approx([row.loss for row in expected.devices], rel=1e-4)
        assert_same_mean(mean, expected_mean)
        assert bool(mean) == bool(expected_mean)


def train_task(said: dict[str, Any], stage: str, local: LocalConfig = LOCAL, **changes: Any) -> PretrainTask | FinetuneTask:
    if stage == "pretrain":
        return PretrainTask(**said, config=replace(PRETRAIN, local=local, **changes))
    if stage == "finetune":
        return FinetuneTask(**said, config=replace(FINETUNE, local=local, **changes), labels=LABELS)
    config = replace(FINETUNE, local=local, **changes)
    return SelftrainTask(**said, config=config, labels=LABELS, labelled=("device-00003",), confidence=0.19, expected=())


each_stage = pytest.mark.parametrize("stage", ["pretrain", "finetune", "selftrain"])


@each_stage
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("zero_fill", [False, True])
def test_hosts_train_as_one_after_the_other(said: Settings, starts: list[Arrays], stage: str, pooled: bool, zero_fill: bool):
    """Devices 0 (no gyroscope), 1 (sensors drop out), 3 and 4 on two hosts, which begin from different models."""
    local, data = replace(LOCAL, pooled=pooled), replace(said()["data"], zero_fill=zero_fill)
    one, other = (train_task(said(*numbers, data=data), stage, local) for numbers in ((3, 0, 1), (4,)))
    assert_as_one_by_one([(one, starts[0]), (other, starts[1])])


@pytest.mark.parametrize(
    "changes", [{"contrast": "per-modality"}, {"contrast": "cross-modal"}, {"aggregation": "l-dawa"}, {"loss": "dclw"}], ids=str
)
def test_whatever_stage_one_does_is_done(said: Settings, starts: list[Arrays], changes: dict[str, Any]):
    assert_as_one_by_one([(train_task(said(0, 1), "pretrain", **changes), starts[0])])


def test_questions_of_every_kind_are_answered_in_order(said: Settings, starts: list[Arrays]):
    """Runs of different rounds, seeds, learning rates, networks and methods ask at once."""
    apart = replace(said()["model"], shared=False)
    quick, uniform = replace(LOCAL, learning_rate=0.02), replace(said()["model"], fusion="uniform")
    assert_as_one_by_one(
        [
            (train_task(said(3), "finetune"), starts[0]),
            (train_task(said(3, server_round=8, seed=1), "finetune", quick), starts[0]),
            (train_task(said(3, model=uniform), "finetune"), new_arrays(uniform, 0)),
            (train_task(said(3, 4), "selftrain"), starts[1]),
            (train_task(said(3), "finetune", auxiliary=0.0), starts[1]),
            (train_task(said(3), "finetune", encoder_rate=0.0), starts[1]),
            (train_task(said(3, model=apart), "finetune"), new_arrays(apart, 0)),
            (train_task(said(4), "finetune"), starts[0]),
        ]
    )


@each_stage
def test_updates_that_are_not_folded_are_those_of_each_device_alone(said: Settings, starts: list[Arrays], stage: str):
    """Beside a host that folds."""
    task = replace(train_task(said(0, 1, 3, 4), stage), host_aggregation=False)
    (reply, arrays), (folded, _) = train_cohorts([(task, starts[0]), (train_task(said(3), stage), starts[1])], CPU)
    assert reply.weights == {}
    assert folded.weights
    updates = apart(arrays, len(reply.devices))
    assert [row.device for row in reply.devices] == [f"device-{number:05d}" for number in (0, 1, 3, 4)]
    for row, update in zip(reply.devices, updates, strict=True):
        ((alone, mean),) = train_cohorts([(replace(task, devices=(row.device,), host_aggregation=True), starts[0])], CPU)
        assert row.weights == alone.weights
        assert row.num_windows == alone.devices[0].num_windows
        assert_same_mean(update, mean)
    again, placed_again = train_cohort(task, starts[0])
    assert [row.weights for row in again.devices] == [row.weights for row in reply.devices]
    assert_same_mean(placed_again, arrays)


@each_stage
def test_an_answer_does_not_depend_on_who_else_asks(said: Settings, starts: list[Arrays], stage: str):
    questions = [(train_task(said(*numbers), stage), starts[i % 2]) for i, numbers in enumerate(((0, 3), (3, 1), (4,)))]
    for question, (reply, mean) in zip(questions[::-1], train_cohorts(questions[::-1], CPU), strict=True):
        ((alone, alone_mean),) = train_cohorts([question], CPU)
        assert reply.weights == alone.weights
        assert reply.left_out == alone.left_out
        assert [row.loss for row in reply.devices] == pytest.approx([row.loss for row in alone.devices], rel=1e-6)
        assert mean.keys() == alone_mean.keys()
        assert_same_mean(mean, alone_mean, 1e-7)


def test_nobody_asks_nothing(said: Settings):
    assert train_cohorts([], CPU) == []
    assert evaluate_cohorts([], CPU) == []


def test_devices_that_cannot_learn_are_named_by_their_own_host(said: Settings, starts: list[Arrays]):
    nobody, somebody = said(3, 4, classes=("fly", "swim")), said(4)
    questions = [(train_task(nobody, "finetune", replace(LOCAL, pooled=pooled)), starts[0]) for pooled in (False, True)]
    assert_as_one_by_one([*questions, (train_task(somebody, "finetune"), starts[0])])
    reply, mean = train_cohorts(questions, CPU)[0]
    assert (reply.devices, reply.weights, mean) == ((), {}, {})
    assert [each.device for each in reply.left_out] == ["device-00003", "device-00004"]


@pytest.mark.parametrize("pooled", [False, True])
def test_a_host_whose_training_diverges_is_named_and_spoils_no_other(said: Settings, starts: list[Arrays], pooled: bool):
    hot = replace(LOCAL, learning_rate=1e30, pooled=pooled)
    questions = [(train_task(said(*numbers), "pretrain", local), starts[0]) for numbers, local in (((0, 3), hot), ((3,), LOCAL))]
    assert_as_one_by_one(questions)
    reply, mean = train_cohorts(questions, CPU)[0]
    assert mean == {}
    assert [(each.device, "diverged" in each.reason) for each in reply.left_out] == [("device-00000", True), ("device-00003", True)]


def test_a_device_that_diverges_does_not_spoil_its_host(said: Settings, starts: list[Arrays]):
    """The gyroscope's encoder is spoilt from the start: device 3 has one, device 0 has none."""
    broken = {name: values.copy() for name, values in starts[0].items()}
    broken["modalities.gyroscope.encoder.positions"] += np.nan
    reply, mean = train_cohorts([(train_task(said(0, 3), "pretrain"), broken)], CPU)[0]
    alone, alone_mean = train_cohorts([(train_task(said(0), "pretrain"), broken)], CPU)[0]
    assert [each.device for each in reply.left_out] == ["device-00003"]
    assert reply.devices == alone.devices
    assert reply.weights == alone.weights == {"accelerometer": 12.0}
    assert {part_of(name) for name in mean} == {"accelerometer"}
    assert_same_mean(mean, alone_mean, 1e-7)


def evaluate_task(said: dict[str, Any], **changes: Any) -> EvaluateTask:
    plain = {"labelled": (), "labels": LABELS, "personal_labels": LABELS, "personal_config": FINETUNE, "smooth_s": 0.0}
    return EvaluateTask(**said, **plain | changes)


@pytest.mark.parametrize("zero_fill", [False, True])
def test_subjects_are_evaluated_as_one_after_the_other(said: Settings, starts: list[Arrays], zero_fill: bool):
    """Devices that gave labels or not, one without a window to evaluate, one host that personalises, another network."""
    data, learned = replace(said()["data"], zero_fill=zero_fill), replace(said()["model"], fusion="learned")
    arrays = {name: values * 3 if part_of(name) == FUSION else values for name, values in starts[0].items()}
    questions = [
        (evaluate_task(said(3, 0, data=data)), arrays),
        (evaluate_task(said(1, 4, data=data), labelled=("device-00004",)), starts[1]),
        (evaluate_task(said(3, 4, data=data), personalise=("device-00003",)), arrays),
        (evaluate_task(said(3, 5, data=data), labelled=("device-00003",), labels=LabelDraw(per_class=0)), arrays),
        (evaluate_task(said(6, data=data, model=learned)), new_arrays(learned, 3)),
        (evaluate_task(said(3, 5, data=data), labelled=("device-00003",), smooth_s=20.0), arrays),
    ]
    replies = evaluate_cohorts(questions, CPU)
    expected = [evaluate_cohort(*question) for question in questions]
    for (reply, nothing), (one_by_one, _) in zip(replies, expected, strict=True):
        assert nothing == {}
        assert reply.left_out == one_by_one.left_out
        for one, other in zip(reply.devices, one_by_one.devices, strict=True):
            assert (one.device, one.modalities, one.counts.confusion) == (other.device, other.modalities, other.counts.confusion)
            assert (one.personal_before, one.personal_after) == (other.personal_before, other.personal_after)
    assert [each.device for each in replies[3][0].left_out] == ["device-00003"]


def test_an_evaluation_changes_nothing_it_was_given(said: Settings, starts: list[Arrays]):
    before = {name: values.copy() for name, values in starts[0].items()}
    questions: list[tuple[ModelTask, Arrays]] = [(evaluate_task(said(0, 3)), starts[0])]
    one, again = (evaluate_cohorts(questions, CPU) for _ in range(2))
    assert one == again
    assert all(np.array_equal(starts[0][name], before[name]) for name in before)
