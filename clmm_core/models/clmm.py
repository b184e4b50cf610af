"""The whole network, from sensor windows in physical units to activities.

B = batch, M = modality, C = channels, T = time, N = tokens, E = embed, D = projection.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clmm_core.errors import ConfigError
from clmm_core.models.config import ModalityShape, ModelConfig
from clmm_core.models.dual_branch import DualBranch
from clmm_core.models.encoder import CnnDiffTransformer, input_channels, with_differences
from clmm_core.models.fusion import QUALITY_SHARE, QualityGuidedAttention, UniformWeights

Streams = Mapping[str, Tensor]
"""By modality `[B, C, T]`; a modality nobody in the batch has may be left out."""
Present = Mapping[str, Tensor]
"""By modality `[B]` bool, True where the window has it; same keys as the streams."""


@dataclass(frozen=True)
class Outputs:
    """Logits of every head, `[B, classes]` each."""

    primary: Tensor
    auxiliary: Mapping[str, Tensor]
    """`head.linear`, `head.recurrent`, `head.shared` where the model has that part, and each modality by its name, which has no dot."""


class ModalityPart(nn.Module):
    """Everything that belongs to one modality and is aggregated only over the devices that own it."""

    mean: Tensor
    std: Tensor

    def __init__(self, shape: ModalityShape, config: ModelConfig) -> None:
        super().__init__()
        self.differences = config.differences
        channels = input_channels(shape, config)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.encoder = CnnDiffTransformer(shape, config)
        self.projection = nn.Sequential(
            nn.Linear(config.embed, 2 * config.projection), nn.ReLU(), nn.Linear(2 * config.projection, config.projection)
        )
        self.head = nn.Linear(config.embed, config.num_classes)

    def normalise(self, windows: Tensor, present: Tensor) -> Tensor:
        """Return `[B, C, T]`, or `[B, 2C, T]` with differences: the training subjects' mean 0, deviation 1, and zeros where absent."""
        windows = with_differences(windows) if self.differences else windows
        normal = (windows - self.mean[:, None]) / self.std[:, None]
        return torch.where(present[:, None, None], normal, 0.0)

    def project(self, tokens: Tensor) -> Tensor:
        """Return r `[B, D]`, of length 1, of tokens `[B, N, E]`."""
        return F.normalize(self.projection(tokens.mean(dim=1)), dim=-1)


class Clmm(nn.Module):
    """CLMM: encoders and projections (stage one), and the classifier on top of them (stage two).

    Source: Jing, Yang, Zhang, Feng 2026, arXiv 2604.23281 (abstract); where it is silent, Cosmo (Ouyang et al., MobiCom 2022).
    Differs: see each part. Inputs are in physical units: the normalisation is part of the model, so that it travels with it.

    Raises:
        ConfigError: a modality has a name that PyTorch's own attributes have.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        for shape in config.modalities:
            if hasattr(nn.ModuleDict, shape.name):
                raise ConfigError(f"modality '{shape.name}': PyTorch keeps this name for itself: call the modality something else")
        self.modalities = nn.ModuleDict({shape.name: ModalityPart(shape, config) for shape in config.modalities})
        self.fusion = _fusion(config)
        self.branches = DualBranch(config)
        if config.shared:
            self.shared_norm = nn.LayerNorm(config.projection)
        both = config.embed + (config.projection if config.shared else 0)
        self.primary = nn.Sequential(nn.Linear(both, config.embed), nn.ReLU(), nn.Linear(config.embed, config.num_classes))
        self.auxiliary = nn.ModuleDict({name: nn.Linear(width, config.num_classes) for name, width in _head_widths(config).items()})

    def part(self, modality: str) -> ModalityPart:
        """Return one modality's part."""
        part = self.modalities[modality]
        assert isinstance(part, ModalityPart)
        return part

    def normalise(self, streams: Streams, present: Present) -> dict[str, Tensor]:
        """Return the windows `[B, C, T]` in units of the training subjects' deviation, zeros where absent."""
        return {name: self.part(name).normalise(windows, present[name]) for name, windows in streams.items()}

    def encode(self, normal: Streams) -> dict[str, Tensor]:
        """Return tokens H_m `[B, N, E]` of each modality of normalised windows."""
        return {name: self.part(name).encoder(windows) for name, windows in normal.items()}

    def project(self, tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return projections r_m `[B, D]`, L2-normalised, of each modality's tokens."""
        return {name: self.part(name).project(values) for name, values in tokens.items()}

    def embed(self, streams: Streams, present: Present) -> Tensor:
        """Return the shared embedding `[B, D]` of windows in physical units: the mean of the r_m they have."""
        return self._shared(self.project(self.encode(self.normalise(streams, present))), present)

    def classify(self, normal: Streams, present: Present) -> Outputs:
        """Return every head's logits for normalised windows; a window needs at least one modality."""
        tokens = self.encode(normal)
        mask, stacked = self._stack(tokens, present)  # [B, M], [B, M, N, E]
        weights = self.fusion(stacked.mean(dim=2), mask)
        specific = self.branches(stacked, weights)
        shared = self.shared_norm(self._shared(self.project(tokens), present)) if self.config.shared else None
        features = {"linear": specific.linear, "recurrent": specific.recurrent, "shared": shared}
        auxiliary = {f"head.{name}": self.auxiliary[name](values) for name, values in features.items() if values is not None}
        auxiliary |= {name: self.part(name).head(values.mean(dim=1)) for name, values in tokens.items()}
        both = specific.fused if shared is None else torch.cat([specific.fused, shared], dim=1)
        return Outputs(primary=self.primary(both), auxiliary=auxiliary)

    def forward(self, streams: Streams, present: Present) -> Tensor:
        """Return the primary head's logits `[B, classes]` for windows in physical units."""
        return self.classify(self.normalise(streams, present), present).primary

    def _shared(self, projections: Mapping[str, Tensor], present: Present) -> Tensor:
        total = sum(values * present[name][:, None] for name, values in projections.items())
        count = sum(present[name][:, None].float() for name in projections)  # [B, 1]
        return torch.as_tensor(total) / torch.as_tensor(count)

    def _stack(self, tokens: Mapping[str, Tensor], present: Present) -> tuple[Tensor, Tensor]:
        """Return the mask `[B, M]` and the tokens `[B, M, N, E]`, zeros where absent, in the model's order of modalities."""
        like = next(iter(tokens.values()))
        nobody = torch.zeros(like.shape[0], dtype=torch.bool, device=like.device)  # not len(): an exported batch has any size
        mask = torch.stack([present.get(shape.name, nobody) for shape in self.config.modalities], dim=1)
        stacked = torch.stack([tokens.get(shape.name, torch.zeros_like(like)) for shape in self.config.modalities], dim=1)
        return mask, torch.where(mask[:, :, None, None], stacked, 0.0)


def _fusion(config: ModelConfig) -> nn.Module:
    if config.fusion == "uniform":
        return UniformWeights()
    quality_share = QUALITY_SHARE if config.fusion == "quality-guided" else 0.0
    return QualityGuidedAttention(len(config.modalities), config.embed, quality_share)


def _head_widths(config: ModelConfig) -> dict[str, int]:
    """Return the width of each feature that has an auxiliary head, beside the modalities' own."""
    widths = {"linear": config.embed, "recurrent": config.embed, "shared": config.projection}
    absent = {"gated": (), "mean": (), "linear": ("recurrent",), "recurrent": ("linear",)}[config.branches]
    return {name: width for name, width in widths.items() if name not in absent and (name != "shared" or config.shared)}
