"""A fingerprint of the code a host runs, so that a server notices another version answering."""

import hashlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from clmm_core.errors import CodeMismatchError

CLIENT_PACKAGES = ("client", "clmm_core")


@lru_cache(maxsize=1)
def client_source() -> str:
    """Return 16 hex digits that depend on every Python file of the client's packages, found where they would be imported from.

    Raises:
        CodeMismatchError: a package is not there at all.
    """
    return fingerprint([_folder(package) for package in CLIENT_PACKAGES])


def fingerprint(folders: list[Path]) -> str:
    """Return 16 hex digits over the names and contents of all .py files in `folders`; line ends do not count."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{folder.name}/{path.relative_to(folder).as_posix()}\n".encode())
            digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise CodeMismatchError(f"package '{package}' is not installed here: install this project on the host")
    return Path(spec.origin).parent
