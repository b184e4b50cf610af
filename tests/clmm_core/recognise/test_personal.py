"""What makes a model somebody's own, on made-up logits."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clmm_core.errors import ModelFileError
from clmm_core.recognise.personal import FORMAT, PersonalHead, head_json, learn_head, read_head

CHANGES_NOTHING = PersonalHead(format=FORMAT, weights=((1.0, 0.0), (0.0, 1.0)), bias=(0.0, 0.0), num_windows=6)


def wearer(random: np.random.Generator, count: int, turned: bool) -> tuple[np.ndarray, np.ndarray]:
    """Make logits of three classes; of a wearer that it gets wrong, the model says the first too often."""
    classes = np.arange(count) * 3 // count
    scaled = random.normal(0, 0.6, (count, 3)) + 2.0 * np.eye(3)[classes]
    if turned:
        scaled[:, 0] += 2.5
    return scaled, classes


def share_right(probabilities: np.ndarray, classes: np.ndarray) -> float:
    return float((probabilities.argmax(axis=1) == classes).mean())


def test_of_a_wearer_that_the_model_gets_wrong_it_gets_more_right():
    random = np.random.default_rng(0)
    head = learn_head(*wearer(random, 30, turned=True))
    assert head is not None
    assert head.num_windows == 30
    scaled, classes = wearer(random, 600, turned=True)
    assert share_right(head.probabilities(scaled), classes) > share_right(scaled, classes) + 0.1


def test_of_a_wearer_that_the_model_gets_right_there_is_none():
    assert learn_head(*wearer(np.random.default_rng(1), 60, turned=False)) is None


def test_too_few_windows_or_one_activity_make_none():
    scaled, classes = wearer(np.random.default_rng(2), 6, turned=True)
    assert learn_head(scaled, classes) is None, "two a class"
    assert learn_head(np.zeros((0, 3)), np.zeros(0, np.int64)) is None
    scaled, _ = wearer(np.random.default_rng(3), 30, turned=True)
    assert learn_head(scaled, np.ones(30, np.int64)) is None


def test_a_head_that_changes_nothing_gives_the_model_s_own_probabilities():
    scaled = np.array([[2.0, -1.0], [0.0, 0.0], [-800.0, 800.0]])
    shares = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    np.testing.assert_allclose(CHANGES_NOTHING.probabilities(scaled), shares / shares.sum(axis=1, keepdims=True))


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2), min_size=1, max_size=5))
def test_probabilities_are_probabilities(rows: list[list[float]]):
    head = PersonalHead(format=FORMAT, weights=((0.5, 3.0), (-2.0, 1.0)), bias=(4.0, -1.0), num_windows=9)
    found = head.probabilities(np.array(rows))
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_it_is_written_and_read_back():
    assert read_head(head_json(CHANGES_NOTHING), 2, "a file") == CHANGES_NOTHING


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        json.dumps({"format": 1}),
        head_json(CHANGES_NOTHING).replace('"format": 1', '"format": 2'),
        head_json(CHANGES_NOTHING).replace("[[1.0, 0.0], [0.0, 1.0]]", "[[1.0, 0.0]]"),
        head_json(CHANGES_NOTHING).replace("[[1.0, 0.0], [0.0, 1.0]]", "[[1.0], [0.0]]"),
        head_json(CHANGES_NOTHING).replace('"bias": [0.0, 0.0]', '"bias": [0.0]'),
    ],
)
def test_what_is_none_is_refused(text: str):
    with pytest.raises(ModelFileError, match="remove the file"):
        read_head(text, 2, "a file")


def test_one_of_other_classes_is_refused():
    with pytest.raises(ModelFileError, match="and 3 classes"):
        read_head(head_json(CHANGES_NOTHING), 3, "a file")
