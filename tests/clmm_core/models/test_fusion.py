import math

import pytest
import torch
from torch import Tensor

from clmm_core.models.fusion import QualityGuidedAttention, UniformWeights

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


def test_a_quality_share_of_0_leaves_the_weights_to_the_network_alone(attention: QualityGuidedAttention, embeddings: Tensor):
    attention.quality_share = 0.0
    weights = attention(embeddings, PRESENT)
    for i, present in enumerate(PRESENT.tolist()):
        scores = attention.score(embeddings[i].flatten()[None])[0].tolist()
        exponentials = [math.exp(score) * here for score, here in zip(scores, present, strict=True)]
        assert weights[i].tolist() == pytest.approx([value / sum(exponentials) for value in exponentials], abs=1e-6)
    attention.quality.copy_(torch.tensor([0.01, 0.01, 0.98]))
    assert torch.equal(attention(embeddings, PRESENT), weights)


def test_uniform_weights_are_the_same_for_every_modality_a_window_has(embeddings: Tensor):
    weights = UniformWeights()(embeddings, PRESENT)
    assert weights.tolist() == [pytest.approx(row) for row in ([1 / 3] * 3, [0.5, 0, 0.5], [0, 1, 0], [0.5, 0.5, 0])]
    assert weights.dtype == embeddings.dtype
    assert torch.equal(UniformWeights()(10 * embeddings, PRESENT), weights)


def test_uniform_weights_have_nothing_to_learn_or_to_send():
    assert not UniformWeights().state_dict()
