"""What every contrastive loss here starts from: similarities of all views, and which pairs show the same window.

N = views in the batch (windows x views a window), D = projection.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class ContrastiveLoss(Protocol):
    """A loss that pulls views of one window together and pushes other windows away."""

    def __call__(self, views: Tensor, window_ids: Tensor) -> Tensor:
        """Return the mean loss over anchors, a float32 scalar.

        Args:
            views: `[N, D]`, L2-normalised.
            window_ids: `[N]` int64; equal ids are views of one window.

        Raises:
            ValueError: a view has no other view of its window.
        """
        ...


@dataclass(frozen=True)
class Pairs:
    """Cosine similarities of all pairs of views."""

    similarity: Tensor
    """`[N, N]`, in [-1, 1]."""
    positive: Tensor
    """`[N, N]` bool; True where two different views show the same window."""
    negative: Tensor
    """`[N, N]` bool; True where they show different windows."""

    @property
    def num_positives(self) -> Tensor:
        """`[N]`, positives of each anchor."""
        return self.positive.sum(dim=1)

    def log_probability(self, temperature: float) -> Tensor:
        """Return `s_ip / tau - log sum_{a != i} exp(s_ia / tau)`, `[N, N]`."""
        scaled = self.similarity / temperature
        others = scaled.masked_fill(~(self.positive | self.negative), -torch.inf)
        return scaled - others.logsumexp(dim=1, keepdim=True)

    def mean_over_positives(self, values: Tensor) -> Tensor:
        """Return the mean of `values` `[N, N]` over each anchor's positives, `[N]`."""
        return torch.where(self.positive, values, 0.0).sum(dim=1) / self.num_positives


def pairs_of(views: Tensor, window_ids: Tensor) -> Pairs:
    """Return the pairs of `views` `[N, D]` with ids `[N]`.

    Raises:
        ValueError: a view has no other view of its window.
    """
    same = window_ids[:, None] == window_ids[None, :]
    itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
    pairs = Pairs(similarity=views @ views.T, positive=same & ~itself, negative=~same)
    if bool((pairs.num_positives == 0).any()):
        raise ValueError("expected at least two views of every window, found a window with one")
    return pairs
