"""Many models' predictions at once, as a stack or one after the other, against each model's alone."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from clmm_core.models.config import ModelConfig
from clmm_core.training import predict_together as predicting
from clmm_core.training.device_tensors import DeviceTensors
from clmm_core.training.evaluate import logits_of
from clmm_core.training.model_arrays import load_arrays, new_arrays
from clmm_core.training.predict_together import predict, predict_together
from clmm_core.training.together import forget

MakeConfig = Callable[..., ModelConfig]
MakeWindows = Callable[..., DeviceTensors]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _afresh() -> None:
    forget()


@pytest.fixture
def windows(toy_windows: MakeWindows) -> list[DeviceTensors]:
    """Unequal devices: one complete, one whose gyroscope drops out, one without the third sensor, one with hardly any windows."""
    complete, gaps, fewer, short = toy_windows(7, 3), toy_windows(12, 3, seed=1), toy_windows(6, 2, seed=2), toy_windows(4, 3, seed=3)
    gaps.present["gyroscope"][torch.arange(12) % 3 == 0] = False
    gaps.present["heart"][torch.arange(12) % 4 == 1] = False
    return [complete, gaps, fewer, short]


@pytest.mark.parametrize("at_once", [64, 2])
def test_models_predict_together_what_each_predicts(
    config: MakeConfig, windows: list[DeviceTensors], monkeypatch: pytest.MonkeyPatch, at_once: int
):
    """Two shapes of model, two starts, devices of unequal length and sensors; no dropout."""
    monkeypatch.setattr(predicting, "MAX_STACKED", at_once)
    monkeypatch.setattr(predicting, "AT_ONCE", 2 * at_once)
    models = [config(3, dropout=0.5), replace(config(3), fusion="uniform", branches="mean")]
    starts = {model: [new_arrays(model, seed) for seed in range(2)] for model in models}
    asked = [(model, starts[model][i % 2], each) for i, each in enumerate(windows) for model in models]
    for (model, arrays, each), logits, one_by_one in zip(asked, predict_together(asked, CPU), predict(asked, CPU), strict=True):
        assert torch.equal(one_by_one, logits_of(load_arrays(model, arrays), each))
        assert logits.shape == (len(each), 3)
        assert not logits.requires_grad
        torch.testing.assert_close(logits, logits_of(load_arrays(model, arrays), each), rtol=1e-5, atol=1e-5)
    assert predict_together([], CPU) == []
