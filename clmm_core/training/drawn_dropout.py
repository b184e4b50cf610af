"""Dropout whose masks come from a device's own draws: `nn.Dropout` knows only the processor's one generator."""

import torch
from torch import Tensor, nn

from clmm_core.training.draws import Draws


class DrawnDropout(nn.Module):
    """Dropout whose masks come from the draws that are held for it; `nn.Dropout` otherwise."""

    def __init__(self, share: float, held: list[Draws]) -> None:
        super().__init__()
        self.share = share
        self.held = held

    def forward(self, values: Tensor) -> Tensor:
        """Return `values` with a share of zeros, scaled to keep the mean."""
        if not self.training or not self.share:
            return values
        kept = self.held[-1].uniform(*values.shape) >= self.share
        return torch.where(kept, values / (1 - self.share), 0.0)


class StepDraws(Draws):
    """Draws that hold those of each step for a model's dropout."""

    def __init__(self, key: Tensor, held: list[Draws]) -> None:
        super().__init__(key)
        self._held = held

    def step(self, number: int | Tensor) -> Draws:
        """See `Draws.step`; dropout draws from it too."""
        draws = super().step(number)
        self._held[:] = [draws]
        return draws


def hold_dropout(model: nn.Module) -> list[Draws]:
    """Give a model drawn dropout in place of torch's; return what holds its draws."""
    held: list[Draws] = next((module.held for module in model.modules() if isinstance(module, DrawnDropout)), [])
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, DrawnDropout(child.p, held))
    return held


def draws_for(model: nn.Module, key: int) -> Draws:
    """Return a key's draws, on the processor that its model is on, for training one device's; its dropout takes numbers from them too."""
    return StepDraws(torch.tensor(key, device=next(model.parameters()).device), hold_dropout(model))
