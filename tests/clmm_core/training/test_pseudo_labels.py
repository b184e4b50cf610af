import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clmm_core.training.device_tensors import NO_CLASS
from clmm_core.training.pseudo_labels import TURNS, aligned, pseudo_labels

NOTHING = torch.zeros(0, dtype=torch.int64)
LOGITS = torch.log(torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.4, 0.35, 0.25], [0.02, 0.08, 0.9]]))
OWN = torch.tensor([2, NO_CLASS, 1, 0])


@pytest.mark.parametrize(
    ("confidence", "rows", "classes"),
    [(0.0, [0, 1, 2, 3], [0, 1, 0, 2]), (0.5, [0, 1, 3], [0, 1, 2]), (0.85, [3], [2]), (1.0, [], [])],
)
def test_windows_are_taken_from_the_confidence_on_with_their_likeliest_class(confidence: float, rows: list[int], classes: list[int]):
    chosen, labels = pseudo_labels(LOGITS, OWN, NOTHING, confidence)
    assert chosen.tolist() == rows
    assert labels.tolist() == classes


def test_known_labels_are_kept_however_unsure_the_model_is():
    known = torch.tensor([0, 2])
    chosen, labels = pseudo_labels(LOGITS, OWN, known, 1.0)
    assert (chosen.tolist(), labels.tolist()) == ([0, 2], [2, 1])
    chosen, labels = pseudo_labels(LOGITS, OWN, known, 0.0)
    assert (chosen.tolist(), labels.tolist()) == ([0, 1, 2, 3], [2, 1, 1, 2])


def test_labels_that_do_not_count_as_known_are_not_looked_at():
    one, other = (pseudo_labels(LOGITS, own, NOTHING, 0.5) for own in (OWN, torch.full((4,), NO_CLASS)))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])


@given(st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=1, max_size=9), st.floats(0, 1))
def test_whoever_is_taken_is_sure_enough(rows: list[list[float]], confidence: float):
    logits = torch.tensor(rows)
    chosen, labels = pseudo_labels(logits, torch.full((len(rows),), NO_CLASS), NOTHING, confidence)
    sure = logits.softmax(dim=1)
    assert (sure[chosen, labels] >= confidence).all()
    left = [row for row in range(len(rows)) if row not in chosen.tolist()]
    assert (sure[left].max(dim=1).values < confidence).all() if left else True
    assert torch.equal(chosen, chosen.sort().values)


def test_inputs_stay_as_they_are():
    logits, own = LOGITS.clone(), OWN.clone()
    pseudo_labels(logits, own, torch.tensor([0]), 0.5)
    assert torch.equal(logits, LOGITS)
    assert torch.equal(own, OWN)


def test_classes_that_are_said_too_often_or_too_seldom_are_balanced_one_window_after_the_other():
    """The loop over windows and classes; of three windows alike but for a little, the least sure one is the other class."""
    share = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.8, 0.2]])
    by_hand = share.tolist()
    for _ in range(TURNS):
        said = [(sum(row[k] for row in by_hand) + 0.5) / 4 for k in range(2)]
        raised = [[row[k] * 0.5 / said[k] for k in range(2)] for row in by_hand]
        by_hand = [[value / sum(row) for value in row] for row in raised]
    torch.testing.assert_close(aligned(share, torch.tensor([0.5, 0.5])), torch.tensor(by_hand))
    rows, classes = pseudo_labels(share.log(), torch.full((3,), NO_CLASS), NOTHING, 0.5, (0.5, 0.5))
    assert (rows.tolist(), classes.tolist()) == ([0, 1, 2], [0, 0, 1])


def test_a_class_that_is_not_expected_is_never_said_and_known_labels_stay():
    rows, classes = pseudo_labels(LOGITS, OWN, torch.tensor([0]), 0.0, (0.5, 0.5, 0.0))
    assert (rows.tolist(), classes.tolist()) == ([0, 1, 2, 3], [2, 1, 0, 1])


@given(
    st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=1, max_size=9),
    st.lists(st.integers(1, 9), min_size=3, max_size=3),
)
def test_alignment_gives_probabilities_nearer_to_what_is_expected(rows: list[list[float]], shares: list[int]):
    expected = torch.tensor(shares) / sum(shares)
    share = torch.tensor(rows).softmax(dim=1)
    new = aligned(share, expected)
    torch.testing.assert_close(new.sum(dim=1), torch.ones(len(rows)))
    assert (new > 0).all()
    before, after = (kl(expected, each.mean(dim=0)) for each in (share, new))
    assert after <= before + 1e-5
    same = expected.repeat(len(rows), 1)
    torch.testing.assert_close(aligned(same, expected), same)


def kl(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the relative entropy of two distributions."""
    return float((one * (one / other).log()).sum())
