import pytest
import torch
from torch import nn

from clmm_core.models.clmm import Clmm
from clmm_core.models.config import ModalityShape, preset
from clmm_core.models.encoder import CnnDiffTransformer, SwiGlu, strides_for


@pytest.mark.parametrize(
    ("time_steps", "expected"),
    [(1, (1, 1, 1)), (63, (1, 1, 1)), (64, (2, 1, 1)), (127, (2, 1, 1)), (128, (2, 2, 1)), (256, (2, 2, 2)), (1000, (2, 2, 2))],
)
def test_strides_leave_at_least_32_steps(time_steps: int, expected: tuple[int, int, int]):
    assert strides_for(time_steps) == expected


@pytest.mark.parametrize("time_steps", [1, 7, 19, 20, 32, 100, 257])
@pytest.mark.parametrize("channels", [1, 6])
def test_tokens_have_one_shape_whatever_the_window(time_steps: int, channels: int):
    shape = ModalityShape(name="any", channels=channels, time_steps=time_steps)
    tokens = CnnDiffTransformer(shape, preset("edge", (shape,), 2))(torch.randn(2, channels, time_steps))
    assert tokens.shape == (2, 20, 64)
    assert tokens.isfinite().all()


@pytest.mark.parametrize("name", ["paper", "edge"])
@pytest.mark.parametrize("attention", ["diff-v1", "diff-v2"])
def test_nothing_keeps_running_statistics(name: str, attention: str):
    model = Clmm(preset(name, (ModalityShape(name="a", channels=3, time_steps=64),), 2, attention))
    assert not [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train().classify({"a": torch.randn(4, 3, 64)}, {"a": torch.ones(4, dtype=torch.bool)})
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_second_layer_starts_at_its_own_lambda():
    shape = ModalityShape(name="a", channels=6, time_steps=64)
    layers = CnnDiffTransformer(shape, preset("paper", (shape,), 2)).layers
    assert [layer.attention.initial_lambda for layer in layers] == pytest.approx([0.2, 0.3555], abs=1e-4)


def test_swiglu_equals_its_formula():
    part, x = SwiGlu(3, 5), torch.randn(2, 4, 3)
    gate, into = x @ part.gate.weight.T, x @ part.into.weight.T
    torch.testing.assert_close(part(x), (gate / (1 + (-gate).exp()) * into) @ part.out.weight.T)


def test_the_order_in_time_matters():
    shape = ModalityShape(name="a", channels=1, time_steps=40)
    encoder, ramp = CnnDiffTransformer(shape, preset("edge", (shape,), 2)).eval(), torch.linspace(-1, 1, 40).view(1, 1, 40)
    assert (encoder(ramp).mean(dim=1) - encoder(ramp.flip(2)).mean(dim=1)).abs().max() > 1e-3
