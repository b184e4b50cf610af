"""Numbers that are a hash, against SplitMix64 written out in Python's own whole numbers."""

import math
import os
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, vmap

from clmm_core.training.keyed_numbers import keyed_numbers, mixed

KEYS = st.integers(-(2**63), 2**63 - 1)
BITS_64 = 2**64
of_any_key = settings(max_examples=30, deadline=None)  # the first call of the operation takes a second


def mixed_by_hand(bits: int) -> int:
    """SplitMix64's finaliser, unsigned."""
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 % BITS_64
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB % BITS_64
    return bits ^ (bits >> 31)


def hashed(key: int, count: int) -> list[int]:
    """The state walks on by the golden ratio's share of 2^64, and each place is finalised."""
    return [mixed_by_hand((key + place * 0x9E3779B97F4A7C15) % BITS_64) for place in range(1, count + 1)]


def uniform_by_hand(key: int, count: int) -> list[float]:
    """Two of each hash: of its lower and of its upper half the highest 24 bits."""
    pairs = [((bits >> 8) % 2**24 / 2**24, (bits >> 40) / 2**24) for bits in hashed(key, (count + 1) // 2)]
    return [share for pair in pairs for share in pair][:count]


def normal_by_hand(key: int, count: int) -> list[float]:
    """Box and Muller: of each pair a length, in the middle of its step, and a turn."""
    uniform = uniform_by_hand(key, count + count % 2)
    lengths = [math.sqrt(-2 * math.log(share + 2**-25)) for share in uniform[::2]]
    turns = [2 * math.pi * share for share in uniform[1::2]]
    pairs = [(length * math.cos(turn), length * math.sin(turn)) for length, turn in zip(lengths, turns, strict=True)]
    return [number for pair in pairs for number in pair][:count]


@of_any_key
@given(KEYS)
def test_mixing_is_that_of_splitmix64(key: int):
    assert mixed(torch.tensor(key)).item() % BITS_64 == mixed_by_hand(key % BITS_64)


def test_the_first_numbers_of_splitmix64_from_seed_0_are_the_published_ones():
    """As in the reference code of Vigna, `splitmix64.c`, and in Java's `SplittableRandom`."""
    assert hashed(0, 3) == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


@of_any_key
@given(KEYS, st.integers(1, 40))
def test_uniform_numbers_are_the_highest_bits_of_either_half(key: int, count: int):
    assert keyed_numbers(torch.tensor(key), count, False).tolist() == uniform_by_hand(key % BITS_64, count)


@of_any_key
@given(KEYS, st.integers(1, 40))
def test_normal_numbers_are_box_and_mullers(key: int, count: int):
    numbers = keyed_numbers(torch.tensor(key), count, True)
    assert numbers.dtype == torch.float32
    assert numbers.tolist() == pytest.approx(normal_by_hand(key % BITS_64, count), rel=1e-4, abs=2e-6)


@of_any_key
@given(st.lists(KEYS, min_size=1, max_size=4), st.booleans())
def test_a_stack_of_keys_gives_each_row_what_its_key_gives_alone(keys: list[int], normal: bool):
    stack = torch.tensor(keys)
    rows = torch.stack([keyed_numbers(key, 7, normal) for key in stack])
    assert torch.equal(keyed_numbers(stack, 7, normal), rows)
    assert torch.equal(vmap(lambda key: keyed_numbers(key, 7, normal))(stack), rows)


def test_stacks_of_stacks_and_other_dimensions_are_stacked_too():
    stack = torch.arange(6).view(2, 3)
    plain = keyed_numbers(stack, 5, False)
    assert plain.shape == (2, 3, 5)
    assert torch.equal(vmap(vmap(lambda key: keyed_numbers(key, 5, False)))(stack), plain)
    assert torch.equal(vmap(lambda keys: keyed_numbers(keys, 5, False), in_dims=1)(stack), plain.transpose(0, 1))


@pytest.fixture
def kernel() -> Callable[..., Tensor]:
    pytest.importorskip("triton", reason="Triton comes with PyTorch for GPUs alone")
    if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("needs a GPU, or TRITON_INTERPRET=1")
    from clmm_core.training.keyed_kernel import draw  # noqa: PLC0415  only where there is Triton

    return draw


@pytest.mark.parametrize("normal", [False, True])
@pytest.mark.parametrize("count", [1, 1023, 1024, 1025, 3000])
def test_the_kernel_draws_the_same_numbers(kernel: Callable[..., Tensor], count: int, normal: bool):
    """Up to the last bits of logarithm and cosine where they are normal."""
    keys = torch.tensor([[0, 1, -1], [2**63 - 1, -(2**63), 1234567890123456789]])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    drawn = kernel(keys.to(device), count, normal=normal).cpu()
    expected = keyed_numbers(keys, count, normal)
    assert drawn.shape == expected.shape == (2, 3, count)
    torch.testing.assert_close(drawn, expected, rtol=0, atol=2e-5 if normal else 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("normal", [False, True])
def test_a_gpu_draws_what_the_cpu_draws(normal: bool):
    keys = torch.arange(-3, 3)
    stacked = vmap(lambda key: keyed_numbers(key, 2000, normal))(keys.cuda()).cpu()
    torch.testing.assert_close(stacked, keyed_numbers(keys, 2000, normal), rtol=0, atol=2e-5 if normal else 0)
