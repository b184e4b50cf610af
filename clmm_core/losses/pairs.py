"""What every contrastive loss here starts from: similarities of all views, and which pairs show the same window.

N = views in the batch (windows x views a window), D = projection.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


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


def pairs_of(views: Tensor, window_ids: Tensor, counts: Tensor | None = None) -> Pairs:
    """Return the pairs of `views` `[N, D]` with ids `[N]`; those that do not count are nobody's negatives."""
    same = window_ids[:, None] == window_ids[None, :]
    itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
    negative = ~same if counts is None else ~same & counts[None, :]
    return Pairs(similarity=views @ views.T, positive=same & ~itself, negative=negative)


class ContrastiveLoss(ABC):
    """A loss that pulls views of one window together and pushes other windows away."""

    def __call__(self, views: Tensor, window_ids: Tensor, counts: Tensor | None = None) -> Tensor:
        """Return the mean loss over anchors, a float32 scalar.

        Args:
            views: `[N, D]`, L2-normalised.
            window_ids: `[N]` int64; equal ids are views of one window.
            counts: `[N]` bool, False for views that only fill a batch up: they are no anchors, and nobody's negatives. None where all
                count; only then what is there is checked.

        Raises:
            ValueError: a view has no other view of its window, or nothing to be told apart from.
        """
        pairs = pairs_of(views, window_ids, counts)
        if counts is None:
            self.check(pairs)
            return self.per_anchor(pairs).mean()
        return torch.where(counts, self.per_anchor(pairs), 0.0).sum() / counts.sum().clamp(min=1)

    @abstractmethod
    def per_anchor(self, pairs: Pairs) -> Tensor:
        """Return each view's loss, `[N]`; it has at least one positive."""

    def check(self, pairs: Pairs) -> None:
        """Raise a ValueError where the loss is undefined."""
        if bool((pairs.num_positives == 0).any()):
            raise ValueError("expected at least two views of every window, found a window with one")
