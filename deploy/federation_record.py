"""What `federation.json` and `host.json` hold: who may join, and where."""

import ipaddress
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from clmm_core.errors import ConfigError, DataError

DEFAULT_PORT = 8443
EVERYWHERE = "0.0.0.0"
"""Where a SuperLink listens: it is there to be reached. What the network may ask of it stands in `superlink.py`."""
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
"""In every server certificate: runs are started, and hosts registered, from the SuperLink's own machine."""
FEDERATION, HOST = "federation.json", "host.json"
_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_DNS_NAME = re.compile(r"(?!.*\.$)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")
Text = Annotated[str, StringConstraints(min_length=1)]
Record = TypeVar("Record", bound=BaseModel)


class HostKey(BaseModel):
    """A host that may join, known by its key."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Text
    fingerprint: Text
    added: datetime


class RevokedKey(HostKey):
    """A key that may not join any more: its host was revoked, or got another one."""

    revoked: datetime


class Federation(BaseModel):
    """What `federation.json` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    address: Text
    """HOST:PORT at which hosts reach the SuperLink."""
    listen: Text
    """The IP address it listens on."""
    names: tuple[Text, ...]
    """DNS names and IP addresses in the server's certificate."""
    hosts: tuple[HostKey, ...] = ()
    revoked: tuple[RevokedKey, ...] = ()

    def host(self, name: str) -> HostKey | None:
        """Return the host of that name, if it may join."""
        return next((host for host in self.hosts if host.name == name), None)


class HostRecord(BaseModel):
    """What `host.json` holds, in the folder that goes to a host."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Text
    address: Text
    fingerprint: Text


def read_federation(server: Path) -> Federation:
    """Return the record of a server folder.

    Raises:
        DataError: it is not there or cannot be read.
    """
    return read_record(server / FEDERATION, Federation, "make a federation with `clmm provision create`, or correct the folder")


def read_record(path: Path, kind: type[Record], remedy: str) -> Record:
    """Read one of our JSON files.

    Raises:
        DataError: it is not there or is none; says what to do.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: expected a {kind.__name__}, found none ({error.strerror}): {remedy}") from error
    except ValidationError as error:
        why = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'file'}: {each['msg']}" for each in error.errors())
        raise DataError(f"{path}: expected a {kind.__name__}, found: {why}: {remedy}") from error


def described(address: str, listen: str, also: Sequence[str]) -> Federation:
    """Return the record of a federation without hosts from what an operator says.

    Raises:
        ConfigError: it is no address, or a name that no certificate can hold.
    """
    host, port = split_address(address)
    if not _is_ip(listen):
        raise ConfigError(f"--listen: expected an IP address of the SuperLink's machine, found {listen!r}")
    for name in (host, *also):
        if not _is_ip(name) and not _DNS_NAME.fullmatch(name):
            raise ConfigError(f"expected a DNS name or an IP address, found {name!r}: write it without https:// and path")
    listens_at = () if ipaddress.ip_address(listen).is_unspecified else (listen,)
    names = tuple(dict.fromkeys(map(_spelt, (host, *also, *listens_at, *LOCAL_NAMES))))
    return Federation(address=joined(host, port), listen=listen, names=names)


def split_address(address: str) -> tuple[str, int]:
    """Return host, as certificates spell it, and port of `HOST`, `HOST:PORT` or `[IPV6]:PORT`.

    Raises:
        ConfigError: it is none of these.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]]+))(?::([0-9]{1,5}))?", address)
    port = int(match[3] or DEFAULT_PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise ConfigError(f"expected HOST or HOST:PORT, IPv6 in brackets, found {address!r}")
    return _spelt(match[1] or match[2]), port


def joined(host: str, port: int) -> str:
    """Return an address as Flower reads it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def local_address(federation: Federation) -> str:
    """Return the address by which the SuperLink's own machine reaches it."""
    listen = ipaddress.ip_address(federation.listen)
    host = ("::1" if listen.version == 6 else "127.0.0.1") if listen.is_unspecified else federation.listen
    return joined(host, split_address(federation.address)[1])


def check_host_name(name: str) -> None:
    """Refuse what cannot be the name of a host and of its folder.

    Raises:
        ConfigError: it cannot.
    """
    if not _HOST_NAME.fullmatch(name):
        raise ConfigError(f"host name: expected letters, digits, '_' and '-', at most 63, found {name!r}")


def _spelt(name: str) -> str:
    """Return the one spelling of a name or an address."""
    return str(ipaddress.ip_address(name)) if _is_ip(name) else name.lower()


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
