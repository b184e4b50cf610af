"""The dual branch: a linear branch on embeddings, a recurrent branch on tokens, and a gate between them.

B = batch, M = modality, N = tokens, E = embed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clmm_core.models.config import ModelConfig


@dataclass(frozen=True)
class Specific:
    """Modality-specific information of each window."""

    fused: Tensor
    """`[B, E]`, the gated mix of the two branches."""
    linear: Tensor | None
    """hA, `[B, E]`; None where the model has no such branch."""
    recurrent: Tensor | None
    """hB, `[B, E]`, likewise."""


class DualBranch(nn.Module):
    """Branch A reads `concat beta_m z_m`, branch B a BiGRU over `concat beta_m H_m`; `g hA + (1 - g) hB`.

    Ablations: a plain mean for the gate, or one branch alone.

    Source: CLMM (Jing et al. 2026, abstract) names the dual branch and its bidirectional gated units.
    Differs: pooling (mean and maximum), the LayerNorm after each branch and the gate's form are our own.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = len(config.modalities) * config.embed
        self.branches = config.branches
        if config.branches != "recurrent":
            self.linear = nn.Sequential(nn.Linear(width, config.embed), nn.LayerNorm(config.embed))
        if config.branches != "linear":
            self.gru = nn.GRU(width, config.gru, num_layers=config.gru_layers, batch_first=True, bidirectional=True)
            self.recurrent = nn.Sequential(nn.Linear(4 * config.gru, config.embed), nn.LayerNorm(config.embed))
        if config.branches == "gated":
            self.gate = nn.Linear(2 * config.embed, config.embed)

    def forward(self, tokens: Tensor, weights: Tensor) -> Specific:
        """Return each branch the model has, and their mix.

        Args:
            tokens: H `[B, M, N, E]`, zero where absent.
            weights: beta `[B, M]`.
        """
        weighted = tokens * weights[:, :, None, None]
        if self.branches == "linear":
            linear = self._linear(weighted)
            return Specific(fused=linear, linear=linear, recurrent=None)
        if self.branches == "recurrent":
            recurrent = self._recurrent(weighted)
            return Specific(fused=recurrent, linear=None, recurrent=recurrent)
        linear, recurrent = self._linear(weighted), self._recurrent(weighted)
        gate = self.gate(torch.cat([linear, recurrent], dim=1)).sigmoid() if self.branches == "gated" else 0.5
        return Specific(fused=gate * linear + (1 - gate) * recurrent, linear=linear, recurrent=recurrent)

    def _linear(self, weighted: Tensor) -> Tensor:
        """Return hA `[B, E]`."""
        branch: Tensor = self.linear(weighted.mean(dim=2).flatten(1))
        return branch

    def _recurrent(self, weighted: Tensor) -> Tensor:
        """Return hB `[B, E]`."""
        steps, _ = self.gru(weighted.transpose(1, 2).flatten(2))  # [B, N, M*E] -> [B, N, 2*gru]
        branch: Tensor = self.recurrent(torch.cat([steps.mean(dim=1), steps.amax(dim=1)], dim=1))
        return branch
