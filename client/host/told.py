"""How commands tell what went wrong."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from clmm_core.errors import ClmmError

EXIT_FAILED = 1


@contextmanager
def errors_told() -> Iterator[None]:
    """Turn our errors into their message and exit code 1."""
    try:
        yield
    except ClmmError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_FAILED) from error
