"""A synthetic fleet of 12 devices with 12 windows each; device-00000 and -00008 have no gyroscope, -00001's sensors drop out."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from clmm_core.data.datasets.synthetic import ACTIVITIES
from clmm_core.data.fleet import DataConfig
from clmm_core.models.config import ModalityShape, ModelConfig


@pytest.fixture
def settings(config: Callable[..., ModelConfig]) -> Callable[..., dict[str, Any]]:
    """Make what every task says, with a tiny model: `settings(*numbers of devices)`."""
    data = DataConfig(name="synthetic", modalities=("accelerometer", "gyroscope"), num_devices=12, window_s=7.0, overlap=0.0)
    shapes = tuple(ModalityShape(name=name, channels=3, time_steps=350) for name in data.modalities)

    def make(*devices: int) -> dict[str, Any]:
        return {
            "data": data,
            "model": replace(config(2, len(ACTIVITIES), dropout=0.1), modalities=shapes),
            "classes": tuple(sorted(ACTIVITIES)),
            "seed": 4,
            "server_round": 3,
            "devices": tuple(f"device-{number:05d}" for number in devices),
        }

    return make
