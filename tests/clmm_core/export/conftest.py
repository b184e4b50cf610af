"""Models of every kind, exported once a session: an export takes a second or more."""

from dataclasses import dataclass

import pytest
import torch

from clmm_core.export.onnx_file import onnx_model
from clmm_core.export.trained import TrainedModel
from clmm_core.models.clmm import Clmm
from clmm_core.models.config import ModalityShape, ModelConfig
from clmm_core.recognise.metadata import FORMAT, ModalityInput, ModelMetadata

SHAPES = (("accelerometer", 3, 100, "m/s^2"), ("gyroscope", 3, 80, "rad/s"), ("heart", 1, 24, "1/s"))
VARIANTS = {
    "the method": {"num_modalities": 2},
    "three sensors, V2, learned, mean": {
        "num_modalities": 3,
        "attention": "diff-v2",
        "fusion": "learned",
        "branches": "mean",
        "shared": False,
        "differences": False,
    },
    "one sensor, softmax, uniform, linear": {"num_modalities": 1, "attention": "softmax", "fusion": "uniform", "branches": "linear"},
    "two sensors, recurrent alone, two layers": {"num_modalities": 2, "branches": "recurrent", "num_layers": 2, "gru_layers": 2},
}
"""Every value of every part of the network at least once."""


@dataclass(frozen=True)
class Exported:
    trained: TrainedModel
    content: bytes


def trained_model(num_modalities: int = 2, **parts: object) -> TrainedModel:
    """Make a model with random weights, means and deviations, as training would leave it."""
    shapes = SHAPES[:num_modalities]
    sizes = {"conv_channels": (16, 16), "embed": 16, "num_tokens": 6, "num_heads": 2, "swiglu": 16, "projection": 8, "gru": 4}
    config = ModelConfig(
        modalities=tuple(ModalityShape(name=name, channels=channels, time_steps=steps) for name, channels, steps, _ in shapes),
        num_classes=4,
        **{"num_layers": 1, "gru_layers": 1} | sizes | parts,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = Clmm(config).eval()
        for shape in config.modalities:
            part = network.part(shape.name)
            part.mean.copy_(3 * torch.randn(part.mean.shape))
            part.std.copy_(0.3 + 2 * torch.rand(part.std.shape))
    metadata = ModelMetadata(
        format=FORMAT,
        run="toy",
        server_round=3,
        trained_on="nothing",
        licence="Apache-2.0",
        weights_sha256="0" * 64,
        precision="fp32",
        modalities=tuple(
            ModalityInput(name=name, unit=unit, channels=channels, rate_hz=steps / 2.0, time_steps=steps)
            for name, channels, steps, unit in shapes
        ),
        window_s=2.0,
        classes=("walk", "run", "sit", "lie"),
        upright=False,
        same_side=False,
        temperature=1.5,
        threshold=0.3,
        calibrated_on="nobody",
    )
    return TrainedModel(network, metadata, record=None)  # type: ignore[arg-type]  # nothing here looks at the run


@pytest.fixture(scope="session", params=VARIANTS.values(), ids=VARIANTS.keys())
def variant(request: pytest.FixtureRequest) -> Exported:
    if request.param == VARIANTS["the method"]:
        shared: Exported = request.getfixturevalue("exported")
        return shared
    trained = trained_model(**request.param)
    return Exported(trained, onnx_model(trained).SerializeToString())


@pytest.fixture(scope="session")
def exported() -> Exported:
    trained = trained_model()
    return Exported(trained, onnx_model(trained).SerializeToString())
