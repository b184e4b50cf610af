"""One device's training in one round, as a stack of devices takes it."""

from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from clmm_core.errors import DeviceSkippedError
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.weighted_sum import Weights
from clmm_core.models.config import ModelConfig
from clmm_core.training.device_tensors import DeviceTensors
from clmm_core.training.settings import FinetuneConfig, PretrainConfig

StageConfig = PretrainConfig | FinetuneConfig


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One device's training in one round."""

    model: ModelConfig
    config: StageConfig
    arrays: Arrays
    """The global model it starts from; jobs that start from the same one share it."""
    windows: DeviceTensors
    """All that it may learn from; jobs of one device share it from round to round."""
    rows: Tensor
    """`[rows]` int64, the windows it learns from."""
    classes: Tensor
    """`[rows]` int64, what they show; -1 in stage one."""
    key: int
    """All its random numbers follow from it."""
    host: int
    """Jobs of one host are folded into one mean."""
    weights: Weights
    """How much it counts in the mean of each part of the model."""
    clip: float = 0.0
    """Longest its update may be over the parts that it counts in; 0 for any length. See `federated.clipping`."""

    @property
    def way(self) -> StageConfig:
        """How it trains but for its learning rate, which may differ from round to round."""
        return replace(self.config, local=replace(self.config.local, learning_rate=0.0))

    @property
    def alike(self) -> tuple[object, ...]:
        """What jobs of one stack have in common: all but where they start, their windows, and their learning rate."""
        shapes = tuple((name, *values.shape[1:]) for name, values in self.windows.streams.items())
        return self.model, self.way, shapes


Losses = list[float | DeviceSkippedError]
"""Of jobs in order: the mean loss of a job's steps, NaN where training diverged, or why it was left out."""


class Mean(NamedTuple):
    """A mean update (local minus global) of what was trained."""

    update: Arrays
    weights: Weights
    """Of each part in it."""
    num_within_clip: int
    """Of its jobs that have a clip, those whose update was no longer."""
