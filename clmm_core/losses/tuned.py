"""Tuned contrastive learning (TCL): a denominator that presses harder on hard positives and on negatives.

Source: Animesh and Chandraker 2023, "Tuned Contrastive Learning", arXiv 2305.10675, eq. 4-5.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from clmm_core.losses.pairs import ContrastiveLoss, Pairs


@dataclass(frozen=True, kw_only=True)
class TunedLoss(ContrastiveLoss):
    """`L_i = - mean_p log( e^(s_ip/tau) / (sum_p' e^(s_ip'/tau) + k1 sum_p' e^(-s_ip') + k2 sum_n e^(s_in/tau)) )`."""

    k1: float = 1e4
    """Weight of hard positives: 5e3 to 5e4 at tau 0.1; about 1e6 at tau 0.07, to be felt beside e^(1/tau)."""
    k2: float = 1.0
    """Weight of negatives, at least 1."""
    temperature: float = 0.1

    def per_anchor(self, pairs: Pairs) -> Tensor:
        """Return each view's loss, `[N]`."""
        scaled = pairs.similarity / self.temperature
        log_k1 = math.log(self.k1) if self.k1 else -math.inf
        terms = (
            scaled.masked_fill(~pairs.positive, -torch.inf),
            (log_k1 - pairs.similarity).masked_fill(~pairs.positive, -torch.inf),
            (math.log(self.k2) + scaled).masked_fill(~pairs.negative, -torch.inf),
        )
        log_denominator = torch.cat(terms, dim=1).logsumexp(dim=1, keepdim=True)  # [N, 1]
        return -pairs.mean_over_positives(scaled - log_denominator)
