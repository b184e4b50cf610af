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


@each_loss
@pytest.mark.parametrize("seed", range(3))
def test_views_that_do_not_count_change_neither_the_loss_nor_a_gradient(loss: ContrastiveLoss, views: tuple[Tensor, Tensor], seed: int):
    """Fillers of windows of their own, one of them equal to a view that counts, between the others."""
    points, ids = views
    random = torch.Generator().manual_seed(seed)
    fillers = normalize(torch.randn(6, 5, generator=random, dtype=torch.float64), dim=1)
    fillers[0] = points[4]
    order = torch.randperm(17, generator=random)
    counts = (torch.arange(17) < 11)[order]
    few, filled = points.clone().requires_grad_(), torch.cat([points, fillers])[order].requires_grad_()
    expected = loss(few, ids)
    value = loss(filled, torch.cat([ids, torch.tensor([7, 7, 8, 8, 9, 9])])[order], counts)
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    for each in (value, expected):
        each.backward()
    torch.testing.assert_close(filled.grad[counts], few.grad[order[counts]], rtol=1e-10, atol=1e-14)
    assert not filled.grad[~counts].any()


@each_loss
def test_where_all_views_count_it_is_as_if_nobody_had_asked(loss: ContrastiveLoss, views: tuple[Tensor, Tensor]):
    points, ids = views
    assert loss(points, ids, torch.ones(11, dtype=torch.bool)).item() == pytest.approx(loss(points, ids).item(), rel=1e-12)


@each_loss
@pytest.mark.parametrize("num_counting", [0, 1])
def test_where_too_few_windows_count_gradients_are_finite(loss: ContrastiveLoss, views: tuple[Tensor, Tensor], num_counting: int):
    """The loss means nothing then, and its gradient is not used, but it may not spoil those it is computed with."""
    points, ids = views[0].clone().requires_grad_(), views[1]
    value = loss(points, ids, ids < num_counting)
    torch.where(torch.tensor(False), value, 0.0).backward()
    assert not points.grad.any()


def test_a_view_that_does_not_count_is_nobodys_negative(views: tuple[Tensor, Tensor]):
    points, ids = views
    counts = ids != 2
    pairs = pairs_of(points, ids, counts)
    assert torch.equal(pairs.positive, pairs_of(points, ids).positive)
    assert torch.equal(pairs.negative, pairs_of(points, ids).negative & counts[None, :])
