"""What is sent and what is left out is what there was to send, over any rounds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clmm_core.federated.arrays import Arrays
from clmm_core.federated.error_feedback import packed_with_feedback
from clmm_core.federated.quantise import unpack

SHAPES = {"modalities.acc.w": (40, 9), "modalities.gyro.w": (300,), "primary.w": (3,)}


def update(seed: int, *names: str) -> Arrays:
    random = np.random.default_rng(seed)
    return {name: random.normal(0, 1e-3, SHAPES[name]).astype(np.float32) for name in names or SHAPES}


@pytest.mark.parametrize("bits", [8, 4])
@given(rounds=st.lists(st.sets(st.sampled_from(sorted(SHAPES)), min_size=1), min_size=1, max_size=12))
def test_what_was_sent_and_what_is_left_add_up(bits: int, rounds: list[set[str]]):
    """Whichever parts a round has: a modality that nobody had this time waits with what it is owed."""
    wanted, sent = ({name: np.zeros(shape) for name, shape in SHAPES.items()} for _ in range(2))
    left: Arrays = {}
    for number, names in enumerate(rounds):
        mine = update(number, *sorted(names))
        packed, left = packed_with_feedback(mine, left, bits, np.random.default_rng(number))
        for name, values in unpack(packed, bits, mine).items():
            sent[name] += values
            wanted[name] += mine[name]
    for name in set().union(*rounds):
        np.testing.assert_allclose(sent[name] + left[name], wanted[name], rtol=0, atol=1e-8)
    assert {name: values.shape for name, values in left.items()} == {name: SHAPES[name] for name in set().union(*rounds)}


def test_what_is_left_out_stays_as_small_as_after_one_round():
    """Fifty rounds in one direction: without feedback the error would grow with their number."""
    mine, left, sizes = update(0), {}, []
    for number in range(50):
        _, left = packed_with_feedback(mine, left, 4, np.random.default_rng(number))
        sizes.append(np.sqrt(sum(float((values**2).sum()) for values in left.values())))
    assert max(sizes) < 2 * sizes[0]


def test_what_is_left_of_an_array_of_another_shape_is_forgotten():
    mine = update(1)
    without = packed_with_feedback(mine, {}, 4, np.random.default_rng(0))
    other = {"primary.w": np.ones(4, np.float32)}
    packed, left = packed_with_feedback(mine, other, 4, np.random.default_rng(0))
    assert all(np.array_equal(packed[name], data) for name, data in without[0].items())
    assert all(np.array_equal(left[name], values) for name, values in without[1].items())
    assert left["primary.w"].shape == (3,)


def test_nothing_that_was_given_is_changed():
    mine, owed = update(2), update(3)
    before = {name: values.copy() for name, values in (mine | {f"owed.{name}": values for name, values in owed.items()}).items()}
    packed_with_feedback(mine, owed, 4, np.random.default_rng(0))
    assert all(np.array_equal(before[name], values) for name, values in mine.items())
    assert all(np.array_equal(before[f"owed.{name}"], values) for name, values in owed.items())
