"""What a processor can do at most, as measured on it, and what a step of training asks of it, as counted."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

REPEATS = 5
MATRIX = {"cpu": 1024, "cuda": 8192}
"""Rows of the square matrices that are multiplied."""
COPIED = {"cpu": 2**26, "cuda": 2**30}
"""Bytes that are copied."""


class ByteCounter(TorchDispatchMode):
    """Adds up the bytes that operations read and write, each tensor of each operation once; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.num_operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the operation and count its bytes."""
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [each for each in _leaves((args, kwargs, out)) if isinstance(each, Tensor)]
            self.total += sum(each.numel() * each.element_size() for each in tensors)
            self.num_operations += 1
        return out


def _leaves(tree: Any) -> list[Any]:
    leaves: list[Any] = torch.utils._pytree.tree_leaves(tree)
    return leaves


def counted(step: Callable[[], object]) -> tuple[int, int, int]:
    """Return the floating-point operations of matrix products, the bytes moved and the operations called in a step."""
    with FlopCounterMode(display=False) as flops:
        step()
    with ByteCounter() as moved:
        step()
    return flops.get_total_flops(), moved.total, moved.num_operations


def matmul_rate(device: torch.device) -> float:
    """Return the floating-point operations a second of a large product of float32 matrices, as precise as PyTorch is set."""
    size = MATRIX[device.type]
    one, other = (torch.randn(size, size, device=device) for _ in range(2))
    return 2 * size**3 / seconds(lambda: one @ other, device)


def copy_rate(device: torch.device) -> float:
    """Return the bytes read and written a second by a large copy."""
    source = torch.zeros(COPIED[device.type] // 4, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED[device.type] / seconds(lambda: target.copy_(source), device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return how long work takes, the median of some times after a first one."""
    work()
    return median(timed(work, device) for _ in range(REPEATS))


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Return how long work takes once, in seconds, to the end of what it started on the device."""
    _finish(device)
    since_s = time.perf_counter()
    work()
    _finish(device)
    return time.perf_counter() - since_s


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
