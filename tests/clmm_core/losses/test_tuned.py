import math

import pytest
import torch
from torch import Tensor

from clmm_core.losses.tuned import TunedLoss


def reference(points: Tensor, ids: Tensor, k1: float, k2: float, temperature: float) -> float:
    """Animesh and Chandraker 2023, eq. 4-5, term by term."""
    total = 0.0
    for i in range(len(ids)):
        s = [float(points[i] @ points[a]) for a in range(len(ids))]
        positives = [p for p in range(len(ids)) if p != i and ids[p] == ids[i]]
        negatives = [n for n in range(len(ids)) if ids[n] != ids[i]]
        denominator = sum(math.exp(s[p] / temperature) for p in positives)
        denominator += k1 * sum(math.exp(-s[p]) for p in positives)
        denominator += k2 * sum(math.exp(s[n] / temperature) for n in negatives)
        total += -sum(math.log(math.exp(s[p] / temperature) / denominator) for p in positives) / len(positives)
    return total / len(ids)


@pytest.mark.parametrize(("k1", "k2", "temperature"), [(1e4, 1.0, 0.1), (1e6, 1.0, 0.07), (0.0, 1.0, 0.1), (5.0, 3.0, 0.5)])
def test_loss_equals_the_double_loop(views: tuple[Tensor, Tensor], k1: float, k2: float, temperature: float):
    loss = TunedLoss(k1=k1, k2=k2, temperature=temperature)(*views)
    assert loss.item() == pytest.approx(reference(*views, k1, k2, temperature), rel=1e-12)


def test_two_windows_by_hand():
    """Equal views of a window, opposite windows, temperature 1: one positive at 1, two negatives at -1."""
    points = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    loss = TunedLoss(k1=2.0, k2=3.0, temperature=1.0)(points, torch.tensor([0, 0, 1, 1]))
    denominator = math.exp(1) + 2 * math.exp(-1) + 3 * 2 * math.exp(-1)
    assert loss.item() == pytest.approx(-1 + math.log(denominator), rel=1e-12)


def test_larger_k1_pulls_positives_harder():
    """The other window is orthogonal, so that only the positive moves the first view along the second axis."""
    points = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    pulls = []
    for k1 in (0.0, 1e2, 1e4):
        moving = points.clone().requires_grad_()
        TunedLoss(k1=k1)(moving, torch.tensor([0, 0, 1, 1])).backward()
        pulls.append(-moving.grad[0, 1].item())
    assert 0 < pulls[0] < pulls[1] < pulls[2]
