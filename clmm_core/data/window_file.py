"""One device's windows as a file that every process of a machine maps: they are in memory once, and go to disk where it is short.

A file is whole or it is not there: it gets its name when it is written, and a checksum at its end tells what was cut off or changed later.
"""

import json
import mmap
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from clmm_core.data.windows import DeviceWindows

TEMPORARY = ".tmp"
"""Ends the name of a file that is being written."""
CHECKSUM_BYTES = 4
_LENGTH_BYTES = 8
"""Of the number with which safetensors begin: the length of their header."""
_TYPES: dict[str, type[np.generic]] = {"F32": np.float32, "F64": np.float64, "I64": np.int64, "BOOL": np.bool_}
_ROWS = ("trials", "recordings", "starts_s")


class DamagedFileError(Exception):
    """A file is not what was written: make it again."""


def write_windows(path: Path, windows: DeviceWindows) -> None:
    """Write windows to `path`, in one piece.

    Raises:
        OSError: the disk is full, or the folder is not there or not ours to write in. Nothing of it is left.
    """
    names = list(windows.streams)
    arrays: dict[str, NDArray[Any]] = {name: getattr(windows, name) for name in _ROWS}
    for number, name in enumerate(names):
        arrays[f"stream {number}"], arrays[f"present {number}"] = windows.streams[name], windows.present[name]
    said = {
        "modalities": names,
        "device": windows.device,
        "labels": windows.labels.tolist(),
        "length_s": windows.length_s,
        "units": dict(windows.units),
        "left_out": windows.left_out,
    }
    write_sealed(path, save(arrays, {"windows": json.dumps(said)}))


def read_windows(path: Path) -> DeviceWindows:
    """Return the windows in `path`. Their samples are the file's: read when used, and shared with whoever else maps it.

    Writing to them changes nothing but the page that was written to, in this process.

    Raises:
        FileNotFoundError: there is none.
        DamagedFileError: it is not whole.
    """
    content = read_sealed(path)
    start = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    header = json.loads(bytes(content[_LENGTH_BYTES:start]))
    said = json.loads(header.pop("__metadata__")["windows"])
    arrays = {name: _array(content[start:], **entry) for name, entry in header.items()}
    names = list(enumerate(said.pop("modalities")))
    return DeviceWindows(
        device=said["device"],
        streams={name: arrays[f"stream {number}"] for number, name in names},
        present={name: arrays[f"present {number}"] for number, name in names},
        labels=np.array(said["labels"], dtype=np.str_),
        **{name: arrays[name] for name in _ROWS},
        length_s=said["length_s"],
        units=said["units"],
        left_out=tuple(said["left_out"]),
    )


def bytes_in_memory(windows: DeviceWindows) -> int:
    """Return the bytes of arrays that only this process has: those of a mapped file are not counted."""
    arrays = (*windows.streams.values(), *windows.present.values(), windows.labels, *(getattr(windows, name) for name in _ROWS))
    return sum(values.nbytes for values in arrays if not _is_mapped(values))


def write_sealed(path: Path, content: bytes) -> None:
    """Write `content` and its checksum to `path`, in one piece; raises as `write_windows` does."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=TEMPORARY)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.write(zlib.crc32(content).to_bytes(CHECKSUM_BYTES, "little"))
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_sealed(path: Path) -> memoryview:
    """Return the content of a file that `write_sealed` wrote, mapped; raises as `read_windows` does."""
    with path.open("rb") as file:
        num_bytes = os.fstat(file.fileno()).st_size
        if num_bytes <= CHECKSUM_BYTES:
            raise DamagedFileError(f"{path}: damaged: expected more than a checksum, found {num_bytes} bytes")
        # A copy only of pages that are written to, which PyTorch wants to be possible and nobody does.
        content = memoryview(mmap.mmap(file.fileno(), num_bytes, access=mmap.ACCESS_COPY))
    if zlib.crc32(content[:-CHECKSUM_BYTES]) != int.from_bytes(content[-CHECKSUM_BYTES:], "little"):
        raise DamagedFileError(f"{path}: damaged: expected what its checksum says, found something else")
    return content[:-CHECKSUM_BYTES]


def _array(data: memoryview, dtype: str, shape: list[int], data_offsets: list[int]) -> NDArray[Any]:
    first, last = data_offsets
    return np.frombuffer(data[first:last], _TYPES[dtype]).reshape(shape)


def _is_mapped(values: NDArray[Any]) -> bool:
    return any(isinstance(base, memoryview) for base in _bases(values))


def _bases(values: Any) -> Iterator[Any]:
    while isinstance(values, np.ndarray):
        values = values.base
        yield values
