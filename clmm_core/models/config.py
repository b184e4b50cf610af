"""Sizes of the network, and the two presets."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from clmm_core.errors import ConfigError

Preset = Literal["paper", "edge"]
Attention = Literal["diff-v1", "diff-v2"]


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
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if not self.modalities:
            raise ConfigError("model: expected at least one modality, found none")
        for shape in self.modalities:
            if "." in shape.name or hasattr(nn.ModuleDict, shape.name):  # PyTorch's own names cannot name a part of a network
                raise ConfigError(f"modality '{shape.name}': PyTorch keeps this name for itself: call the modality something else")
        if self.num_classes < 2:
            raise ConfigError(f"model: expected at least two classes, found {self.num_classes}")
        if self.embed % (2 * self.num_heads):
            raise ConfigError(f"model: expected embed to divide by twice num_heads, found {self.embed} and {self.num_heads}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout: expected a share in [0, 1), found {self.dropout}")


def preset(
    name: Preset, modalities: tuple[ModalityShape, ...], num_classes: int, attention: Attention = "diff-v1", dropout: float = 0.1
) -> ModelConfig:
    """Return a preset's sizes for these modalities and classes.

    `paper` is sized after the method's description (about 380,000 parameters an encoder); `edge` is the same network with half the
    width and one layer, for boards and phones (about 55,000 an encoder).
    """
    common = {"modalities": modalities, "num_classes": num_classes, "attention": attention, "dropout": dropout}
    match name:
        case "paper":
            sizes = {"embed": 128, "num_layers": 2, "num_heads": 4, "swiglu": 256, "projection": 128, "gru": 64, "gru_layers": 2}
            return ModelConfig(conv_channels=(64, 64), num_tokens=20, **sizes, **common)  # type: ignore[arg-type]
        case "edge":
            sizes = {"embed": 64, "num_layers": 1, "num_heads": 4, "swiglu": 128, "projection": 64, "gru": 32, "gru_layers": 1}
            return ModelConfig(conv_channels=(32, 32), num_tokens=20, **sizes, **common)  # type: ignore[arg-type]
