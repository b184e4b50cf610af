"""Focal contrastive loss: pairs that are already told apart well count less.

Source: Lin et al. 2017, "Focal Loss for Dense Object Detection", arXiv 1708.02002, eq. 4.
Differs: applied to the probability of a positive pair instead of a class.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from clmm_core.losses.pairs import ContrastiveLoss, Pairs


@dataclass(frozen=True, kw_only=True)
class FocalLoss(ContrastiveLoss):
    """`L_i = - mean_p (1 - P_ip)^gamma log P_ip`."""

    gamma: float = 2.0
    temperature: float = 0.07

    def per_anchor(self, pairs: Pairs) -> Tensor:
        """Return each view's loss, `[N]`."""
        log_probability = pairs.log_probability(self.temperature)
        told_apart = 1 - log_probability.masked_fill(~pairs.positive, 0.0).exp()
        # Where a pair is certain (P = 1) the power has an infinite slope for gamma < 1: a constant there keeps it out of the graph.
        modulation = told_apart.clamp(min=torch.finfo(told_apart.dtype).eps) ** self.gamma
        return -pairs.mean_over_positives(modulation * log_probability)
