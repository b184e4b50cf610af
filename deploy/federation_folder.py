"""The folder of a federation: its authority, what goes to the SuperLink's machine, and what goes to each host.

    FOLDER/
      ca/           ca.crt, ca.key          signs the server's certificate: keep it off the SuperLink's machine
      server/       federation.json         who may join; address; names in the certificate
                    ca.crt, server.crt, server.key
                    keys/NAME.pub           the public key of each host
                    start-superlink, start-superexec
                    flwr/config.toml        FLWR_HOME of `flwr run`
      hosts/NAME/   host.json, ca.crt, host.key, node.toml, start-supernode      goes to that host alone
                    ingest.crt, ingest.key  where its sensors reach it over the network

Files with a secret have mode 0600, folders 0700. Each file is replaced in one piece, `federation.json` last: a command that was
interrupted is simply given again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from clmm_core.errors import ConfigError, DataError
from clmm_core.files import replace_file
from deploy import certificates, start_scripts
from deploy.federation_record import (
    EVERYWHERE,
    FEDERATION,
    HOST,
    Federation,
    HostKey,
    HostRecord,
    RevokedKey,
    check_host_name,
    described,
    local_address,
    read_federation,
)

SECRET, PUBLIC, PROGRAM = 0o600, 0o644, 0o755


@dataclass(frozen=True)
class FederationFolder:
    """Where things are below the folder that the operator named."""

    root: Path

    @property
    def authority(self) -> Path:
        """What signs."""
        return self.root / "ca"

    @property
    def server(self) -> Path:
        """What goes to the SuperLink's machine."""
        return self.root / "server"

    def host(self, name: str) -> Path:
        """What goes to a host."""
        return self.root / "hosts" / name

    def public_key(self, name: str) -> Path:
        """Return the file of a host's public key."""
        return self.server / "keys" / f"{name}.pub"

    def read(self) -> Federation:
        """Return who may join.

        Raises:
            DataError: there is no federation here, or its record cannot be read.
        """
        return read_federation(self.server)

    def write(self, federation: Federation) -> None:
        """Replace who may join."""
        replace_file(self.server / FEDERATION, federation.model_dump_json(indent=2) + "\n", PUBLIC)


def create(folder: FederationFolder, asked: Federation, hosts: Sequence[str], now: datetime) -> list[str]:
    """Make a federation, or what is missing of it; return what was done. Nothing that is there is replaced.

    Raises:
        ConfigError: a federation with another address is there already, a host was revoked, or a name cannot be used.
        DataError: what is there cannot be read.
    """
    for host in hosts:
        check_host_name(host)
    done = []
    if (folder.server / FEDERATION).exists():
        federation = folder.read()
        if (asked.address, asked.listen) != (federation.address, federation.listen) or set(asked.names) != set(federation.names):
            raise ConfigError(
                f"{folder.root}: expected a new folder or the same federation, found one at {federation.address}, listening on "
                f"{federation.listen}, for {', '.join(federation.names)}: choose another folder, or change it with `clmm provision renew`"
            )
    else:
        federation = asked
        done.append(f"a federation at {federation.address}")
    for host in hosts:
        gone = next((each for each in federation.revoked if each.name == host), None)
        if gone is not None and federation.host(host) is None:
            raise ConfigError(
                f"host '{host}' was revoked on {gone.revoked:%Y-%m-%d}: `clmm provision add` gives it a new key, if it may join again"
            )
    for secret_folder in (folder.root, folder.authority, folder.server, folder.root / "hosts"):
        make_folder(secret_folder)
    done += _make_authority(folder, now)
    if not (folder.server / "server.crt").exists() or not (folder.server / "server.key").exists():
        done += _issue(folder, federation, now)
    write_server_files(folder.server, federation)
    folder.write(federation)
    return done + add(folder, hosts, now)


def add(folder: FederationFolder, names: Sequence[str], now: datetime) -> list[str]:
    """Give hosts that are new a key and a folder; return what was done.

    Raises:
        ConfigError: a name cannot be used.
        DataError: a file that is there cannot be read.
    """
    for name in names:
        check_host_name(name)
    done = []
    for name in names:
        federation = folder.read()
        if federation.host(name) is not None:
            continue
        host = _make_key(folder, name, now)
        if host.fingerprint in {each.fingerprint for each in federation.revoked}:  # a revocation that was interrupted left it
            (folder.host(name) / "host.key").unlink()
            host = _make_key(folder, name, now)
        _write_host_files(folder, federation, host)
        folder.write(federation.model_copy(update={"hosts": (*federation.hosts, host)}))
        done.append(f"host {name}: key {host.fingerprint}, folder {folder.host(name)}")
    return done


def rotate(folder: FederationFolder, name: str, now: datetime) -> list[str]:
    """Replace the key of a host; its old one may not join any more once the SuperLink is told.

    Raises:
        ConfigError: there is no such host.
    """
    federation, old = _known(folder, name)
    key_path = folder.host(name) / "host.key"
    make_folder(key_path.parent)
    replace_file(key_path, certificates.new_host_key(), SECRET)
    host = _make_key(folder, name, now)
    _write_host_files(folder, federation, host)
    others = tuple(each for each in federation.hosts if each.name != name)
    folder.write(federation.model_copy(update={"hosts": (*others, host), "revoked": (*federation.revoked, _revoked(old, now))}))
    return [f"host {name}: key {host.fingerprint} in place of {old.fingerprint}, folder {folder.host(name)}"]


def revoke(folder: FederationFolder, name: str, now: datetime) -> list[str]:
    """Take a host off those that may join, and remove its key.

    Raises:
        ConfigError: there is no such host.
    """
    federation, old = _known(folder, name)
    others = tuple(each for each in federation.hosts if each.name != name)
    folder.write(federation.model_copy(update={"hosts": others, "revoked": (*federation.revoked, _revoked(old, now))}))
    for path in (folder.public_key(name), folder.host(name) / "host.key"):
        path.unlink(missing_ok=True)
    return [f"host {name}: key {old.fingerprint} may not join any more"]


def renew(folder: FederationFolder, asked: Federation, now: datetime) -> list[str]:
    """Issue a new key and certificate for the SuperLink, by the same authority: hosts need nothing new unless its address changes.

    Raises:
        DataError: the authority's key is not here.
    """
    before = folder.read()
    federation = before.model_copy(update={"address": asked.address, "listen": asked.listen, "names": asked.names})
    done = _issue(folder, federation, now)
    write_server_files(folder.server, federation)
    folder.write(federation)
    if federation.address != before.address:
        for host in federation.hosts:
            _write_host_files(folder, federation, host)
        done.append("the address changed: copy host.json and start-supernode to every host again")
    return done


def certify(folder: FederationFolder, name: str, names: Sequence[str], now: datetime) -> list[str]:
    """Issue a host a certificate of its own, by which its sensors know it: for `clmm host run`.

    Args:
        folder: the federation's, with its authority.
        name: the host's.
        names: DNS names and IP addresses that sensors call it by.
        now: from when it counts.

    Raises:
        ConfigError: there is no such host, or a name that no certificate can hold.
        DataError: the authority's key is not here.
    """
    _known(folder, name)
    called = described(names[0], EVERYWHERE, names[1:]).names
    authority = certificates.read_certificate(folder.authority / "ca.crt")
    authority_key = certificates.read_private_key(folder.authority / "ca.key")
    key, certificate = certificates.new_server_certificate(authority_key, authority, called, now)
    replace_file(folder.host(name) / "ingest.key", key, SECRET)
    replace_file(folder.host(name) / "ingest.crt", certificate, PUBLIC)
    until = now + certificates.SERVER_LASTS
    return [f"host {name}: a certificate for {', '.join(called)}, until {until:%Y-%m-%d}: {folder.host(name) / 'ingest.crt'}"]


def write_server_files(server: Path, federation: Federation) -> None:
    """Write what depends on where the server folder is, and the programs in it: again wherever it was copied to."""
    make_folder(server / "flwr")
    make_folder(server / "keys")
    replace_file(server / "flwr" / "config.toml", start_scripts.flwr_config(server.absolute(), local_address(federation)), SECRET)
    replace_file(server / "start-superlink", start_scripts.SUPERLINK, PROGRAM)
    replace_file(server / "start-superexec", start_scripts.superexec(local_address(federation)), PROGRAM)


def make_folder(path: Path) -> None:
    """Make a folder that its owner alone can look into."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _make_authority(folder: FederationFolder, now: datetime) -> list[str]:
    key_path, certificate_path = folder.authority / "ca.key", folder.authority / "ca.crt"
    if key_path.exists() and certificate_path.exists():
        return []
    if (folder.server / "server.crt").exists():
        raise DataError(f"{folder.authority}: expected ca.key and ca.crt, found not both: bring them back from where you keep them")
    key, certificate = certificates.new_authority(f"CLMM federation {folder.root.absolute().name}"[:64], now)
    replace_file(key_path, key, SECRET)
    replace_file(certificate_path, certificate, PUBLIC)
    return [f"an authority: {certificate_path}"]


def _issue(folder: FederationFolder, federation: Federation, now: datetime) -> list[str]:
    authority = certificates.read_certificate(folder.authority / "ca.crt")
    authority_key = certificates.read_private_key(folder.authority / "ca.key")
    key, certificate = certificates.new_server_certificate(authority_key, authority, federation.names, now)
    replace_file(folder.server / "server.key", key, SECRET)
    replace_file(folder.server / "server.crt", certificate, PUBLIC)
    replace_file(folder.server / "ca.crt", (folder.authority / "ca.crt").read_bytes(), PUBLIC)
    until = now + certificates.SERVER_LASTS
    return [f"the server's certificate for {', '.join(federation.names)}, until {until:%Y-%m-%d}"]


def _make_key(folder: FederationFolder, name: str, now: datetime) -> HostKey:
    """Make a host's key unless it has one, and keep its public half."""
    path = folder.host(name) / "host.key"
    make_folder(path.parent)
    if not path.exists():
        replace_file(path, certificates.new_host_key(), SECRET)
    line = certificates.public_line(path.read_bytes(), path)
    replace_file(folder.public_key(name), f"{line} {name}\n", PUBLIC)
    return HostKey(name=name, fingerprint=certificates.fingerprint_of(line, path), added=now)


def _write_host_files(folder: FederationFolder, federation: Federation, host: HostKey) -> None:
    here = folder.host(host.name)
    make_folder(here)
    record = HostRecord(name=host.name, address=federation.address, fingerprint=host.fingerprint)
    replace_file(here / HOST, record.model_dump_json(indent=2) + "\n", PUBLIC)
    replace_file(here / "ca.crt", (folder.server / "ca.crt").read_bytes(), PUBLIC)
    replace_file(here / "start-supernode", start_scripts.supernode(host.name, federation.address), PROGRAM)
    if not (here / "node.toml").exists():  # what an operator wrote there stays
        replace_file(here / "node.toml", start_scripts.NODE_CONFIG, PUBLIC)


def _known(folder: FederationFolder, name: str) -> tuple[Federation, HostKey]:
    federation = folder.read()
    host = federation.host(name)
    if host is None:
        known = ", ".join(each.name for each in federation.hosts) or "none"
        raise ConfigError(f"{folder.root}: expected the name of a host, found '{name}'; hosts are: {known}")
    return federation, host


def _revoked(host: HostKey, now: datetime) -> RevokedKey:
    return RevokedKey(**host.model_dump(), revoked=now)
