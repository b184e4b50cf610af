"""What both stages share on a device: its optimiser, the proximal term, and what a training call returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from clmm_core.errors import ConfigError

OptimizerName = Literal["adamw", "sgd"]


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


def local_optimizer(groups: Sequence[tuple[Sequence[nn.Parameter], float]], config: LocalConfig) -> Optimizer:
    """Return an optimiser over `(parameters, factor on the learning rate)` groups."""
    settings = [{"params": list(parameters), "lr": config.learning_rate * factor} for parameters, factor in groups if parameters]
    if config.optimizer == "sgd":
        return SGD(settings, lr=config.learning_rate, weight_decay=config.weight_decay)
    return AdamW(settings, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)


class ProximalTerm:
    """`mu / 2 * |w - w_global|^2` over the parameters as they are now.

    Source: FedProx, Li et al. 2020, arXiv 1812.06127, eq. 2.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], mu: float) -> None:
        self.mu = mu
        self.parameters = parameters
        self.start = [parameter.detach().clone() for parameter in parameters] if mu else []

    def __call__(self, loss: Tensor) -> Tensor:
        """Return `loss` plus the term."""
        if not self.mu:
            return loss
        distances = [(now - then).square().sum() for now, then in zip(self.parameters, self.start, strict=True)]
        return loss + self.mu / 2 * torch.stack(distances).sum()
