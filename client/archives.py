"""Tell whether a file is a whole archive of a data set: each member can be read to its end, and one is a file of that set.

Reading finds what is cut off or damaged, by the checksums that zip, bzip2, gzip and xz keep; a bare tar has none of its contents, so that
in it only what is cut off is found.
"""

import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path
from typing import IO

from client.loaders import LOADERS
from clmm_core.data.datasets.archive import archived_files
from clmm_core.errors import DataError

_PIECE_BYTES = 1 << 16
_ZIP = b"PK\x03\x04"
_PACKED = (b"BZh", b"\xfd7zXZ", b"\x1f\x8b")
"""How what bzip2, xz and gzip pack begins."""
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, LZMAError, EOFError, RuntimeError, ValueError)
"""What the readers raise; zipfile a RuntimeError where a member is encrypted, or packed in a way it does not know."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Why a file is not the archive that it should be."""

    reason: str
    may_end_early: bool
    """It begins like an archive: more bytes may mend it."""


def fault_in(file: Path, name: str, tell: Callable[[int, int], None]) -> Fault | None:
    """Read every member of an archive once, and return why it is no whole one of the data set `name`, None if it is.

    `tell` is told the bytes so far and those in all, again and again.

    Raises:
        OSError: the disk fails, not what is on it.
    """
    suffix = archive_suffix(file)
    if suffix is None:
        return Fault(reason="expected a whole zip or tar archive, found another file", may_end_early=False)
    try:
        with file.open("rb") as content, _damage():
            size = file.stat().st_size
            read = _read_zip if suffix == ".zip" else _read_tar
            names = read(content, lambda: tell(content.tell(), size))
            tell(size, size)
    except _DAMAGED as error:
        return Fault(reason=_found_damaged(error), may_end_early=True)
    pattern = _files_of(name)
    wanted = re.compile(rf"(?:^|/){pattern}$")
    try:
        if any(map(wanted.search, names)) or (suffix == ".zip" and any(archived_files(file, wanted))):  # the second in the zips it holds
            return None
    except DataError as error:
        return Fault(reason=_found_damaged(error.__cause__ or error), may_end_early=False)
    return Fault(reason=f"expected files of {name} ({pattern}), found none in this archive", may_end_early=False)


def archive_suffix(file: Path) -> str | None:
    """Return `.zip` or `.tar` (packed or not) as the content begins, None if it begins like no archive.

    Raises:
        OSError: the disk fails.
    """
    with file.open("rb") as content:
        start = content.read(6)
    if start.startswith(_ZIP):
        return ".zip"
    return ".tar" if start.startswith(_PACKED) or tarfile.is_tarfile(file) else None


def _found_damaged(error: BaseException) -> str:
    what = (str(error) or type(error).__name__).splitlines()[0].rstrip(":")
    return f"expected a whole zip or tar archive, found one that is damaged or ends early ({what})"


def _files_of(name: str) -> str:
    """Return the regular expression that finds this set's files."""
    return next(loader.file for loader in LOADERS if loader.name == name)


@contextmanager
def _damage() -> Iterator[None]:
    """Tell the errors of bzip2 and gzip, which mean damaged bytes, from those of the disk, which have a number."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise
        raise tarfile.ReadError(str(error)) from error


def _read_zip(content: IO[bytes], tell: Callable[[], None]) -> list[str]:
    """Read every member to its end, where its checksum is looked at, and return their names."""
    if not zipfile.is_zipfile(content):
        raise zipfile.BadZipFile("its end is missing")  # where the table of contents is
    with zipfile.ZipFile(content) as archive:
        members = archive.infolist()
        if min((member.header_offset for member in members), default=0):  # the end found is that of a zip stored in this one
            raise zipfile.BadZipFile("its end is missing")
        for member in members:
            with archive.open(member) as file:
                _drain(file.read, tell)
    return [member.filename for member in members]


def _read_tar(content: IO[bytes], tell: Callable[[], None]) -> list[str]:
    """Read every member to its end, and return their names. A tar has no checksum of its contents, but what it is packed with has."""
    names = []
    with tarfile.open(fileobj=content) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isreg() else None
            if file is not None:
                _drain(file.read, tell)
                names.append(member.name)
        unpacked = archive.fileobj
        unpacked.seek(archive.offset)
        if unpacked.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes a header it cannot read for the end
            raise tarfile.ReadError("its end is missing")
        _drain(unpacked.read, tell)  # to the checksum of what packs it
    return names


def _drain(read: Callable[[int], bytes], tell: Callable[[], None]) -> None:
    while read(_PIECE_BYTES):
        tell()
