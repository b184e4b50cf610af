"""What the server asks a host to do: everything the answer depends on, beside the arrays that travel along."""

from dataclasses import dataclass

from clmm_core.data.fleet import DataConfig
from clmm_core.data.labels import LabelDraw
from clmm_core.federated.quantise import UpdateBits
from clmm_core.models.config import ModelConfig
from clmm_core.training.finetune import FinetuneConfig
from clmm_core.training.pretrain import PretrainConfig


@dataclass(frozen=True, kw_only=True)
class ProfileTask:
    """`query.profile`: what do you have?"""

    data: DataConfig


@dataclass(frozen=True, kw_only=True)
class SumsTask:
    """`query.sums`: normalisation sums over these devices."""

    data: DataConfig
    devices: tuple[str, ...]
    differences: bool
    """Also of each channel's differences, as the model sees them."""


@dataclass(frozen=True, kw_only=True)
class ModelTask:
    """What every task that uses the model says."""

    data: DataConfig
    model: ModelConfig
    classes: tuple[str, ...]
    seed: int
    server_round: int
    devices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class UpdateTask(ModelTask):
    """What every task that is answered with an update says."""

    update_bits: UpdateBits = 32
    """Of a value of the update that comes back; see `outgoing`."""
    host_aggregation: bool = True
    """Whether a host folds its devices' updates into one mean; else each comes back by itself."""


@dataclass(frozen=True, kw_only=True)
class PretrainTask(UpdateTask):
    """`train.pretrain`: a round of stage one on each device."""

    config: PretrainConfig


@dataclass(frozen=True, kw_only=True)
class FinetuneTask(UpdateTask):
    """`train.finetune`: a round of stage two on each (labelled) device."""

    config: FinetuneConfig
    labels: LabelDraw


@dataclass(frozen=True, kw_only=True)
class SelftrainTask(FinetuneTask):
    """`train.selftrain`: a round of stage two on every device, with its own pseudo-labels where it has no labels."""

    labelled: tuple[str, ...]
    """Devices whose drawn labels are known."""
    confidence: float
    """Probability from which on a window's most likely class counts as its label."""
    expected: tuple[float, ...]
    """By class, the share of a device's windows that probabilities are aligned to first; empty where they are not."""


@dataclass(frozen=True, kw_only=True)
class QualityTask(ModelTask):
    """`query.quality`: Hopkins values of these devices' unlabelled embeddings."""


@dataclass(frozen=True, kw_only=True)
class EvaluateTask(ModelTask):
    """`evaluate.subjects`: recognise each subject; personalise to each of `personalise` first, too."""

    labelled: tuple[str, ...]
    """Devices whose drawn labels were trained on and are therefore not evaluated."""
    labels: LabelDraw
    personalise: tuple[str, ...] = ()
    personal_labels: LabelDraw
    personal_config: FinetuneConfig
    smooth_s: float
    """A window's probabilities are averaged with those of windows that start so much earlier or later, in seconds."""


@dataclass(frozen=True, kw_only=True)
class MomentsTask(ModelTask):
    """`query.moments`: sums from which the server finds the plane to look at embeddings in."""

    points_per_device: int


@dataclass(frozen=True, kw_only=True)
class PlaneTask(ModelTask):
    """`query.plane`: embeddings projected on that plane."""

    points_per_device: int
