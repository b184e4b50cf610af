"""Stage one on one device: contrastive pretraining of its encoders on unlabelled windows."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Generator

from clmm_core.errors import ConfigError, DeviceSkippedError
from clmm_core.losses.decoupled import DecoupledLoss
from clmm_core.losses.focal import FocalLoss
from clmm_core.losses.hard_positive import HardPositiveLoss
from clmm_core.losses.pairs import ContrastiveLoss
from clmm_core.losses.tuned import TunedLoss
from clmm_core.models.clmm import Clmm
from clmm_core.training.augment import Augmentation, augment, modality_dropout
from clmm_core.training.device_tensors import DeviceTensors
from clmm_core.training.local import LocalConfig, ProximalTerm, local_optimizer
from clmm_core.training.views import fused_views

LossName = Literal["hard-positive", "tcl", "focal", "dclw"]
SMALLEST_BATCH = 2
"""A window needs at least one other to be told apart from."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Stage one on a device.

    Raises:
        ConfigError: a value out of range.
    """

    local: LocalConfig
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

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"pretrain.temperature: expected above 0, found {self.temperature}")
        if self.num_views < 2:
            raise ConfigError(f"pretrain.views: expected at least 2, found {self.num_views}")
        if not 1 <= self.num_copies <= self.num_views:
            raise ConfigError(f"pretrain.copies: expected 1 to the number of views ({self.num_views}), found {self.num_copies}")


def contrastive_loss(config: PretrainConfig) -> ContrastiveLoss:
    """Return the loss that the configuration names."""
    match config.loss:
        case "hard-positive":
            return HardPositiveLoss(beta=config.beta, temperature=config.temperature)
        case "tcl":
            return TunedLoss(k1=config.k1, temperature=config.temperature)
        case "focal":
            return FocalLoss(gamma=config.gamma, temperature=config.temperature)
        case "dclw":
            return DecoupledLoss(temperature=config.temperature)


def pretrain_device(model: Clmm, windows: DeviceTensors, config: PretrainConfig, generator: Generator) -> float:
    """Train the encoders and projections of the modalities this device has, in place; return the mean loss of its steps.

    Raises:
        DeviceSkippedError: fewer than two windows.
    """
    if len(windows) < SMALLEST_BATCH:
        raise DeviceSkippedError(f"expected at least {SMALLEST_BATCH} windows to contrast, found {len(windows)}: record longer")
    loss_of = contrastive_loss(config)
    parts = [model.part(name) for name in windows.streams]
    parameters = [p for part in parts for module in (part.encoder, part.projection) for p in module.parameters()]
    optimizer = local_optimizer([(parameters, 1.0)], config.local)
    proximal = ProximalTerm(parameters, config.local.proximal)
    losses = []
    model.train()
    for _ in range(config.local.epochs):
        for batch in windows.batches(config.local.batch_size, generator, SMALLEST_BATCH):
            views, window_ids = _views(model, batch, config, generator)
            loss = loss_of(views, window_ids)
            optimizer.zero_grad(set_to_none=True)
            proximal(loss).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
    return sum(losses) / len(losses)


def _views(model: Clmm, batch: DeviceTensors, config: PretrainConfig, generator: Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all fused views `[B*P, D]` of a batch and which window each shows `[B*P]`."""
    present = modality_dropout(batch.present, config.augmentation.modality_dropout, generator)
    normal = model.normalise(batch.streams, present)
    copies = [model.project(model.encode(augment(normal, config.augmentation, generator))) for _ in range(config.num_copies)]
    views = fused_views(copies, present, config.num_views, generator)  # [B, P, D]
    window_ids = torch.arange(len(batch)).repeat_interleave(config.num_views)
    return views.flatten(0, 1), window_ids
