import math
from itertools import combinations, permutations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from clmm_core.losses.cross_modal import CrossModalLoss

NAMES = ("accelerometer", "gyroscope", "heart")
B, D = 6, 5
Batch = tuple[dict[str, Tensor], dict[str, Tensor]]


@pytest.fixture
def batch() -> Batch:
    """Six windows of three modalities, float64 of length 1; some windows lack the gyroscope or the heart."""
    random = torch.Generator().manual_seed(3)
    projections = {name: normalize(torch.randn(B, D, generator=random, dtype=torch.float64), dim=1) for name in NAMES}
    present = {
        "accelerometer": torch.ones(B, dtype=torch.bool),
        "gyroscope": torch.tensor([True, True, False, True, True, False]),
        "heart": torch.tensor([True, False, True, True, True, True]),
    }
    return projections, present


def reference(projections: dict[str, Tensor], present: dict[str, Tensor], temperature: float) -> float:
    """CMC eq. 2 to 5, one anchor after the other: -log of the share of its own window among all windows of the other modality."""
    pairs = []
    for one, other in combinations(projections, 2):
        both = [i for i in range(B) if present[one][i] and present[other][i]]
        if len(both) < 2:
            continue
        directions = []
        for anchors, candidates in ((one, other), (other, one)):
            total = 0.0
            for i in both:
                exponentials = {a: math.exp(float(projections[anchors][i] @ projections[candidates][a]) / temperature) for a in both}
                total -= math.log(exponentials[i] / sum(exponentials.values())) / len(both)
            directions.append(total)
        pairs.append(sum(directions) / 2)
    return sum(pairs) / len(pairs)


@pytest.mark.parametrize("names", [NAMES[:2], NAMES])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_loss_equals_the_loop_over_pairs_and_anchors(batch: Batch, names: tuple[str, ...], temperature: float):
    projections, present = ({name: values[name] for name in names} for values in batch)
    loss, _ = CrossModalLoss(temperature=temperature)(projections, present)
    assert loss.item() == pytest.approx(reference(projections, present, temperature), rel=1e-12)


def test_two_windows_by_hand():
    """Cosines of one modality's windows with the other's: 1 and 0 for the first, 1/2 and 1/2 sqrt 3 for the second, temperature 1."""
    one = torch.tensor([[1.0, 0.0], [0.5, 3**0.5 / 2]], dtype=torch.float64)
    other = torch.eye(2, dtype=torch.float64)
    e, half, sine = math.e, math.exp(0.5), math.exp(3**0.5 / 2)
    towards_other = [-math.log(e / (e + 1)), -math.log(sine / (half + sine))]
    towards_one = [-math.log(e / (e + half)), -math.log(sine / (1 + sine))]
    everywhere = torch.ones(2, dtype=torch.bool)
    loss, _ = CrossModalLoss(temperature=1.0)({"a": one, "b": other}, {"a": everywhere, "b": everywhere})
    assert loss.item() == pytest.approx(sum(towards_other + towards_one) / 4, rel=1e-12)


def test_the_order_of_windows_changes_nothing(batch: Batch):
    order = torch.randperm(B, generator=torch.Generator().manual_seed(1))
    shuffled = ({name: values[order] for name, values in each.items()} for each in batch)
    assert CrossModalLoss()(*shuffled)[0].item() == pytest.approx(CrossModalLoss()(*batch)[0].item(), rel=1e-12)


def test_the_order_of_modalities_changes_nothing(batch: Batch):
    for order in permutations(NAMES):
        reordered = ({name: values[name] for name in order} for values in batch)
        assert CrossModalLoss()(*reordered)[0].item() == pytest.approx(CrossModalLoss()(*batch)[0].item(), rel=1e-12)


def test_one_modality_alone_has_nothing_to_be_told_apart_from(batch: Batch):
    projections, present = ({"heart": values["heart"]} for values in batch)
    assert not CrossModalLoss()(projections, present)[1]["heart"]


def test_windows_that_lack_a_modality_of_a_pair_do_not_count_in_it(batch: Batch):
    projections, present = ({name: values[name] for name in NAMES[:2]} for values in batch)
    rubbish = projections | {"gyroscope": projections["gyroscope"].masked_fill(~present["gyroscope"][:, None], float("nan"))}
    assert torch.equal(CrossModalLoss()(rubbish, present)[0], CrossModalLoss()(projections, present)[0])
    kept = present["gyroscope"]
    alone = ({name: values[kept] for name, values in each.items()} for each in (projections, present))
    assert CrossModalLoss()(projections, present)[0].item() == pytest.approx(CrossModalLoss()(*alone)[0].item(), rel=1e-12)


@pytest.mark.parametrize("shared", [0, 1])
def test_a_pair_that_shares_fewer_than_two_windows_is_left_out(batch: Batch, shared: int):
    projections, present = batch
    first_two = ({name: values[name] for name in NAMES[:2]} for values in (projections, present))
    few = present | {"heart": torch.arange(B) < shared}
    assert CrossModalLoss()(projections, few)[0].item() == pytest.approx(CrossModalLoss()(*first_two)[0].item(), rel=1e-12)
    compared = CrossModalLoss()(projections, few)[1]
    assert {name: bool(of_it) for name, of_it in compared.items()} == {"accelerometer": True, "gyroscope": True, "heart": False}
    loss, compared = CrossModalLoss()({name: projections[name] for name in ("accelerometer", "heart")}, few)
    assert not any(compared.values())
    assert loss.item() == 0


def test_pulling_modalities_of_a_window_together_lowers_the_loss(batch: Batch):
    projections, present = batch
    centres = normalize(torch.randn(B, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64), dim=1)
    closer = {name: normalize(values + 2 * centres, dim=1) for name, values in projections.items()}
    assert CrossModalLoss()(closer, present)[0] < CrossModalLoss()(projections, present)[0]


@pytest.mark.parametrize("spread", [0.0, 1e-4, 1.0])
@pytest.mark.parametrize("apart", [False, True])
def test_gradients_are_finite_from_collapsed_to_perfect(batch: Batch, spread: float, apart: bool):
    """All windows at one point, or each at a corner of its own."""
    _, present = batch
    random = torch.Generator().manual_seed(4)
    centres = torch.eye(B) if apart else torch.eye(B)[:1].expand(B, B)
    points = {name: (centres + spread * torch.randn(B, B, generator=random)).requires_grad_() for name in NAMES}
    loss, _ = CrossModalLoss()({name: normalize(values, dim=1) for name, values in points.items()}, present)
    loss.backward()
    assert loss.isfinite()
    assert loss.dtype == torch.float32
    for name, values in points.items():
        assert values.grad.isfinite().all()
        assert not values.grad[~present[name]].any()
