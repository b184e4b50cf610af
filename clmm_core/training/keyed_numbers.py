"""Numbers that are a hash of a key and their place, as an operation that `torch.vmap` stacks: one kernel on a GPU.

Source: SplitMix64, Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", figure 13; normal numbers by Box and
Muller 1958.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Words = NDArray[np.uint64]

GAMMA = 0x9E3779B97F4A7C15 - 2**64
"""2^64 divided by the golden ratio, as int64 has it."""
MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
MIX_2 = 0x94D049BB133111EB - 2**64
BITS = 24
"""Of a float32's mantissa."""
IN_CACHE = 2**14
"""Numbers made at once on a CPU: they stay in its cache."""


def mixed(bits: Tensor) -> Tensor:
    """Return int64 in which every bit depends on every bit of `bits`, one to one."""
    bits = (bits ^ _shifted(bits, 30)) * MIX_1
    bits = (bits ^ _shifted(bits, 27)) * MIX_2
    return bits ^ _shifted(bits, 31)


@torch.library.custom_op("clmm::keyed_numbers", mutates_args=())
def keyed_numbers(keys: Tensor, count: int, normal: bool) -> Tensor:
    """Return `[..., count]` float32 of keys `[...]` int64: uniform in [0, 1), or normal of mean 0 and deviation 1.

    A hash gives two: a uniform number for its lower and one for its upper half, or of these two a pair of normal ones.
    """
    if keys.is_cuda:
        from clmm_core.training.keyed_kernel import draw  # noqa: PLC0415  Triton, which only PyTorch for GPUs brings

        return draw(keys, count, normal=normal)
    unsigned = keys.contiguous().numpy().view(np.uint64).reshape(-1)
    rows = torch.empty(len(unsigned), count)
    at_once = max(1, IN_CACHE // max(count, 1))
    for first in range(0, len(rows), at_once):
        pairs = _uniform_pairs(_hashed(unsigned[first : first + at_once], (count + 1) // 2))
        rows[first : first + at_once] = (_normal_pairs(pairs) if normal else pairs).flatten(1)[:, :count]
    return rows.view(*keys.shape, count)


@keyed_numbers.register_vmap
def _stacked(info: Any, in_dims: tuple[int | None, ...], keys: Tensor, count: int, normal: bool) -> tuple[Tensor, int]:
    del info
    assert in_dims[0] is not None
    return keyed_numbers(keys.movedim(in_dims[0], 0), count, normal), 0


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Return `bits` shifted right with zeros coming in, where int64 would bring in its sign."""
    shifted: Tensor = (bits >> by) & (2 ** (64 - by) - 1)
    return shifted


def _hashed(keys: Words, count: int) -> Words:
    """Return `[keys, count]`: of each key, the hash of its places from 1 on. In NumPy: PyTorch takes three times as long."""
    bits = keys[:, None] + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GAMMA + 2**64)
    shifted = bits >> np.uint64(30)
    for factor, by in ((MIX_1, 27), (MIX_2, 31)):
        bits ^= shifted
        bits *= np.uint64(factor + 2**64)
        np.right_shift(bits, np.uint64(by), out=shifted)
    bits ^= shifted
    return bits


def _uniform_pairs(bits: Words) -> Tensor:
    """Return `[keys, hashes, 2]` in [0, 1): the highest bits of the lower half of each hash, and those of its upper half."""
    halves = bits.view(np.uint32)
    halves >>= np.uint32(32 - BITS)
    return torch.from_numpy(halves.view(np.int32)).float().mul_(2.0**-BITS).view(*bits.shape, 2)


def _normal_pairs(uniform: Tensor) -> Tensor:
    """Return `[keys, hashes, 2]`: the first of a pair is the length, in the middle of its step, the other one the turn."""
    length = (uniform[..., 0] + 2.0 ** -(BITS + 1)).log_().mul_(-2).sqrt_()
    turn = 2 * math.pi * uniform[..., 1]
    return torch.stack([length * turn.cos(), length * turn.sin()], dim=-1)
