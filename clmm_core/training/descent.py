"""The optimiser's step of every device of a stack; see `local.local_optimizer` for that of one.

J = devices, N = numbers that learn, G = groups of them, each of which learns or rests in a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from clmm_core.training.local import local_optimizer
from clmm_core.training.settings import LocalConfig

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Of AdamW, as `torch.optim.AdamW` has them."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """Neighbouring columns of a stack that learn alike."""

    size: int
    group: int
    """Which columns learn or rest together with these."""
    factor: float
    """On the learning rate."""


class Descent(Protocol):
    """Moves a stack's parameters `[J, N]` in place; they and where they start a round are given at its making."""

    def begin(self, rates: Sequence[float]) -> None:
        """Start a round afresh, with a learning rate for each device."""
        ...

    def step(self, gradient: Tensor, is_active: Tensor) -> None:
        """Take a step along the gradient `[J, N]` where a device's group is active, `[J, G]` bool; the rest stays as it is."""
        ...


class RowDescent:
    """PyTorch's own optimiser over the rows of the stack: the quickest on a CPU."""

    def __init__(self, now: Tensor, start: Tensor, spans: Sequence[Span], local: LocalConfig) -> None:
        self._local = local
        self._now, self._start = now, start
        self._rows: list[tuple[int, slice, Span, nn.Parameter]] = []
        for job, row in enumerate(now):
            first = 0
            for span in spans:
                columns = slice(first, first + span.size)
                self._rows.append((job, columns, span, nn.Parameter(row[columns])))  # shares its memory
                first += span.size
        self._optimizer: Optimizer | None = None

    def begin(self, rates: Sequence[float]) -> None:
        """See `Descent`."""
        by_rate: dict[float, list[nn.Parameter]] = {}
        for job, _, span, row in self._rows:
            by_rate.setdefault(rates[job] * span.factor, []).append(row)
        of_rates = [(rows, rate) for rate, rows in by_rate.items()]
        self._optimizer = local_optimizer(of_rates, replace(self._local, learning_rate=1.0))

    def step(self, gradient: Tensor, is_active: Tensor) -> None:
        """See `Descent`."""
        assert self._optimizer is not None
        if self._local.proximal:
            gradient = gradient + self._local.proximal * (self._now - self._start)
        active = is_active.tolist()
        for job, columns, span, row in self._rows:
            row.grad = gradient[job, columns] if active[job][span.group] else None
        self._optimizer.step()


class MaskedDescent:
    """Operations on the whole stack, the same ones in every step: what a CUDA graph can hold."""

    def __init__(self, now: Tensor, start: Tensor, spans: Sequence[Span], local: LocalConfig) -> None:
        self._local = local
        self._now, self._start = now, start
        self._first, self._second = torch.zeros_like(now), torch.zeros_like(now)
        sizes = torch.tensor([span.size for span in spans])
        self._factor = torch.tensor([span.factor for span in spans]).repeat_interleave(sizes).to(now)  # [N]
        self._group = torch.tensor([span.group for span in spans]).repeat_interleave(sizes).to(now.device)  # [N]
        self._steps = torch.zeros(len(now), 1 + max(span.group for span in spans), device=now.device)
        """Steps that each group took, `[J, G]`: AdamW counts them."""
        self._rates = torch.zeros(len(now), device=now.device)

    @property
    def state(self) -> list[Tensor]:
        """The buffers that a step changes."""
        return [self._first, self._second, self._steps]

    def begin(self, rates: Sequence[float]) -> None:
        """See `Descent`."""
        self._rates.copy_(torch.tensor(rates))
        for buffer in self.state:
            buffer.zero_()

    def step(self, gradient: Tensor, is_active: Tensor) -> None:
        """See `Descent`.

        Source: AdamW, Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2.
        """
        local = self._local
        self._steps += is_active
        moves = is_active[:, self._group]  # [J, N]
        gradient = torch.where(moves, gradient, 0.0)
        if local.proximal:
            gradient = gradient + local.proximal * (self._now - self._start)
        rate = self._rates[:, None] * self._factor  # [J, N]
        if local.optimizer == "sgd":
            stepped = self._now - rate * (gradient + local.weight_decay * self._now)
        else:
            self._first.lerp_(gradient, (1 - BETA_1) * moves.float())
            self._second.lerp_(gradient.square(), (1 - BETA_2) * moves.float())
            steps = self._steps.clamp(min=1)
            by_first, by_second = (1 - BETA_1**steps)[:, self._group], (1 - BETA_2**steps).sqrt()[:, self._group]
            direction = self._first / by_first / (self._second.sqrt() / by_second + EPSILON)
            stepped = self._now * (1 - rate * local.weight_decay) - rate * direction
        self._now.copy_(torch.where(moves, stepped, self._now))
