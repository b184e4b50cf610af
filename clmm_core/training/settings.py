"""How a device trains, as a task tells it. Without PyTorch: the server reads and sends these settings and trains nothing."""

from dataclasses import dataclass, field
from typing import Literal

from clmm_core.errors import ConfigError

OptimizerName = Literal["adamw", "sgd"]
LossName = Literal["hard-positive", "tcl", "focal", "dclw"]
Contrast = Literal["fused", "per-modality", "cross-modal"]
"""What is told apart: fused views of windows (CLMM, Cosmo), each modality's own copies (SimCLR), or one modality against another (CMC)."""
Aggregation = Literal["mean", "l-dawa"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How strongly each augmentation acts; 0 turns it off.

    Raises:
        ConfigError: a strength out of its range.
    """

    rotation_deg: float = 0.0
    """Largest rotation of a three-axis sensor, in degrees, uniform, about a random axis."""
    scale: float = 0.1
    """Deviation of the factor each channel is multiplied by."""
    jitter: float = 0.05
    """Deviation of the noise added to each sample, in deviations of the channel."""
    crop: float = 0.2
    """Largest share of the window cut away before it is stretched back."""
    time_warp: float = 0.0
    """Deviation of the local speed."""
    channel_dropout: float = 0.0
    """Probability that a channel of a window is set to zero (its mean)."""
    modality_dropout: float = 0.0
    """Probability that a modality of a window counts as missing; one always stays."""

    def __post_init__(self) -> None:
        for name in ("crop", "channel_dropout", "modality_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"augment.{name.replace('_', '-')}: expected a share in [0, 1), found {getattr(self, name)}")
        for name in ("rotation_deg", "scale", "jitter", "time_warp"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"augment.{name.replace('_', '-')}: expected 0 or more, found {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class LocalConfig:
    """How a device trains in one round.

    Raises:
        ConfigError: a value out of range.
    """

    epochs: int
    """Passes over the device's windows a round."""
    batch_size: int
    learning_rate: float
    optimizer: OptimizerName = "adamw"
    """Starts afresh each round: hosts keep nothing between rounds."""
    weight_decay: float = 0.01
    proximal: float = 0.0
    """FedProx's mu; 0 is FedAvg. Source: Li et al. 2020, arXiv 1812.06127, eq. 2."""
    pooled: bool = False
    """A host's devices train as one, on all their windows: with one host that serves everybody, centralised training."""

    def __post_init__(self) -> None:
        for name, smallest in (("epochs", 1), ("batch_size", 2), ("learning_rate", 0.0), ("weight_decay", 0.0), ("proximal", 0.0)):
            if not getattr(self, name) >= smallest:
                raise ConfigError(f"{name.replace('_', '-')}: expected at least {smallest}, found {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Stage one on a device.

    Raises:
        ConfigError: a value out of range.
    """

    local: LocalConfig
    contrast: Contrast = "fused"
    loss: LossName = "hard-positive"
    temperature: float = 0.07
    beta: float = 2.0
    """Of `hard-positive`; 0 is Cosmo's loss."""
    k1: float = 1e6
    """Of `tcl`: about 1e6 at temperature 0.07, 5e3 to 5e4 at 0.1."""
    gamma: float = 2.0
    """Of `focal`."""
    num_views: int = 9
    """Fused views of a window."""
    num_copies: int = 2
    """Augmented copies the views are mixed from; one modality alone needs two."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    aggregation: Aggregation = "mean"
    """`l-dawa`: see `federated/l_dawa.py`."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"pretrain.temperature: expected above 0, found {self.temperature}")
        if self.num_views < 2:
            raise ConfigError(f"pretrain.views: expected at least 2, found {self.num_views}")
        if not 1 <= self.num_copies <= self.num_views:
            raise ConfigError(f"pretrain.copies: expected 1 to the number of views ({self.num_views}), found {self.num_copies}")
        if self.contrast == "per-modality" and self.num_copies < 2:
            raise ConfigError(f"pretrain.copies: expected at least 2 to contrast a modality with itself, found {self.num_copies}")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Stage two on a device.

    Raises:
        ConfigError: a value out of range.
    """

    local: LocalConfig
    encoder_rate: float
    """Encoders and projections learn at this share of the learning rate."""
    auxiliary: float = 0.3
    """Weight of the auxiliary heads' mean loss."""
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name in ("encoder_rate", "auxiliary"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"finetune.{name.replace('_', '-')}: expected 0 or more, found {getattr(self, name)}")
