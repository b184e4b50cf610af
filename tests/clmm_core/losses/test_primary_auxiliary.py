import math

import pytest
import torch
from torch import Tensor

from clmm_core.losses.primary_auxiliary import PrimaryAuxiliaryLoss

CLASSES = torch.tensor([2, 0, 1, 1, 2])


def logits(seed: int) -> Tensor:
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cross_entropy(scores: Tensor, rows: list[int]) -> float:
    """Mean over `rows` of -log softmax(scores)[class]."""
    total = 0.0
    for row in rows:
        exponentials = [math.exp(value) for value in scores[row].tolist()]
        total -= math.log(exponentials[CLASSES[row]] / sum(exponentials))
    return total / len(rows)


@pytest.mark.parametrize("weight", [0.0, 0.3, 2.0])
def test_loss_equals_the_loop_over_present_windows(weight: float):
    heads = {"linear": logits(1), "accelerometer": logits(2), "gyroscope": logits(3)}
    present = {"accelerometer": torch.ones(5, dtype=torch.bool), "gyroscope": torch.tensor([True, False, False, True, True])}
    everyone = list(range(5))
    terms = [cross_entropy(heads["linear"], everyone), cross_entropy(heads["accelerometer"], everyone)]
    terms.append(cross_entropy(heads["gyroscope"], [0, 3, 4]))
    loss = PrimaryAuxiliaryLoss(weight=weight)(logits(0), heads, present, CLASSES)
    assert loss.item() == pytest.approx(cross_entropy(logits(0), everyone) + weight * sum(terms) / 3, rel=1e-12)


def test_absent_windows_neither_count_nor_learn():
    present = {"gyroscope": torch.tensor([True, False, False, True, True])}
    losses = []
    for noise in (0.0, 100.0):
        head = (logits(3) + noise * (~present["gyroscope"])[:, None] * logits(4)).requires_grad_()
        losses.append(PrimaryAuxiliaryLoss()(logits(0), {"gyroscope": head}, present, CLASSES))
        losses[-1].backward()
        assert not head.grad[[1, 2]].any()
        assert head.grad[[0, 3, 4]].all()
    assert losses[0].item() == losses[1].item()


def test_a_modality_no_window_has_counts_as_if_there_were_no_such_head():
    heads, present = {"linear": logits(1), "shared": logits(2)}, {"gyroscope": torch.zeros(5, dtype=torch.bool)}
    without = PrimaryAuxiliaryLoss()(logits(0), heads, {}, CLASSES)
    absent = PrimaryAuxiliaryLoss()(logits(0), {**heads, "gyroscope": logits(3)}, present, CLASSES)
    assert absent.item() == pytest.approx(without.item(), rel=1e-12)


@pytest.mark.parametrize("heads", [{}, {"gyroscope": logits(3)}])
def test_without_an_auxiliary_head_that_speaks_only_the_primary_counts(heads: dict[str, Tensor]):
    absent = {"gyroscope": torch.zeros(5, dtype=torch.bool)}
    loss = PrimaryAuxiliaryLoss()(logits(0), heads, absent, CLASSES)
    assert loss.item() == pytest.approx(cross_entropy(logits(0), list(range(5))), rel=1e-12)


def test_two_windows_by_hand():
    """Even logits over two classes cost log 2 on every head."""
    even = torch.zeros(2, 2)
    loss = PrimaryAuxiliaryLoss(weight=0.3)(even, {"linear": even, "shared": even}, {}, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(1.3 * math.log(2))


@pytest.mark.parametrize("weight", [0.0, 0.3])
@pytest.mark.parametrize("num_counting", [1, 3, 5])
def test_windows_that_do_not_count_change_neither_the_loss_nor_a_gradient(weight: float, num_counting: int):
    """Two of the heads speak for a modality that some windows, counting or not, lack."""
    masks = {"accelerometer": torch.tensor([True, False, True, True, False]), "gyroscope": torch.tensor([False, True, False, True, True])}
    counts = torch.arange(5) < num_counting
    results = []
    for rows, counted in ((counts, None), (torch.ones(5, dtype=torch.bool), counts)):
        heads = {name: logits(seed)[rows].requires_grad_() for seed, name in enumerate(("primary", "linear", "accelerometer", "gyroscope"))}
        auxiliary = {name: values for name, values in heads.items() if name != "primary"}
        present = {name: mask[rows] for name, mask in masks.items()}
        loss = PrimaryAuxiliaryLoss(weight=weight)(heads["primary"], auxiliary, present, CLASSES[rows], counted)
        loss.backward()
        results.append((loss.item(), {name: values.grad for name, values in heads.items()}))
    (expected, expected_slopes), (value, slopes) = results
    assert value == pytest.approx(expected, rel=1e-12)
    for name, slope in slopes.items():
        torch.testing.assert_close(slope[counts], expected_slopes[name], rtol=1e-12, atol=1e-15)
        assert not slope[~counts].any()


def test_where_all_windows_count_it_is_as_if_nobody_had_asked():
    heads, present = {"linear": logits(1), "gyroscope": logits(2)}, {"gyroscope": CLASSES > 0}
    plain = PrimaryAuxiliaryLoss()(logits(0), heads, present, CLASSES)
    assert torch.equal(PrimaryAuxiliaryLoss()(logits(0), heads, present, CLASSES, torch.ones(5, dtype=torch.bool)), plain)


def test_where_no_window_counts_the_loss_is_0_and_pulls_at_nothing():
    primary, head = logits(0).requires_grad_(), logits(1).requires_grad_()
    loss = PrimaryAuxiliaryLoss()(primary, {"linear": head}, {}, CLASSES, torch.zeros(5, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert not primary.grad.any()
    assert not head.grad.any()
