import math

import pytest
import torch
from torch import Tensor

from clmm_core.models.fusion import QualityGuidedAttention

M, EMBED = 3, 4
PRESENT = torch.tensor([[True, True, True], [True, False, True], [False, True, False], [True, True, False]])


@pytest.fixture
def attention() -> QualityGuidedAttention:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        attention = QualityGuidedAttention(M, EMBED)
    attention.quality.copy_(torch.tensor([0.6, 0.3, 0.1]))
    return attention


@pytest.fixture
def embeddings() -> Tensor:
    values = 3 * torch.randn(len(PRESENT), M, EMBED, generator=torch.Generator().manual_seed(5))
    return values * PRESENT[:, :, None]


def by_hand(attention: QualityGuidedAttention, embedding: Tensor, present: list[bool], quality: list[float]) -> list[float]:
    """norm1((1 - lam) softmax(MLP(z)) + lam q) over the modalities that are there, lam = 0.8."""
    scores = attention.score(embedding.flatten()[None])[0].tolist()
    have = [m for m in range(M) if present[m]]
    mixed = [0.0] * M
    for m in have:
        alpha = math.exp(scores[m]) / sum(math.exp(scores[a]) for a in have)
        mixed[m] = 0.2 * alpha + 0.8 * quality[m] / sum(quality[a] for a in have)
    return [value / sum(mixed) for value in mixed]


def test_weights_equal_the_formula(attention: QualityGuidedAttention, embeddings: Tensor):
    weights = attention(embeddings, PRESENT)
    for i, present in enumerate(PRESENT.tolist()):
        assert weights[i].tolist() == pytest.approx(by_hand(attention, embeddings[i], present, [0.6, 0.3, 0.1]), abs=1e-6)


def test_weights_sum_to_1_and_are_0_where_absent(attention: QualityGuidedAttention, embeddings: Tensor):
    weights = attention(embeddings, PRESENT)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(PRESENT)))
    assert not weights[~PRESENT].any()
    assert (weights[PRESENT] > 0).all()


def test_equal_quality_leaves_the_network_to_decide(attention: QualityGuidedAttention, embeddings: Tensor):
    attention.quality.fill_(1 / M)
    weights = attention(embeddings, PRESENT)[0]
    alpha = attention.score(embeddings[:1].flatten(1))[0].softmax(dim=0)
    torch.testing.assert_close(weights, 0.2 * alpha + 0.8 / 3)


def test_better_quality_weighs_more(attention: QualityGuidedAttention):
    with torch.no_grad():
        for parameter in attention.score.parameters():
            parameter.zero_()
    weights = attention(torch.zeros(1, M, EMBED), torch.ones(1, M, dtype=torch.bool))[0]
    assert weights.tolist() == pytest.approx([0.2 / 3 + 0.8 * q for q in (0.6, 0.3, 0.1)])


def test_quality_is_no_parameter_but_travels(attention: QualityGuidedAttention):
    assert "quality" in attention.state_dict()
    assert "quality" not in dict(attention.named_parameters())


def test_gradients_are_finite_where_modalities_are_absent(attention: QualityGuidedAttention, embeddings: Tensor):
    embeddings.requires_grad_()
    attention(embeddings, PRESENT).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in attention.parameters())
    assert embeddings.grad.isfinite().all()
