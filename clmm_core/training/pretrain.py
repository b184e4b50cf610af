"""Stage one on one device: contrastive pretraining of its encoders on unlabelled windows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Generator, Tensor

from clmm_core.errors import ConfigError, DeviceSkippedError
from clmm_core.losses.cross_modal import CrossModalLoss
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
Contrast = Literal["fused", "per-modality", "cross-modal"]
"""What is told apart: fused views of windows (CLMM, Cosmo), each modality's own copies (SimCLR), or one modality against another (CMC)."""
Aggregation = Literal["mean", "l-dawa"]
SMALLEST_BATCH = 2
"""A window needs at least one other to be told apart from."""


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
        DeviceSkippedError: fewer than two windows, or nothing in them that the chosen contrast compares.
    """
    if len(windows) < SMALLEST_BATCH:
        raise DeviceSkippedError(f"expected at least {SMALLEST_BATCH} windows to contrast, found {len(windows)}: record longer")
    parts = [model.part(name) for name in windows.streams]
    parameters = [p for part in parts for module in (part.encoder, part.projection) for p in module.parameters()]
    optimizer = local_optimizer([(parameters, 1.0)], config.local)
    proximal = ProximalTerm(parameters, config.local.proximal)
    losses = []
    model.train()
    for _ in range(config.local.epochs):
        for batch in windows.batches(config.local.batch_size, generator, SMALLEST_BATCH):
            loss = _loss(model, batch, config, generator)
            if loss is None:
                continue
            optimizer.zero_grad(set_to_none=True)
            proximal(loss).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
    if not losses:
        raise DeviceSkippedError(
            f"pretrain.contrast '{config.contrast}' found nothing to compare in {len(windows)} windows: choose another"
        )
    return sum(losses) / len(losses)


def _loss(model: Clmm, batch: DeviceTensors, config: PretrainConfig, generator: Generator) -> Tensor | None:
    """Return the batch's loss, or None where the chosen contrast finds nothing to compare."""
    present = modality_dropout(batch.present, config.augmentation.modality_dropout, generator)
    normal = model.normalise(batch.streams, present)

    def project() -> dict[str, Tensor]:
        return model.project(model.encode(augment(normal, config.augmentation, generator)))

    match config.contrast:
        case "fused":
            copies = [project() for _ in range(config.num_copies)]
            views = fused_views(copies, present, config.num_views, generator)  # [B, P, D]
            return contrastive_loss(config)(views.flatten(0, 1), torch.arange(len(batch)).repeat_interleave(config.num_views))
        case "per-modality":
            return _own_loss([project() for _ in range(config.num_copies)], present, contrastive_loss(config))
        case "cross-modal":
            return CrossModalLoss(temperature=config.temperature)(project(), present)


def _own_loss(copies: Sequence[Mapping[str, Tensor]], present: Mapping[str, Tensor], loss_of: ContrastiveLoss) -> Tensor | None:
    """Return the mean over modalities of the loss between each window's copies.

    Source: with two copies and one positive a view this is NT-Xent of SimCLR, Chen et al. 2020, arXiv 2002.05709, eq. 1; for sensors
    Tang et al. 2020, arXiv 2011.11542.
    """
    terms = []
    for name, mask in present.items():
        if int(mask.sum()) >= SMALLEST_BATCH:
            window_ids = torch.arange(int(mask.sum())).repeat(len(copies))
            terms.append(loss_of(torch.cat([copy[name][mask] for copy in copies]), window_ids))
    return torch.stack(terms).mean() if terms else None
