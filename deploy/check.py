"""What is wrong with a federation's, a server's or a host's folder, in words, before Flower ends with a number."""

import os
import stat
import tomllib
from datetime import datetime
from pathlib import Path

from clmm_core.errors import DataError
from deploy import certificates
from deploy.connection import RENEW, check_connection
from deploy.federation_folder import FederationFolder
from deploy.federation_record import FEDERATION, HOST, Federation, HostKey, HostRecord, read_federation, read_record, split_address
from deploy.finding import Finding, date_findings, findings_of

HOST_SOCKET = "CLMM_HOST_SOCKET"
"""Environment variable that a host's daemon sets for the SuperNode it starts: recordings are in its store (`client.client_app`)."""
SECRETS = ("ca.key", "server.key", "host.key")


def check_folder(folder: Path, now: datetime) -> list[Finding]:
    """Return what is wrong with a folder that `clmm provision` made, or with a copy of a part of it.

    Raises:
        DataError: it is no such folder.
    """
    if (folder / "server" / FEDERATION).is_file():
        return _check_federation(FederationFolder(folder), now)
    if (folder / FEDERATION).is_file():
        return check_server(folder, now)
    if (folder / HOST).is_file():
        return check_host(folder, now)
    raise DataError(
        f"{folder}: expected the folder of a federation, of its server or of a host, found none of server/{FEDERATION}, {FEDERATION} and "
        f"{HOST}: correct the path, or make a federation with `clmm provision create`"
    )


def check_server(server: Path, now: datetime) -> list[Finding]:
    """Return what is wrong with the folder that goes to the SuperLink's machine.

    Raises:
        DataError: it has no record of a federation that can be read.
    """
    federation = read_federation(server)
    found = findings_of(lambda: _check_server_certificate(server, federation, now)) + _check_rights(server)
    for host in federation.hosts:
        found += findings_of(lambda host=host: _check_public_key(server, host))  # type: ignore[misc]
    return found


def check_host(folder: Path, now: datetime) -> list[Finding]:
    """Return what is wrong with the folder of a host, and with what it finds at the SuperLink's address.

    Raises:
        DataError: it has no record of a host that can be read.
    """
    record = read_record(folder / HOST, HostRecord, "copy the host's folder whole")
    authority_path = folder / "ca.crt"
    renew = "make a new federation"
    return [
        *findings_of(lambda: _check_host_key(folder, record)),
        *_check_rights(folder),
        *findings_of(lambda: _check_node_config(folder)),
        *findings_of(lambda: date_findings(authority_path, certificates.read_certificate(authority_path), now, renew)),
        *findings_of(lambda: check_connection(record.address, authority_path)),
    ]


def require_public_key(server: Path, host: HostKey) -> Path:
    """Return the file of a host's public key, once it is seen to be that host's.

    Raises:
        DataError: it is not there, or is another's.
    """
    path = server / "keys" / f"{host.name}.pub"
    try:
        line = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected a public key, cannot read it: {error}: copy the server's folder whole") from error
    found = certificates.fingerprint_of(line, path)
    if found != host.fingerprint:
        raise DataError(
            f"{path}: expected the key {host.fingerprint} of host '{host.name}', found {found}: copy the server's folder again, or "
            f"`clmm provision rotate FOLDER {host.name}`"
        )
    return path


def _check_federation(folder: FederationFolder, now: datetime) -> list[Finding]:
    found = check_server(folder.server, now) + _check_rights(folder.authority)
    federation = folder.read()
    for host in federation.hosts:
        here = folder.host(host.name)
        if (here / "host.key").exists():  # else it was moved to its host, as it should be
            record = HostRecord(name=host.name, address=federation.address, fingerprint=host.fingerprint)
            found += findings_of(lambda here=here, record=record: _check_host_key(here, record)) + _check_rights(here)  # type: ignore[misc]
    return found


def _check_server_certificate(server: Path, federation: Federation, now: datetime) -> list[Finding]:
    authority, certificate = certificates.read_certificate(server / "ca.crt"), certificates.read_certificate(server / "server.crt")
    key = certificates.read_private_key(server / "server.key")
    found = date_findings(server / "server.crt", certificate, now, RENEW)
    found += date_findings(server / "ca.crt", authority, now, "make a new federation: every host needs its new ca.crt")
    if certificate.public_key() != key.public_key():
        found.append(Finding(f"{server / 'server.key'}: expected the key of server.crt, found another: {RENEW}"))
    if not certificates.is_signed_by(certificate, authority):
        issuer = certificate.issuer.rfc4514_string()
        found.append(Finding(f"{server / 'server.crt'}: expected a signature of ca.crt, found one of '{issuer}': {RENEW}"))
    host, _ = split_address(federation.address)
    if host not in certificates.names_in(certificate):
        names = ", ".join(certificates.names_in(certificate))
        found.append(Finding(f"{server / 'server.crt'}: expected a certificate for {host}, found one for {names}: {RENEW}"))
    return found


def _check_public_key(server: Path, host: HostKey) -> list[Finding]:
    require_public_key(server, host)
    return []


def _check_host_key(folder: Path, record: HostRecord) -> list[Finding]:
    path = folder / "host.key"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: expected this host's private key, found none ({error.strerror}): copy the host's folder whole") from error
    found = certificates.fingerprint_of(certificates.public_line(content, path), path)
    if found == record.fingerprint:
        return []
    return [
        Finding(
            f"{path}: expected the key {record.fingerprint} of host '{record.name}', found {found}, another's: copy the folder that was "
            f"made for this host, or `clmm provision rotate FOLDER {record.name}`"
        )
    ]


def _check_node_config(folder: Path) -> list[Finding]:
    path = folder / "node.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: expected this host's settings (TOML), cannot read them: {error}") from error
    if os.environ.get(HOST_SOCKET) or "recordings" not in values or (recordings := folder / str(values["recordings"])).is_dir():
        return []
    return [Finding(f"{path}: recordings: expected a folder as in docs/data.md, found none at {recordings}: make it, or name another")]


def _check_rights(folder: Path) -> list[Finding]:
    """Return which secrets others on this machine could read."""
    found = []
    for path in (folder / name for name in SECRETS):
        if path.is_file() and (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
            found.append(Finding(f"{path}: expected a file for its owner alone (0600), found {mode:04o}: chmod 600 {path}"))
    return found
