"""What a host has, in counts and sums: the first two answers of every run."""

from collections.abc import Mapping
from weakref import WeakKeyDictionary

import torch

from clmm_core.data.fleet import device_windows, modalities_of, open_dataset, window_of
from clmm_core.data.recording import Float32
from clmm_core.data.windows import NO_LABEL, DeviceWindows
from clmm_core.errors import DataError
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.channel_sums import ChannelSums, add_sums, channel_sums
from clmm_core.federated.messages import DeviceProfile, HostProfile, HostSums, LeftOut, ModalityProfile
from clmm_core.federated.source import client_source
from clmm_core.models.encoder import with_differences
from clmm_core.training.tasks import ProfileTask, SumsTask


def profile_host(task: ProfileTask, devices: tuple[str, ...], *, shares_data: bool = False, takes_model: bool = False) -> HostProfile:
    """Return the profile of each device this host serves; one whose recordings cannot be used is left out, with the reason."""
    dataset = open_dataset(task.data)
    profiles: list[DeviceProfile] = []
    left_out: list[LeftOut] = []
    for device in devices:
        try:
            windows = device_windows(task.data, device)
        except DataError as error:
            left_out.append(LeftOut(device=device, reason=str(error)))
            continue
        profiles.append(_profile(windows))
        left_out += [LeftOut(device=device, reason=reason) for reason in windows.left_out]
    return HostProfile(
        source=client_source(),
        modalities=modalities_of(task.data, dataset),
        window_s=window_of(task.data, dataset).length_s or 0.0,
        devices=tuple(profiles),
        left_out=tuple(left_out),
        shares_data=shares_data,
        takes_model=takes_model,
    )


def _profile(windows: DeviceWindows) -> DeviceProfile:
    modalities = {
        name: ModalityProfile(
            channels=values.shape[1],
            time_steps=values.shape[2],
            num_windows=int(windows.present[name].sum()),
            unit=windows.units[name],
        )
        for name, values in windows.streams.items()
    }
    rows = {label: windows.labels == label for label in sorted(set(windows.labels.tolist()) - {NO_LABEL})}
    return DeviceProfile(
        device=windows.device,
        num_windows=len(windows),
        modalities=modalities,
        labelled_windows={label: int(mask.sum()) for label, mask in rows.items()},
        labelled_trials={label: len(set(windows.trials[mask].tolist())) for label, mask in rows.items()},
    )


def sum_channels(task: SumsTask, arrays: Arrays) -> tuple[HostSums, Arrays]:
    """Return the normalisation sums over the devices asked, and no arrays."""
    del arrays
    windows = [device_windows(task.data, device) for device in sorted(task.devices)]
    return HostSums(sums=add_sums([_sums(each, differences=task.differences) for each in windows])), {}


def _sums(windows: DeviceWindows, *, differences: bool) -> Mapping[str, ChannelSums]:
    known = _SUMS.setdefault(windows, {})
    if differences not in known:
        seen = {name: _as_seen(values, differences=differences) for name, values in windows.streams.items()}
        known[differences] = {name: channel_sums(values, windows.present[name]) for name, values in seen.items()}
    return known[differences]


_SUMS: WeakKeyDictionary[DeviceWindows, dict[bool, Mapping[str, ChannelSums]]] = WeakKeyDictionary()
"""Of windows, while they are kept: the runs of a study ask for the same ones."""


def _as_seen(values: Float32, *, differences: bool) -> Float32:
    return with_differences(torch.from_numpy(values)).numpy() if differences else values
