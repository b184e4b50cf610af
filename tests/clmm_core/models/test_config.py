from dataclasses import replace

import pytest
from torch import nn

from clmm_core.errors import ConfigError
from clmm_core.models.clmm import Clmm
from clmm_core.models.config import ModalityShape, ModelConfig, preset

TWO = (ModalityShape(name="inertial", channels=6, time_steps=128), ModalityShape(name="skeleton", channels=60, time_steps=40))


def num_parameters(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@pytest.mark.parametrize(("name", "encoder", "stage_two"), [("paper", 378_816, 384_548), ("edge", 55_088, 83_428)])
def test_sizes_of_the_presets(name: str, encoder: int, stage_two: int):
    """An encoder of six channels, and with two modalities and 27 classes all that is neither encoder nor projection."""
    model = Clmm(preset(name, TWO, 27))
    assert num_parameters(model.part("inertial").encoder) == encoder
    stage_one = [module for shape in TWO for module in (model.part(shape.name).encoder, model.part(shape.name).projection)]
    assert num_parameters(model) - num_parameters(*stage_one) == stage_two


def test_a_preset_takes_the_attention_and_dropout_given():
    model = Clmm(preset("edge", TWO, 3, attention="diff-v2", dropout=0.25))
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0.25}
    assert {type(module).__name__ for module in model.modules() if "Attention" in type(module).__name__} == {
        "DifferentialAttentionV2",
        "QualityGuidedAttention",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modalities": ()}, "at least one modality"),
        ({"modalities": (ModalityShape(name="type", channels=3, time_steps=50),)}, "modality 'type': PyTorch keeps this name"),
        ({"num_classes": 1}, "at least two classes, found 1"),
        ({"num_heads": 3}, "divide by twice num_heads, found 64 and 3"),
        ({"dropout": 1.0}, r"in \[0, 1\), found 1.0"),
        ({"dropout": -0.1}, r"in \[0, 1\), found -0.1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change: dict[str, object], message: str):
    sizes: ModelConfig = preset("edge", TWO, 3)
    with pytest.raises(ConfigError, match=message):
        replace(sizes, **change)
