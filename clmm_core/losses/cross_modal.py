"""Cross-modal contrastive loss of CMC: a window's other modality against the other modality of every other window.

Source: Tian, Krishnan, Isola 2020, "Contrastive Multiview Coding", arXiv 1906.05849, eq. 2 to 5, the full graph over modalities.
Differs: negatives are the batch's other windows instead of a memory bank.

B = batch, D = projection.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class CrossModalLoss:
    """The mean over pairs of modalities of InfoNCE, in both directions."""

    temperature: float = 0.07

    def __call__(self, projections: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss, a float32 scalar, and by modality whether it shares two windows with another: if none does, it is 0.

        Args:
            projections: by modality `[B, D]`, L2-normalised.
            present: by modality `[B]` bool; a pair is contrasted over the windows that have both.
        """
        like = next(iter(projections.values()))
        total, num_pairs = like.new_zeros(()), like.new_zeros(())
        is_compared = {name: torch.zeros((), dtype=torch.bool, device=like.device) for name in projections}
        for one, other in combinations(projections, 2):
            both = present[one] & present[other]
            shared = both.sum()
            cosines = _masked(projections[one], both) @ _masked(projections[other], both).T
            # A window that lacks one is no candidate; its own anchor keeps itself, so that it is finite, and does not count.
            candidates = both[None, :] | torch.eye(len(both), dtype=torch.bool, device=both.device)
            similarity = (cosines / self.temperature).masked_fill(~candidates, -torch.inf)  # [B, B]
            backward = (cosines.T / self.temperature).masked_fill(~candidates, -torch.inf)
            anchors = (_own_share(similarity) + _own_share(backward)) / 2  # [B]
            mean = torch.where(both, anchors, 0.0).sum() / shared.clamp(min=1)
            total = total + torch.where(shared >= 2, mean, 0.0)
            num_pairs = num_pairs + (shared >= 2)
            is_compared |= {name: is_compared[name] | (shared >= 2) for name in (one, other)}
        return total / num_pairs.clamp(min=1), is_compared


def _masked(projections: Tensor, kept: Tensor) -> Tensor:
    return torch.where(kept[:, None], projections, 0.0)


def _own_share(similarity: Tensor) -> Tensor:
    """Return `-log softmax` of the diagonal, `[B]`."""
    return similarity.logsumexp(dim=1) - similarity.diagonal()
