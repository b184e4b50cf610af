"""The model as named arrays, and back."""

import torch

from clmm_core.federated.arrays import FUSION, Arrays, part_of
from clmm_core.models.clmm import Clmm
from clmm_core.models.config import ModelConfig
from clmm_core.seeds import seeded

NORMALISATION = ("mean", "std")
STAGE_ONE = ("encoder", "projection", *NORMALISATION)
"""The pieces of a modality's part; `modalities.<name>.<piece>` begins the names of their arrays."""
QUALITY = "fusion.quality"
"""The measured quality of each modality."""


def new_arrays(config: ModelConfig, seed: int) -> Arrays:
    """Return the arrays of a freshly initialised model, the same for the same seed."""
    with seeded(seed, "initialise"):
        return arrays_of(Clmm(config))


def arrays_of(model: Clmm) -> Arrays:
    """Return every parameter and buffer, as copies."""
    return {name: values.detach().cpu().numpy().copy() for name, values in model.state_dict().items()}


def is_stage_one(name: str) -> bool:
    """Return whether stage one needs this array: a modality's normalisation, encoder or projection."""
    return _piece_of(name) in STAGE_ONE


def is_stage_two(name: str, config: ModelConfig) -> bool:
    """Return whether stage two needs this array: all but projections that nothing looks at."""
    return config.shared or _piece_of(name) != "projection"


def is_measured(name: str) -> bool:
    """Return whether this array is measured, and then never trained: a modality's normalisation, and the quality of all."""
    return name == QUALITY or _piece_of(name) in NORMALISATION


def _piece_of(name: str) -> str:
    """Return the piece of a modality's part that an array belongs to; empty for what belongs to no modality."""
    return "" if part_of(name) == FUSION else name.split(".")[2]


def load_arrays(config: ModelConfig, arrays: Arrays) -> Clmm:
    """Return a model with these arrays; those of another stage, which did not travel, are left as torch initialises them."""
    with torch.random.fork_rng(devices=[]):
        model = Clmm(config)
    model.load_state_dict({name: torch.from_numpy(values.copy()) for name, values in arrays.items()}, strict=False)
    return model
