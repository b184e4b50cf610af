"""What both stages share on a device: its optimiser, the proximal term, and what a training call returns."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from clmm_core.training.settings import LocalConfig


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
