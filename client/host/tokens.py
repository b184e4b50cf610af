"""Who may do what: tokens that only their owners know, kept here as hashes."""

import hashlib
import hmac
import json
import secrets
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from client.host.header import check_name
from clmm_core.errors import ConfigError, DataError
from clmm_core.files import replace_file

FILE = "tokens.json"
OWNER_ONLY = 0o600
TOKEN_BYTES = 32
"""Drawn at random, so that a quick hash is as safe as a slow one: nobody guesses 256 bits."""


class Role(StrEnum):
    """What the owner of a token may do."""

    SENSOR = "sensor"
    """Give samples and labels, read nothing."""
    VIEWER = "viewer"
    """Read status, labels and answers."""
    ADMIN = "admin"
    """All of it: correct and delete, pause, export."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One token."""

    name: str
    role: Role
    sha256: str


def add_token(folder: Path, name: str, role: Role) -> str:
    """Return a new token of this name, which is nowhere else afterwards.

    Raises:
        ConfigError: the name is taken.
        DataError: the file of tokens cannot be read, or the name cannot be used.
    """
    check_name("token", name)
    entries = read_tokens(folder)
    if any(entry.name == name for entry in entries):
        raise ConfigError(f"token '{name}': expected a new name, found one in {folder / FILE}: revoke that token first")
    token = secrets.token_urlsafe(TOKEN_BYTES)
    _write(folder, [*entries, Entry(name=name, role=role, sha256=_hash(token))])
    return token


def revoke_token(folder: Path, name: str) -> None:
    """Make a token worth nothing, from the next call on.

    Raises:
        ConfigError: there is none of this name.
    """
    entries = read_tokens(folder)
    left = [entry for entry in entries if entry.name != name]
    if len(left) == len(entries):
        raise ConfigError(f"token '{name}': expected one of {', '.join(entry.name for entry in entries) or 'none'}, found no such token")
    _write(folder, left)


def read_tokens(folder: Path) -> list[Entry]:
    """Return the tokens of a host's folder, in the order in which they were made.

    Raises:
        DataError: the file cannot be read.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [Entry(name=each["name"], role=Role(each["role"]), sha256=each["sha256"]) for each in content]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: expected a host's tokens, cannot read them: {error!r}; remove the file and make new tokens") from error


class Tokens:
    """The tokens of a running host; the file is read again when it has changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamp: tuple[int, int] | None = None
        self._entries: list[Entry] = []

    def role_of(self, token: str) -> Role | None:
        """Return what a token's owner may do; None for no token of this host.

        Raises:
            DataError: the file of tokens cannot be read.
        """
        self._read_again()
        given, role = _hash(token), None
        for entry in self._entries:  # all of them, so that the time it takes tells nothing
            if hmac.compare_digest(entry.sha256.encode(), given.encode()):
                role = entry.role
        return role

    def _read_again(self) -> None:
        path = self._folder / FILE
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino)
        except FileNotFoundError:
            stamp = (0, 0)
        if stamp != self._stamp:
            self._entries, self._stamp = read_tokens(self._folder), stamp


def _write(folder: Path, entries: list[Entry]) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace_file(folder / FILE, json.dumps([asdict(entry) for entry in entries], indent=1) + "\n", OWNER_ONLY)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
