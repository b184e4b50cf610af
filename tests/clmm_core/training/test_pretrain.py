import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from clmm_core.errors import ConfigError, DeviceSkippedError
from clmm_core.losses.cross_modal import CrossModalLoss
from clmm_core.losses.decoupled import DecoupledLoss
from clmm_core.losses.focal import FocalLoss
from clmm_core.losses.hard_positive import HardPositiveLoss
from clmm_core.losses.tuned import TunedLoss
from clmm_core.models.clmm import Clmm
from clmm_core.training.augment import augment, modality_dropout
from clmm_core.training.device_tensors import DeviceTensors
from clmm_core.training.drawn_dropout import draws_for
from clmm_core.training.draws import Draws
from clmm_core.training.pretrain import contrastive_loss, pretrain_device, pretrain_loss
from clmm_core.training.settings import Augmentation, Contrast, LocalConfig, LossName, PretrainConfig

MakeModel = Callable[..., Clmm]
MakeWindows = Callable[..., DeviceTensors]
LOCAL = LocalConfig(epochs=2, batch_size=12, learning_rate=0.003)
CONFIG = PretrainConfig(local=LOCAL, num_views=4, augmentation=Augmentation(rotation_deg=20.0))


def trained(model: Clmm, windows: DeviceTensors, config: PretrainConfig = CONFIG, seed: int = 0) -> dict[str, Tensor]:
    pretrain_device(model, windows, config, draws_for(model, seed))
    return {name: values.clone() for name, values in model.state_dict().items()}


def changed(model: Clmm, windows: DeviceTensors, config: PretrainConfig = CONFIG) -> set[str]:
    before = {name: values.clone() for name, values in model.state_dict().items()}
    after = trained(model, windows, config)
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hard-positive", HardPositiveLoss(beta=3.0, temperature=0.2)),
        ("tcl", TunedLoss(k1=7.0, temperature=0.2)),
        ("focal", FocalLoss(gamma=0.5, temperature=0.2)),
        ("dclw", DecoupledLoss(temperature=0.2)),
    ],
)
def test_each_loss_gets_its_settings(name: LossName, expected: object):
    assert contrastive_loss(PretrainConfig(local=LOCAL, loss=name, temperature=0.2, beta=3.0, k1=7.0, gamma=0.5)) == expected


def in_one_step(model: Clmm, windows: DeviceTensors, config: PretrainConfig) -> tuple[float, list[dict[str, Tensor]], dict[str, Tensor]]:
    """The loss of one step over all windows, and what it must come from: each copy's projections before the step, and the masks."""
    whole = replace(config, local=replace(config.local, epochs=1, batch_size=len(windows)))
    keyed = Draws(torch.tensor(5))
    (batch,) = windows.epochs(whole.local, keyed)
    draws = keyed.step(0)
    present = modality_dropout(batch.present, whole.augmentation.modality_dropout, draws)
    normal = model.normalise(batch.streams, present)
    num_copies = 1 if config.contrast == "cross-modal" else config.num_copies
    with torch.no_grad():
        copies = [model.project(model.encode(augment(normal, whole.augmentation, draws))) for _ in range(num_copies)]
    return pretrain_device(model, windows, whole, Draws(torch.tensor(5))), copies, present


def nt_xent(one: Tensor, other: Tensor, temperature: float) -> float:
    """Chen et al. 2020, eq. 1, one view after the other: the window's other copy against all other views of the modality."""
    views, num_windows, total = torch.cat([one, other]), len(one), 0.0
    for i in range(2 * num_windows):
        exponentials = {k: math.exp(float(views[i] @ views[k]) / temperature) for k in range(2 * num_windows) if k != i}
        total -= math.log(exponentials[(i + num_windows) % (2 * num_windows)] / sum(exponentials.values()))
    return total / (2 * num_windows)


@pytest.mark.parametrize("num_modalities", [1, 2, 3])
@pytest.mark.parametrize("beta", [0.0, 2.0])
def test_contrast_per_modality_is_the_mean_of_each_ones_nt_xent(
    model: MakeModel, toy_windows: MakeWindows, num_modalities: int, beta: float
):
    """With one positive a view it has all the weight, whatever beta."""
    config = replace(CONFIG, contrast="per-modality", temperature=0.2, beta=beta)
    loss, (one, other), _ = in_one_step(model(num_modalities), toy_windows(7, num_modalities), config)
    terms = [nt_xent(one[name], other[name], 0.2) for name in one]
    assert loss == pytest.approx(sum(terms) / num_modalities, rel=1e-5)


def test_contrast_per_modality_takes_the_windows_that_have_the_modality(model: MakeModel, toy_windows: MakeWindows):
    windows, config = toy_windows(9, 3), replace(CONFIG, contrast="per-modality", temperature=0.2)
    windows.present["gyroscope"] = torch.arange(9) < 4
    windows.present["heart"] = torch.arange(9) == 2  # one window alone: nothing to tell it apart from
    network = model(3)
    start = {name: values.clone() for name, values in network.state_dict().items()}
    loss, (one, other), present = in_one_step(network, windows, config)
    terms = [nt_xent(one[name][present[name]], other[name][present[name]], 0.2) for name in ("accelerometer", "gyroscope")]
    assert loss == pytest.approx(sum(terms) / 2, rel=1e-5)
    heart = {name: values for name, values in network.state_dict().items() if ".heart." in name}
    assert all(torch.equal(values, start[name]) for name, values in heart.items())


@pytest.mark.parametrize("name", ["tcl", "focal", "dclw"])
def test_contrast_per_modality_goes_with_every_loss(model: MakeModel, toy_windows: MakeWindows, name: LossName):
    config = replace(CONFIG, contrast="per-modality", loss=name, num_copies=3)
    loss, copies, _ = in_one_step(model(), toy_windows(5), config)
    ids = torch.arange(5).repeat(3)
    terms = [contrastive_loss(config)(torch.cat([copy[modality] for copy in copies]), ids) for modality in copies[0]]
    assert loss == pytest.approx(torch.stack(terms).mean().item(), rel=1e-5)


@pytest.mark.parametrize("dropped", [0.0, 0.4])
def test_cross_modal_contrast_is_its_loss_on_one_augmented_copy(model: MakeModel, toy_windows: MakeWindows, dropped: float):
    strength = Augmentation(rotation_deg=20.0, modality_dropout=dropped)
    config = replace(CONFIG, contrast="cross-modal", temperature=0.2, augmentation=strength)
    loss, (copy,), present = in_one_step(model(3), toy_windows(9, 3), config)
    expected, is_compared = CrossModalLoss(temperature=0.2)(copy, present)
    assert all(is_compared.values())
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert all(mask.all() for mask in present.values()) == (dropped == 0)


@pytest.mark.parametrize("windows_each", [{"accelerometer": 24}, {"accelerometer": 12, "gyroscope": 12}])
def test_cross_modal_contrast_needs_windows_with_two_modalities(model: MakeModel, toy_windows: MakeWindows, windows_each: dict[str, int]):
    """Not one modality alone, nor two that never meet in a window."""
    windows, first = toy_windows(24, len(windows_each)), 0
    for name, count in windows_each.items():
        windows.present[name] = (torch.arange(24) >= first) & (torch.arange(24) < first + count)
        first += count
    network = model()
    start = {name: values.clone() for name, values in network.state_dict().items()}
    with pytest.raises(DeviceSkippedError, match="'cross-modal' found nothing to compare in 24 windows: choose another"):
        pretrain_device(network, windows, replace(CONFIG, contrast="cross-modal"), Draws(torch.tensor(0)))
    assert all(torch.equal(values, start[name]) for name, values in network.state_dict().items())


@pytest.mark.parametrize("contrast", ["per-modality", "cross-modal"])
@pytest.mark.parametrize("num_modalities", [2, 3])
def test_every_contrast_learns_what_it_compares(model: MakeModel, toy_windows: MakeWindows, contrast: str, num_modalities: int):
    network, windows = model(num_modalities), toy_windows(24, num_modalities)
    config = replace(CONFIG, local=replace(LOCAL, epochs=1), contrast=contrast, augmentation=Augmentation())
    losses = [pretrain_device(network, windows, config, draws_for(network, number)) for number in range(20)]
    # All that toy modalities share is the activity, a third of the batch: the cross-modal loss starts near log 12 and ends near log 4.
    assert sum(losses[-4:]) / 4 < (0.9 if contrast == "cross-modal" else 0.8) * losses[0]


@pytest.mark.parametrize("name", ["hard-positive", "tcl", "focal", "dclw"])
@pytest.mark.parametrize("num_modalities", [1, 2, 3])
def test_training_lowers_the_loss(model: MakeModel, toy_windows: MakeWindows, name: LossName, num_modalities: int):
    network, windows = model(num_modalities), toy_windows(24, num_modalities)
    config = PretrainConfig(local=replace(LOCAL, epochs=1), num_views=4, loss=name, augmentation=Augmentation())
    losses = [pretrain_device(network, windows, config, draws_for(network, number)) for number in range(20)]
    assert sum(losses[-4:]) / 4 < 0.8 * losses[0] if name != "dclw" else losses[-1] < losses[0] - 1  # dclw goes below 0


@pytest.mark.parametrize("contrast", ["fused", "per-modality", "cross-modal"])
def test_every_encoder_and_projection_learns_and_nothing_else(model: MakeModel, toy_windows: MakeWindows, contrast: str):
    network = model(2)
    pieces = (".encoder.", ".projection.")
    expected = {name for name, _ in network.named_parameters() if any(piece in name for piece in pieces)}
    assert changed(network, toy_windows(24, 2), replace(CONFIG, contrast=contrast)) == expected


def test_modalities_the_device_lacks_stay_as_they_are(model: MakeModel, toy_windows: MakeWindows):
    touched = changed(model(3), toy_windows(24, 2))
    assert touched
    assert not [name for name in touched if name.startswith("modalities.heart")]


def test_training_is_reproducible_to_the_bit(model: MakeModel, toy_windows: MakeWindows):
    windows = toy_windows(24, 3)
    strong = replace(CONFIG, augmentation=Augmentation(rotation_deg=30.0, time_warp=0.2, channel_dropout=0.1, modality_dropout=0.3))
    one = trained(model(3, dropout=0.2), windows, strong)
    torch.rand(7)  # the global generator is elsewhere by now
    again, other = trained(model(3, dropout=0.2), windows, strong), trained(model(3, dropout=0.2), windows, strong, seed=1)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_the_windows_are_left_as_they_are(model: MakeModel, toy_windows: MakeWindows):
    windows, before = toy_windows(), toy_windows()
    trained(model(), windows)
    assert all(torch.equal(windows.streams[name], before.streams[name]) for name in windows.streams)
    assert all(windows.present[name].all() for name in windows.present)


@pytest.mark.parametrize(("num_windows", "steps"), [(13, [12, 12]), (14, [12, 2, 12, 2])])  # two epochs
def test_a_last_window_alone_is_left_out(model: MakeModel, toy_windows: MakeWindows, num_windows: int, steps: list[int]):
    network, seen = model(), []
    network.part("gyroscope").encoder.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    trained(network, toy_windows(num_windows), replace(CONFIG, num_copies=1))
    assert seen == steps


def test_a_strong_proximal_term_holds_the_model_back(model: MakeModel, toy_windows: MakeWindows):
    distance = {}
    for mu in (0.0, 1000.0):
        network = model()
        start = {name: values.clone() for name, values in network.state_dict().items()}
        local = LocalConfig(epochs=10, batch_size=24, learning_rate=0.0005, optimizer="sgd", weight_decay=0.0, proximal=mu)
        after = trained(network, toy_windows(), replace(CONFIG, local=local))
        distance[mu] = sum((after[name] - start[name]).square().sum().item() for name in start)
    assert 0 < distance[1000.0] < 0.5 * distance[0.0]


@pytest.mark.parametrize("num_windows", [0, 1])
def test_fewer_than_two_windows_are_skipped(model: MakeModel, toy_windows: MakeWindows, num_windows: int):
    windows = toy_windows(3).select(torch.arange(num_windows))
    with pytest.raises(DeviceSkippedError, match=f"at least 2 windows to contrast, found {num_windows}"):
        pretrain_device(model(), windows, CONFIG, Draws(torch.tensor(0)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "pretrain.temperature: expected above 0, found 0.0"),
        ({"num_views": 1}, "pretrain.views: expected at least 2, found 1"),
        ({"num_copies": 0}, "pretrain.copies: expected 1 to"),
        ({"num_copies": 5}, r"pretrain.copies: expected 1 to the number of views \(4\), found 5"),
        ({"contrast": "per-modality", "num_copies": 1}, "pretrain.copies: expected at least 2 to contrast a modality with itself, found 1"),
    ],
)
def test_a_value_out_of_range_is_refused(change: dict[str, float], message: str):
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **change)


@pytest.mark.parametrize("name", ["hard-positive", "tcl", "focal", "dclw"])
@pytest.mark.parametrize("contrast", ["fused", "per-modality", "cross-modal"])
def test_a_batch_that_is_filled_up_has_the_loss_of_the_batch_alone(
    model: MakeModel, toy_windows: MakeWindows, contrast: Contrast, name: LossName
):
    """Windows that do not count are neither anchors nor negatives, also where they have a modality that no other has."""
    strength = Augmentation(rotation_deg=20.0, time_warp=0.1, modality_dropout=0.2, channel_dropout=0.1)
    config = replace(CONFIG, contrast=contrast, loss=name, augmentation=strength, temperature=0.2)
    windows = toy_windows(9, 3)
    windows.present["gyroscope"][1::3] = False
    windows.present["heart"][:4] = False
    for count in (2, 5, 9):
        network, filled_up = model(3), model(3)
        loss, alone = pretrain_loss(network, windows.select(torch.arange(count)), config, Draws(torch.tensor(8)))
        same, filled = pretrain_loss(filled_up, windows, config, Draws(torch.tensor(8)), torch.arange(9) < count)
        assert {name for name in filled if filled[name]} == {name for name in alone if alone[name]}
        if not any(alone.values()):
            assert count == 2
            continue
        assert same.item() == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
        loss.backward()
        same.backward()
        for one, other in zip(network.parameters(), filled_up.parameters(), strict=True):
            slopes = [torch.zeros_like(each) if each.grad is None else each.grad for each in (one, other)]
            torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("contrast", ["fused", "per-modality", "cross-modal"])
@pytest.mark.parametrize("count", [0, 1])
def test_a_batch_in_which_too_few_count_is_not_usable(model: MakeModel, toy_windows: MakeWindows, contrast: Contrast, count: int):
    config = replace(CONFIG, contrast=contrast)
    _, is_compared = pretrain_loss(model(), toy_windows(5), config, Draws(torch.tensor(0)), torch.arange(5) < count)
    assert set(is_compared) == {"accelerometer", "gyroscope"}
    assert not any(is_compared.values())
