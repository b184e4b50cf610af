"""Which arrays of the model a stage needs, trains or measures, by their names."""

from functools import lru_cache

from clmm_core.federated.arrays import FUSION, part_of
from clmm_core.models.config import ModelConfig

NORMALISATION = ("mean", "std")
STAGE_ONE = ("encoder", "projection", *NORMALISATION)
"""The pieces of a modality's part; `modalities.<name>.<piece>` begins the names of their arrays."""
QUALITY = "fusion.quality"
"""The measured quality of each modality."""


def is_stage_one(name: str) -> bool:
    """Return whether stage one needs this array: a modality's normalisation, encoder or projection."""
    return _piece_of(name) in STAGE_ONE


def is_stage_two(name: str, config: ModelConfig) -> bool:
    """Return whether stage two needs this array: all but projections that nothing looks at."""
    return config.shared or _piece_of(name) != "projection"


def is_measured(name: str) -> bool:
    """Return whether this array is measured, and then never trained: a modality's normalisation, and the quality of all."""
    return name == QUALITY or _piece_of(name) in NORMALISATION


@lru_cache(maxsize=4096)
def _piece_of(name: str) -> str:
    """Return the piece of a modality's part that an array belongs to; empty for what belongs to no modality."""
    return "" if part_of(name) == FUSION else name.split(".")[2]
