"""`clmm provision`: make the keys and certificates of a federation, and keep them in order."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from clmm_core.errors import ClmmError
from deploy import federation_folder
from deploy.certificates import names_in, read_certificate
from deploy.check import check_folder
from deploy.federation_folder import FederationFolder
from deploy.federation_record import EVERYWHERE, FEDERATION, Federation, described, read_federation
from deploy.registration import node_ids, register

EXIT_FAILED = 1
app = typer.Typer(help="Make the keys and certificates of a federation, and keep them in order (docs/deployment.md).", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The federation's folder.")]
HostName = Annotated[str, typer.Argument(metavar="HOST", help="A host's name.")]
Also = Annotated[list[str] | None, typer.Option(metavar="NAME", help="Another DNS name or IP address of the SuperLink; can be repeated.")]


@app.command()
def create(
    folder: Folder,
    hosts: Annotated[list[str] | None, typer.Argument(metavar="[HOST]...", help="Names of the hosts that may join.")] = None,
    *,
    address: Annotated[str, typer.Option(metavar="HOST[:PORT]", help="Where hosts reach the SuperLink; port 8443 if none is said.")],
    listen: Annotated[
        str, typer.Option(metavar="IP", help="The address of its machine that it listens on; all of them if none is said.")
    ] = EVERYWHERE,
    also: Also = None,
) -> None:
    """Make the folder of a federation; again, what is missing of it. Nothing that is there is replaced."""
    with _errors_told():
        done = federation_folder.create(FederationFolder(folder), described(address, listen, also or ()), hosts or (), _now())
        _tell(done, "nothing to do: it is all there", _next_steps(folder) if done else ())


@app.command()
def add(folder: Folder, hosts: Annotated[list[str], typer.Argument(metavar="HOST...", help="Names of new hosts.")]) -> None:
    """Let further hosts join: a key and a folder for each."""
    with _errors_told():
        done = federation_folder.add(FederationFolder(folder), hosts, _now())
        _tell(done, "nothing to do: they are there", _next_steps(folder) if done else ())


@app.command()
def rotate(folder: Folder, host: HostName) -> None:
    """Give a host a new key in place of its old one."""
    with _errors_told():
        _tell(federation_folder.rotate(FederationFolder(folder), host, _now()), "", _next_steps(folder))


@app.command()
def revoke(folder: Folder, host: HostName) -> None:
    """Let a host not join any more."""
    with _errors_told():
        _tell(federation_folder.revoke(FederationFolder(folder), host, _now()), "", _next_steps(folder)[:1])


@app.command()
def renew(
    folder: Folder,
    *,
    address: Annotated[str | None, typer.Option(metavar="HOST[:PORT]", help="Where hosts reach the SuperLink from now on.")] = None,
    listen: Annotated[str | None, typer.Option(metavar="IP", help="The address that it listens on from now on.")] = None,
    also: Also = None,
) -> None:
    """Issue the SuperLink a new certificate: before the old one ends, or for more names."""
    with _errors_told():
        place = FederationFolder(folder)
        before = place.read()
        asked = described(address or before.address, listen or before.listen, (*before.names, *(also or ())))
        done = federation_folder.renew(place, asked, _now())
        _tell(done, "", ("copy server/ to the SuperLink's machine again, and start the SuperLink again",))


@app.command()
def certify(
    folder: Folder,
    host: HostName,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="DNS names and IP addresses that its sensors call it by.")],
) -> None:
    """Issue a host a certificate for its sensors (`clmm host run --certificate`); again, before the old one ends."""
    with _errors_told():
        done = federation_folder.certify(FederationFolder(folder), host, names, _now())
        place = FederationFolder(folder).host(host)
        _tell(done, "", (f"copy ingest.crt and ingest.key of {place} to that host, and remove ingest.key here",))


@app.command("register")
def register_hosts(folder: Folder) -> None:
    """On the SuperLink's machine: tell it, while it runs, who may join and who may not any more."""
    with _errors_told():
        _tell(register(_server_of(folder)), "nothing to do: the SuperLink knows them all", ())


@app.command()
def show(folder: Folder) -> None:
    """Show who may join, and when certificates end."""
    with _errors_told():
        server = _server_of(folder)
        federation = read_federation(server)
        console = Console() if sys.stdout.isatty() else Console(width=200)
        console.print(_host_table(FederationFolder(folder), server, federation))
        for name in ("server.crt", "ca.crt"):
            certificate = read_certificate(server / name)
            said = f" for {', '.join(names_in(certificate))}" if name == "server.crt" else ""
            _say(console, f"{server / name}{said}: until {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
        _say(console, f"Hosts reach the SuperLink at {federation.address}; it listens on {federation.listen}")


@app.command()
def check(folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A federation's folder, its server's or a host's.")]) -> None:
    """Say what is wrong with a folder; on a host, also with what it finds at the SuperLink's address."""
    with _errors_told():
        found = check_folder(folder, _now())
        for each in found:
            typer.echo(f"{'error' if each.is_fatal else 'warning'}: {each.text}", err=True)
        if any(each.is_fatal for each in found):
            raise typer.Exit(EXIT_FAILED)
        typer.echo(f"{folder}: ready" if not found else f"{folder}: ready, with {len(found)} warning(s)")


def _host_table(folder: FederationFolder, server: Path, federation: Federation) -> Table:
    known = node_ids(server)
    table = Table(title=f"Federation at {federation.address}")
    for column in ("host", "key", "since", "Flower's node", "state"):
        table.add_column(column, overflow="fold")
    for host in federation.hosts:
        is_here = (folder.host(host.name) / "host.key").exists()
        state = "may join; its private key is still in this folder" if is_here else "may join"
        table.add_row(host.name, host.fingerprint, f"{host.added:%Y-%m-%d}", known.get(host.fingerprint, "not registered from here"), state)
    for gone in federation.revoked:
        table.add_row(
            gone.name, gone.fingerprint, f"{gone.added:%Y-%m-%d}", known.get(gone.fingerprint, ""), f"revoked {gone.revoked:%Y-%m-%d}"
        )
    return table


def _server_of(folder: Path) -> Path:
    """Return the server's folder, whether it or the whole federation's was named."""
    return folder if (folder / FEDERATION).is_file() else FederationFolder(folder).server


def _next_steps(folder: Path) -> tuple[str, ...]:
    return (
        f"on the SuperLink's machine: copy {folder / 'server'} there, start-superlink and start-superexec, then `clmm provision register`",
        f"on each new host: copy its folder below {folder / 'hosts'} there, remove host.key here, start-supernode",
    )


def _tell(done: Sequence[str], nothing: str, next_steps: Sequence[str]) -> None:
    console = Console()
    for line in done or [nothing]:
        _say(console, line)
    for step in next_steps:
        _say(console, f"Next, {step}")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@contextmanager
def _errors_told() -> Iterator[None]:
    try:
        yield
    except (ClmmError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_FAILED) from error
