"""A fleet: the devices of a data set, each with its windows, cached per process because a worker serves any device."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from clmm_core.data.datasets.dataset import Dataset
from clmm_core.data.datasets.folder import Folder
from clmm_core.data.datasets.spar import Spar
from clmm_core.data.datasets.synthetic import Synthetic
from clmm_core.data.datasets.utd_mhad import UtdMhad
from clmm_core.data.windows import JOIN, DeviceWindows, WindowSpec, window_recordings
from clmm_core.errors import ConfigError

NAMES = ("spar", "utd-mhad", "folder", "synthetic")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which recordings, and how they are cut into windows."""

    name: str = "spar"
    """One of `NAMES`."""
    path: str = ""
    """Folder or archive of `utd-mhad` and `folder`."""
    modalities: tuple[str, ...] = ()
    """Those to use, empty for all; `a+b` joins two streams into one modality."""
    window_s: float = 0.0
    """Window length in seconds; 0 keeps the data set's own."""
    overlap: float = 0.5
    """Share of a window the next one repeats; counts only where `window_s` is set."""
    num_devices: int = 40
    """Devices of `synthetic`."""
    seed: int = 0
    """Seed of `synthetic`."""

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ConfigError(f"data.name: expected one of {', '.join(NAMES)}, found '{self.name}'")
        if self.name in ("utd-mhad", "folder") and not self.path:
            raise ConfigError(f"data.path: expected where the '{self.name}' recordings are, found nothing: set data.path")
        if not 0 <= self.window_s < float("inf"):
            raise ConfigError(f"data.window-s: expected seconds, or 0 for the data set's own window, found {self.window_s}")
        if not 0 <= self.overlap < 1:
            raise ConfigError(f"data.overlap: expected a share in [0, 1), found {self.overlap}")
        if self.num_devices < 1:
            raise ConfigError(f"data.num-devices: expected at least 1, found {self.num_devices}")


def open_dataset(config: DataConfig) -> Dataset:
    """Return the loader that `config` names; nothing is read yet."""
    match config.name:
        case "spar":
            return Spar()
        case "utd-mhad":
            return UtdMhad(path=Path(config.path))
        case "folder":
            return Folder(path=Path(config.path))
        case _:
            return Synthetic(num_devices=config.num_devices, seed=config.seed)


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
    return open_dataset(config).subjects()


@lru_cache(maxsize=4096)
def device_windows(config: DataConfig, device: str) -> DeviceWindows:
    """Return one device's windows, from this process's cache after the first call.

    Raises:
        DataError: a recording cannot be read, or leaves no window.
    """
    dataset = open_dataset(config)
    return window_recordings(device, dataset.recordings(device), modalities_of(config, dataset), window_of(config, dataset))
