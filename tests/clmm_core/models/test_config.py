from dataclasses import fields, replace

import pytest
import torch
from torch import nn

from clmm_core.errors import ConfigError
from clmm_core.models.clmm import Clmm
from clmm_core.models.config import ModalityShape, ModelChoice, ModelConfig, sized

TWO = (ModalityShape(name="inertial", channels=6, time_steps=128), ModalityShape(name="skeleton", channels=60, time_steps=40))
PARTS = ("attention", "fusion", "branches", "shared", "differences")


def num_parameters(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@pytest.mark.parametrize(("name", "encoder", "stage_two"), [("paper", 380_736, 384_548), ("edge", 56_048, 83_428)])
def test_sizes_of_the_presets(name: str, encoder: int, stage_two: int):
    """An encoder of six channels, and with two modalities and 27 classes all that is neither encoder nor projection."""
    model = Clmm(sized(ModelChoice(preset=name), TWO, 27))
    assert num_parameters(model.part("inertial").encoder) == encoder
    stage_one = [module for shape in TWO for module in (model.part(shape.name).encoder, model.part(shape.name).projection)]
    assert num_parameters(model) - num_parameters(*stage_one) == stage_two


def test_a_preset_takes_the_attention_and_dropout_given():
    model = Clmm(sized(ModelChoice(attention="diff-v2", dropout=0.25), TWO, 3))
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0.25}
    assert {type(module).__name__ for module in model.modules() if "Attention" in type(module).__name__} == {
        "DifferentialAttentionV2",
        "QualityGuidedAttention",
    }


@pytest.mark.parametrize("preset", ["paper", "edge"])
def test_every_choice_reaches_the_network(preset: str):
    choice = ModelChoice(
        preset=preset, attention="softmax", fusion="uniform", branches="linear", shared=False, differences=False, dropout=0.25
    )
    sizes = sized(choice, TWO, 5)
    for name in (*PARTS, "dropout"):
        assert getattr(sizes, name) == getattr(choice, name)
    assert (sizes.modalities, sizes.num_classes) == (TWO, 5)
    whole = sized(ModelChoice(preset=preset), TWO, 5)
    assert replace(sizes, **{name: getattr(whole, name) for name in (*PARTS, "dropout")}) == whole


@pytest.mark.parametrize("preset", ["paper", "edge"])
def test_the_presets_are_widths_and_depths_that_can_be_chosen(preset: str):
    embed, layers = {"paper": (128, 2), "edge": (64, 1)}[preset]
    other = {"paper": "edge", "edge": "paper"}[preset]
    whole = sized(ModelChoice(preset=preset), TWO, 5)
    assert (whole.embed, whole.num_layers, whole.gru_layers) == (embed, layers, layers)
    assert sized(ModelChoice(preset=other, embed=embed, layers=layers), TWO, 5) == whole


@pytest.mark.parametrize("embed", [16, 48, 96])
@pytest.mark.parametrize("layers", [1, 3])
def test_any_multiple_of_16_is_a_network(embed: int, layers: int):
    model = Clmm(sized(ModelChoice(embed=embed, layers=layers), TWO, 5)).eval()
    streams = {shape.name: torch.randn(2, shape.channels, shape.time_steps) for shape in TWO}
    assert model(streams, {name: torch.ones(2, dtype=torch.bool) for name in streams}).shape == (2, 5)
    assert len(model.part("inertial").encoder.layers) == layers


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embed": -16}, "model.embed: expected 0 \\(the preset's\\) or more, found -16"),
        ({"layers": -1}, "model.layers: expected 0 \\(the preset's\\) or more, found -1"),
        ({"embed": 24}, "model.embed: expected a multiple of 16, found 24"),
    ],
)
def test_a_size_that_cannot_be_chosen_is_refused(change: dict[str, int], message: str):
    with pytest.raises(ConfigError, match=message):
        ModelChoice(**change)


def test_all_parts_are_there_unless_a_choice_leaves_one_out():
    chosen, built = ({field.name: field.default for field in fields(kind) if field.name in PARTS} for kind in (ModelChoice, ModelConfig))
    assert chosen == built
    assert built == {"attention": "diff-v1", "fusion": "quality-guided", "branches": "gated", "shared": True, "differences": True}
    fewer = ModelChoice(fusion="uniform", branches="linear", shared=False, differences=False)
    assert num_parameters(Clmm(sized(fewer, TWO, 5))) < num_parameters(Clmm(sized(ModelChoice(), TWO, 5)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modalities": ()}, "at least one modality"),
        ({"modalities": (ModalityShape(name="a.b", channels=3, time_steps=50),)}, "modality 'a.b': dots part the names"),
        ({"num_classes": 1}, "at least two classes, found 1"),
        ({"num_heads": 3}, "divide by twice num_heads, found 64 and 3"),
        ({"dropout": 1.0}, r"in \[0, 1\), found 1.0"),
        ({"dropout": -0.1}, r"in \[0, 1\), found -0.1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change: dict[str, object], message: str):
    sizes: ModelConfig = sized(ModelChoice(), TWO, 3)
    with pytest.raises(ConfigError, match=message):
        replace(sizes, **change)
