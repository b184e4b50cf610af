"""Cross-modal contrastive loss of CMC: a window's other modality against the other modality of every other window.

Source: Tian, Krishnan, Isola 2020, "Contrastive Multiview Coding", arXiv 1906.05849, eq. 2 to 5, the full graph over modalities.
Differs: negatives are the batch's other windows instead of a memory bank.

B = batch, D = projection.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class CrossModalLoss:
    """The mean over pairs of modalities of InfoNCE, in both directions."""

    temperature: float = 0.07

    def __call__(self, projections: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor | None:
        """Return the mean loss, a float32 scalar, or None where no two modalities share two windows.

        Args:
            projections: by modality `[B, D]`, L2-normalised.
            present: by modality `[B]` bool; a pair is contrasted over the windows that have both.
        """
        terms = []
        for one, other in combinations(projections, 2):
            both = present[one] & present[other]
            if int(both.sum()) < 2:
                continue
            similarity = projections[one][both] @ projections[other][both].T / self.temperature  # [B, B]
            same = torch.arange(len(similarity), device=similarity.device)
            terms.append((F.cross_entropy(similarity, same) + F.cross_entropy(similarity.T, same)) / 2)
        return torch.stack(terms).mean() if terms else None
