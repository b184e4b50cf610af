"""Numbers that are a hash of a key and their place, as an operation that `torch.vmap` stacks: one kernel on a GPU.

Source: SplitMix64, Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", figure 13; normal numbers by Box and
Muller 1958.
"""

import math
from typing import Any

import torch
from torch import Tensor

GAMMA = 0x9E3779B97F4A7C15 - 2**64
"""2^64 divided by the golden ratio, as int64 has it."""
MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
MIX_2 = 0x94D049BB133111EB - 2**64
BITS = 24
"""Of a float32's mantissa."""


def mixed(bits: Tensor) -> Tensor:
    """Return int64 in which every bit depends on every bit of `bits`, one to one."""
    bits = (bits ^ _shifted(bits, 30)) * MIX_1
    bits = (bits ^ _shifted(bits, 27)) * MIX_2
    return bits ^ _shifted(bits, 31)


@torch.library.custom_op("clmm::keyed_numbers", mutates_args=())
def keyed_numbers(keys: Tensor, count: int, normal: bool) -> Tensor:
    """Return `[..., count]` float32 of keys `[...]` int64: uniform in [0, 1), or normal of mean 0 and deviation 1."""
    if keys.is_cuda:
        from clmm_core.training.keyed_kernel import draw  # noqa: PLC0415  Triton, which only PyTorch for GPUs brings

        return draw(keys, count, normal=normal)
    place = torch.arange(1, count + 1, device=keys.device)
    bits = mixed(keys[..., None] + place * GAMMA)
    if not normal:
        return _share(bits, 64 - BITS)
    length = (-2 * (_share(bits, 64 - BITS) + 2.0 ** -(BITS + 1)).log()).sqrt()
    return length * (2 * math.pi * _share(bits, 64 - 2 * BITS)).cos()


@keyed_numbers.register_vmap
def _stacked(info: Any, in_dims: tuple[int | None, ...], keys: Tensor, count: int, normal: bool) -> tuple[Tensor, int]:
    del info
    assert in_dims[0] is not None
    return keyed_numbers(keys.movedim(in_dims[0], 0), count, normal), 0


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Return `bits` shifted right with zeros coming in, where int64 would bring in its sign."""
    shifted: Tensor = (bits >> by) & (2 ** (64 - by) - 1)
    return shifted


def _share(bits: Tensor, by: int) -> Tensor:
    """Return the `BITS` bits above bit `by` as a share in [0, 1)."""
    share: Tensor = (_shifted(bits, by) & (2**BITS - 1)).float() * 2.0**-BITS
    return share
