"""Every baseline and every ablation as a whole run in this process: what makes it what it is, not only that it runs.

Five synthetic devices with an accelerometer and a gyroscope, of which device-00000 has no gyroscope and device-00001's sensors drop out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from clmm_core.data.fleet import owned_modalities
from clmm_core.errors import ConfigError, RoundFailedError
from clmm_core.federated.arrays import FUSION, Arrays, part_of
from clmm_core.federated.messages import HostUpdate
from clmm_core.models.config import ModalityShape, sized
from clmm_core.report.records import RoundRecord, RunInfo, RunRecord
from clmm_core.report.run_folder import RunFolder
from clmm_core.training.array_names import is_stage_one
from clmm_core.training.cohort import train_cohort
from clmm_core.training.model_arrays import new_arrays
from clmm_core.training.tasks import SelftrainTask
from server.federation import begin, run_federation
from server.hosts import Answer, Enough, Question
from server.run_config import RunConfig, Value, parse_run_config
from simulation import in_process
from simulation.in_process import InProcessHosts

MODALITIES = ("accelerometer", "gyroscope")
BASE: dict[str, Value] = {
    "data.num-devices": 5,
    "data.modalities": ",".join(MODALITIES),
    "data.window-s": 7.0,
    "split.test": "device-00004",
    "split.num-validation": 0,
    "labels.devices": "device-00003",
    "personalise.per-class": 0,
    "report.points-per-device": 0,
}
METHOD: dict[str, Value] = {
    **{"model.attention": "diff-v1", "model.fusion": "quality-guided", "model.branches": "gated", "model.shared": True},
    **{"model.differences": True, "client.optimizer": "adamw", "client.weight-decay": 0.01, "labels.per-class": 1, "labels.unit": "trial"},
    **{"augment.rotation-deg": 30.0, "augment.scale": 0.1, "augment.jitter": 0.05, "augment.crop": 0.2, "augment.modality-dropout": 0.0},
    **{"pretrain.contrast": "fused", "pretrain.loss": "hard-positive", "pretrain.beta": 2.0, "pretrain.copies": 2},
    **{"pretrain.aggregation": "mean", "pretrain.server-optimizer": "fedavg", "pretrain.server-lr": 1.0},
    **{"pretrain.batch-size": 32, "pretrain.local-epochs": 1, "finetune.auxiliary": 0.3},
}
"""What the choices below are compared with, so that another default changes nothing here."""
STAGE_ONE: dict[str, Value] = {"finetune.rounds": 0}
STAGE_TWO: dict[str, Value] = {"pretrain.rounds": 0}
ONE_DEVICE: dict[str, Value] = {"data.num-devices": 2, "split.test": "device-00000", "labels.devices": "device-00001"}
SHAPES = tuple(ModalityShape(name=name, channels=3, time_steps=350) for name in MODALITIES)


class Hosts(InProcessHosts):
    """Hosts that keep what training answered, by message type."""

    def __init__(self, num_hosts: int) -> None:
        super().__init__(num_hosts)
        self.answered: dict[str, list[Any]] = {}

    def ask(
        self, message_type: str, questions: Mapping[int, Question], reply_kind: type, enough: Enough | None = None
    ) -> tuple[dict[int, Answer], dict[int, str]]:
        answers, failures = super().ask(message_type, questions, reply_kind)
        self.answered.setdefault(message_type, []).extend(answer.reply for answer in answers.values())
        return answers, failures


@dataclass(frozen=True)
class Outcome:
    config: RunConfig
    record: RunRecord
    arrays: Arrays
    answered: Mapping[str, list[Any]] = field(repr=False)

    def round(self, stage: str) -> RoundRecord:
        """The one round of a stage."""
        (record,) = (record for record in self.record.rounds if record.stage == stage)
        assert record.loss is not None
        assert np.isfinite(record.loss)
        return record

    def weights(self, stage: str) -> dict[str, float]:
        """By part of the model, the windows that the stage's answers count."""
        updates = self.answered[f"train.{stage}"]
        return {
            part: sum(update.weights.get(part, 0.0) for update in updates) for part in {part for each in updates for part in each.weights}
        }

    @property
    def has(self) -> dict[str, tuple[str, ...]]:
        """What each device has."""
        return {subject.subject: subject.modalities for subject in self.record.subjects}

    @property
    def start(self) -> Arrays:
        """The model as it was initialised."""
        return new_arrays(sized(self.config.model, SHAPES, len(self.record.split.classes)), self.config.seed)


Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def run(run_config, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a federation: `run(overrides, overrides, ..., num_hosts=2)`; one that was asked for before is not run again."""
    done: dict[tuple[Any, ...], Outcome] = {}

    def make(*overrides: dict[str, Value], num_hosts: int = 2) -> Outcome:
        torch.set_num_threads(1)
        changes = BASE | METHOD | {key: value for each in overrides for key, value in each.items()}
        key = (num_hosts, *sorted(changes.items()))
        if key not in done:
            values = run_config(changes, small=True)
            config, hosts = parse_run_config(values), Hosts(num_hosts)
            info = RunInfo(name="test", run_config=values, versions={}, machine="", started_at="2026-01-01T00:00:00+00:00")
            folder = RunFolder.create(tmp_path_factory.mktemp("results"), "test")
            record, arrays = run_federation(begin(hosts, config, info, folder, lambda _: None))
            assert all(np.isfinite(values).all() for values in arrays.values())
            assert {subject.subject for subject in record.subjects} == {f"device-{i:05d}" for i in range(config.data.num_devices)}
            done[key] = Outcome(config, record, arrays, hosts.answered)
        return done[key]

    return make


def changed(one: Arrays, other: Arrays, tolerance: float = 0.0) -> set[str]:
    """Names of the arrays that differ."""
    assert one.keys() == other.keys()
    return {name for name in one if not np.allclose(one[name], other[name], rtol=0, atol=tolerance)}


def trainable(name: str) -> bool:
    return is_stage_one(name) and not name.endswith((".mean", ".std"))


def heads(arrays: Arrays) -> Arrays:
    """Those of the auxiliary heads."""
    return {name: values for name, values in arrays.items() if name.startswith("auxiliary.") or ".head." in name}


COMPARE: list[dict[str, Value]] = [
    {"pretrain.contrast": "per-modality"},
    {"pretrain.contrast": "cross-modal"},
    {"pretrain.loss": "tcl"},
    {"pretrain.loss": "focal"},
    {"pretrain.loss": "dclw"},
    {"pretrain.beta": 0.0},
    {"pretrain.copies": 1},
    {"augment.rotation-deg": 0.0},
    {"augment.scale": 0.0},
    {"augment.jitter": 0.0},
    {"augment.crop": 0.0},
    {"augment.time-warp": 0.3},
    {"augment.channel-dropout": 0.3},
    {"augment.modality-dropout": 0.5},
]
"""What windows are compared, and how: the first loss of a round is another."""
STEP: list[dict[str, Value]] = [{"client.optimizer": "sgd"}, {"client.weight-decay": 0.5}, {"pretrain.aggregation": "l-dawa"}]
"""What a device and its host make of the loss."""


@pytest.mark.parametrize(
    ("choice", "same_loss"),
    [*((choice, False) for choice in COMPARE), *((choice, True) for choice in STEP)],
    ids=lambda value: "-".join(f"{key.rpartition('.')[2]}-{choice}" for key, choice in value.items()) if isinstance(value, dict) else "",
)
def test_a_choice_of_stage_one_changes_encoders_and_projections_and_nothing_else(run: Run, choice: dict[str, Value], same_loss: bool):
    chosen, method = run(STAGE_ONE, choice), run(STAGE_ONE)
    assert (chosen.round("pretrain").loss == method.round("pretrain").loss) == same_loss
    names = changed(chosen.arrays, method.arrays) - {"fusion.quality"}  # measured on the encoders
    assert all(trainable(name) for name in names)
    assert {part_of(name) for name in names} == set(MODALITIES)


@pytest.mark.parametrize("as_both", [{"pretrain.loss": "focal", "pretrain.gamma": 0.0}, {"pretrain.loss": "tcl", "pretrain.k1": 0.0}])
def test_without_their_own_term_losses_are_cosmos(run: Run, as_both: dict[str, Value]):
    """Focal with gamma 0, TCL with k1 0 and the hard-positive loss with beta 0 are all supervised contrastive learning over windows."""
    cosmo = run(STAGE_ONE, {"pretrain.beta": 0.0})
    assert run(STAGE_ONE, as_both).round("pretrain").loss == pytest.approx(cosmo.round("pretrain").loss, rel=1e-4)


def test_of_one_modality_two_views_are_its_two_copies(run: Run):
    """Then contrast of fused views and of each modality are the same thing."""
    alone: dict[str, Value] = {"data.modalities": "accelerometer", "pretrain.views": 2}
    fused, own = run(STAGE_ONE, alone), run(STAGE_ONE, alone, {"pretrain.contrast": "per-modality"})
    assert own.round("pretrain").loss == pytest.approx(fused.round("pretrain").loss, rel=1e-5)
    assert not changed(own.arrays, fused.arrays, tolerance=1e-4)


def test_cross_modal_contrast_leaves_out_who_has_one_modality(run: Run):
    outcome = run(STAGE_ONE, {"pretrain.contrast": "cross-modal"})
    reason = "pretrain.contrast 'cross-modal' found nothing to compare in 12 windows: choose another"
    assert outcome.round("pretrain").left_out == (f"device 'device-00000': {reason}",)
    assert outcome.round("pretrain").num_devices == run(STAGE_ONE).round("pretrain").num_devices - 1
    with pytest.raises(RoundFailedError, match=r"pretrain, round 1: no device could be trained; .*found nothing to compare"):
        run(STAGE_ONE, {"pretrain.contrast": "cross-modal", "data.modalities": "accelerometer"})


def test_l_dawa_scales_a_lone_devices_layers_by_their_cosine_with_the_start(run: Run):
    start = run(STAGE_ONE, STAGE_TWO, ONE_DEVICE).arrays
    mean, scaled = run(STAGE_ONE, ONE_DEVICE).arrays, run(STAGE_ONE, ONE_DEVICE, {"pretrain.aggregation": "l-dawa"}).arrays
    for name in filter(trainable, start):
        local, before = mean[name].astype(np.float64), start[name].astype(np.float64)
        lengths = np.linalg.norm(local) * np.linalg.norm(before)
        np.testing.assert_allclose(scaled[name], local * ((local * before).sum() / lengths if lengths else 1.0), atol=1e-6, err_msg=name)
    assert not changed(
        run(STAGE_ONE, {"pretrain.aggregation": "l-dawa", "pretrain.lr": 0.0}).arrays, run(STAGE_ONE, {"pretrain.lr": 0.0}).arrays
    )


@pytest.mark.parametrize(("server_lr", "momentum"), [(1.0, 0.9), (0.5, 0.9), (0.5, 0.0)])
@pytest.mark.parametrize("name", ["fedavg", "fedavgm", "fedadam"])
def test_the_server_takes_its_own_step_along_the_mean_update(run: Run, name: str, server_lr: float, momentum: float):
    """The first round by hand: fedavgm's moment is the update, fedadam's step is the update over its size."""
    start, mean = run(STAGE_ONE, STAGE_TWO).arrays, run(STAGE_ONE).arrays
    keys = {"pretrain.server-optimizer": name, "pretrain.server-lr": server_lr, "pretrain.server-momentum": momentum}
    stepped = run(STAGE_ONE, keys).arrays
    for each in filter(trainable, start):
        update = (mean[each] - start[each]).astype(np.float64)
        step = (1 - momentum) * update / (np.sqrt(0.01) * np.abs(update) + 1e-3) if name == "fedadam" else update
        np.testing.assert_allclose(stepped[each], start[each] + server_lr * step, rtol=0, atol=2e-4 if name == "fedadam" else 1e-6)


def test_fedavgm_goes_on_with_its_momentum(run: Run):
    """Two rounds: after an equal first one, its second step is fedavg's and 0.9 of the first one again."""
    rounds = {"pretrain.rounds": 2}
    start, once = run(STAGE_ONE, STAGE_TWO).arrays, run(STAGE_ONE).arrays
    plain, moving = run(STAGE_ONE, rounds).arrays, run(STAGE_ONE, rounds, {"pretrain.server-optimizer": "fedavgm"}).arrays
    for name in filter(trainable, start):
        expected = plain[name] + 0.9 * (once[name] - start[name])
        np.testing.assert_allclose(moving[name], expected, rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_strong_proximal_term_holds_devices_back(run: Run, stage: str):
    other = STAGE_ONE if stage == "pretrain" else STAGE_TWO
    slow = {"client.optimizer": "sgd", "client.weight-decay": 0.0, f"{stage}.lr": 0.0005, f"{stage}.local-epochs": 5}
    start, free, held = (run(other, slow, each).arrays for each in ({f"{stage}.rounds": 0}, {}, {"client.proximal": 1000.0}))
    went = {"free": 0.0, "held": 0.0}
    for name in start.keys() - {"fusion.quality"}:  # measured anew on each
        went["free"] += float(np.square(free[name] - start[name]).sum())
        went["held"] += float(np.square(held[name] - start[name]).sum())
    assert 0 < went["held"] < 0.4 * went["free"]


def test_pooled_devices_of_a_host_train_as_one(run: Run):
    """As many hosts as devices are plain federated averaging; one host is central training; two are between."""
    pooled, apart = {"client.pooled": True}, run(num_hosts=5)
    assert not changed(run(pooled, num_hosts=5).arrays, apart.arrays)
    central, two = run(pooled, num_hosts=1), run(pooled, num_hosts=2)
    for outcome in (central, two):
        assert outcome.round("pretrain").num_windows == apart.round("pretrain").num_windows
        assert outcome.round("pretrain").num_devices == 4
        assert {part_of(name) for name in changed(outcome.arrays, apart.arrays)} == {*MODALITIES, FUSION}
    assert changed(central.arrays, two.arrays)
    (update,) = central.answered["train.pretrain"]
    assert len({device.loss for device in update.devices}) == 1
    assert [(device.device, device.num_windows) for device in update.devices] == [(f"device-0000{i}", 12) for i in range(4)]


def test_devices_lack_what_the_draw_takes_and_the_rest_goes_on(run: Run):
    outcome, whole = run(STAGE_ONE, {"data.missing-share": 0.5}), run(STAGE_ONE)
    for device, has in whole.has.items():
        kept = owned_modalities(outcome.config.data, device, MODALITIES, set(has))
        assert outcome.has[device] == tuple(name for name in has if name in kept) != ()
    assert outcome.has != whole.has, "this seed takes something"
    less, more = outcome.weights("pretrain"), whole.weights("pretrain")
    assert less.keys() == more.keys() == set(MODALITIES)
    assert sum(less.values()) < sum(more.values())


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_zero_fill_trains_every_encoder_on_every_device(run: Run, share: float):
    filled, left_out = (run({"data.missing-share": share, "data.zero-fill": fill}) for fill in (True, False))
    num_windows = filled.round("pretrain").num_windows
    assert filled.weights("pretrain") == dict.fromkeys(MODALITIES, num_windows)
    assert filled.weights("finetune") == dict.fromkeys((*MODALITIES, FUSION), filled.round("finetune").num_windows)
    assert left_out.weights("pretrain")["gyroscope"] < num_windows
    assert filled.has == left_out.has, "the results say what devices really have"
    normalisation = {name for name in filled.arrays if name.endswith((".mean", ".std"))}
    differ = changed(filled.arrays, left_out.arrays)
    assert not differ & normalisation, "zeros are no measurement"
    assert {part_of(name) for name in differ} == {*MODALITIES, FUSION}


def test_the_activities_asked_for_are_recognised_and_the_others_only_pretrain(run: Run):
    some, whole = run({"data.classes": "walk, run ,still"}), run()
    assert some.record.split.classes == ("run", "still", "walk")
    assert some.arrays["primary.2.weight"].shape[0] == 3
    assert some.round("pretrain").num_windows == whole.round("pretrain").num_windows
    assert (some.round("finetune").num_windows, whole.round("finetune").num_windows) == (3, 6)
    for subject, before in zip(some.record.subjects, whole.record.subjects, strict=True):
        asked_for = [whole.record.split.classes.index(name) for name in some.record.split.classes]
        assert subject.counts.confusion.sum(axis=1).tolist() == before.counts.confusion.sum(axis=1)[asked_for].tolist()


def test_an_activity_that_nobody_labelled_cannot_be_asked_for(run: Run):
    message = "data.classes: no device has a label of swim, fly; of those named there are run, walk: correct the names"
    with pytest.raises(ConfigError, match=message):
        run({"data.classes": "walk,swim,run,fly"})
    with pytest.raises(ConfigError, match="no device has a label of swim, fly; of those named there are none"):
        run({"data.classes": "swim,fly"})


@pytest.mark.parametrize(
    ("choice", "lost"),
    [
        ({"model.attention": "softmax"}, "lambda_vectors"),
        ({"model.attention": "diff-v2"}, "lambda_vectors"),
        ({"model.fusion": "uniform"}, "fusion."),
        ({"model.branches": "mean"}, "branches.gate."),
        ({"model.branches": "linear"}, "branches.gru."),
        ({"model.branches": "recurrent"}, "branches.linear."),
        ({"model.shared": False}, "shared_norm."),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_a_part_that_is_off_is_in_neither_training_nor_model(run: Run, choice: dict[str, Value], lost: str):
    outcome = run(STAGE_TWO, choice)
    assert any(lost in name for name in run(STAGE_TWO).arrays)
    assert not any(lost in name for name in outcome.arrays)
    assert outcome.arrays.keys() == outcome.start.keys()
    ((key, value),) = choice.items()
    assert outcome.record.card.architecture[key.removeprefix("model.")] == value
    assert outcome.record.card.num_parameters == sum(values.size for values in outcome.arrays.values())
    # Without the shared feature nothing of stage two goes through the projections; all else learns.
    still = outcome.arrays.keys() - changed(outcome.arrays, outcome.start)
    assert still == {name for name in outcome.arrays if ".projection." in name and "model.shared" in choice}


def test_differences_double_what_an_encoder_sees(run: Run):
    for differences, channels in ((True, 6), (False, 3)):
        arrays = run(STAGE_ONE, {"model.differences": differences}).arrays
        assert arrays["modalities.gyroscope.mean"].shape == (channels,)
        assert arrays["modalities.gyroscope.encoder.local.0.weight"].shape[1] == channels


@pytest.mark.parametrize(("fusion", "uses"), [("quality-guided", True), ("learned", False)])
def test_the_measured_quality_reaches_the_fusion_that_uses_it(run: Run, fusion: str, uses: bool):
    outcome = run({"model.fusion": fusion})
    measured = [outcome.record.quality[name] for name in MODALITIES]
    assert measured != pytest.approx([0.5, 0.5])
    assert outcome.arrays["fusion.quality"].tolist() == pytest.approx(measured if uses else [0.5, 0.5])


def test_without_auxiliary_loss_no_auxiliary_head_learns(run: Run):
    """Weight decay, which would shrink them, is off."""
    with_it, without = (run(STAGE_TWO, {"finetune.auxiliary": weight, "client.weight-decay": 0.0}) for weight in (0.3, 0.0))
    assert len(heads(with_it.arrays)) == 2 * 5
    assert changed(heads(with_it.arrays), heads(with_it.start)) == heads(with_it.arrays).keys()
    assert not changed(heads(without.arrays), heads(without.start))


@pytest.mark.parametrize("confidence", [0.0, 1.0])
def test_self_training_takes_the_windows_it_is_sure_of(run: Run, confidence: float):
    """With confidence 0 every window of every training device, with 1 the labelled ones alone."""
    outcome, before = run({"selftrain.rounds": 1, "selftrain.confidence": confidence}), run()
    record = outcome.round("selftrain")
    assert record.server_round == 3
    assert record.num_windows == (4 * 12 if confidence == 0 else 6)
    assert record.num_devices == (4 if confidence == 0 else 1)
    assert bool(record.left_out) == (confidence == 1)
    assert {part_of(name) for name in changed(outcome.arrays, before.arrays)} == {*MODALITIES, FUSION}


def test_aligned_self_training_expects_what_is_labelled_and_nothing_else(run: Run, monkeypatch: pytest.MonkeyPatch):
    """Equal shares of the classes that a labelled device has a label of; by default none are expected."""
    asked: list[SelftrainTask] = []

    def written_down(task: SelftrainTask, arrays: Arrays) -> tuple[HostUpdate, Arrays]:
        asked.append(task)
        return train_cohort(task, arrays)

    monkeypatch.setitem(in_process.WORK, "train.selftrain", written_down)
    plain, with_it = (run({"selftrain.rounds": 1, "selftrain.confidence": 0.0, "selftrain.align": align}) for align in (False, True))
    assert {task.expected for task in asked} == {(), (1 / 6,) * 6}
    assert changed(with_it.arrays, plain.arrays)
