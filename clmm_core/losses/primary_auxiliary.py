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

    def __call__(
        self,
        primary: Tensor,
        auxiliary: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        classes: Tensor,
        counts: Tensor | None = None,
    ) -> Tensor:
        """Return the loss, a scalar.

        Args:
            primary: `[batch, classes]` logits.
            auxiliary: by head `[batch, classes]` logits.
            present: by head `[batch]` bool, for heads that speak for one modality: True where the window has it.
            classes: `[batch]` int64.
            counts: `[batch]` bool, False for windows that only fill the batch up; None where all count.
        """
        everyone = torch.ones_like(classes, dtype=torch.bool) if counts is None else counts
        loss, _ = _mean_cross_entropy(primary, classes, everyone)
        terms = [_mean_cross_entropy(logits, classes, present.get(head, everyone) & everyone) for head, logits in auxiliary.items()]
        if not terms:
            return loss
        num_spoken = torch.stack([is_spoken for _, is_spoken in terms]).sum().clamp(min=1)
        return loss + self.weight * torch.stack([term for term, _ in terms]).sum() / num_spoken


def _mean_cross_entropy(logits: Tensor, classes: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean over `rows` `[batch]` bool, 0 where there is none, and whether there is one."""
    values = F.cross_entropy(logits, classes, reduction="none")
    return torch.where(rows, values, 0.0).sum() / rows.sum().clamp(min=1), rows.any()
