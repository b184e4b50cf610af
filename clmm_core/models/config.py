"""Sizes of the network, and the two presets."""

from dataclasses import dataclass
from typing import Literal

from clmm_core.errors import ConfigError

Preset = Literal["paper", "edge"]
Attention = Literal["diff-v1", "diff-v2", "softmax"]
Fusion = Literal["quality-guided", "learned", "uniform"]
"""How modalities are weighed: learned attention guided by measured quality, learned alone, or all the same."""
Branches = Literal["gated", "mean", "linear", "recurrent"]
"""Both branches mixed by a gate, both by their mean, or one alone."""


@dataclass(frozen=True, kw_only=True)
class ModalityShape:
    """What one modality's encoder takes: windows of `[channels, time_steps]`."""

    name: str
    channels: int
    time_steps: int


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that fixes the network's shape.

    Raises:
        ConfigError: sizes that do not fit together.
    """

    modalities: tuple[ModalityShape, ...]
    num_classes: int
    conv_channels: tuple[int, int]
    """Width of the first two convolutions; the third has `embed`."""
    embed: int
    num_tokens: int
    num_layers: int
    num_heads: int
    swiglu: int
    """Inner width of the feed-forward part."""
    projection: int
    """Width of the projection r_m; its hidden layer has twice that."""
    gru: int
    """Width of the bidirectional gated units, each direction."""
    gru_layers: int
    attention: Attention = "diff-v1"
    fusion: Fusion = "quality-guided"
    branches: Branches = "gated"
    shared: bool = True
    """Whether the primary head sees the shared feature beside the specific one."""
    differences: bool = True
    """Whether each channel's change from sample to sample joins it as a channel."""
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if not self.modalities:
            raise ConfigError("model: expected at least one modality, found none")
        for shape in self.modalities:
            if "." in shape.name:
                raise ConfigError(f"modality '{shape.name}': dots part the names of the model's arrays: call it something else")
        if self.num_classes < 2:
            raise ConfigError(f"model: expected at least two classes, found {self.num_classes}")
        if self.embed % (2 * self.num_heads):
            raise ConfigError(f"model: expected embed to divide by twice num_heads, found {self.embed} and {self.num_heads}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout: expected a share in [0, 1), found {self.dropout}")


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which network: its sizes, and which of its parts are there. All parts are the method; fewer are its ablations.

    Raises:
        ConfigError: a size that cannot be.
    """

    preset: Preset = "edge"
    embed: int = 0
    """Width of the embeddings; 0 keeps the preset's. All other widths follow from it."""
    layers: int = 0
    """Transformer layers, and of the gated units; 0 keeps the preset's."""
    attention: Attention = "diff-v1"
    fusion: Fusion = "quality-guided"
    branches: Branches = "gated"
    shared: bool = True
    differences: bool = True
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("embed", "layers"):
            if getattr(self, name) < 0:
                raise ConfigError(f"model.{name}: expected 0 (the preset's) or more, found {getattr(self, name)}")
        if self.embed % 16:  # four heads of two maps, and eight groups of the convolutions' half width
            raise ConfigError(f"model.embed: expected a multiple of 16, found {self.embed}")


def sized(choice: ModelChoice, modalities: tuple[ModalityShape, ...], num_classes: int) -> ModelConfig:
    """Return the sizes of the chosen preset for these modalities and classes.

    `paper` is sized after the method's description (about 380,000 parameters an encoder); `edge` is the same network with half the
    width and one layer, for boards and phones (about 56,000 an encoder).
    """
    embed, layers = {"paper": (128, 2), "edge": (64, 1)}[choice.preset]
    embed, layers = choice.embed or embed, choice.layers or layers
    return ModelConfig(
        modalities=modalities,
        num_classes=num_classes,
        conv_channels=(embed // 2, embed // 2),
        embed=embed,
        num_tokens=20,
        num_layers=layers,
        num_heads=4,
        swiglu=2 * embed,
        projection=embed,
        gru=embed // 2,
        gru_layers=layers,
        attention=choice.attention,
        fusion=choice.fusion,
        branches=choice.branches,
        shared=choice.shared,
        differences=choice.differences,
        dropout=choice.dropout,
    )
