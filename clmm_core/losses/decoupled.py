"""Decoupled contrastive learning, weighted (DCLW): positives leave the denominator, and far positives count more.

Source: Yeh et al. 2022, "Decoupled Contrastive Learning", arXiv 2110.06848, eq. 6 and section 3.3 (sigma 0.5).
Differs: with several positives the expectation in the weight is over the positives of one anchor, `2 - |P| softmax(s / sigma)`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from clmm_core.losses.pairs import ContrastiveLoss, Pairs


@dataclass(frozen=True, kw_only=True)
class DecoupledLoss(ContrastiveLoss):
    """`L_i = - mean_p (2 - |P| softmax_p(s_ip / sigma)) s_ip / tau + log sum_n e^(s_in / tau)`; the weights get no gradient."""

    sigma: float = 0.5
    temperature: float = 0.07

    def check(self, pairs: Pairs) -> None:
        """Raise a ValueError where the loss is undefined: also where all views show one window."""
        super().check(pairs)
        if not bool(pairs.negative.any(dim=1).all()):
            raise ValueError("expected views of at least two windows, found one window: its denominator would be empty")

    def per_anchor(self, pairs: Pairs) -> Tensor:
        """Return each view's loss, `[N]`."""
        nearness = (pairs.similarity.detach() / self.sigma).masked_fill(~pairs.positive, -torch.inf).softmax(dim=1)
        weights = 2 - pairs.num_positives[:, None] * nearness
        scaled = pairs.similarity / self.temperature
        attraction = pairs.mean_over_positives(weights * scaled)
        repulsion = scaled.masked_fill(~pairs.negative, -torch.inf).logsumexp(dim=1)
        return repulsion - attraction
