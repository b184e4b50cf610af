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
    linear: Tensor
    """hA, `[B, E]`."""
    recurrent: Tensor
    """hB, `[B, E]`."""


class DualBranch(nn.Module):
    """Branch A reads `concat beta_m z_m`, branch B a BiGRU over `concat beta_m H_m`; `g hA + (1 - g) hB`.

    Source: CLMM (Jing et al. 2026, abstract) names the dual branch and its bidirectional gated units.
    Differs: pooling (mean and maximum), the LayerNorm after each branch and the gate's form are our own.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = len(config.modalities) * config.embed
        self.linear = nn.Sequential(nn.Linear(width, config.embed), nn.LayerNorm(config.embed))
        self.gru = nn.GRU(width, config.gru, num_layers=config.gru_layers, batch_first=True, bidirectional=True)
        self.recurrent = nn.Sequential(nn.Linear(4 * config.gru, config.embed), nn.LayerNorm(config.embed))
        self.gate = nn.Linear(2 * config.embed, config.embed)

    def forward(self, tokens: Tensor, weights: Tensor) -> Specific:
        """Return both branches and their mix.

        Args:
            tokens: H `[B, M, N, E]`, zero where absent.
            weights: beta `[B, M]`.
        """
        weighted = tokens * weights[:, :, None, None]
        linear = self.linear(weighted.mean(dim=2).flatten(1))  # [B, E]
        steps, _ = self.gru(weighted.transpose(1, 2).flatten(2))  # [B, N, M*E] -> [B, N, 2*gru]
        recurrent = self.recurrent(torch.cat([steps.mean(dim=1), steps.amax(dim=1)], dim=1))  # [B, E]
        gate = self.gate(torch.cat([linear, recurrent], dim=1)).sigmoid()
        return Specific(fused=gate * linear + (1 - gate) * recurrent, linear=linear, recurrent=recurrent)
