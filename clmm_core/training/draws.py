"""Random numbers for one device's training, from one key, on any processor: a hash of the key, of which draw it is, and of the place in it.

Unlike a generator, which is a state on one processor, a key can be one of a stack: devices trained together (`together.py`) draw
what each draws alone.
"""

import math

import torch
from torch import Tensor

from clmm_core.training.keyed_numbers import GAMMA, keyed_numbers, mixed


class Draws:
    """Where augmentations, views, dropout and batches take their random numbers from.

    The key is an int64 scalar on the processor that is to draw, or one of a stack under `torch.vmap`. A draw that is longer in its first
    dimension begins with the shorter one: a batch that is filled up draws what it draws alone.
    """

    def __init__(self, key: Tensor) -> None:
        self._key = key
        self._drawn = 0

    def uniform(self, *shape: int) -> Tensor:
        """Return float32 of `shape`, uniform in [0, 1)."""
        return self._numbers(shape, normal=False)

    def normal(self, *shape: int) -> Tensor:
        """Return float32 of `shape`, of mean 0 and deviation 1."""
        return self._numbers(shape, normal=True)

    def permutation(self, count: int) -> Tensor:
        """Return `[count]` int64: 0 .. count - 1 in random order."""
        return self.uniform(count).argsort()

    def step(self, number: int | Tensor) -> "Draws":
        """Return the draws of one training step, counted from 0; the number may be an int64 scalar."""
        return Draws(mixed(self._key ^ mixed(torch.as_tensor(number, dtype=torch.int64, device=self._key.device) * GAMMA + 1)))

    def _numbers(self, shape: tuple[int, ...], *, normal: bool) -> Tensor:
        self._drawn += 1
        stream = mixed(self._key + _wrapped(self._drawn * GAMMA))
        numbers: Tensor = keyed_numbers(stream, math.prod(shape), normal)
        return numbers.view(*self._key.shape, *shape)


def _wrapped(number: int) -> int:
    """Return what int64 holds of a whole number."""
    return (number + 2**63) % 2**64 - 2**63
