"""Many models' predictions at once, as a stack or one after the other, against each model's alone."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clmm_core.models.clmm import Clmm
from clmm_core.models.config import ModelConfig
from clmm_core.training import device_tensors as device_tensors_module
from clmm_core.training import predict_together as predicting
from clmm_core.training.device_tensors import DeviceTensors
from clmm_core.training.model_arrays import load_arrays, new_arrays
from clmm_core.training.predict_together import logits_of, predict, predict_together
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
    monkeypatch.setattr(device_tensors_module, "AT_ONCE", 2 * at_once)
    models = [config(3, dropout=0.5), replace(config(3), fusion="uniform", branches="mean")]
    starts = {model: [new_arrays(model, seed) for seed in range(2)] for model in models}
    asked = [(model, starts[model][i % 2], each) for i, each in enumerate(windows) for model in models]
    for (model, arrays, each), logits, one_by_one in zip(asked, predict_together(asked, CPU), predict(asked, CPU), strict=True):
        (alone,) = logits_of(load_arrays(model, arrays), [each], CPU)
        torch.testing.assert_close(one_by_one, alone, rtol=1e-6, atol=1e-6)
        assert logits.shape == (len(each), 3)
        assert not logits.requires_grad
        torch.testing.assert_close(logits, alone, rtol=1e-5, atol=1e-5)
    assert predict_together([], CPU) == []


@torch.no_grad()
def one_by_one(model: Clmm, windows: DeviceTensors) -> torch.Tensor:
    """Obviously correct, but slow."""
    rows = (windows.select(torch.tensor([row])) for row in range(len(windows)))
    return torch.cat([model.eval()(row.streams, row.present) for row in rows])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3)), min_size=1, max_size=6), at_once=st.integers(1, 12))
def test_devices_that_share_batches_are_told_what_each_window_is_alone(
    model: Callable[..., Clmm], toy_windows: MakeWindows, sizes: list[tuple[int, int]], at_once: int
):
    """Devices of any number of windows with one to three sensors, of which one lost a window's; dropout does nothing."""
    network = model(3, dropout=0.5).train()
    devices = [toy_windows(count, sensors, seed=i) for i, (count, sensors) in enumerate(sizes)]
    for windows in devices:
        if "gyroscope" in windows.present:
            windows.present["gyroscope"][0] = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_tensors_module, "AT_ONCE", at_once)
        together = logits_of(network, devices, CPU)
    for windows, logits in zip(devices, together, strict=True):
        assert not logits.requires_grad
        torch.testing.assert_close(logits, one_by_one(network, windows), rtol=1e-6, atol=1e-6)


def test_a_sensor_whose_encoder_is_spoilt_spoils_nobody_without_it(model: Callable[..., Clmm], toy_windows: MakeWindows):
    network, without, with_it = model(2), toy_windows(4, 1), toy_windows(4, 2)
    torch.nn.init.constant_(network.part("gyroscope").encoder.positions, torch.nan)
    own, spoilt = logits_of(network, [without, with_it], CPU)
    assert own.isfinite().all()
    assert spoilt.isnan().all()


def test_a_model_is_made_once_for_all_its_devices(config: MakeConfig, windows: list[DeviceTensors], monkeypatch: pytest.MonkeyPatch):
    made = []
    monkeypatch.setattr(predicting, "load_arrays", lambda *said: made.append(said) or load_arrays(*said))
    starts = [new_arrays(config(3), seed) for seed in range(2)]
    predict([(config(3), starts[i % 2], each) for i, each in enumerate(windows)], CPU)
    assert len(made) == 2
