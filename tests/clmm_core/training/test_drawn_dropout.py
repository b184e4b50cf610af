"""Dropout from a device's own draws, against what those draws say; and a training's draws, which hold those of each step for it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from clmm_core.models.clmm import Clmm
from clmm_core.models.config import ModelConfig
from clmm_core.training.device_tensors import DeviceTensors
from clmm_core.training.drawn_dropout import DrawnDropout, draws_for, hold_dropout
from clmm_core.training.draws import Draws


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_dropout_zeroes_a_share_of_the_drawn_places_and_scales_the_rest():
    values, held = random(40, 50), [Draws(torch.tensor(3))]
    dropped = DrawnDropout(0.3, held)(values)
    gone = Draws(torch.tensor(3)).uniform(40, 50) < 0.3
    assert not dropped[gone].any()
    torch.testing.assert_close(dropped[~gone], values[~gone] / 0.7)
    assert gone.float().mean().item() == pytest.approx(0.3, abs=0.04)


def test_dropout_draws_from_whatever_is_held_and_goes_on_in_it():
    values, held = torch.ones(200), [Draws(torch.tensor(3))]
    dropout = DrawnDropout(0.5, held)
    first, second = dropout(values), dropout(values)
    held[:] = [Draws(torch.tensor(3))]
    assert torch.equal(dropout(values), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("share", "training"), [(0.5, False), (0.0, True)])
def test_dropout_that_drops_nothing_needs_no_draws(share: float, training: bool):
    values = random(3, 4)
    assert torch.equal(DrawnDropout(share, []).train(training)(values), values)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_gradient_of_dropout_passes_where_a_value_did(share: float):
    values = random(5, 6).requires_grad_()
    dropped = DrawnDropout(share, [Draws(torch.tensor(1))])(values)
    dropped.sum().backward()
    torch.testing.assert_close(values.grad, torch.where(dropped != 0, 1 / (1 - share), 0.0))


def test_a_step_of_training_is_what_dropout_draws_from(config: Callable[..., ModelConfig], toy_windows: Callable[..., DeviceTensors]):
    """Also of the next draws for the same model, and whatever torch's own generator holds."""
    with torch.random.fork_rng(devices=[]):
        model = Clmm(config(2, dropout=0.4)).train()
    windows, answers = toy_windows(6), []
    for key, step in ((1, 0), (1, 0), (1, 1), (2, 0)):
        torch.rand(1)
        draws_for(model, key).step(step)
        answers.append(model(windows.streams, windows.present))
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])
    assert not torch.equal(answers[0], answers[3])


def test_no_dropout_of_torchs_is_left_and_what_is_held_stays_the_same(config: Callable[..., ModelConfig]):
    with torch.random.fork_rng(devices=[]):
        model = Clmm(config(2, dropout=0.4))
    assert nn.Dropout in {type(module) for module in model.modules()}
    held = hold_dropout(model)
    assert nn.Dropout not in {type(module) for module in model.modules()}
    assert hold_dropout(model) is held
    assert all(module.held is held for module in model.modules() if isinstance(module, DrawnDropout))
