from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clmm_core.data.fleet import DataConfig, device_windows
from clmm_core.models.clmm import Clmm
from clmm_core.training import device_tensors as device_tensors_module
from clmm_core.training.device_tensors import NO_CLASS, DeviceTensors, device_tensors, in_batches, pooled, zero_filled
from clmm_core.training.draws import Draws
from clmm_core.training.settings import LocalConfig

MakeModel = Callable[..., Clmm]
MakeWindows = Callable[..., DeviceTensors]


def without(windows: DeviceTensors, name: str) -> DeviceTensors:
    streams, present = ({key: values for key, values in each.items() if key != name} for each in (windows.streams, windows.present))
    return DeviceTensors(streams, present, windows.classes)


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
    local = LocalConfig(epochs=1, batch_size=size, learning_rate=0.0)
    batches = list(windows.epochs(local, Draws(torch.tensor(0)), smallest=2))
    assert [len(batch) for batch in batches] == expected
    seen = torch.cat([batch.streams["accelerometer"] for batch in batches])
    rows = [(windows.streams["accelerometer"] == window).flatten(1).all(dim=1).nonzero().item() for window in seen]
    assert len(set(rows)) == sum(expected)
    assert rows != sorted(rows)
    assert torch.equal(torch.cat([batch.classes for batch in batches]), windows.classes[rows])


@given(counts=st.lists(st.integers(0, 9), max_size=6), at_once=st.integers(1, 7))
def test_batches_of_many_devices_hold_all_windows_in_order(counts: list[int], at_once: int):
    first = 0
    devices = []
    for count in counts:
        values = torch.arange(first, first + count)
        devices.append(DeviceTensors({"a": values[:, None, None]}, {"a": values % 2 == 0}, values % 3))
        first += count
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_tensors_module, "AT_ONCE", at_once)
        batches = list(in_batches(devices))
    assert [len(batch) for batch in batches] == [at_once] * (first // at_once) + [first % at_once] * (first % at_once > 0)
    seen = [int(value) for batch in batches for value in batch.streams["a"].flatten()]
    assert seen == list(range(first))
    for batch in batches:
        values = batch.streams["a"].flatten()
        assert torch.equal(batch.present["a"], values % 2 == 0)
        assert torch.equal(batch.classes, values % 3)


def test_pooled_windows_are_those_of_each_device_in_turn(toy_windows: MakeWindows):
    devices = [toy_windows(5, seed=1), toy_windows(3, seed=2), toy_windows(4, seed=3)]
    together = pooled(devices)
    assert len(together) == 12
    assert torch.equal(together.classes, torch.cat([windows.classes for windows in devices]))
    first = 0
    for windows in devices:
        own = together.select(torch.arange(first, first + len(windows)))
        assert all(torch.equal(own.streams[name], values) for name, values in windows.streams.items())
        assert all(torch.equal(own.present[name], mask) for name, mask in windows.present.items())
        first += len(windows)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_a_modality_that_a_device_lacks_is_absent_from_its_pooled_windows(toy_windows: MakeWindows, order: tuple[int, ...]):
    devices = [toy_windows(5, 3), without(toy_windows(3), "gyroscope"), without(toy_windows(4), "accelerometer")]
    together = pooled([devices[number] for number in order])
    masks = {number: torch.arange(12).split([len(devices[n]) for n in order])[order.index(number)] for number in range(3)}
    assert set(together.streams) == set(together.present) == {"accelerometer", "gyroscope", "heart"}
    for name, lacking in (("gyroscope", [1]), ("accelerometer", [2]), ("heart", [1, 2])):
        absent = torch.cat([masks[number] for number in lacking])
        assert not together.present[name][absent].any()
        assert not together.streams[name][absent].any()
        assert int(together.present[name].sum()) == 12 - len(absent)


def test_pooled_windows_that_a_device_lost_stay_lost(toy_windows: MakeWindows):
    lossy = toy_windows(3)
    lossy.present["gyroscope"][1] = False
    assert pooled([toy_windows(2), lossy]).present["gyroscope"].tolist() == [True, True, True, False, True]


def filled(model: Clmm, windows: DeviceTensors) -> tuple[DeviceTensors, dict[str, torch.Tensor]]:
    """Fill `windows` for a model whose statistics are no round numbers; also as that model normalises them."""
    for number, name in enumerate(model.modalities):
        part = model.part(name)
        part.mean[:] = torch.tensor([0.1, -9.81, 48.7])[: len(part.mean)] + number
        part.std[:] = torch.tensor([0.3, 2.7, 31.0])[: len(part.std)]
    complete = zero_filled(windows, model)
    return complete, model.normalise(complete.streams, complete.present)


def test_a_filled_modality_counts_as_there_and_is_normalised_to_exactly_0(model: MakeModel, toy_windows: MakeWindows):
    windows = toy_windows(4)
    windows.present["gyroscope"][[1, 3]] = False
    windows.streams["gyroscope"][1] = float("nan")  # whatever stands there
    complete, normal = filled(model(3), windows)
    assert all(mask.all() and len(mask) == 4 for mask in complete.present.values())
    assert list(complete.streams) == ["accelerometer", "gyroscope", "heart"]
    assert not normal["heart"].any()
    assert not normal["gyroscope"][[1, 3]].any()
    assert normal["gyroscope"][[0, 2]].abs().min() > 0
    assert normal["heart"].shape == (4, 1, 12)


def test_filling_leaves_what_is_there(model: MakeModel, toy_windows: MakeWindows):
    windows, before = toy_windows(4), toy_windows(4)
    windows.present["gyroscope"][1] = False
    complete, _ = filled(model(3), windows)
    assert torch.equal(complete.streams["accelerometer"], before.streams["accelerometer"])
    assert torch.equal(complete.streams["gyroscope"][[0, 2, 3]], before.streams["gyroscope"][[0, 2, 3]])
    assert torch.equal(complete.classes, before.classes)
    assert windows.present["gyroscope"].tolist() == [True, False, True, True]
    assert torch.equal(windows.streams["gyroscope"], before.streams["gyroscope"])


def test_a_device_that_has_everything_is_not_changed_by_filling(model: MakeModel, toy_windows: MakeWindows):
    windows = toy_windows(4, 3)
    complete, _ = filled(model(3), windows)
    assert all(torch.equal(complete.streams[name], values) for name, values in windows.streams.items())


def test_no_windows_are_filled_to_no_windows(model: MakeModel, toy_windows: MakeWindows):
    complete, _ = filled(model(3), toy_windows(3).select(torch.arange(0)))
    assert len(complete) == 0
    assert {name: tuple(values.shape) for name, values in complete.streams.items()} == {
        "accelerometer": (0, 3, 40),
        "gyroscope": (0, 3, 32),
        "heart": (0, 1, 12),
    }


def test_with_differences_a_filled_modality_does_not_move(model: MakeModel, toy_windows: MakeWindows):
    """Its samples are normalised to exactly 0; its differences are 0 in physical units, so they lie at the mean's own distance from 0."""
    network = model(3, differences=True)
    network.part("heart").mean.copy_(torch.tensor([70.3, 0.002]))
    network.part("heart").std.copy_(torch.tensor([11.0, 0.5]))
    complete = zero_filled(toy_windows(4), network)
    normal = network.normalise(complete.streams, complete.present)["heart"]
    assert not normal[:, 0].any()
    torch.testing.assert_close(normal[:, 1], torch.full((4, 12), -0.004))
