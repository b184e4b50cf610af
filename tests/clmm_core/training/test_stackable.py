"""Each part against torch's own with the same parameters; the twins are in evaluation mode or without dropout."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from clmm_core.models.clmm import Clmm
from clmm_core.models.config import ModelConfig
from clmm_core.training.device_tensors import DeviceTensors
from clmm_core.training.draws import Draws
from clmm_core.training.stackable import AveragingPool1d, PlainRmsNorm, UnfoldedConv1d, UnrolledGru, stackable

MakeConfig = Callable[..., ModelConfig]
MakeWindows = Callable[..., DeviceTensors]
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"attention": "diff-v2", "fusion": "uniform", "branches": "linear", "shared": False},
    {"attention": "softmax", "fusion": "learned", "branches": "recurrent", "differences": True},
    {"branches": "mean", "num_layers": 2, "gru_layers": 2},
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_twins(ours: nn.Module, theirs: nn.Module, given: Tensor) -> None:
    """Give both `given` and pull at what they make of it with the same random gradient."""
    for parameter, values in zip(theirs.parameters(), range(100), strict=False):
        parameter.data = 0.5 * random(*parameter.shape, seed=100 + values)
    ours.load_state_dict(theirs.state_dict())
    results = []
    for module in (ours, theirs):
        leaf = given.clone().requires_grad_()
        out = module(leaf)
        out = out[0] if isinstance(out, tuple) else out
        (out * random(*out.shape, seed=1)).sum().backward()
        results.append((out, leaf.grad, [parameter.grad for parameter in module.parameters()]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(5, 1, 2), (5, 2, 2), (3, 2, 1), (3, 1, 0), (1, 1, 0), (4, 3, 2)])
@pytest.mark.parametrize("steps", [12, 13])
def test_an_unfolded_convolution_is_torchs(kernel: int, stride: int, padding: int, steps: int):
    settings = {"stride": stride, "padding": padding}
    assert_twins(UnfoldedConv1d(3, 4, kernel, **settings), nn.Conv1d(3, 4, kernel, **settings), random(2, 3, steps))


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("steps", [1, 6])
def test_unrolled_gated_units_are_torchs(num_layers: int, steps: int):
    both = {"num_layers": num_layers, "batch_first": True, "bidirectional": True}
    assert_twins(UnrolledGru(5, 4, **both), nn.GRU(5, 4, **both), random(3, steps, 5))


@pytest.mark.parametrize("shape", [(2, 6), (2, 3, 4, 6)])
@pytest.mark.parametrize("size", [1.0, 1e-3, 1e3])
def test_a_plain_norm_is_torchs(shape: tuple[int, ...], size: float):
    assert_twins(PlainRmsNorm(6, eps=1e-5), nn.RMSNorm(6, eps=1e-5), size * random(*shape))


@pytest.mark.parametrize("out", [1, 2, 5, 7, 20])
@pytest.mark.parametrize("length", [5, 7, 20, 32])
def test_an_averaging_pool_is_torchs(out: int, length: int):
    assert_twins(AveragingPool1d(out), nn.AdaptiveAvgPool1d(out), random(2, 3, length))


def twins(config: ModelConfig) -> tuple[Clmm, Clmm]:
    """A network that can be stacked and the plain one, with the same parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = Clmm(config)
    ours, _ = stackable(config)
    ours.load_state_dict(plain.state_dict())
    return ours, plain


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_whole_network_is_the_plain_one_in_every_head_and_gradient(config: MakeConfig, toy_windows: MakeWindows, variant: dict[str, Any]):
    windows = toy_windows(7, 3)
    windows.present["gyroscope"][:3] = False
    streams = {name: values.double() for name, values in windows.streams.items()}  # in float32 rounding differs by processor
    results = []
    for network in twins(replace(config(3), **variant)):
        outputs = network.double().train().classify(network.normalise(streams, windows.present), windows.present)
        embedded = network.embed(streams, windows.present)
        sum(values.square().sum() for values in (outputs.primary, *outputs.auxiliary.values(), embedded)).backward()
        gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
        results.append((outputs.primary, dict(outputs.auxiliary), embedded, gradients))
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-8)
    assert all(gradient is not None for gradient in results[0][3].values())


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_stack_of_networks_answers_what_each_answers(config: MakeConfig, toy_windows: MakeWindows, variant: dict[str, Any]):
    """Without a warning that torch loops over the stack, which a test would fail of."""
    networks = [stackable(replace(config(3, dropout=0.2), **variant))[0].eval() for _ in range(3)]
    for i, network in enumerate(networks):
        for j, parameter in enumerate(network.parameters()):
            parameter.data += 0.1 * random(*parameter.shape, seed=100 * i + j)
    windows = [toy_windows(5, 3, seed=i) for i in range(3)]
    parameters, buffers = stack_module_state(networks)
    streams = {name: torch.stack([each.streams[name] for each in windows]) for name in windows[0].streams}
    present = {name: torch.stack([each.present[name] for each in windows]) for name in windows[0].present}

    def answer(*arrays_and_batch: Any) -> Tensor:
        own, fixed, *batch = arrays_and_batch
        logits: Tensor = functional_call(networks[0], (own, fixed), tuple(batch))
        return logits

    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        together = vmap(answer)(parameters, buffers, streams, present)
    alone = torch.stack([network(each.streams, each.present) for network, each in zip(networks, windows, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_nothing_that_cannot_be_stacked_is_left(config: MakeConfig):
    deep = replace(config(3), gru_layers=2, num_layers=2)
    replaced = {nn.Dropout, nn.Conv1d, nn.RMSNorm, nn.AdaptiveAvgPool1d, nn.GRU}
    assert replaced <= {type(module) for module in Clmm(deep).modules()}
    assert not replaced & {type(module) for module in stackable(deep)[0].modules()}


def test_arrays_travel_between_the_two_by_their_names(config: MakeConfig):
    network, plain = twins(config(3))
    assert {name: values.shape for name, values in network.state_dict().items()} == {
        name: values.shape for name, values in plain.state_dict().items()
    }


def test_dropout_is_what_the_held_draws_make_it(config: MakeConfig, toy_windows: MakeWindows):
    network, held = stackable(config(2, dropout=0.4))
    windows, answers = toy_windows(6), []
    for key in (1, 1, 2):
        held[:] = [Draws(torch.tensor(key))]
        answers.append(network.train()(windows.streams, windows.present))
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])


def test_making_one_leaves_torchs_own_generator_where_it_was(config: MakeConfig):
    state = torch.random.get_rng_state()
    stackable(config(2))
    assert torch.equal(torch.random.get_rng_state(), state)
