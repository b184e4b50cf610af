"""Devices trained as one stack, against the plain loop that trains one after the other."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clmm_core.errors import DeviceSkippedError
from clmm_core.federated.arrays import FUSION, Arrays, part_of
from clmm_core.federated.clipping import length_of
from clmm_core.federated.l_dawa import scale_by_agreement
from clmm_core.federated.weighted_sum import WeightedSum
from clmm_core.models.config import ModelConfig
from clmm_core.training import stacked_windows
from clmm_core.training import together as module
from clmm_core.training.alone import train_alone, train_one
from clmm_core.training.device_tensors import DeviceTensors
from clmm_core.training.job import Job, StageConfig
from clmm_core.training.model_arrays import new_arrays
from clmm_core.training.settings import Augmentation, FinetuneConfig, LocalConfig, PretrainConfig
from clmm_core.training.together import forget, train_together

MakeConfig = Callable[..., ModelConfig]
MakeWindows = Callable[..., DeviceTensors]
MakeJobs = Callable[..., list[Job]]
CPU = torch.device("cpu")
STRONG = Augmentation(rotation_deg=20.0, modality_dropout=0.2, channel_dropout=0.1, time_warp=0.1)
SGD = LocalConfig(epochs=1, batch_size=5, learning_rate=0.01, optimizer="sgd", weight_decay=0.02, proximal=0.1)
PRETRAIN = PretrainConfig(local=SGD, num_views=3, augmentation=STRONG, temperature=0.2)
FINETUNE = FinetuneConfig(local=SGD, encoder_rate=0.3, augmentation=STRONG)
EVERY_WAY: dict[str, StageConfig] = {
    "fused": PRETRAIN,
    "two epochs, the last window of each alone": replace(PRETRAIN, local=replace(SGD, epochs=2)),
    "per modality": replace(PRETRAIN, contrast="per-modality"),
    "cross-modal": replace(PRETRAIN, contrast="cross-modal"),
    "tcl": replace(PRETRAIN, loss="tcl", k1=1e3),
    "focal": replace(PRETRAIN, loss="focal"),
    "dclw": replace(PRETRAIN, loss="dclw"),
    "dclw per modality": replace(PRETRAIN, loss="dclw", contrast="per-modality"),
    "l-dawa": replace(PRETRAIN, aggregation="l-dawa"),
    "finetune": FINETUNE,
    "finetune, primary head alone": replace(FINETUNE, auxiliary=0.0, augmentation=Augmentation()),
}


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    """Calculate in float64, in which the two ways do not drift apart by rounding."""
    forget()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def windows(toy_windows: MakeWindows) -> list[DeviceTensors]:
    """Unequal devices: one complete, one whose gyroscope drops out, one without the third sensor, one with hardly any windows."""
    complete, gaps, fewer, short = toy_windows(7, 3), toy_windows(12, 3, seed=1), toy_windows(6, 2, seed=2), toy_windows(4, 3, seed=3)
    gaps.present["gyroscope"][torch.arange(12) % 3 == 0] = False
    gaps.present["heart"][torch.arange(12) % 4 == 1] = False
    return [complete, gaps, fewer, short]


def as_job(model: ModelConfig, config: StageConfig, arrays: Arrays, windows: DeviceTensors, **changes: Any) -> Job:
    rows = changes.pop("rows", torch.arange(len(windows)))
    owned = {name: float(mask[rows].sum()) for name, mask in windows.present.items()}
    weights = owned if isinstance(config, PretrainConfig) else {**owned, FUSION: float(len(rows))}
    plain = {"key": 0, "host": 0, "classes": windows.classes[rows], "weights": {part: count for part, count in weights.items() if count}}
    return Job(model=model, config=config, arrays=arrays, windows=windows, rows=rows, **plain | changes)


@pytest.fixture
def jobs(config: MakeConfig, windows: list[DeviceTensors]) -> MakeJobs:
    """Make a job of each device, each a host of its own: two starts, a key and a learning rate each, some rows left out."""

    def make(stage: StageConfig = PRETRAIN, model: ModelConfig | None = None) -> list[Job]:
        model = model or config(3, dropout=0.1)
        starts = [new_arrays(model, seed) for seed in range(2)]
        made = []
        for i, each in enumerate(windows):
            own = replace(stage, local=replace(stage.local, learning_rate=stage.local.learning_rate * (1 + i / 2)))
            rows = torch.arange(len(each))[i % 2 :].flip(0)
            made.append(as_job(model, own, starts[i % 2], each, rows=rows, key=1234 * i - 7, host=i))
        return made

    return make


def assert_close(one: Arrays, other: Arrays, tolerance: float = 0.0) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=tolerance, err_msg=name)


def assert_as_alone(jobs: Sequence[Job], tolerance: float = 1e-6) -> None:
    """Train jobs of different hosts together; each must learn what it learns alone, and what does not learn may not move."""
    losses, means = train_together(jobs, CPU)
    for job, loss in zip(jobs, losses, strict=True):
        expected, expected_loss = train_one(job)
        if isinstance(expected_loss, DeviceSkippedError):
            assert isinstance(loss, DeviceSkippedError)
            assert str(loss) == str(expected_loss)
            assert job.host not in means
            continue
        assert loss == pytest.approx(expected_loss, rel=1e-6)
        ((update, weights, _),) = means[job.host]
        assert weights == job.weights
        still = {name: values for name, values in expected.items() if name not in update and part_of(name) in weights}
        assert not any(values.any() for values in still.values())
        assert_close(update, {name: expected[name] for name in update}, tolerance)
        assert any(np.abs(values).max() > 10 * tolerance for values in update.values()), "it learnt something"


@pytest.mark.parametrize("way", EVERY_WAY)
def test_a_stack_learns_what_each_device_learns_alone(jobs: MakeJobs, way: str):
    assert_as_alone(jobs(EVERY_WAY[way]))


@pytest.mark.parametrize("stage", [PRETRAIN, FINETUNE], ids=["pretrain", "finetune"])
@pytest.mark.parametrize(
    "variant",
    [
        {"attention": "softmax", "fusion": "learned", "differences": True},
        {"attention": "diff-v2", "fusion": "uniform", "branches": "linear", "shared": False},
        {"branches": "recurrent", "gru_layers": 2, "num_layers": 2},
        {"branches": "mean", "dropout": 0.0},
    ],
    ids=str,
)
def test_every_network_can_be_a_stack(config: MakeConfig, jobs: MakeJobs, stage: StageConfig, variant: dict[str, Any]):
    assert_as_alone(jobs(stage, replace(config(3, dropout=0.1), **variant))[:2])


sizes = st.lists(st.integers(0, 14), min_size=1, max_size=4)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_the_devices_are_they_learn_as_if_alone(config: MakeConfig, toy_windows: MakeWindows, data: st.DataObject):
    stage = data.draw(st.sampled_from([*EVERY_WAY.values()]))
    local = replace(SGD, epochs=data.draw(st.integers(1, 2)), batch_size=data.draw(st.integers(2, 9)))
    model, some = config(2, dropout=0.1), []
    starts = [new_arrays(model, seed) for seed in range(2)]
    for host, count in enumerate(data.draw(sizes)):
        windows = toy_windows(count + 1, 2, seed=host)
        lost = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=count + 1, max_size=count + 1)))
        windows.present["accelerometer"][lost == 1] = False
        windows.present["gyroscope"][lost == 2] = False
        own = replace(stage, local=replace(local, learning_rate=data.draw(st.sampled_from([0.003, 0.01]))))
        key = data.draw(st.integers(0, 2**63 - 1))
        some.append(as_job(model, own, starts[host % 2], windows, rows=torch.arange(count), key=key, host=host))
    losses, means = train_together(some, CPU)
    for job, loss in zip(some, losses, strict=True):
        expected, expected_loss = train_one(job)
        if isinstance(expected_loss, DeviceSkippedError):
            assert str(loss) == str(expected_loss)
            continue
        assert loss == pytest.approx(expected_loss, rel=1e-6)
        ((update, *_),) = means[job.host]
        assert_close(update, {name: expected[name] for name in update}, 1e-5)


@pytest.mark.parametrize("stage", [PRETRAIN, FINETUNE], ids=["pretrain", "finetune"])
def test_adamw_takes_the_first_step_it_takes_alone(jobs: MakeJobs, stage: StageConfig):
    """A first step is the gradient's sign: where one is near 0, rounding decides; seen here where all the step is small."""
    local = replace(SGD, optimizer="adamw", epochs=1, batch_size=32, learning_rate=1e-3)
    losses, means = train_together(some := jobs(replace(stage, local=local)), CPU)
    for job, loss in zip(some, losses, strict=True):
        expected, expected_loss = train_one(job)
        assert loss == pytest.approx(expected_loss, rel=1e-4)
        ((update, *_),) = means[job.host]
        flat, by_hand = (np.concatenate([each[name].ravel() for name in update]) for each in (update, expected))
        assert (np.abs(flat - by_hand) < 1e-6).mean() > 0.99


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("way", ["dclw per modality", "cross-modal"])
def test_a_batch_with_nothing_to_compare_in_it_is_passed_over(config: MakeConfig, toy_windows: MakeWindows, way: str, optimizer: str):
    """Batches of two windows, most of which have no modality in common, in another order for each key."""
    windows = toy_windows(8)
    windows.present["accelerometer"][:3] = False
    windows.present["gyroscope"][5:] = False
    local = replace(SGD, optimizer=optimizer, epochs=2, batch_size=2, learning_rate=0.01 if optimizer == "sgd" else 1e-3)
    stage = replace(EVERY_WAY[way], local=local, augmentation=Augmentation())
    model = config(2)
    arrays = new_arrays(model, 0)
    some = [as_job(model, stage, arrays, windows, key=key, host=key) for key in range(3, 12)]
    assert_as_alone(some, 1e-6 if optimizer == "sgd" else 1e-4)  # AdamW magnifies the rounding of gradients near 0
    assert any(isinstance(loss, float) for loss in train_together(some, CPU)[0])


@pytest.mark.parametrize("proximal", [0.0, 0.1])
@pytest.mark.parametrize("way", ["per modality", "cross-modal"])
def test_a_modality_with_nothing_to_compare_rests_while_the_others_learn(
    config: MakeConfig, toy_windows: MakeWindows, way: str, proximal: float
):
    """Neither decay nor AdamW's momentum move it, and its steps are counted by themselves; the proximal term pulls at everything."""
    windows = toy_windows(12, 3)
    windows.present["gyroscope"][3:] = False
    local = replace(SGD, optimizer="adamw", epochs=5, batch_size=4, learning_rate=1e-3, proximal=proximal)
    stage = replace(EVERY_WAY[way], local=local, augmentation=Augmentation())
    model = config(3)
    assert_as_alone([as_job(model, stage, new_arrays(model, 0), windows, key=key, host=key) for key in range(3)])


def test_what_takes_no_part_in_the_loss_does_not_decay(config: MakeConfig, jobs: MakeJobs):
    """Without the shared feature stage two uses no projection."""
    stage = replace(FINETUNE, local=replace(SGD, weight_decay=1.0, proximal=0.0))
    assert_as_alone(jobs(stage, replace(config(3), shared=False))[:2])


@pytest.mark.parametrize("stage", [PRETRAIN, FINETUNE], ids=["pretrain", "finetune"])
def test_a_device_without_a_modality_says_nothing_of_it(jobs: MakeJobs, stage: StageConfig):
    _, means = train_together(jobs(stage), CPU)
    has = {host: {part_of(name) for name in update} for host, [(update, *_)] in means.items()}
    fusion = set() if isinstance(stage, PretrainConfig) else {FUSION}
    three = {"accelerometer", "gyroscope", "heart", *fusion}
    assert has == {0: three, 1: three, 2: three - {"heart"}, 3: three}


@pytest.mark.parametrize("stage", [PRETRAIN, FINETUNE], ids=["pretrain", "finetune"])
def test_what_a_device_learns_does_not_depend_on_who_shares_its_stack(jobs: MakeJobs, stage: StageConfig):
    everyone = jobs(stage)
    losses, means = train_together(everyone, CPU)
    for job, loss in zip(everyone, losses, strict=True):
        (own_loss,), own = train_together([job], CPU)
        assert loss == pytest.approx(own_loss, rel=1e-5)
        assert_close(means[job.host][0][0], own[job.host][0][0], 1e-6)


def test_the_order_of_jobs_does_not_matter(jobs: MakeJobs):
    some = jobs()
    losses, means = train_together(some, CPU)
    turned, means_turned = train_together(some[::-1], CPU)
    assert turned[::-1] == pytest.approx(losses, rel=1e-6)
    assert means.keys() == means_turned.keys()
    for host in means:
        assert_close(means[host][0][0], means_turned[host][0][0], 1e-6)


def test_the_next_round_has_nothing_of_the_one_before(jobs: MakeJobs):
    """The program for the same devices is kept: with other starts, rows, keys and rates it learns what a new one learns, to the bit."""
    for stage in (replace(PRETRAIN, local=replace(SGD, optimizer="adamw")), FINETUNE):
        first = jobs(stage)
        second = [
            replace(job, arrays=first[(i + 1) % 2].arrays, key=i, rows=job.rows[:-1], classes=job.classes[:-1])
            for i, job in enumerate(first)
        ]
        train_together(first, CPU)
        kept = train_together(second, CPU)
        forget()
        fresh = train_together(second, CPU)
        assert [str(loss) for loss in kept[0]] == [str(loss) for loss in fresh[0]]
        for host in fresh[1]:
            assert_close(kept[1][host][0][0], fresh[1][host][0][0])


def test_the_arrays_it_starts_from_stay_as_they_are(jobs: MakeJobs):
    some = jobs()[:1]
    before = {name: values.copy() for name, values in some[0].arrays.items()}
    train_together(some, CPU)
    assert_close(some[0].arrays, before)


def test_training_leaves_torchs_own_generator_where_it_was(jobs: MakeJobs):
    state = torch.random.get_rng_state()
    train_together(jobs()[:1], CPU)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("stage", "count", "reason"),
    [
        (PRETRAIN, 0, "expected at least 2 windows to contrast, found 0: record longer"),
        (PRETRAIN, 1, "expected at least 2 windows to contrast, found 1: record longer"),
        (FINETUNE, 0, "expected labelled windows, found none: label some activities on this device"),
    ],
)
def test_who_has_nothing_to_learn_from_is_left_out_with_the_reason(jobs: MakeJobs, stage: StageConfig, count: int, reason: str):
    some = jobs(stage)
    some[1] = replace(some[1], rows=some[1].rows[:count], classes=some[1].classes[:count], host=0)
    losses, means = train_together(some, CPU)
    assert [str(loss) for loss in losses if isinstance(loss, DeviceSkippedError)] == [reason] == [str(losses[1])]
    assert_close(means[0][0][0], alone_in(some[0]), 1e-6)
    assert means[0][0][1] == some[0].weights


def alone_in(job: Job) -> Arrays:
    """What a stack of one makes of a job."""
    return train_together([job], CPU)[1][job.host][0][0]


def test_a_stack_of_nobody_who_learns_has_no_mean(jobs: MakeJobs):
    some = [replace(job, rows=job.rows[:0], classes=job.classes[:0]) for job in jobs(FINETUNE)]
    losses, means = train_together(some, CPU)
    assert all(isinstance(loss, DeviceSkippedError) for loss in losses)
    assert means == {}
    assert train_together([], CPU) == ([], {})


def test_a_contrast_that_finds_nothing_is_named(config: MakeConfig, toy_windows: MakeWindows):
    windows = toy_windows(6)
    windows.present["accelerometer"][:3] = False
    windows.present["gyroscope"][3:] = False
    model = config(2)
    job = as_job(model, EVERY_WAY["cross-modal"], new_arrays(model, 0), windows)
    (left_out,), means = train_together([job], CPU)
    assert str(left_out) == "pretrain.contrast 'cross-modal' found nothing to compare in 6 windows: choose another"
    assert means == {}


@pytest.mark.parametrize(("stage", "optimizer"), [(PRETRAIN, "sgd"), (FINETUNE, "adamw")], ids=["pretrain", "finetune"])
def test_a_job_that_diverges_does_not_spoil_the_mean_of_its_host(jobs: MakeJobs, stage: StageConfig, optimizer: str):
    good, bad, _, other = jobs(replace(stage, local=replace(SGD, optimizer=optimizer)))
    bad = replace(bad, host=0, config=replace(bad.config, local=replace(bad.config.local, learning_rate=1e30)))
    losses, means = train_together([bad, good, replace(other, host=0)], CPU)
    assert math.isnan(losses[0])
    assert all(math.isfinite(loss) for loss in losses[1:])
    without_it, means_without_it = train_together([good, replace(other, host=0)], CPU)
    assert losses[1:] == pytest.approx(without_it, rel=1e-6)
    assert means[0][0][1] == means_without_it[0][0][1]
    assert_close(means[0][0][0], means_without_it[0][0][0], 1e-6)


def test_l_dawa_scales_each_array_by_its_cosine_with_its_start(jobs: MakeJobs):
    some, plain = jobs(EVERY_WAY["l-dawa"]), jobs(EVERY_WAY["fused"])
    means, plain_means = (train_together(each, CPU)[1] for each in (some, plain))
    for job in some:
        ((update, *_),), ((plain_update, *_),) = means[job.host], plain_means[job.host]
        local = {name: job.arrays[name] + values for name, values in plain_update.items()}
        expected = {name: values - job.arrays[name] for name, values in scale_by_agreement(local, job.arrays).items()}
        assert_close(update, expected, 1e-6)
        assert any(np.abs(update[name] - plain_update[name]).max() > 1e-5 for name in update)


def test_a_host_gets_the_weighted_mean_of_its_jobs_part_by_part(jobs: MakeJobs):
    """Two hosts share a stack, two jobs weigh nothing in one part, and one job is in a stack of its own."""
    some = [replace(job, host=host) for job, host in zip(jobs(FINETUNE), (7, 3, 3, 3), strict=True)]
    some[0] = replace(some[0], weights={"accelerometer": 7.0, "gyroscope": 3.0, FUSION: 7.0})
    some[1] = replace(some[1], weights={"accelerometer": 2.5, FUSION: 20.0})
    _, means = train_together(some, CPU)
    assert set(means) == {3, 7}
    assert len(means[3]) == 2
    for host in means:
        expected, folded = WeightedSum(), WeightedSum()
        for job in some:
            if job.host == host:
                expected.add(alone_in(job), job.weights)
        for update, weights, _ in means[host]:
            assert {part_of(name) for name in update} == weights.keys()
            folded.add(update, weights)
        assert folded.weights == pytest.approx(expected.weights)
        assert_close(folded.mean(), expected.mean(), 1e-6)


def test_a_crowd_is_trained_in_several_stacks(jobs: MakeJobs, monkeypatch: pytest.MonkeyPatch):
    some = [replace(job, host=0, key=job.key + i) for i in range(2) for job in jobs()[1:]]
    losses, one_stack = train_together(some, CPU)
    monkeypatch.setattr(module, "devices_at_once", lambda job, device: 2)
    again, several = train_together(some, CPU)
    assert again == pytest.approx(losses, rel=1e-5)
    assert [len(each[0]) for each in (one_stack, several)] == [2, 3], "those of three modalities apart from those of two"
    sums = [WeightedSum(), WeightedSum()]
    for total, means in zip(sums, (one_stack, several), strict=True):
        for update, weights, _ in means[0]:
            total.add(update, weights)
    assert sums[0].weights == pytest.approx(sums[1].weights)
    assert_close(sums[0].mean(), sums[1].mean(), 1e-6)


@pytest.mark.parametrize("stage", [PRETRAIN, FINETUNE])
def test_stacks_that_train_at_once_are_those_that_train_in_turn(jobs: MakeJobs, monkeypatch: pytest.MonkeyPatch, stage: StageConfig):
    """On a GPU; here what is begun and ended in another order is the same program, also where two stacks share one."""
    some = [replace(job, key=job.key + i) for i in range(2) for job in jobs(stage)]
    monkeypatch.setattr(module, "devices_at_once", lambda job, device: 1)
    losses, means = train_together(some, CPU)
    monkeypatch.setitem(module.LANES, "cpu", 3)
    monkeypatch.setitem(module.MAX_KEPT, "cpu", 64)
    for _ in range(2):
        again, means_again = train_together(some, CPU)
        assert str(again) == str(losses)
        for host, each in means.items():
            for (update, weights, _), (same, same_weights, _) in zip(each, means_again[host], strict=True):
                assert weights == same_weights
                assert_close(update, same, 0)


def test_programs_are_kept_while_there_is_room(jobs: MakeJobs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(module.MAX_KEPT, "cpu", 64)
    forget()
    for number in (1, 2, 3):
        train_together(jobs()[1:2] * number, CPU)
    assert [len(stack.now) for stack in module._STACKS.values()] == [1, 2, 3]
    last = list(module._STACKS.values())[-1].num_bytes
    monkeypatch.setattr(module, "bytes_kept", lambda device: last + 1)
    train_together(jobs()[1:2] * 3, CPU)
    assert [len(stack.now) for stack in module._STACKS.values()] == [3], "the last used stays"
    forget()


def test_a_program_is_never_taken_for_one_over_other_windows(config: MakeConfig, toy_windows: MakeWindows):
    """It is known by its windows' identity, which Python gives to others once they are gone."""
    model = config(2)
    arrays = new_arrays(model, 0)
    windows = toy_windows(6)
    train_together([as_job(model, FINETUNE, arrays, windows)], CPU)
    (stack,) = module._STACKS.values()
    stacked_windows._UPLOADED.clear()  # as when many others were uploaded since
    assert any(kept is windows for kept in stack.windows)
    identity = id(windows)
    del windows
    others = [toy_windows(6, seed=seed) for seed in range(1, 50)]
    assert identity not in map(id, others)


def test_forgetting_lets_go_of_all_programs_and_windows(jobs: MakeJobs):
    train_together(jobs()[:1], CPU)
    assert module._STACKS
    assert stacked_windows._UPLOADED
    forget()
    assert not module._STACKS
    assert not stacked_windows._UPLOADED


@pytest.mark.parametrize("stage", [PRETRAIN, FINETUNE])
def test_each_job_is_shortened_to_its_clip_before_it_is_folded_as_one_by_one(jobs: MakeJobs, stage: StageConfig):
    """Every second job has a clip below its length; one has a clip far above, one none."""
    plain = jobs(stage)
    lengths = [length_of(train_one(job)[0], job.weights) for job in plain]
    clips = [0.5 * lengths[0], 2 * lengths[1], 0.25 * lengths[2], 0.0]
    some = [replace(job, clip=clip, host=0, weights=dict.fromkeys(job.weights, 1.0)) for job, clip in zip(plain, clips, strict=True)]
    _, stacked = train_together(some, CPU)
    _, alone = train_alone(some)
    expected = WeightedSum()
    for job in some:
        update, _ = train_one(job)
        length = length_of(update, job.weights)
        factor = min(1.0, job.clip / length) if job.clip else 1.0
        if update:
            expected.add({name: (values * np.float64(factor)).astype(np.float32) for name, values in update.items()}, job.weights)
    for means in (stacked[0], alone[0]):
        folded = WeightedSum()
        for mean in means:
            folded.add(mean.update, mean.weights)
        assert folded.weights == expected.weights
        found = folded.mean()
        for name, values in expected.mean().items():
            if name in found:  # one by one an update also holds what does not learn, as zeros
                np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-6, err_msg=name)
            else:
                assert not values.any(), name
        assert sum(mean.num_within_clip for mean in means) == 1


def test_a_clip_is_over_the_parts_that_a_job_counts_in(jobs: MakeJobs):
    """Of two alike, one does not count in the gyroscope, whose encoder weight decay moves all the same."""
    _, gaps, *_ = jobs(FINETUNE)
    job = replace(gaps, weights={"accelerometer": 1.0, FUSION: 1.0})
    length = length_of(train_one(job)[0], job.weights)
    assert length < length_of(train_one(job)[0], {*job.weights, "gyroscope", "heart"})
    for train in (lambda some: train_together(some, CPU), train_alone):
        ((update, weights, within),) = train([replace(job, clip=1.001 * length)])[1][job.host]
        assert within == 1
        assert length_of(update, weights) == pytest.approx(length, rel=1e-3)
        ((update, weights, within),) = train([replace(job, clip=0.5 * length)])[1][job.host]
        assert within == 0
        assert length_of(update, weights) == pytest.approx(0.5 * length, rel=1e-4)
