import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from clmm_core.losses.hard_positive import HardPositiveLoss
from clmm_core.losses.pairs import pairs_of


def reference(points: Tensor, ids: Tensor, beta: float, temperature: float, weights: Tensor | None = None) -> Tensor:
    """The formula, one anchor and one positive after the other; `weights` [N, N] in place of the loss's own."""
    N, total = len(ids), torch.zeros((), dtype=points.dtype)
    for i in range(N):
        s = [points[i] @ points[a] for a in range(N)]
        positives = [p for p in range(N) if p != i and ids[p] == ids[i]]
        denominator = sum((s[a] / temperature).exp() for a in range(N) if a != i)
        hardness = {p: math.exp(beta * (1 - s[p].item())) for p in positives}
        for p in positives:
            w = hardness[p] / sum(hardness.values()) if weights is None else weights[i, p]
            total = total - w * (s[p] / temperature - denominator.log()) / N
    return total


def supervised_contrastive_out(points: Tensor, ids: Tensor, temperature: float) -> float:
    """Khosla et al. 2020, eq. 2: the mean over positives stands outside the logarithm."""
    total = 0.0
    for i in range(len(ids)):
        exponentials = {a: math.exp(float(points[i] @ points[a]) / temperature) for a in range(len(ids)) if a != i}
        positives = [p for p in exponentials if ids[p] == ids[i]]
        total += -sum(math.log(exponentials[p] / sum(exponentials.values())) for p in positives) / len(positives)
    return total / len(ids)


@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0, 10.0])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_loss_equals_the_double_loop(views: tuple[Tensor, Tensor], beta: float, temperature: float):
    expected = reference(*views, beta, temperature).item()
    assert HardPositiveLoss(beta=beta, temperature=temperature)(*views).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_beta_0_is_supervised_contrastive_out(views: tuple[Tensor, Tensor], temperature: float):
    loss = HardPositiveLoss(beta=0.0, temperature=temperature)(*views)
    assert loss.item() == pytest.approx(supervised_contrastive_out(*views, temperature), rel=1e-12)


def test_two_windows_by_hand():
    """Views of window 0 at 0 and 60 degrees, of window 1 at 180 and 180: cosines 1/2, 1, -1 and -1/2 at temperature 1."""
    points = torch.tensor([[1.0, 0.0], [0.5, 3**0.5 / 2], [-1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    anchors = [
        -0.5 + math.log(math.exp(0.5) + 2 * math.exp(-1)),
        -0.5 + math.log(math.exp(0.5) + 2 * math.exp(-0.5)),
        *[-1 + math.log(math.exp(1) + math.exp(-1) + math.exp(-0.5))] * 2,
    ]
    loss = HardPositiveLoss(beta=2.0, temperature=1.0)(points, torch.tensor([0, 0, 1, 1]))
    assert loss.item() == pytest.approx(sum(anchors) / 4, rel=1e-12)


def test_weights_by_hand_for_an_anchor_with_two_positives():
    """Positives at cosines 1/2 and -1 of the anchor: weights e^(1/2) and e^2 with beta 1."""
    points = torch.tensor([[1.0, 0.0], [0.5, 3**0.5 / 2], [-1.0, 0.0]], dtype=torch.float64)
    first = HardPositiveLoss(beta=1.0).weights(pairs_of(points, torch.zeros(3, dtype=torch.int64)))[0]
    near, far = math.exp(0.5), math.exp(2.0)
    assert first.tolist() == pytest.approx([0.0, near / (near + far), far / (near + far)])


@pytest.mark.parametrize("beta", [0.0, 2.0, 50.0])
def test_weights_sum_to_1_over_the_positives(views: tuple[Tensor, Tensor], beta: float):
    pairs = pairs_of(*views)
    weights = HardPositiveLoss(beta=beta).weights(pairs)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(11, dtype=torch.float64))
    assert not weights[~pairs.positive].any()


def test_weights_get_no_gradient(views: tuple[Tensor, Tensor]):
    points, ids = views
    loss = HardPositiveLoss()
    ours, theirs = points.clone().requires_grad_(), points.clone().requires_grad_()
    loss(ours, ids).backward()
    constants = loss.weights(pairs_of(points, ids))
    reference(theirs, ids, loss.beta, loss.temperature, constants).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_larger_beta_moves_weight_to_the_least_similar_positive(views: tuple[Tensor, Tensor]):
    pairs = pairs_of(*views)
    anchor = 0  # three positives
    hardest = pairs.similarity[anchor].masked_fill(~pairs.positive[anchor], torch.inf).argmin()
    on_hardest = [HardPositiveLoss(beta=beta).weights(pairs)[anchor, hardest].item() for beta in (0.0, 1.0, 2.0, 5.0, 20.0)]
    assert on_hardest[0] == pytest.approx(1 / 3)
    assert all(less < more for less, more in pairwise(on_hardest))
    assert on_hardest[-1] > 0.9
