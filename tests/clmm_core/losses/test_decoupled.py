import math

import pytest
import torch
from torch import Tensor

from clmm_core.losses.decoupled import DecoupledLoss


def reference(points: Tensor, ids: Tensor, sigma: float, temperature: float, constants: dict[tuple[int, int], float]) -> Tensor:
    """The formula with the weights in `constants`, or its own where that is empty."""
    N, total = len(ids), torch.zeros((), dtype=points.dtype)
    for i in range(N):
        s = [points[i] @ points[a] for a in range(N)]
        positives = [p for p in range(N) if p != i and ids[p] == ids[i]]
        nearness = {p: math.exp(s[p].item() / sigma) for p in positives}
        for p in positives:
            weight = constants.setdefault((i, p), 2 - len(positives) * nearness[p] / sum(nearness.values()))
            total = total - weight * s[p] / temperature / len(positives) / N
        total = total + sum((s[n] / temperature).exp() for n in range(N) if ids[n] != ids[i]).log() / N
    return total


@pytest.mark.parametrize("sigma", [0.2, 0.5, 5.0])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_loss_equals_the_double_loop(views: tuple[Tensor, Tensor], sigma: float, temperature: float):
    loss = DecoupledLoss(sigma=sigma, temperature=temperature)(*views)
    assert loss.item() == pytest.approx(reference(*views, sigma, temperature, {}).item(), rel=1e-12)


def test_weights_get_no_gradient(views: tuple[Tensor, Tensor]):
    points, ids = views
    constants: dict[tuple[int, int], float] = {}
    reference(points, ids, 0.5, 0.07, constants)
    ours, theirs = points.clone().requires_grad_(), points.clone().requires_grad_()
    DecoupledLoss()(ours, ids).backward()
    reference(theirs, ids, 0.5, 0.07, constants).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_two_windows_by_hand():
    """Equal views of a window, opposite windows, temperature 1: one positive (weight 2 - 1), two negatives at -1."""
    points = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    loss = DecoupledLoss(temperature=1.0)(points, torch.tensor([0, 0, 1, 1]))
    assert loss.item() == pytest.approx(-1 + math.log(2 * math.exp(-1)), rel=1e-12)


def test_the_farther_positive_weighs_more_by_hand():
    """An anchor with positives at cosines 1 and 0, sigma 1: weights 2 - 2e/(e+1) and 2 - 2/(e+1)."""
    points = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    ids = torch.tensor([0, 0, 0, 1, 1])
    e = math.e
    near = 2 - 2 * e / (e + 1)
    anchors = [-(near * 1 + 0) / 2 + math.log(2 / e)] * 2 + [math.log(2)] + [-1 + math.log(2 / e + 1)] * 2
    assert DecoupledLoss(sigma=1.0, temperature=1.0)(points, ids).item() == pytest.approx(sum(anchors) / 5, rel=1e-12)


def test_views_of_one_window_alone_are_refused(views: tuple[Tensor, Tensor]):
    points, _ = views
    with pytest.raises(ValueError, match="at least two windows"):
        DecoupledLoss()(points, torch.zeros(len(points), dtype=torch.int64))
