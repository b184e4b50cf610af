"""Fused views of a window: mixtures of its modalities' projections.

B = batch, M = modality, D = projection, P = views.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from clmm_core.training.draws import Draws


def fused_views(copies: Sequence[Mapping[str, Tensor]], present: Mapping[str, Tensor], num_views: int, draws: Draws) -> Tensor:
    """Return P views `[B, P, D]`, each of length 1, each mixed from one augmented copy of the window.

    Source: Cosmo (Ouyang et al., MobiCom 2022): with two modalities `v_k = l2norm(a_k r_1 + (1 - a_k) r_2)`, a evenly spaced
    (0.1 .. 0.9 for nine views).
    Differs: other numbers of modalities take Dirichlet(1..1) weights, drawn once a step; a window with a modality missing is mixed
    from those it has; view k is mixed from copy `k mod copies`, so that one modality alone has views that differ too.

    Args:
        copies: for each augmented copy, by modality r `[B, D]`.
        present: by modality `[B]` bool, at least one True for every window.
        num_views: P.
        draws: for the Dirichlet weights.
    """
    names = list(present)
    mask = torch.stack([present[name] for name in names], dim=1)  # [B, M]
    weights = _weights(len(names), num_views, draws, mask.device)  # [P, M]
    stacked = [torch.stack([copy[name] for name in names], dim=1) * mask[:, :, None] for copy in copies]  # each [B, M, D]
    views = [torch.einsum("m,bmd->bd", weights[k], stacked[k % len(copies)]) for k in range(num_views)]
    # Scaling by the share of weight that is present would change nothing: each view is brought to length 1.
    return F.normalize(torch.stack(views, dim=1), dim=-1)


def _weights(num_modalities: int, num_views: int, draws: Draws, device: torch.device) -> Tensor:
    """Return mixing weights `[P, M]`, rows summing to 1."""
    if num_modalities == 2:
        first = torch.arange(1, num_views + 1, device=device) / (num_views + 1)
        return torch.stack([first, 1 - first], dim=1)
    exponential = -draws.uniform(num_views, num_modalities).to(device).clamp(min=1e-7).log()
    return exponential / exponential.sum(dim=1, keepdim=True)
