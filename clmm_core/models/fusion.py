"""How much each modality counts in a window: by what the network sees and by measured quality, or all the same.

B = batch, M = modality, E = embed.
"""

import torch
from torch import Tensor, nn

QUALITY_SHARE = 0.8
"""As in Cosmo."""


class QualityGuidedAttention(nn.Module):
    """`beta = norm1((1 - lam) alpha + lam q)` with `alpha = softmax(MLP([z_1 .. z_M]))` over the modalities a window has.

    Source: CLMM (Jing et al. 2026, abstract) and Cosmo (Ouyang et al., MobiCom 2022).
    Differs: q is measured on unlabelled embeddings (see `training/quality.py`), where Cosmo fixes it by hand.
    """

    quality: Tensor
    """`[M]`, sums to 1; a buffer, so that it travels with the model."""

    def __init__(self, num_modalities: int, embed: int, quality_share: float = QUALITY_SHARE) -> None:
        super().__init__()
        self.quality_share = quality_share
        """lam; 0 leaves attention to what the network sees."""
        self.score = nn.Sequential(nn.Linear(num_modalities * embed, embed), nn.ReLU(), nn.Linear(embed, num_modalities))
        self.register_buffer("quality", torch.full((num_modalities,), 1.0 / num_modalities))

    def forward(self, embeddings: Tensor, present: Tensor) -> Tensor:
        """Return weights `[B, M]` that sum to 1 over what is present and are 0 elsewhere.

        Args:
            embeddings: z `[B, M, E]`, zero where absent.
            present: `[B, M]` bool, at least one True in every row.
        """
        scores = self.score(embeddings.flatten(1)).masked_fill(~present, -torch.inf)
        quality = self.quality * present
        weights = (1 - self.quality_share) * scores.softmax(dim=1) + self.quality_share * quality / quality.sum(dim=1, keepdim=True)
        normalised: Tensor = weights / weights.sum(dim=1, keepdim=True)
        return normalised


class UniformWeights(nn.Module):
    """The same weight for every modality a window has; the comparison to quality-guided attention."""

    def forward(self, embeddings: Tensor, present: Tensor) -> Tensor:
        """Return weights `[B, M]`; see `QualityGuidedAttention`."""
        del embeddings
        uniform: Tensor = present / present.sum(dim=1, keepdim=True)
        return uniform
