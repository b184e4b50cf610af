"""What the server asks a host to do: everything the answer depends on, beside the arrays that travel along."""

from dataclasses import dataclass

from clmm_core.data.fleet import DataConfig
from clmm_core.data.labels import LabelDraw
from clmm_core.federated.quantise import UpdateBits
from clmm_core.models.config import ModelConfig
from clmm_core.training.array_names import is_measured, is_stage_one, is_stage_two
from clmm_core.training.settings import FinetuneConfig, PretrainConfig


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
    clip: float = 0.0
    """Longest a device's update may be, over all that it trains; longer ones are shortened, and each device counts once in each part it
    has, whatever its windows. 0 for any length, weighted by windows."""


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


TrainTask = PretrainTask | FinetuneTask


def stage_of(task: TrainTask) -> str:
    """Return the name of the stage a task belongs to."""
    if isinstance(task, SelftrainTask):
        return "selftrain"
    return "pretrain" if isinstance(task, PretrainTask) else "finetune"


def learns(task: TrainTask, name: str) -> bool:
    """Return whether an array of the model is trained by this task, and so part of an update; the others stay as they were sent."""
    if is_measured(name):
        return False
    if isinstance(task, PretrainTask):
        return is_stage_one(name)
    return is_stage_two(name, task.model) and (task.config.encoder_rate > 0 or not is_stage_one(name))


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
class DeliverTask:
    """`query.model`: here is the exported model, recognise with it; its bytes are the array `MODEL`."""

    data: DataConfig
    golden: str
    """JSON of its golden vectors."""


MODEL = "model"


@dataclass(frozen=True, kw_only=True)
class MomentsTask(ModelTask):
    """`query.moments`: sums from which the server finds the plane to look at embeddings in."""

    points_per_device: int


@dataclass(frozen=True, kw_only=True)
class PlaneTask(ModelTask):
    """`query.plane`: embeddings projected on that plane."""

    points_per_device: int
