"""Stage two on one labelled device: primary-auxiliary training of the whole network, the encoders slower."""

from dataclasses import dataclass, field

from torch import Generator

from clmm_core.errors import ConfigError, DeviceSkippedError
from clmm_core.losses.primary_auxiliary import PrimaryAuxiliaryLoss
from clmm_core.models.clmm import Clmm
from clmm_core.training.augment import Augmentation, augment, modality_dropout
from clmm_core.training.device_tensors import DeviceTensors
from clmm_core.training.local import LocalConfig, ProximalTerm, local_optimizer


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


def finetune_device(model: Clmm, labelled: DeviceTensors, config: FinetuneConfig, generator: Generator) -> float:
    """Train the network on labelled windows, in place; return the mean loss of its steps.

    Raises:
        DeviceSkippedError: no labelled window.
    """
    if not len(labelled):
        raise DeviceSkippedError("expected labelled windows, found none: label some activities on this device")
    loss_of = PrimaryAuxiliaryLoss(weight=config.auxiliary)
    slow = [p for name in labelled.streams for m in (model.part(name).encoder, model.part(name).projection) for p in m.parameters()]
    slow_ids = {id(p) for p in slow}
    absent = {id(p) for name in model.modalities if name not in labelled.streams for p in model.part(name).parameters()}
    quick = [p for p in model.parameters() if id(p) not in slow_ids | absent]
    optimizer = local_optimizer([(slow, config.encoder_rate), (quick, 1.0)], config.local)
    proximal = ProximalTerm([*slow, *quick], config.local.proximal)
    losses = []
    model.train()
    for _ in range(config.local.epochs):
        for batch in labelled.batches(config.local.batch_size, generator):
            present = modality_dropout(batch.present, config.augmentation.modality_dropout, generator)
            normal = augment(model.normalise(batch.streams, present), config.augmentation, generator)
            outputs = model.classify(normal, present)
            loss = loss_of(outputs.primary, outputs.auxiliary, present, batch.classes)
            optimizer.zero_grad(set_to_none=True)
            proximal(loss).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
    return sum(losses) / len(losses)
