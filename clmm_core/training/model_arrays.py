"""The model as named arrays, and back."""

import torch

from clmm_core.federated.arrays import Arrays
from clmm_core.models.clmm import Clmm
from clmm_core.models.config import ModelConfig
from clmm_core.seeds import seeded


def new_arrays(config: ModelConfig, seed: int) -> Arrays:
    """Return the arrays of a freshly initialised model, the same for the same seed."""
    with seeded(seed, "initialise"):
        return arrays_of(Clmm(config))


def arrays_of(model: Clmm) -> Arrays:
    """Return every parameter and buffer, as copies."""
    return {name: values.detach().cpu().numpy().copy() for name, values in model.state_dict().items()}


def load_arrays(config: ModelConfig, arrays: Arrays) -> Clmm:
    """Return a model with these arrays; those of another stage, which did not travel, are left as torch initialises them."""
    with torch.random.fork_rng(devices=[]):
        model = Clmm(config)
    model.load_state_dict({name: torch.from_numpy(values.copy()) for name, values in arrays.items()}, strict=False)
    return model
