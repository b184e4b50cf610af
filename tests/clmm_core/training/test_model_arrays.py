from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from clmm_core.models.clmm import Clmm
from clmm_core.models.config import ModelConfig
from clmm_core.training.array_names import is_measured, is_stage_one, is_stage_two
from clmm_core.training.model_arrays import arrays_of, load_arrays, new_arrays


def test_new_arrays_depend_on_the_seed_alone(config: Callable[..., ModelConfig]):
    one, other = new_arrays(config(), 1), new_arrays(config(), 2)
    torch.manual_seed(5)
    again = new_arrays(config(), 1)
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert any(not np.array_equal(one[name], other[name]) for name in one)
    assert {values.dtype for values in one.values()} == {np.dtype(np.float32)}


def test_a_model_comes_back_as_it_went(config: Callable[..., ModelConfig], model: Callable[..., Clmm]):
    sent = model()
    sent.part("gyroscope").mean.fill_(3.0)
    state = torch.random.get_rng_state()
    back = load_arrays(config(), arrays_of(sent)).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(values, back[name]) for name, values in sent.state_dict().items())


def test_arrays_are_copies_both_ways(config: Callable[..., ModelConfig], model: Callable[..., Clmm]):
    arrays = arrays_of(model())
    before = {name: values.copy() for name, values in arrays.items()}
    loaded = load_arrays(config(), arrays)
    with torch.no_grad():
        for values in loaded.state_dict().values():
            values.add_(1.0)
    assert all(np.array_equal(arrays[name], before[name]) for name in arrays)


def test_stage_one_is_normalisation_encoders_and_projections(model: Callable[..., Clmm]):
    network = model(3)
    expected = set()
    for name in ("accelerometer", "gyroscope", "heart"):
        part = network.part(name)
        for piece in ("encoder", "projection"):
            expected |= {f"modalities.{name}.{piece}.{key}" for key in getattr(part, piece).state_dict()}
        expected |= {f"modalities.{name}.mean", f"modalities.{name}.std"}
    assert {name for name in arrays_of(network) if is_stage_one(name)} == expected


def test_stage_two_needs_all_that_is_looked_at(config: Callable[..., ModelConfig]):
    names = set(new_arrays(config(2), 0))
    assert {name for name in names if is_stage_two(name, config(2))} == names
    apart = {name for name in names if not is_stage_two(name, replace(config(2), shared=False))}
    assert apart == {name for name in names if ".projection." in name}


def test_what_is_measured_is_what_is_no_parameter(model: Callable[..., Clmm]):
    network = model(3)
    assert {name for name in arrays_of(network) if is_measured(name)} == {name for name, _ in network.named_buffers()}


def test_a_modality_called_like_a_piece_is_told_from_it():
    assert not is_stage_one("modalities.mean.head.weight")
    assert is_stage_one("modalities.mean.mean")
