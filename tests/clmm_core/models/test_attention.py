"""The one fused attention call against the explicit maps of the papers, head by head."""

import math

import pytest
import torch
from torch import Tensor

from clmm_core.models.attention import DifferentialAttentionV1, DifferentialAttentionV2, SoftmaxAttention, initial_lambda

B, N, EMBED, HEADS = 3, 7, 16, 2
Attention = DifferentialAttentionV1 | DifferentialAttentionV2 | SoftmaxAttention


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(B, N, EMBED, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=[DifferentialAttentionV1, DifferentialAttentionV2, SoftmaxAttention])
def attention(request: pytest.FixtureRequest) -> Attention:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return request.param(EMBED, HEADS, layer=1)


def attention_map(query: Tensor, key: Tensor) -> Tensor:
    """softmax(Q K' / sqrt d) of one head, [N, N]."""
    return torch.softmax(query @ key.T / math.sqrt(query.shape[1]), dim=1)


def explicit_v1(layer: DifferentialAttentionV1, x: Tensor) -> Tensor:
    """Ye et al. 2025, eq. 1-3, one window and one head after the other."""
    K = EMBED // HEADS // 2
    query_1, key_1, query_2, key_2 = layer.lambda_vectors
    share = math.exp(sum((query_1 * key_1).tolist())) - math.exp(sum((query_2 * key_2).tolist())) + 0.8 - 0.6 * math.exp(-0.3)
    windows = []
    for window in x:
        Q, keys, V = window @ layer.query.weight.T, window @ layer.key.weight.T, window @ layer.value.weight.T
        heads = []
        for h in range(HEADS):
            first, second = slice(2 * h * K, (2 * h + 1) * K), slice((2 * h + 1) * K, (2 * h + 2) * K)
            difference = attention_map(Q[:, first], keys[:, first]) - share * attention_map(Q[:, second], keys[:, second])
            head = difference @ V[:, 2 * h * K : (2 * h + 2) * K]
            root = (head.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
            heads.append(head / root * layer.head_norm.weight * (1 - (0.8 - 0.6 * math.exp(-0.3))))
        windows.append(torch.cat(heads, dim=1) @ layer.out.weight.T)
    return torch.stack(windows)


def explicit_v2(layer: DifferentialAttentionV2, x: Tensor) -> Tensor:
    K = EMBED // HEADS
    windows = []
    for window in x:
        Q, keys, V = window @ layer.query.weight.T, window @ layer.key.weight.T, window @ layer.value.weight.T
        share = 1 / (1 + (-window @ layer.to_lambda.weight.T).exp())  # [N, HEADS]
        heads = []
        for h in range(HEADS):
            own = slice(h * K, (h + 1) * K)
            first = attention_map(Q[:, 2 * h * K : (2 * h + 1) * K], keys[:, own])
            second = attention_map(Q[:, (2 * h + 1) * K : (2 * h + 2) * K], keys[:, own])
            heads.append((first - share[:, h : h + 1] * second) @ V[:, own])
        windows.append(torch.cat(heads, dim=1) @ layer.out.weight.T)
    return torch.stack(windows)


def explicit_softmax(layer: SoftmaxAttention, x: Tensor) -> Tensor:
    """Vaswani et al. 2017, eq. 1 in each head."""
    K = EMBED // HEADS
    windows = []
    for window in x:
        Q, keys, V = window @ layer.query.weight.T, window @ layer.key.weight.T, window @ layer.value.weight.T
        own = [slice(h * K, (h + 1) * K) for h in range(HEADS)]
        heads = [attention_map(Q[:, columns], keys[:, columns]) @ V[:, columns] for columns in own]
        windows.append(torch.cat(heads, dim=1) @ layer.out.weight.T)
    return torch.stack(windows)


EXPLICIT = {DifferentialAttentionV1: explicit_v1, DifferentialAttentionV2: explicit_v2, SoftmaxAttention: explicit_softmax}


def test_attention_equals_the_explicit_maps(attention: Attention, tokens: Tensor):
    torch.testing.assert_close(attention(tokens), EXPLICIT[type(attention)](attention, tokens), atol=1e-6, rtol=1e-6)


def test_gradients_equal_those_of_the_explicit_maps(attention: Attention, tokens: Tensor):
    parameters = [p for name, p in attention.named_parameters() if name != "lambda_vectors"]  # the oracle takes lambda as a number
    explicit = EXPLICIT[type(attention)]
    ours = torch.autograd.grad(attention(tokens).square().sum(), parameters)
    theirs = torch.autograd.grad(explicit(attention, tokens).square().sum(), parameters)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_every_parameter_gets_a_gradient(attention: Attention, tokens: Tensor):
    attention(tokens).square().sum().backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().min() > 0, name


def test_tokens_see_each_other_but_not_other_windows(attention: Attention, tokens: Tensor):
    changed = tokens.clone()
    changed[1, -1] += 1
    difference = (attention(changed) - attention(tokens)).abs().amax(dim=2)  # [B, N]
    assert (difference[1] > 0).all()  # not causal: the first token sees the last
    assert not difference[[0, 2]].any()


@pytest.mark.parametrize(("layer", "expected"), [(0, 0.2), (1, 0.35551), (2, 0.47071), (100, 0.8)])
def test_lambda_starts_as_in_the_paper(layer: int, expected: float):
    assert initial_lambda(layer) == pytest.approx(expected, abs=1e-5)
    attention = DifferentialAttentionV1(EMBED, HEADS, layer)
    with torch.no_grad():
        attention.lambda_vectors.zero_()
    assert attention.current_lambda().item() == pytest.approx(expected, abs=1e-5)


def test_none_has_a_bias(attention: Attention):
    assert not [name for name, _ in attention.named_parameters() if "bias" in name]


@pytest.mark.parametrize(("embed", "heads"), [(64, 4), (128, 4)])
def test_plain_attention_has_as_many_parameters_but_for_lambda_and_the_norm(embed: int, heads: int):
    """The comparison is about the map, not about size: at both presets' sizes less than 1 percent apart."""
    first, plain = (
        sum(p.numel() for p in kind(embed, heads, layer=0).parameters()) for kind in (DifferentialAttentionV1, SoftmaxAttention)
    )
    head_size = embed // heads // 2
    assert first - plain == 4 * head_size + 2 * head_size
    assert plain > 0.99 * first
