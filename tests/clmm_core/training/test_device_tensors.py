from collections.abc import Callable

import pytest
import torch

from clmm_core.data.fleet import DataConfig, device_windows
from clmm_core.training import device_tensors as device_tensors_module
from clmm_core.training.device_tensors import NO_CLASS, DeviceTensors, device_tensors

MakeWindows = Callable[..., DeviceTensors]


def test_labels_become_numbers_and_others_none():
    windows = device_windows(DataConfig(name="synthetic", num_devices=1, window_s=7.0, overlap=0.0), "device-00000")
    tensors = device_tensors(windows, ("walk", "run"))
    assert len(tensors) == len(windows)
    for i, label in enumerate(windows.labels):
        assert tensors.classes[i] == {"walk": 0, "run": 1}.get(label, NO_CLASS)
    for name, values in windows.streams.items():
        assert torch.equal(tensors.streams[name], torch.from_numpy(values))
        assert torch.equal(tensors.present[name], torch.from_numpy(windows.present[name]))


@pytest.mark.parametrize(("size", "expected"), [(4, [4, 4, 3]), (11, [11]), (100, [11]), (5, [5, 5])])
def test_batches_hold_every_window_once_but_a_last_small_batch(toy_windows: MakeWindows, size: int, expected: list[int]):
    windows = toy_windows(11)
    batches = list(windows.batches(size, torch.Generator().manual_seed(0), smallest=2))
    assert [len(batch) for batch in batches] == expected
    seen = torch.cat([batch.streams["accelerometer"] for batch in batches])
    rows = [(windows.streams["accelerometer"] == window).flatten(1).all(dim=1).nonzero().item() for window in seen]
    assert len(set(rows)) == sum(expected)
    assert rows != sorted(rows)
    assert torch.equal(torch.cat([batch.classes for batch in batches]), windows.classes[rows])


def test_in_order_keeps_the_order(toy_windows: MakeWindows, monkeypatch: pytest.MonkeyPatch):
    windows = toy_windows(11)
    monkeypatch.setattr(device_tensors_module, "AT_ONCE", 4)
    parts = list(windows.in_order())
    assert [len(part) for part in parts] == [4, 4, 3]
    assert torch.equal(torch.cat([part.streams["gyroscope"] for part in parts]), windows.streams["gyroscope"])
