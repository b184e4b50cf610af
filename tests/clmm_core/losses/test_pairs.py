"""What every contrastive loss must obey; each loss's own file has its oracle."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from clmm_core.losses.decoupled import DecoupledLoss
from clmm_core.losses.focal import FocalLoss
from clmm_core.losses.hard_positive import HardPositiveLoss
from clmm_core.losses.pairs import ContrastiveLoss, pairs_of
from clmm_core.losses.tuned import TunedLoss

LOSSES = [
    HardPositiveLoss(),
    HardPositiveLoss(beta=0.0),
    TunedLoss(),
    TunedLoss(k1=0.0),
    TunedLoss(k1=1e6, temperature=0.07),
    FocalLoss(),
    FocalLoss(gamma=0.0),
    FocalLoss(gamma=0.5),
    DecoupledLoss(),
]
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=repr)


def test_pairs_say_who_shows_the_same_window(views: tuple[Tensor, Tensor]):
    points, ids = views
    pairs = pairs_of(points, ids)
    for i in range(len(ids)):
        for a in range(len(ids)):
            assert pairs.positive[i, a] == (i != a and ids[i] == ids[a])
            assert pairs.negative[i, a] == (ids[i] != ids[a])
            assert pairs.similarity[i, a].item() == pytest.approx(sum(x * y for x, y in zip(points[i], points[a], strict=True)).item())
    assert pairs.num_positives.tolist() == [3, 2, 1, 1, 3, 2, 1, 1, 3, 2, 3]


@each_loss
def test_the_order_of_views_changes_nothing(loss: ContrastiveLoss, views: tuple[Tensor, Tensor]):
    points, ids = views
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(1))
    assert loss(points[order], ids[order]).item() == pytest.approx(loss(points, ids).item(), rel=1e-12)


@each_loss
def test_other_names_for_the_windows_change_nothing(loss: ContrastiveLoss, views: tuple[Tensor, Tensor]):
    points, ids = views
    renamed = torch.tensor([70, -3, 12, 5])[ids]
    assert torch.equal(loss(points, renamed), loss(points, ids))


@each_loss
def test_a_common_rotation_changes_nothing(loss: ContrastiveLoss, views: tuple[Tensor, Tensor]):
    points, ids = views
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))).Q
    assert loss(points @ turn, ids).item() == pytest.approx(loss(points, ids).item(), rel=1e-12)


@each_loss
def test_pulling_positives_together_lowers_the_loss(loss: ContrastiveLoss, views: tuple[Tensor, Tensor]):
    points, ids = views
    centres = torch.eye(5, dtype=torch.float64)[ids]
    assert loss(normalize(points + 2 * centres, dim=1), ids) < loss(points, ids)


@each_loss
@pytest.mark.parametrize("spread", [0.0, 1e-4, 1e-2, 1.0])
def test_gradients_are_finite_from_collapsed_to_perfect_views(loss: ContrastiveLoss, spread: float):
    """Views of a window almost equal and windows opposite; all views almost equal."""
    random = torch.Generator().manual_seed(4)
    ids = torch.arange(3).repeat_interleave(3)
    for centres in (torch.eye(6)[:3], torch.eye(6)[:1].expand(3, 6), torch.tensor([[1.0] * 6, [-1.0] * 6, [1.0, -1.0] * 3])):
        points = (centres[ids] + spread * torch.randn(9, 6, generator=random)).requires_grad_()
        value = loss(normalize(points, dim=1), ids)
        value.backward()
        assert value.isfinite()
        assert points.grad is not None
        assert points.grad.isfinite().all()


@each_loss
def test_a_window_with_one_view_is_refused(loss: ContrastiveLoss, views: tuple[Tensor, Tensor]):
    points, _ = views
    with pytest.raises(ValueError, match="at least two views of every window"):
        loss(points[:3], torch.tensor([0, 0, 1]))


def test_the_result_keeps_the_views_precision(views: tuple[Tensor, Tensor]):
    points, ids = views
    for loss in LOSSES:
        assert loss(points.float(), ids).dtype == torch.float32
        assert loss(points.float(), ids).item() == pytest.approx(loss(points, ids).item(), rel=1e-4)
