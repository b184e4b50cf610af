"""`clmm host`: run a wearable's host, say who may talk to it, look at it, and do with its recordings what the wearer wishes."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from client.host import wishes
from client.host.labelling import label
from client.host.told import errors_told
from clmm_core.errors import ConfigError

app = typer.Typer(help="Keep a wearer's recordings on this machine (docs/host.md).", no_args_is_help=True)
token = typer.Typer(help="Who may talk to a host: sensors give, viewers read, admins do all.", no_args_is_help=True)
app.add_typer(token, name="token")
app.add_typer(label, name="label")
wishes.add_to(app)

Folder = Annotated[Path, typer.Option(help="The host's folder.")]


@app.command()
def run(
    *,
    folder: Folder,
    listen: Annotated[str, typer.Option(metavar="ADDRESS:PORT", help="Port 0 is any free one.")] = "127.0.0.1:50061",
    certificate: Annotated[Path | None, typer.Option(help="PEM; needed where other machines reach the address.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    max_bytes: Annotated[int, typer.Option(help="The store's size; the oldest samples that nobody labelled go first.")] = 2_000_000_000,
    max_days: Annotated[float, typer.Option(help="Samples go so long after they came.")] = 90.0,
) -> None:
    """Take samples, labels and wishes until ended (SIGTERM, Ctrl-C)."""
    from client.host.daemon import HostConfig, run_daemon  # noqa: PLC0415  it loads gRPC
    from client.host.retention import Limits  # noqa: PLC0415

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with errors_told():
        limits = Limits(max_bytes=max_bytes, max_days=max_days)
        config = HostConfig(folder=folder, listen=listen, certificate=certificate, key=key, limits=limits)
        address = listen.rpartition(":")[0]
        run_daemon(config, lambda port: typer.echo(f"listening on {address}:{port}, store in {folder}"))


@token.command()
def add(
    name: Annotated[str, typer.Argument(help="Whose it is: watch, phone, anna.")],
    *,
    role: Annotated[str, typer.Option(help="sensor, viewer or admin.")],
    folder: Folder,
) -> None:
    """Make a token and print it; it is kept as a hash only, so it cannot be shown again."""
    from client.host.tokens import Role, add_token  # noqa: PLC0415

    with errors_told():
        if role not in list(Role):
            raise ConfigError(f"--role: expected {', '.join(Role)}, found '{role}'")
        typer.echo(add_token(folder, name, Role(role)))


@token.command()
def revoke(name: Annotated[str, typer.Argument(help="Whose it was.")], *, folder: Folder) -> None:
    """Make a token worth nothing, also for a daemon that runs."""
    from client.host.tokens import revoke_token  # noqa: PLC0415

    with errors_told():
        revoke_token(folder, name)
        typer.echo(f"revoked {name}")


@token.command("list")
def list_tokens(*, folder: Folder) -> None:
    """Show who has one."""
    from client.host.tokens import read_tokens  # noqa: PLC0415

    with errors_told():
        for entry in read_tokens(folder):
            typer.echo(f"{entry.name}\t{entry.role}")
