from collections.abc import Callable

import pytest
import torch

from clmm_core.models.clmm import Clmm
from clmm_core.training.device_tensors import NO_CLASS, DeviceTensors
from clmm_core.training.pseudo_labels import pseudo_labelled

MakeModel = Callable[..., Clmm]
MakeWindows = Callable[..., DeviceTensors]
NOTHING = torch.zeros(0, dtype=torch.int64)


def probabilities(model: Clmm, windows: DeviceTensors) -> list[list[float]]:
    """One window after the other, without dropout."""
    model.eval()
    alone = [windows.select(torch.tensor([row])) for row in range(len(windows))]
    return [model(each.streams, each.present)[0].softmax(dim=0).tolist() for each in alone]


def rows_in(windows: DeviceTensors, chosen: DeviceTensors) -> list[int]:
    """Which of `windows` were chosen, in order."""
    first = windows.streams["accelerometer"]
    return [int((first == window).flatten(1).all(dim=1).nonzero()) for window in chosen.streams["accelerometer"]]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_windows_are_taken_from_the_confidence_on_with_their_likeliest_class(model: MakeModel, toy_windows: MakeWindows, share: float):
    network, windows = model(dropout=0.5), toy_windows(12)
    sure = [max(row) for row in probabilities(network, windows)]
    confidence = sorted(sure)[6] - 1e-6 if share == 0.5 else share
    chosen = pseudo_labelled(network.train(), windows, NOTHING, confidence)
    expected = [row for row, value in enumerate(sure) if value >= confidence]
    assert rows_in(windows, chosen) == expected
    assert len(expected) == {0.0: 12, 0.5: 6, 1.0: 0}[share]
    likeliest = [row.index(max(row)) for row in probabilities(network, windows)]
    assert chosen.classes.tolist() == [likeliest[row] for row in expected]


def test_known_labels_are_kept_however_unsure_the_model_is(model: MakeModel, toy_windows: MakeWindows):
    windows, known = toy_windows(12), torch.tensor([2, 7])
    only_known = pseudo_labelled(model(), windows, known, 1.0)
    assert rows_in(windows, only_known) == [2, 7]
    assert only_known.classes.tolist() == windows.classes[known].tolist()
    everything = pseudo_labelled(model(), windows, known, 0.0)
    assert everything.classes[known].tolist() == windows.classes[known].tolist()
    assert NO_CLASS not in everything.classes


def test_labels_that_do_not_count_as_known_are_not_looked_at(model: MakeModel, toy_windows: MakeWindows):
    windows = toy_windows(12)
    hidden = DeviceTensors(windows.streams, windows.present, torch.full((12,), NO_CLASS))
    one, other = (pseudo_labelled(model(), each, NOTHING, 0.0) for each in (windows, hidden))
    assert torch.equal(one.classes, other.classes)


def test_nothing_is_changed_and_no_gradient_kept(model: MakeModel, toy_windows: MakeWindows):
    windows, before = toy_windows(6, 3), toy_windows(6, 3)
    windows.present["heart"][2] = False
    chosen = pseudo_labelled(model(3), windows, torch.tensor([1]), 0.0)
    assert torch.equal(windows.classes, before.classes)
    assert chosen.present["heart"].tolist() == [True, True, False, True, True, True]
    assert not chosen.classes.requires_grad
