import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, vmap

from clmm_core.training.draws import Draws

KEYS = st.integers(-(2**63), 2**63 - 1)
of_any_key = settings(max_examples=30, deadline=None)  # the first call of the operation takes a second
each_kind = pytest.mark.parametrize("normal", [False, True], ids=["uniform", "normal"])


def keyed(key: int) -> Draws:
    return Draws(torch.tensor(key))


def drawn(draws: Draws, *shape: int, normal: bool) -> Tensor:
    return draws.normal(*shape) if normal else draws.uniform(*shape)


def correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


@of_any_key
@given(KEYS)
def test_the_same_key_draws_the_same_numbers(key: int):
    one, other = keyed(key), keyed(key)
    for _ in range(2):
        assert torch.equal(one.uniform(3, 2), other.uniform(3, 2))
        assert torch.equal(one.normal(4), other.normal(4))
        assert torch.equal(one.permutation(5), other.permutation(5))


@each_kind
def test_another_key_another_draw_or_another_step_has_nothing_to_do_with_it(normal: bool):
    """Neighbouring keys and steps too, where a weak hash would show: of 20,000 numbers, a correlation of 0.03 is four deviations."""
    first = keyed(5)
    draws = [drawn(each, 20_000, normal=normal) for each in (first, first, keyed(6), keyed(-5), keyed(5).step(0), keyed(5).step(1))]
    draws.append(drawn(keyed(6).step(0), 20_000, normal=normal))
    for i, one in enumerate(draws):
        for other in draws[:i]:
            assert abs(correlation(one, other)) < 0.03


def test_numbers_that_follow_each_other_are_not_related():
    numbers = keyed(9).uniform(40_001)
    for lag in (1, 2, 7, 1000):
        assert abs(correlation(numbers[lag:40_000], numbers[: 40_000 - lag])) < 0.03


@of_any_key
@given(KEYS, st.integers(1, 6), st.integers(0, 6), st.lists(st.integers(1, 4), max_size=2), st.booleans())
def test_a_draw_that_is_longer_in_its_first_dimension_begins_with_the_shorter_one(
    key: int, count: int, more: int, rest: list[int], normal: bool
):
    short, long = (drawn(keyed(key).step(3), size, *rest, normal=normal) for size in (count, count + more))
    assert short.shape == (count, *rest)
    assert torch.equal(long[:count], short)


def test_a_longer_draw_does_not_change_the_next_one():
    one, other = keyed(1), keyed(1)
    one.uniform(3)
    other.uniform(300)
    assert torch.equal(one.uniform(5), other.uniform(5))


def test_uniform_numbers_are_uniform():
    """Kolmogorov and Smirnov's distance at the level of one in a million."""
    numbers = keyed(11).uniform(200, 250)
    assert (numbers.shape, numbers.dtype) == ((200, 250), torch.float32)
    assert 0 <= numbers.min() < numbers.max() < 1
    ordered, even = numbers.flatten().double().sort().values, torch.arange(1, 50_001, dtype=torch.float64) / 50_000
    assert (ordered - even).abs().max() < 2.7 / math.sqrt(50_000)


def test_normal_numbers_are_normal():
    numbers = keyed(11).normal(200, 250)
    assert (numbers.shape, numbers.dtype) == ((200, 250), torch.float32)
    assert numbers.isfinite().all()
    assert numbers.mean().item() == pytest.approx(0, abs=0.025)
    assert numbers.var().item() == pytest.approx(1, abs=0.035)
    ordered, even = numbers.flatten().double().sort().values, torch.arange(1, 50_001, dtype=torch.float64) / 50_000
    assert (torch.special.ndtr(ordered) - even).abs().max() < 2.7 / math.sqrt(50_000)


@of_any_key
@given(KEYS, st.integers(1, 50))
def test_a_permutation_holds_every_number_once(key: int, count: int):
    order = keyed(key).permutation(count)
    assert order.dtype == torch.int64
    assert sorted(order.tolist()) == list(range(count))


def test_every_order_of_three_comes_about_as_often():
    orders = [tuple(Draws(key).permutation(3).tolist()) for key in torch.arange(1200)]
    counts = {order: orders.count(order) for order in orders}
    assert len(counts) == 6
    assert all(140 < count < 260 for count in counts.values()), "200 each, of a deviation of 13"


@of_any_key
@given(st.lists(KEYS, min_size=1, max_size=5), st.integers(0, 1000))
def test_in_a_stack_each_draws_what_it_draws_alone(keys: list[int], number: int):
    def several(key: Tensor) -> tuple[Tensor, ...]:
        draws = Draws(key)
        step = draws.step(torch.tensor(number))
        return draws.uniform(4), draws.normal(2, 3), step.uniform(2, 1, 2), step.normal(1), step.permutation(6), draws.permutation(3)

    together = vmap(several)(torch.tensor(keys))
    for i, key in enumerate(keys):
        for rows, alone in zip(together, several(torch.tensor(key)), strict=True):
            assert torch.equal(rows[i], alone)


def test_many_keys_at_once_draw_what_each_draws_alone():
    keys = torch.tensor([3, -8, 2**62])
    together = Draws(keys)
    first, second = together.uniform(4, 2), together.normal(5)
    for i, key in enumerate(keys):
        alone = Draws(key)
        assert torch.equal(first[i], alone.uniform(4, 2))
        assert torch.equal(second[i], alone.normal(5))


@of_any_key
@given(KEYS, st.integers(0, 2**40))
def test_a_step_is_the_same_whether_its_number_is_a_tensor_and_whatever_was_drawn_before(key: int, number: int):
    before = keyed(key)
    before.uniform(3)
    expected = keyed(key).step(number).uniform(2)
    assert torch.equal(before.step(torch.tensor(number)).uniform(2), expected)
