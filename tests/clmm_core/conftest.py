"""Small real objects for the tests of losses, models, training and the federation's sums."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from clmm_core.models.clmm import Clmm
from clmm_core.models.config import ModalityShape, ModelConfig
from clmm_core.training.device_tensors import DeviceTensors


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # models this small are slower on two


@pytest.fixture
def views() -> tuple[Tensor, Tensor]:
    """Four windows with two to four views each, mixed: `[11, 5]` float64 of length 1, and their ids."""
    random = torch.Generator().manual_seed(3)
    values = torch.randn(11, 5, generator=random, dtype=torch.float64)
    return torch.nn.functional.normalize(values, dim=1), torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 0])


def tiny_config(num_modalities: int = 2, num_classes: int = 3, dropout: float = 0.0, **parts: Any) -> ModelConfig:
    names, channels, steps = ("accelerometer", "gyroscope", "heart"), (3, 3, 1), (40, 32, 12)
    return ModelConfig(
        modalities=tuple(ModalityShape(name=names[i], channels=channels[i], time_steps=steps[i]) for i in range(num_modalities)),
        num_classes=num_classes,
        conv_channels=(16, 16),
        embed=16,
        num_tokens=5,
        num_layers=1,
        num_heads=2,
        swiglu=16,
        projection=8,
        gru=4,
        gru_layers=1,
        dropout=dropout,
        **{"differences": False} | parts,  # so that a test can give an encoder its windows itself
    )


@pytest.fixture
def config() -> Callable[..., ModelConfig]:
    """Make a model of a few thousand parameters: `config(num_modalities, num_classes, dropout, fusion="uniform")`."""
    return tiny_config


@pytest.fixture
def model() -> Callable[..., Clmm]:
    """Make that model with parameters from seed 0."""

    def make(*sizes: int, **settings: object) -> Clmm:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Clmm(tiny_config(*sizes, **settings))

    return make


@pytest.fixture
def toy_windows() -> Callable[..., DeviceTensors]:
    """Make windows of three activities that differ in cadence and size, each with its own phase and noise."""

    def make(num_windows: int = 24, num_modalities: int = 2, seed: int = 0) -> DeviceTensors:
        random = torch.Generator().manual_seed(seed)
        classes = torch.arange(num_windows) % 3
        streams = {}
        for shape in tiny_config(num_modalities).modalities:
            phase = 6.28 * torch.rand(num_windows, shape.channels, 1, generator=random)
            turns = 6.28 * (1 + 2 * classes[:, None, None]) * torch.arange(shape.time_steps) / shape.time_steps
            noise = 0.1 * torch.randn(num_windows, shape.channels, shape.time_steps, generator=random)
            streams[shape.name] = (1 + classes[:, None, None]) * torch.sin(turns + phase) + noise
        present = {name: torch.ones(num_windows, dtype=torch.bool) for name in streams}
        return DeviceTensors(streams, present, classes)

    return make
