"""What the commands have in common: how errors end them, how paths are shown, options that several have."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from clmm_core.errors import ClmmError

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130
Settings = Annotated[
    list[str] | None, typer.Option("--set", "-c", metavar="KEY=VALUE", help="A run-config value in TOML; can be repeated.")
]


@contextmanager
def errors_told() -> Iterator[None]:
    """Turn our errors into their message and exit code 1, Ctrl-C into 130."""
    try:
        yield
    except ClmmError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_FAILED) from error
    except KeyboardInterrupt as error:
        typer.echo("Stopped. No process of the run is left.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from error


def short_path(path: Path) -> str:
    """Return a path as short as it can be said from here."""
    with suppress(ValueError):
        return str(path.absolute().relative_to(Path.cwd()))
    return str(path.absolute())
