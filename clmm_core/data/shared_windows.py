"""Windows that the processes of a machine share: cut by the first that needs them, in files that all of them map.

A folder of its own for each data set and each way to cut it, whose name depends on all that the windows depend on: nothing in it is ever
out of date. Whatever keeps a process from using it costs time and memory, never a run: it then cuts its windows itself.
"""

import fcntl
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from clmm_core.data.datasets.parsed import forget_recordings
from clmm_core.data.window_file import TEMPORARY, DamagedFileError, bytes_in_memory, read_sealed, read_windows, write_sealed, write_windows
from clmm_core.data.windows import DeviceWindows
from clmm_core.errors import DataError
from clmm_core.seeds import derive_seed

INDEX = "devices"
"""File of the devices' names, written when the windows of all are there."""
LOCK = "lock"
"""File held by the process that cuts."""
MAX_GENERATED_BYTES = 4 * 2**30
"""Of a synthetic fleet's windows; never more than a quarter of what is free on the disk."""
Found = TypeVar("Found")
_LOG = logging.getLogger(__name__)
_UNUSABLE: set[Path] = set()
"""Folders that failed this process once."""


@dataclass(frozen=True, kw_only=True)
class SharedWindows:
    """Recorded devices' windows in `folder`. Who comes first cuts those of all, as an archive is read in one piece; others wait."""

    folder: Path
    names: Callable[[], tuple[str, ...]]
    """Reads the devices' names."""
    cut: Callable[[str], DeviceWindows]
    """Reads a device's recordings and cuts them."""

    def devices(self) -> tuple[str, ...]:
        """Return the devices' names; raises what `names` does."""
        index = _with(self.folder, self._index)
        return self.names() if index is None else index.devices

    def windows(self, device: str) -> DeviceWindows:
        """Return a device's windows, mapped; raises what `cut` does."""
        found = _with(self.folder, lambda: self._mapped(device))
        return self.cut(device) if found is None else found

    def _mapped(self, device: str) -> DeviceWindows:
        index = self._index()
        if device in index.without:
            raise DataError(index.without[device])
        if device not in index.devices:
            return self.cut(device)
        try:
            return read_windows(file_of(self.folder, device))
        except (FileNotFoundError, DamagedFileError):
            with _alone_in(self.folder):
                return self._made(device)

    def _index(self) -> "_Index":
        """Return the index, once the windows of all devices are there."""
        try:
            return _Index.read(self.folder)
        except (FileNotFoundError, DamagedFileError):
            with _alone_in(self.folder):
                return self._made_index()

    def _made_index(self) -> "_Index":
        try:
            return _Index.read(self.folder)  # another process was quicker
        except (FileNotFoundError, DamagedFileError):
            for left in self.folder.glob(f"*{TEMPORARY}"):
                left.unlink()  # by one that was killed
        without: dict[str, str] = {}
        devices = self.names()
        for device in devices:
            try:
                self._made(device)
            except DataError as error:
                without[device] = str(error)
        index = _Index(devices, without)
        index.write(self.folder)
        forget_recordings()
        return index

    def _made(self, device: str) -> DeviceWindows:
        file = file_of(self.folder, device)
        try:
            return read_windows(file)
        except (FileNotFoundError, DamagedFileError):
            write_windows(file, self.cut(device))
            return read_windows(file)


def generated_windows(folder: Path, device: str, num_devices: int, make: Callable[[], DeviceWindows]) -> DeviceWindows:
    """Return the windows of one of `num_devices` synthetic devices, mapped; made where none are there yet, or none fit.

    Two processes that make the same at the same time write the same.
    """

    def mapped() -> DeviceWindows:
        file = file_of(folder, device)
        try:
            return read_windows(file)
        except (FileNotFoundError, DamagedFileError):
            windows = make()
            folder.mkdir(parents=True, exist_ok=True)
            if not _fits(folder, device, num_devices * bytes_in_memory(windows)):
                return windows
            write_windows(file, windows)
            return read_windows(file)

    found = _with(folder, mapped)
    return make() if found is None else found


def file_of(folder: Path, device: str) -> Path:
    """Return the file of a device's windows; its name would not do: any character may be in it."""
    return folder / f"{hashlib.sha256(device.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.windows"


@dataclass(frozen=True)
class _Index:
    devices: tuple[str, ...]
    without: dict[str, str]
    """By device of which no window can be made: why."""

    @classmethod
    def read(cls, folder: Path) -> "_Index":
        said = json.loads(bytes(read_sealed(folder / INDEX)))
        return cls(tuple(said["devices"]), said["without"])

    def write(self, folder: Path) -> None:
        write_sealed(folder / INDEX, json.dumps({"devices": self.devices, "without": self.without}).encode())


def _fits(folder: Path, device: str, fleet_bytes: int) -> bool:
    """Return whether a device is one of those whose windows are kept: as large a share of the fleet as there is room for."""
    room = min(MAX_GENERATED_BYTES, shutil.disk_usage(folder).free // 4)
    return derive_seed(0, "kept", device) / 2**63 * fleet_bytes < room


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process cuts windows here; the system lets go of the lock also when this one is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _with(folder: Path, work: Callable[[], Found]) -> Found | None:
    """Do what needs the folder; return None where it cannot be used, which is said once and not tried again."""
    if folder in _UNUSABLE:
        return None
    try:
        return work()
    except OSError as error:
        _UNUSABLE.add(folder)
        _LOG.warning(
            "%s: expected a folder to share windows in, cannot use it (%s): this process makes its own, which takes longer and more "
            "memory. Make room there, or name another folder",
            folder.parent,
            error,
        )
        return None
