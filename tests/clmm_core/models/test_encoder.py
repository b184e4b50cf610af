import pytest
import torch
from torch import nn

from clmm_core.models.clmm import Clmm
from clmm_core.models.config import ModalityShape, ModelChoice, sized
from clmm_core.models.encoder import ATTENTION, CnnDiffTransformer, SwiGlu, input_channels, strides_for, with_differences


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
    tokens = CnnDiffTransformer(shape, sized(ModelChoice(differences=False), (shape,), 2))(torch.randn(2, channels, time_steps))
    assert tokens.shape == (2, 20, 64)
    assert tokens.isfinite().all()


@pytest.mark.parametrize("name", ["paper", "edge"])
@pytest.mark.parametrize("attention", ["diff-v1", "diff-v2", "softmax"])
def test_nothing_keeps_running_statistics(name: str, attention: str):
    model = Clmm(sized(ModelChoice(preset=name, attention=attention), (ModalityShape(name="a", channels=3, time_steps=64),), 2))
    assert not [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()({"a": torch.randn(4, 3, 64)}, {"a": torch.ones(4, dtype=torch.bool)})
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_second_layer_starts_at_its_own_lambda():
    shape = ModalityShape(name="a", channels=6, time_steps=64)
    layers = CnnDiffTransformer(shape, sized(ModelChoice(preset="paper"), (shape,), 2)).layers
    assert [layer.attention.initial_lambda for layer in layers] == pytest.approx([0.2, 0.3555], abs=1e-4)


@pytest.mark.parametrize("attention", ["diff-v1", "diff-v2", "softmax"])
def test_the_named_attention_is_in_every_layer(attention: str):
    shape = ModalityShape(name="a", channels=6, time_steps=64)
    layers = CnnDiffTransformer(shape, sized(ModelChoice(preset="paper", attention=attention), (shape,), 2)).layers
    assert [type(layer.attention) for layer in layers] == [ATTENTION[attention]] * 2


def test_swiglu_equals_its_formula():
    part, x = SwiGlu(3, 5), torch.randn(2, 4, 3)
    gate, into = x @ part.gate.weight.T, x @ part.into.weight.T
    torch.testing.assert_close(part(x), (gate / (1 + (-gate).exp()) * into) @ part.out.weight.T)


def test_the_order_in_time_matters():
    shape = ModalityShape(name="a", channels=1, time_steps=40)
    encoder = CnnDiffTransformer(shape, sized(ModelChoice(differences=False), (shape,), 2)).eval()
    ramp = torch.linspace(-1, 1, 40).view(1, 1, 40)
    assert (encoder(ramp).mean(dim=1) - encoder(ramp.flip(2)).mean(dim=1)).abs().max() > 1e-3


def test_differences_by_hand():
    """Half of what lies between the samples before and after; at the ends the window's own sample stands for the one outside."""
    windows = torch.tensor([[[1.0, 3.0, 7.0, 7.0], [0.0, -2.0, 0.0, 10.0]]])
    expected = [[1.0, 3.0, 2.0, 0.0], [-1.0, 0.0, 6.0, 5.0]]
    both = with_differences(windows)
    assert torch.equal(both[:, :2], windows)
    assert both[0, 2:].tolist() == expected
    assert not with_differences(torch.full((1, 3, 1), 5.0))[:, 3:].any()


def test_differences_do_not_depend_on_where_a_channel_lies():
    windows = torch.randn(2, 3, 20, dtype=torch.float64)
    torch.testing.assert_close(with_differences(windows + 100)[:, 3:], with_differences(windows)[:, 3:])


@pytest.mark.parametrize(("differences", "channels"), [(True, 12), (False, 6)])
def test_an_encoder_sees_each_channel_and_its_differences(differences: bool, channels: int):
    shape = ModalityShape(name="a", channels=6, time_steps=64)
    config = sized(ModelChoice(differences=differences), (shape,), 2)
    assert input_channels(shape, config) == CnnDiffTransformer(shape, config).local[0].in_channels == channels
