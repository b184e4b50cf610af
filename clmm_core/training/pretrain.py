"""Stage one on one device: contrastive pretraining of its encoders on unlabelled windows."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from clmm_core.errors import DeviceSkippedError
from clmm_core.losses.cross_modal import CrossModalLoss
from clmm_core.losses.decoupled import DecoupledLoss
from clmm_core.losses.focal import FocalLoss
from clmm_core.losses.hard_positive import HardPositiveLoss
from clmm_core.losses.pairs import ContrastiveLoss
from clmm_core.losses.tuned import TunedLoss
from clmm_core.models.clmm import Clmm
from clmm_core.training.augment import augment, modality_dropout
from clmm_core.training.device_tensors import DeviceTensors
from clmm_core.training.draws import Draws
from clmm_core.training.local import ProximalTerm, local_optimizer
from clmm_core.training.settings import Contrast, PretrainConfig
from clmm_core.training.views import fused_views

SMALLEST_BATCH = 2
"""A window needs at least one other to be told apart from."""


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


def pretrain_device(model: Clmm, windows: DeviceTensors, config: PretrainConfig, draws: Draws) -> float:
    """Train the encoders and projections of the modalities this device has, in place; return the mean loss of its steps.

    Raises:
        DeviceSkippedError: fewer than two windows, or nothing in them that the chosen contrast compares.
    """
    if len(windows) < SMALLEST_BATCH:
        raise too_few_windows(len(windows))
    parameters = pretrained_parameters(model, windows.streams)
    optimizer = local_optimizer([(parameters, 1.0)], config.local)
    proximal = ProximalTerm(parameters, config.local.proximal)
    losses = []
    model.train()
    for number, batch in enumerate(windows.epochs(config.local, draws, SMALLEST_BATCH)):
        loss, is_compared = pretrain_loss(model, batch, config, draws.step(number))
        if not any(is_compared.values()):
            continue
        optimizer.zero_grad(set_to_none=True)
        proximal(loss).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    if not losses:
        raise nothing_to_compare(config, len(windows))
    return sum(losses) / len(losses)


def too_few_windows(count: int) -> DeviceSkippedError:
    """Return why a device with `count` windows cannot take part."""
    return DeviceSkippedError(f"expected at least {SMALLEST_BATCH} windows to contrast, found {count}: record longer")


def nothing_to_compare(config: PretrainConfig, count: int) -> DeviceSkippedError:
    """Return why a device without a single usable step is left out."""
    return DeviceSkippedError(f"pretrain.contrast '{config.contrast}' found nothing to compare in {count} windows: choose another")


def pretrained_parameters(model: Clmm, modalities: Iterable[str]) -> list[Parameter]:
    """Return the encoders' and projections' parameters of these modalities."""
    return [p for name in modalities for module in (model.part(name).encoder, model.part(name).projection) for p in module.parameters()]


def pretrain_loss(
    model: Clmm, batch: DeviceTensors, config: PretrainConfig, draws: Draws, counts: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a batch's loss, and by modality whether the chosen contrast finds anything to compare it with; without any, it means nothing.

    A modality without learns nothing from the batch: a lone device leaves it out of the loss, and a stack of devices, where others have
    something, leaves its parameters as they are.

    Args:
        model: encodes and projects.
        batch: windows in physical units, each with a modality.
        config: what is told apart, and how.
        draws: of this step.
        counts: `[B]` bool, False for windows that only fill the batch up; None where all count.
    """
    present = modality_dropout(batch.present, config.augmentation.modality_dropout, draws)
    normal = model.normalise(batch.streams, present)
    everyone = torch.ones_like(batch.classes, dtype=torch.bool) if counts is None else counts

    def project() -> dict[str, Tensor]:
        return model.project(model.encode(augment(normal, config.augmentation, draws)))

    match config.contrast:
        case "fused":
            copies = [project() for _ in range(config.num_copies)]
            views = fused_views(copies, present, config.num_views, draws).flatten(0, 1)  # [B * P, D]
            window_ids = torch.arange(len(everyone), device=views.device).repeat_interleave(config.num_views)
            of_views = None if counts is None else counts.repeat_interleave(config.num_views)
            is_enough = everyone.sum() >= SMALLEST_BATCH
            return contrastive_loss(config)(views, window_ids, of_views), dict.fromkeys(present, is_enough)
        case "per-modality" | "cross-modal":
            owned = {name: mask & everyone for name, mask in present.items()}
            if counts is None:
                owned = _comparable(owned, config.contrast)
                if not owned:
                    return torch.zeros(()), {}
            if config.contrast == "per-modality":
                return _own_loss([project() for _ in range(config.num_copies)], owned, contrastive_loss(config))
            projections = project()
            return CrossModalLoss(temperature=config.temperature)({name: projections[name] for name in owned}, owned)


def _comparable(owned: Mapping[str, Tensor], contrast: Contrast) -> dict[str, Tensor]:
    """Return the modalities that there is something to compare with; the others get no gradient, not even one of zeros that decays."""
    partners = {
        name: [mask] if contrast == "per-modality" else [owned[other] for other in owned if other != name] for name, mask in owned.items()
    }
    return {name: mask for name, mask in owned.items() if any(int((mask & other).sum()) >= SMALLEST_BATCH for other in partners[name])}


def _own_loss(
    copies: Sequence[Mapping[str, Tensor]], owned: Mapping[str, Tensor], loss_of: ContrastiveLoss
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the mean, over modalities that two windows have, of the loss between each window's copies, and which modalities those are.

    Source: with two copies and one positive a view this is NT-Xent of SimCLR, Chen et al. 2020, arXiv 2002.05709, eq. 1; for sensors
    Tang et al. 2020, arXiv 2011.11542.
    """
    is_compared = {name: mask.sum() >= SMALLEST_BATCH for name, mask in owned.items()}
    terms = []
    for name, mask in owned.items():
        window_ids = torch.arange(len(mask), device=mask.device).repeat(len(copies))
        loss = loss_of(torch.cat([copy[name] for copy in copies]), window_ids, mask.repeat(len(copies)))
        terms.append(torch.where(is_compared[name], loss, 0.0))
    count = torch.stack(list(is_compared.values())).sum()
    return torch.stack(terms).sum() / count.clamp(min=1), is_compared
