from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from clmm_core.models.config import ModelConfig
from clmm_core.models.cost import flops_a_window

Config = Callable[..., ModelConfig]


def by_hand(config: ModelConfig) -> int:
    """Two for every multiplication with its addition, part by part; no convolution halves windows this short."""
    E, N, G = config.embed, config.num_tokens, config.gru
    total = 0
    for shape in config.modalities:
        widths = (shape.channels * (2 if config.differences else 1), *config.conv_channels, E)
        total += sum(shape.time_steps * kernel * widths[i] * widths[i + 1] for i, kernel in enumerate((5, 5, 3)))
        queries, more = {"softmax": (1, 0), "diff-v1": (1, 0), "diff-v2": (2, config.num_heads * E)}[config.attention]
        # Every head has one map of keys as wide as itself, or two: half as wide (V1), or whole (V2); each map reads whole values.
        keys_and_values = {"softmax": 1 + 1, "diff-v1": 1 + 2, "diff-v2": 2 + 2}[config.attention]
        total += config.num_layers * N * ((queries + 3) * E * E + more + keys_and_values * N * E + 3 * E * config.swiglu)
        if config.shared:
            total += E * 2 * config.projection + 2 * config.projection**2
        total += E * config.num_classes
    everything = len(config.modalities) * E
    if config.fusion != "uniform":
        total += everything * E + E * len(config.modalities)
    if config.branches != "recurrent":
        total += everything * E + E * config.num_classes
    if config.branches != "linear":
        total += 2 * N * 3 * G * (everything + G) + 4 * G * E + E * config.num_classes
    if config.branches == "gated":
        total += 2 * E * E
    if config.shared:
        total += config.projection * config.num_classes
    return 2 * (total + (E + (config.projection if config.shared else 0)) * E + E * config.num_classes)


@pytest.mark.parametrize("attention", ["diff-v1", "diff-v2", "softmax"])
@pytest.mark.parametrize("num_modalities", [1, 3])
def test_every_product_counts(config: Config, attention: str, num_modalities: int):
    sizes = config(num_modalities, attention=attention)
    assert flops_a_window(sizes) == by_hand(sizes)


@pytest.mark.parametrize(
    "parts",
    [
        {"branches": "mean"},
        {"branches": "linear"},
        {"branches": "recurrent"},
        {"shared": False},
        {"fusion": "learned"},
        {"fusion": "uniform"},
        {"differences": True},
    ],
    ids=lambda parts: "-".join(map(str, parts.values())),
)
def test_a_part_that_is_off_costs_nothing(config: Config, parts: dict[str, object]):
    sizes = config(**parts)
    assert flops_a_window(sizes) == by_hand(sizes)
    whole = flops_a_window(config())
    assert (flops_a_window(sizes) < whole) == (parts not in ({"fusion": "learned"}, {"differences": True}))


def test_counting_draws_no_random_number_and_keeps_no_gradient(config: Config):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    flops_a_window(replace(config(), dropout=0.5))
    assert torch.equal(torch.rand(3), expected)
    assert torch.is_grad_enabled()
