"""The windows of many devices as one stack on the processor that trains, there from round to round."""

from collections.abc import Sequence
from typing import TypeVar

import torch

from clmm_core.training.device_tensors import DeviceTensors

MAX_KEPT = {"cuda": 64, "cpu": 1}
"""Stacks of windows that are kept; the one not used for longest goes first."""
Thing = TypeVar("Thing")

_UPLOADED: dict[tuple[object, ...], tuple[tuple[DeviceTensors, ...], DeviceTensors]] = {}


def distinct(things: Sequence[Thing]) -> tuple[list[Thing], list[int]]:
    """Return the different objects among `things`, in order, and for each of `things` which of them it is."""
    each = {id(thing): thing for thing in things}
    place = {key: i for i, key in enumerate(each)}
    return list(each.values()), [place[id(thing)] for thing in things]


def upload(devices: Sequence[DeviceTensors], device: torch.device) -> DeviceTensors:
    """Return windows as `[devices, windows, C, T]` on `device`, each filled up to the longest with its last one."""
    key = (str(device), *(id(windows) for windows in devices))
    # The windows are kept too: an id means them only as long as they live.
    kept = _UPLOADED.pop(key, None) or (tuple(devices), _stacked(devices, device))
    _UPLOADED[key] = kept  # the last one used is the last in order
    while len(_UPLOADED) > MAX_KEPT[device.type]:
        del _UPLOADED[next(iter(_UPLOADED))]
    return kept[1]


def forget_windows() -> None:
    """Let go of all."""
    _UPLOADED.clear()


def _stacked(devices: Sequence[DeviceTensors], device: torch.device) -> DeviceTensors:
    most = max(len(windows) for windows in devices)
    parts = [windows.select(torch.arange(most).clamp(max=len(windows) - 1)) for windows in devices]
    streams = {name: torch.stack([part.streams[name] for part in parts]).to(device) for name in parts[0].streams}
    present = {name: torch.stack([part.present[name] for part in parts]).to(device) for name in parts[0].present}
    return DeviceTensors(streams, present, torch.stack([part.classes for part in parts]))
