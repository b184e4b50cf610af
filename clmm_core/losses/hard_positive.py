"""Hard-positive weighted contrastive loss: the least similar views of a window count most.

Source: the name is CLMM's (Jing, Yang, Zhang, Feng 2026, arXiv 2604.23281, abstract); the base is the "out" form of supervised
contrastive learning (Khosla et al. 2020, arXiv 2004.11362, eq. 2) over window identity, as in Cosmo (Ouyang et al., MobiCom 2022).
Differs: the weights are our own choice, because the abstract gives no formula. `beta = 0` is Cosmo's loss.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from clmm_core.losses.pairs import ContrastiveLoss, Pairs


@dataclass(frozen=True, kw_only=True)
class HardPositiveLoss(ContrastiveLoss):
    """`L_i = - sum_p w_ip log P_ip`, with `w_ip = softmax_p(beta (1 - s_ip))` over the positives of i, without gradient."""

    beta: float = 2.0
    """How much a less similar positive counts more; 0 weighs all the same."""
    temperature: float = 0.07

    def per_anchor(self, pairs: Pairs) -> Tensor:
        """Return each view's loss, `[N]`."""
        log_probability = torch.where(pairs.positive, pairs.log_probability(self.temperature), 0.0)
        return -(self.weights(pairs) * log_probability).sum(dim=1)

    def weights(self, pairs: Pairs) -> Tensor:
        """Return w `[N, N]`, rows summing to 1, 0 outside the positives, detached from the graph."""
        hardness = self.beta * (1 - pairs.similarity.detach())
        return hardness.masked_fill(~pairs.positive, -torch.inf).softmax(dim=1)
