"""Stage two on one labelled device: primary-auxiliary training of the whole network, the encoders slower."""

from collections.abc import Collection

from torch import Tensor
from torch.nn import Parameter

from clmm_core.errors import DeviceSkippedError
from clmm_core.losses.primary_auxiliary import PrimaryAuxiliaryLoss
from clmm_core.models.clmm import Clmm
from clmm_core.training.augment import augment, modality_dropout
from clmm_core.training.device_tensors import DeviceTensors
from clmm_core.training.draws import Draws
from clmm_core.training.local import ProximalTerm, local_optimizer
from clmm_core.training.pretrain import pretrained_parameters
from clmm_core.training.settings import FinetuneConfig


def finetune_device(model: Clmm, labelled: DeviceTensors, config: FinetuneConfig, draws: Draws) -> float:
    """Train the network on labelled windows, in place; return the mean loss of its steps.

    Raises:
        DeviceSkippedError: no labelled window.
    """
    if not len(labelled):
        raise no_labels()
    slow, quick = finetuned_parameters(model, labelled.streams)
    optimizer = local_optimizer([(slow, config.encoder_rate), (quick, 1.0)], config.local)
    proximal = ProximalTerm([*slow, *quick], config.local.proximal)
    losses = []
    model.train()
    for number, batch in enumerate(labelled.epochs(config.local, draws)):
        loss = finetune_loss(model, batch, config, draws.step(number))
        optimizer.zero_grad(set_to_none=True)
        proximal(loss).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def no_labels() -> DeviceSkippedError:
    """Return why a device without labels cannot take part."""
    return DeviceSkippedError("expected labelled windows, found none: label some activities on this device")


def finetuned_parameters(model: Clmm, modalities: Collection[str]) -> tuple[list[Parameter], list[Parameter]]:
    """Return the parameters that learn slowly, those of encoders and projections, and the others.

    None of modalities that are absent, nor of projections that nothing looks at: without the shared feature they have no gradient.
    """
    pretrained = pretrained_parameters(model, modalities)
    unused = [p for name in modalities if not model.config.shared for p in model.part(name).projection.parameters()]
    absent = [p for name in model.modalities if name not in modalities for p in model.part(name).parameters()]
    still = {id(p) for p in (*unused, *absent)}
    apart = still | {id(p) for p in pretrained}
    return [p for p in pretrained if id(p) not in still], [p for p in model.parameters() if id(p) not in apart]


def finetune_loss(model: Clmm, batch: DeviceTensors, config: FinetuneConfig, draws: Draws, counts: Tensor | None = None) -> Tensor:
    """Return the loss of a batch of windows in physical units; `counts` `[B]` is False for those that only fill it up."""
    present = modality_dropout(batch.present, config.augmentation.modality_dropout, draws)
    normal = augment(model.normalise(batch.streams, present), config.augmentation, draws)
    outputs = model.classify(normal, present)
    return PrimaryAuxiliaryLoss(weight=config.auxiliary)(outputs.primary, outputs.auxiliary, present, batch.classes, counts)
