from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from clmm_core.errors import ConfigError, DeviceSkippedError
from clmm_core.losses.primary_auxiliary import PrimaryAuxiliaryLoss
from clmm_core.models.clmm import Clmm
from clmm_core.training.device_tensors import DeviceTensors
from clmm_core.training.drawn_dropout import draws_for
from clmm_core.training.draws import Draws
from clmm_core.training.finetune import finetune_device, finetune_loss, finetuned_parameters
from clmm_core.training.settings import Augmentation, FinetuneConfig, LocalConfig

MakeModel = Callable[..., Clmm]
MakeWindows = Callable[..., DeviceTensors]
PLAIN = Augmentation(scale=0.0, jitter=0.0, crop=0.0)
CONFIG = FinetuneConfig(
    encoder_rate=0.2, local=LocalConfig(epochs=2, batch_size=8, learning_rate=0.003), augmentation=Augmentation(modality_dropout=0.2)
)
ONE_STEP = FinetuneConfig(
    encoder_rate=0.2,
    local=LocalConfig(epochs=1, batch_size=100, learning_rate=0.1, optimizer="sgd", weight_decay=0.0),
    augmentation=PLAIN,
)


def finetuned(model: Clmm, windows: DeviceTensors, config: FinetuneConfig, seed: int = 0) -> Clmm:
    finetune_device(model, windows, config, draws_for(model, seed))
    return model


def test_it_learns_a_separable_problem(model: MakeModel, toy_windows: MakeWindows):
    config = replace(CONFIG, local=replace(CONFIG.local, epochs=25))
    network, fresh = finetuned(model(3), toy_windows(30, 3), config).eval(), toy_windows(60, 3, seed=1)
    assert (network(fresh.streams, fresh.present).argmax(dim=1) == fresh.classes).float().mean() > 0.9


def test_one_step_is_the_gradient_times_each_parts_rate(model: MakeModel, toy_windows: MakeWindows):
    """Encoders and projections at 0.2 of the rate, everything else at the rate; all parts in one step."""
    windows, by_hand = toy_windows(), model()
    outputs = by_hand.classify(windows.streams, windows.present)
    PrimaryAuxiliaryLoss(weight=0.3)(outputs.primary, outputs.auxiliary, windows.present, windows.classes).backward()
    after = dict(finetuned(model(), windows, ONE_STEP).named_parameters())
    for name, parameter in by_hand.named_parameters():
        rate = 0.1 * (0.2 if ".encoder." in name or ".projection." in name else 1.0)
        torch.testing.assert_close(after[name].data, parameter.data - rate * parameter.grad, atol=1e-5, rtol=1e-5)
        assert not torch.equal(after[name].data, parameter.data), name


def test_auxiliary_weight_0_trains_no_auxiliary_head(model: MakeModel, toy_windows: MakeWindows):
    before, after = model().state_dict(), finetuned(model(), toy_windows(), replace(ONE_STEP, auxiliary=0.0)).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not [name for name in changed if name.startswith("auxiliary") or ".head." in name]


def test_modalities_the_device_lacks_stay_as_they_are(model: MakeModel, toy_windows: MakeWindows):
    before, after = model(3).state_dict(), finetuned(model(3), toy_windows(12, 2), CONFIG).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name for name in changed if name.startswith("modalities.gyroscope.encoder")}
    assert not [name for name in changed if name.startswith("modalities.heart")]


def test_buffers_stay_as_they_are(model: MakeModel, toy_windows: MakeWindows):
    network = model()
    before = {name: values.clone() for name, values in network.named_buffers()}
    finetuned(network, toy_windows(), CONFIG)
    assert before.keys() == dict(network.named_buffers()).keys() != set()
    assert all(torch.equal(values, before[name]) for name, values in network.named_buffers())


def test_training_is_reproducible_to_the_bit(model: MakeModel, toy_windows: MakeWindows):
    one, again, other = (finetuned(model(dropout=0.3), toy_windows(), CONFIG, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_single_window_is_enough_and_none_is_not(model: MakeModel, toy_windows: MakeWindows):
    windows = toy_windows(3)
    finetuned(model(), windows.select(torch.tensor([1])), CONFIG)
    with pytest.raises(DeviceSkippedError, match="expected labelled windows, found none"):
        finetune_device(model(), windows.select(torch.arange(0)), CONFIG, Draws(torch.tensor(0)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_rate": -0.1}, "finetune.encoder-rate: expected 0 or more, found -0.1"),
        ({"auxiliary": float("nan")}, "finetune.auxiliary: expected 0 or more, found nan"),
    ],
)
def test_a_value_out_of_range_is_refused(change: dict[str, float], message: str):
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **change)


@pytest.mark.parametrize("augmentation", [PLAIN, Augmentation(rotation_deg=20.0, time_warp=0.1, modality_dropout=0.4, channel_dropout=0.1)])
def test_a_batch_that_is_filled_up_has_the_loss_of_the_batch_alone(model: MakeModel, toy_windows: MakeWindows, augmentation: Augmentation):
    windows, config = toy_windows(9, 3), replace(CONFIG, augmentation=augmentation)
    windows.present["gyroscope"][1::2] = False
    windows.present["heart"][:6] = False
    for count in (1, 5, 9):
        network, filled_up = model(3), model(3)
        loss = finetune_loss(network, windows.select(torch.arange(count)), config, Draws(torch.tensor(8)))
        same = finetune_loss(filled_up, windows, config, Draws(torch.tensor(8)), torch.arange(9) < count)
        assert same.item() == pytest.approx(loss.item(), rel=1e-6)
        loss.backward()
        same.backward()
        for one, other in zip(network.parameters(), filled_up.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_without_the_shared_feature_no_projection_learns(model: MakeModel, toy_windows: MakeWindows):
    network = model(2, shared=False)
    slow, quick = finetuned_parameters(network, ("accelerometer", "gyroscope"))
    learning = {id(parameter) for parameter in (*slow, *quick)}
    still = {name for name, parameter in network.named_parameters() if id(parameter) not in learning}
    assert still == {name for name, _ in network.named_parameters() if ".projection." in name} != set()
    config = replace(ONE_STEP, local=replace(ONE_STEP.local, weight_decay=0.5))
    before, after = model(2, shared=False).state_dict(), finetuned(network, toy_windows(), config).state_dict()
    assert {name for name, _ in network.named_parameters() if torch.equal(before[name], after[name])} == still
