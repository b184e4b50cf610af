"""`clmm host`: run a wearable's host, say who may talk to it, look at it, and do with its recordings what the wearer wishes."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.host import wishes
from client.host.labelling import label
from client.host.told import errors_told
from clmm_core.errors import ConfigError, ModelFileError

if TYPE_CHECKING:
    from client.host.models import Models

app = typer.Typer(help="Keep a wearer's recordings on this machine (docs/host.md).", no_args_is_help=True)
token = typer.Typer(help="Who may talk to a host: sensors give, viewers read, admins do all.", no_args_is_help=True)
app.add_typer(token, name="token")
app.add_typer(label, name="label")
wishes.add_to(app)

Folder = Annotated[Path, typer.Option(help="The host's folder.")]


@app.command()
def run(  # noqa: PLR0913  a parameter an option
    *,
    folder: Folder,
    listen: Annotated[str, typer.Option(metavar="ADDRESS:PORT", help="Port 0 is any free one.")] = "127.0.0.1:50061",
    certificate: Annotated[Path | None, typer.Option(help="PEM; needed where other machines reach the address.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    max_bytes: Annotated[int, typer.Option(help="The store's size; the oldest samples that nobody labelled go first.")] = 2_000_000_000,
    max_days: Annotated[float, typer.Option(help="Samples go so long after they came.")] = 90.0,
    federation: Annotated[Path | None, typer.Option(help="The folder that `clmm provision` made for this host: take part.")] = None,
    train_on_battery: Annotated[bool, typer.Option(help="Train without power, too.")] = False,
    train_hours: Annotated[str | None, typer.Option(metavar="FROM-TO", help="Train between these times of day only, as 22-6.")] = None,
    train_below_c: Annotated[float, typer.Option(help="Train while the machine is no hotter than so many degrees.")] = 75.0,
    train_load: Annotated[float, typer.Option(help="Train while no more processes a core want to run; 0 does not look.")] = 1.5,
) -> None:
    """Take samples, labels and wishes, and part in a federation, until ended (SIGTERM, Ctrl-C)."""
    from client.host.daemon import HostConfig, run_daemon  # noqa: PLC0415  it loads gRPC
    from client.host.federation import FederationConfig  # noqa: PLC0415
    from client.host.retention import Limits  # noqa: PLC0415
    from client.host.training_rules import TrainingRules, hours_of  # noqa: PLC0415

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with errors_told():
        limits = Limits(max_bytes=max_bytes, max_days=max_days)
        rules = TrainingRules(
            on_battery=train_on_battery,
            max_temperature_c=train_below_c,
            max_load_per_core=train_load,
            hours=hours_of(train_hours) if train_hours else None,
        )
        part = FederationConfig(folder=federation, rules=rules) if federation is not None else None
        config = HostConfig(folder=folder, listen=listen, certificate=certificate, key=key, limits=limits, federation=part)
        address = listen.rpartition(":")[0]
        run_daemon(config, lambda port: typer.echo(f"listening on {address}:{port}, store in {folder}"))


@app.command()
def model(
    file: Annotated[Path | None, typer.Argument(metavar="[MODEL]", help="A model of `clmm export`, with its golden vectors.")] = None,
    *,
    folder: Folder,
    back: Annotated[bool, typer.Option("--back", help="Recognise with the model before the current one again.")] = False,
) -> None:
    """Recognise with another model from now on, also in a daemon that runs; the one before is kept. Without either: say which it is."""
    from client.host.models import FOLDER, Models  # noqa: PLC0415

    with errors_told():
        models = Models(folder / FOLDER)
        if file is not None and back:
            raise ConfigError("expected a model or --back, found both: choose one")
        if file is not None:
            install_verified(models, file)
        elif back:
            models.roll_back()
        current = models.current()
        typer.echo(f"recognises with {current}" if current is not None else f"{folder}: no model yet")


def install_verified(models: "Models", file: Path) -> None:
    """Install a model that is as it was exported and answers here as it should.

    Raises:
        ModelFileError: it is not; says what differs.
    """
    from clmm_core.recognise.golden import differences, golden_file, read_golden  # noqa: PLC0415  it loads onnxruntime
    from clmm_core.recognise.onnx_model import OnnxModel  # noqa: PLC0415

    opened, golden = OnnxModel.open(file), golden_file(file)
    if found := differences(file.read_bytes(), opened, read_golden(golden)):
        raise ModelFileError(f"{file}: expected the model of {golden}, found another: {'; '.join(found)}")
    models.install(file.read_bytes(), golden.read_text(encoding="utf-8"))


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
