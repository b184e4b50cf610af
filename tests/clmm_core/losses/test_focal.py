import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from clmm_core.losses.focal import FocalLoss


def reference(points: Tensor, ids: Tensor, gamma: float, temperature: float) -> float:
    total = 0.0
    for i in range(len(ids)):
        exponentials = {a: math.exp(float(points[i] @ points[a]) / temperature) for a in range(len(ids)) if a != i}
        positives = [p for p in exponentials if ids[p] == ids[i]]
        for p in positives:
            probability = exponentials[p] / sum(exponentials.values())
            total -= (1 - probability) ** gamma * math.log(probability) / len(positives)
    return total / len(ids)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_loss_equals_the_double_loop(views: tuple[Tensor, Tensor], gamma: float, temperature: float):
    loss = FocalLoss(gamma=gamma, temperature=temperature)(*views)
    assert loss.item() == pytest.approx(reference(*views, gamma, temperature), rel=1e-9)


def test_two_windows_by_hand():
    """Equal views of a window, opposite windows, temperature 1: every anchor gives its positive e / (e + 2/e)."""
    points = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    probability = math.exp(1) / (math.exp(1) + 2 * math.exp(-1))
    loss = FocalLoss(gamma=2.0, temperature=1.0)(points, torch.tensor([0, 0, 1, 1]))
    assert loss.item() == pytest.approx(-((1 - probability) ** 2) * math.log(probability), rel=1e-12)


@pytest.mark.parametrize("gamma", [0.1, 0.5, 0.9, 1.0, 2.0])
def test_a_pair_told_apart_for_certain_has_a_finite_gradient(gamma: float):
    """One positive at probability 1 to the last bit: (1 - P)^gamma has an infinite slope there for gamma < 1."""
    points = torch.tensor([[1.0, 0.0], [1.0, 1e-3], [-1.0, 0.0], [-1.0, 1e-3]], requires_grad=True)
    FocalLoss(gamma=gamma, temperature=0.05)(normalize(points, dim=1), torch.tensor([0, 0, 1, 1])).backward()
    assert points.grad is not None
    assert points.grad.isfinite().all()
