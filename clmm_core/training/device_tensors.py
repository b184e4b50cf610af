"""One device's windows as torch tensors, with its activities as class numbers."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clmm_core.data.windows import DeviceWindows
from clmm_core.models.clmm import Clmm
from clmm_core.training.draws import Draws
from clmm_core.training.settings import LocalConfig

NO_CLASS = -1
AT_ONCE = 256
"""Windows a model looks at in one batch where it does not train: bounds the memory."""
DEVICES_AT_ONCE = 256
"""Of a host, with their windows in memory."""


@dataclass(frozen=True)
class DeviceTensors:
    """B = windows of the device; by modality `[B, C, T]` float32 in physical units, masks `[B]` bool, classes `[B]` int64."""

    streams: dict[str, Tensor]
    present: dict[str, Tensor]
    classes: Tensor
    """Index into the federation's classes, or `NO_CLASS`."""

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def num_bytes(self) -> int:
        """The size of all tensors."""
        return sum(values.nbytes for values in (*self.streams.values(), *self.present.values(), self.classes))

    def select(self, rows: Tensor | slice) -> "DeviceTensors":
        """Return the windows `rows` `[rows]` int64; those of a slice in the same memory."""
        return DeviceTensors(
            {name: values[rows] for name, values in self.streams.items()},
            {name: mask[rows] for name, mask in self.present.items()},
            self.classes[rows],
        )

    def to(self, device: torch.device) -> "DeviceTensors":
        """Return the same windows on a device."""
        return DeviceTensors(
            {name: values.to(device) for name, values in self.streams.items()},
            {name: mask.to(device) for name, mask in self.present.items()},
            self.classes.to(device),
        )

    def epochs(self, local: LocalConfig, draws: Draws, smallest: int = 1) -> Iterator["DeviceTensors"]:
        """Yield the batches of a round's epochs; see `batches_of`."""
        orders = (draws.permutation(len(self)) for _ in range(local.epochs))
        yield from (self.select(rows) for rows in batches_of(orders, local.batch_size, smallest))


def in_batches(devices: Iterable[DeviceTensors]) -> Iterator[DeviceTensors]:
    """Yield all windows of devices with the same modalities in order, `AT_ONCE` at a time, whoever's they are."""
    batch: list[DeviceTensors] = []
    room = AT_ONCE
    for windows in devices:
        first = 0
        while first < len(windows):
            some = windows.select(slice(first, first + room))
            batch.append(some)
            first, room = first + len(some), room - len(some)
            if not room:
                yield pooled(batch)
                batch, room = [], AT_ONCE
    if batch:
        yield pooled(batch)


def batches_of(orders: Iterable[Tensor], size: int, smallest: int = 1) -> Iterator[Tensor]:
    """Yield the rows of each batch of each epoch, whose order is given; a last batch below `smallest` is left out."""
    for order in orders:
        for rows in torch.split(order, size):
            if len(rows) >= smallest:
                yield rows


def zero_filled(windows: DeviceTensors, model: Clmm) -> DeviceTensors:
    """Return `windows` with every modality of the model: where one is missing, the training mean, which the model normalises to 0."""
    streams, present = {}, {}
    for shape in model.config.modalities:
        mean = model.part(shape.name).mean[: shape.channels, None].expand(shape.channels, shape.time_steps)
        there = windows.present.get(shape.name, torch.zeros(len(windows), dtype=torch.bool))
        streams[shape.name] = torch.where(there[:, None, None], windows.streams.get(shape.name, mean), mean)
        present[shape.name] = torch.ones_like(there)
    return DeviceTensors(streams, present, windows.classes)


def pooled(devices: Sequence[DeviceTensors]) -> DeviceTensors:
    """Return the windows of all devices as one's; a modality that a device lacks is absent from its windows."""
    if len(devices) == 1:
        return devices[0]
    like = {name: values for windows in devices for name, values in windows.streams.items()}
    streams, present = {}, {}
    for name, values in like.items():
        each = [(windows, name in windows.streams) for windows in devices]
        parts = [windows.streams[name] if there else values.new_zeros(len(windows), *values.shape[1:]) for windows, there in each]
        masks = [windows.present[name] if there else torch.zeros(len(windows), dtype=torch.bool) for windows, there in each]
        streams[name], present[name] = torch.cat(parts), torch.cat(masks)
    return DeviceTensors(streams, present, torch.cat([windows.classes for windows in devices]))


def device_tensors(windows: DeviceWindows, classes: Sequence[str]) -> DeviceTensors:
    """Return the tensors of `windows`; a label outside `classes` counts as none."""
    number = {label: i for i, label in enumerate(classes)}
    return DeviceTensors(
        {name: torch.from_numpy(values) for name, values in windows.streams.items()},
        {name: torch.from_numpy(mask) for name, mask in windows.present.items()},
        torch.tensor([number.get(str(label), NO_CLASS) for label in windows.labels], dtype=torch.int64),
    )
