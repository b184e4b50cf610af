"""Primary-auxiliary collaborative training: the primary head is used, the auxiliary heads keep every part useful.

Source: the idea is CLMM's (Jing et al. 2026, arXiv 2604.23281, abstract).
Differs: cross-entropy, the weight 0.3 and the plain mean over auxiliary heads are our own choice; the abstract gives none.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PrimaryAuxiliaryLoss:
    """`L = CE(primary) + weight * mean over auxiliary heads of CE(head)`; a modality that no window of the batch has is no head."""

    weight: float = 0.3

    def __call__(self, primary: Tensor, auxiliary: Mapping[str, Tensor], present: Mapping[str, Tensor], classes: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            primary: `[batch, classes]` logits.
            auxiliary: by head `[batch, classes]` logits.
            present: by head `[batch]` bool, for heads that speak for one modality: True where the window has it.
            classes: `[batch]` int64.
        """
        terms = [self._term(logits, present.get(head), classes) for head, logits in auxiliary.items()]
        spoken = [term for term in terms if term is not None]
        loss = F.cross_entropy(primary, classes)
        return loss + self.weight * torch.stack(spoken).mean() if spoken else loss

    @staticmethod
    def _term(logits: Tensor, mask: Tensor | None, classes: Tensor) -> Tensor | None:
        """Return the mean over the windows a head speaks for, or None where there is none."""
        if mask is None:
            return F.cross_entropy(logits, classes)
        return F.cross_entropy(logits[mask], classes[mask]) if bool(mask.any()) else None
