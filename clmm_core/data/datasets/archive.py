"""The files of a data set as people have them: unpacked in a folder, in the official archive, or in archives that lie in a folder."""

import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO

from clmm_core.errors import DataError

MAX_DEPTH = 6
"""Folders below the given one that are looked into: a path that is far too high ends soon instead of reading a whole disk."""
MAX_ARCHIVE_DEPTH = 2
"""Folders below the given one in which archives are opened, which costs more than to look at names."""
_ARCHIVE = re.compile(r"(?P<stem>.+?)\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))", re.IGNORECASE)


def archived_files(path: Path, wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of every file whose name `wanted` finds; a name is the path inside `path`, parts joined by `/`.

    `path` is a folder, a zip or a tar archive. Those below a folder come sorted by name, first the unpacked ones, then those in its
    archives (not in one that lies beside its own unpacked folder); those of an archive come in its own order. A zip may hold zips.
    Hidden files and folders are left out.

    Raises:
        DataError: there is nothing at `path`, or a file or an archive cannot be read; names it.
    """
    root = path.expanduser()
    with _reading(path, "a folder, a zip or a tar archive"):
        is_folder, is_file = root.is_dir(), root.is_file()
    if is_folder:
        names = list(_names_below(root))
        for name in names:
            if wanted.search(str(name)):
                with _reading(root / name, "a readable file"):
                    content = (root / name).read_bytes()
                yield str(name), content
        for name in names:
            if len(name.parts) - 1 <= MAX_ARCHIVE_DEPTH and _is_packed(root / name):
                for inside, content in _in_archive(root / name, wanted):
                    yield f"{name}/{inside}", content
    elif is_file:
        yield from _in_archive(root, wanted)
    else:
        raise DataError(f"{path}: expected a folder, a zip or a tar archive, found nothing there: correct data.path")


def identity_of(path: Path) -> list[tuple[str, int, int]]:
    """Return each file at `path`, or below it as deep as is looked, with its size in bytes and the time in ns of its last change.

    Files that changed give something else, without being read. Nothing at `path` gives nothing.

    Raises:
        DataError: a folder cannot be read; names it.
    """
    root = path.expanduser().resolve()
    with _reading(path, "a readable folder or file"):
        files = [root / name for name in _names_below(root)] if root.is_dir() else [root] if root.exists() else []
        return [(str(file), found.st_size, found.st_mtime_ns) for file in files for found in (file.stat(),)]


def _names_below(root: Path, below: PurePosixPath = PurePosixPath()) -> Iterator[PurePosixPath]:  # noqa: B008  immutable
    """Yield the path of every file in `root / below` and its folders, relative to `root`."""
    with _reading(root / below, "a readable folder"):
        entries = [(entry, entry.is_dir()) for entry in sorted(root.joinpath(below).iterdir())]
    for entry, is_folder in entries:
        name = below / entry.name
        if _is_hidden(name):
            continue
        if not is_folder:
            yield name
        elif len(name.parts) <= MAX_DEPTH:
            yield from _names_below(root, name)


def _is_hidden(name: PurePosixPath) -> bool:
    """Return whether some part of the name is hidden; `__MACOSX` in zips made by a Mac holds a hidden twin of every file."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.parts)


def _is_packed(file: Path) -> bool:
    match = _ARCHIVE.fullmatch(file.name)
    return match is not None and not file.with_name(match["stem"]).is_dir()


def _in_archive(path: Path, wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    with _reading(path, "a zip or tar archive"):
        if _is_zip(path):
            yield from _in_zip(path, path, wanted)
        else:
            with tarfile.open(path, "r|*") as archive:
                for member in archive:
                    name = PurePosixPath(member.name)
                    file = archive.extractfile(member) if wanted.search(str(name)) and not _is_hidden(name) else None
                    if file is not None:
                        yield str(name), file.read()


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:  # not zipfile.is_zipfile: it takes a tar whose last file is a zip for one
        return path.suffix.lower() == ".zip" or file.read(4) == b"PK\x03\x04"


def _in_zip(path: Path, file: Path | IO[bytes], wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the files of the zip `file`, which is at `path` or lies in the zip there."""
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            name = PurePosixPath(member.filename)
            if member.is_dir() or _is_hidden(name):
                continue
            if wanted.search(str(name)):
                yield str(name), archive.read(member)
            elif file == path and name.suffix.lower() == ".zip":  # one level only: there are zips that hold themselves
                with _reading(path / name, "a zip archive"):
                    for inside, content in _in_zip(path / name, BytesIO(archive.read(member)), wanted):
                        yield f"{name}/{inside}", content


@contextmanager
def _reading(path: Path, expected: str) -> Iterator[None]:
    """Turn what a damaged or foreign file raises into a DataError that names it."""
    try:
        yield
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, LZMAError, zlib.error, RuntimeError) as error:
        # zipfile raises a RuntimeError where a member is encrypted, or packed in a way it does not know.
        raise DataError(f"{path}: expected {expected}, cannot read it ({error}): get it again, or correct data.path") from error
