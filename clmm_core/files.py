"""Files written in one piece."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path


def replace_file(path: Path, content: str | bytes | Iterable[str], mode: int = 0o644) -> None:
    """Write a file in one piece, with these rights: readers see the old or the new content, also after a power cut.

    Texts are written one after the other.
    """
    parts = [content] if isinstance(content, str | bytes) else content
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            for part in parts:
                file.write(part.encode("utf-8") if isinstance(part, str) else part)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)  # mkstemp gives 0600: it never has wider rights than asked
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make a rename in this folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
