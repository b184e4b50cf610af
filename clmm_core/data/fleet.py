"""A fleet: the devices of a data set, each with its windows, kept because any device may be asked for again in the next round."""

import hashlib
import json
from collections.abc import Callable, Mapping, Set
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from clmm_core.byte_cache import ByteCache
from clmm_core.data.datasets.archive import identity_of
from clmm_core.data.datasets.dataset import Dataset
from clmm_core.data.datasets.dsads import Dsads
from clmm_core.data.datasets.folder import Folder
from clmm_core.data.datasets.hapt import Hapt
from clmm_core.data.datasets.mhealth import Mhealth
from clmm_core.data.datasets.pamap2 import Pamap2
from clmm_core.data.datasets.spar import Spar, array_file
from clmm_core.data.datasets.synthetic import Synthetic
from clmm_core.data.datasets.umafall import UmaFall
from clmm_core.data.datasets.usc_had import UscHad
from clmm_core.data.datasets.utd_mhad import UtdMhad
from clmm_core.data.datasets.wisdm2019 import Wisdm2019
from clmm_core.data.same_side import same_side
from clmm_core.data.shared_windows import SharedWindows, generated_windows
from clmm_core.data.upright import ACCELEROMETER, upright
from clmm_core.data.window_file import bytes_in_memory
from clmm_core.data.windows import JOIN, NO_LABEL, NO_TRIAL, DeviceWindows, WindowSpec, window_recordings
from clmm_core.errors import ConfigError
from clmm_core.federated.source import client_source
from clmm_core.seeds import derive_seed

_BY_PATH: Mapping[str, Callable[..., Dataset]] = {
    "utd-mhad": UtdMhad,
    "dsads": Dsads,
    "hapt": Hapt,
    "wisdm2019": Wisdm2019,
    "umafall": UmaFall,
    "usc-had": UscHad,
    "pamap2": Pamap2,
    "mhealth": Mhealth,
    "folder": Folder,
}
NAMES = ("spar", *_BY_PATH, "synthetic")
MAX_KEPT_BYTES = 2**30
"""Of the windows that a process keeps."""
BESIDE_BYTES = 2**15
"""Counted for each device beside its arrays, which are none of this process's where they are mapped: Linux gives it 65,530 mappings."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which recordings, and how they are cut into windows."""

    name: str = "spar"
    """One of `NAMES`."""
    path: str = ""
    """Folder or archive; `spar` and `synthetic` need none."""
    modalities: tuple[str, ...] = ()
    """Those to use, empty for all; `a+b` joins two streams into one modality."""
    window_s: float = 0.0
    """Window length in seconds; 0 keeps the data set's own."""
    overlap: float = 0.5
    """Share of a window the next one repeats; counts only where `window_s` is set."""
    num_devices: int = 40
    """Devices of `synthetic`."""
    classes: tuple[str, ...] = ()
    """Activities to recognise, empty for all; windows of others stay, without their label."""
    upright: bool = False
    """Turn each recording's accelerometer and gyroscope so that gravity while moving lies along an axis."""
    same_side: bool = False
    """Mirror recordings of a sensor worn on the other side of the body; only with `upright`."""
    missing_share: float = 0.0
    """Probability that a device lacks a modality, drawn for each; one always stays."""
    zero_fill: bool = False
    """A lacking modality counts as there, with windows of zeros (the training mean): the naive alternative to leaving it out."""
    seed: int = 0
    """Of `synthetic`, and of `missing_share`."""
    shared_folder: str = ""
    """Folder through which the processes of this machine share windows; empty where each makes its own. A machine's affair, no run's."""

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ConfigError(f"data.name: expected one of {', '.join(NAMES)}, found '{self.name}'")
        if self.name in _BY_PATH and not self.path:
            raise ConfigError(f"data.path: expected where the '{self.name}' recordings are, found nothing: set data.path")
        if not 0 <= self.window_s < float("inf"):
            raise ConfigError(f"data.window-s: expected seconds, or 0 for the data set's own window, found {self.window_s}")
        if not 0 <= self.overlap < 1:
            raise ConfigError(f"data.overlap: expected a share in [0, 1), found {self.overlap}")
        if len(set(self.classes)) == 1:
            raise ConfigError(f"data.classes: expected at least two activities, or none for all, found {self.classes[0]} alone")
        if not 0 <= self.missing_share < 1:
            raise ConfigError(f"data.missing-share: expected a share in [0, 1), found {self.missing_share}")
        if self.same_side and not self.upright:
            raise ConfigError("data.same-side: expected recordings turned upright, to tell a side by; set data.upright, or leave it out")
        if self.num_devices < 1:
            raise ConfigError(f"data.num-devices: expected at least 1, found {self.num_devices}")


def open_dataset(config: DataConfig) -> Dataset:
    """Return the loader that `config` names; nothing is read yet."""
    match config.name:
        case "spar":
            return Spar()
        case "synthetic":
            return Synthetic(num_devices=config.num_devices, seed=config.seed)
        case _:
            return _BY_PATH[config.name](path=Path(config.path))


def modalities_of(config: DataConfig, dataset: Dataset) -> tuple[str, ...]:
    """Return the modalities to train on.

    Raises:
        ConfigError: `data.modalities` names a stream this data set does not have.
    """
    known = dataset.modalities
    for modality in config.modalities:
        for name in modality.split(JOIN):
            if name not in known:
                raise ConfigError(f"data.modalities: '{config.name}' has {', '.join(known)}, not '{name}'")
    return config.modalities or known


def window_of(config: DataConfig, dataset: Dataset) -> WindowSpec:
    """Return the window to cut: the data set's own unless the user set a length."""
    return dataset.window.resized(config.window_s, config.overlap) if config.window_s else dataset.window


@lru_cache(maxsize=4)
def device_names(config: DataConfig) -> tuple[str, ...]:
    """Return the fleet's devices, one per subject and named like it, in the data set's order.

    Raises:
        DataError: the data are not there, or only half there.
    """
    if config.shared_folder and config.name != "synthetic":
        return _shared(config).devices()
    return open_dataset(config).subjects()


_KEPT: ByteCache[tuple[DataConfig, str], DeviceWindows] = ByteCache(MAX_KEPT_BYTES, lambda windows: bytes_in_memory(windows) + BESIDE_BYTES)


def device_windows(config: DataConfig, device: str) -> DeviceWindows:
    """Return one device's windows: the same object as before while it is kept, else from `shared_folder`, else cut or generated here.

    Raises:
        DataError: a recording cannot be read, or leaves no window.
    """
    if config.zero_fill:  # which is done to tensors: the windows are the same
        config = replace(config, zero_fill=False)
    return _KEPT.get((config, device), partial(_windows, config, device))


def _windows(config: DataConfig, device: str) -> DeviceWindows:
    if not config.shared_folder:
        return _cut(config, device)
    if config.name == "synthetic":
        return generated_windows(_folder_of(config), device, config.num_devices, partial(_cut, config, device))
    return _shared(config).windows(device)


def _shared(config: DataConfig) -> SharedWindows:
    return SharedWindows(folder=_folder_of(config), names=open_dataset(config).subjects, cut=partial(_cut, config))


@lru_cache(maxsize=64)
def _folder_of(config: DataConfig) -> Path:
    """Return the folder for these windows alone: other settings, other recordings and other code have another one."""
    settings = asdict(replace(config, zero_fill=False, shared_folder=""))
    recordings = array_file() if config.name == "spar" else Path(config.path) if config.path else None
    files = identity_of(recordings) if recordings else ()
    depends_on = json.dumps([settings, files, client_source()])
    return Path(config.shared_folder) / hashlib.sha256(depends_on.encode()).hexdigest()[:32]


def _cut(config: DataConfig, device: str) -> DeviceWindows:
    """Read a device's recordings, or generate them, and cut them into windows."""
    dataset = open_dataset(config)
    recordings = dataset.recordings(device)
    recorded = {name for recording in recordings for name in recording.streams}
    modalities = modalities_of(config, dataset)
    if config.upright and ACCELEROMETER not in modalities:
        raise ConfigError(
            f"data.upright: expected a modality '{ACCELEROMETER}' to turn by, found {', '.join(modalities)}: leave data.upright out, "
            f"or let data.modalities name '{ACCELEROMETER}' by itself"
        )
    owned = owned_modalities(config, device, modalities, recorded)
    windows = window_recordings(device, recordings, owned, window_of(config, dataset))
    windows = upright(windows) if config.upright else windows
    windows = same_side(windows) if config.same_side else windows
    return _recognised(windows, config.classes) if config.classes else windows


def owned_modalities(config: DataConfig, device: str, modalities: tuple[str, ...], recorded: Set[str]) -> tuple[str, ...]:
    """Return those of `modalities` that this device keeps: a draw from (seed, device), for fleets of mixed sensors.

    One of those it has (whose streams are all `recorded`) always stays.
    """
    draws = np.random.default_rng(derive_seed(config.seed, "missing", device)).random(len(modalities))
    has = np.array([recorded >= set(name.split(JOIN)) for name in modalities])
    stays = draws[has].max() if has.any() else draws.max()
    return tuple(name for name, draw in zip(modalities, draws, strict=True) if draw >= config.missing_share or draw == stays)


def _recognised(windows: DeviceWindows, classes: tuple[str, ...]) -> DeviceWindows:
    known = np.isin(windows.labels, classes)
    return replace(windows, labels=np.where(known, windows.labels, NO_LABEL), trials=np.where(known, windows.trials, NO_TRIAL))
