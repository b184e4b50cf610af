"""`clmm doctor`: look at a machine, and at its part of a federation, before Flower ends with a number."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from deploy.check import check_folder
from deploy.finding import findings_of
from deploy.machine import SUPERNODE_PORT, Checked, check_machine

EXIT_FAILED = 1
app = typer.Typer(add_completion=False)


@app.command()
def doctor(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="This machine's folder of a federation: its server's or a host's.")
    ] = None,
    *,
    port: Annotated[list[int] | None, typer.Option(help="A port that this machine will listen on; can be repeated.")] = None,
) -> None:
    """Say what of this machine is right, what is not, and what to do; ends with 1 if something keeps it from taking part."""
    now = datetime.now(UTC)
    checked = check_machine(folder or Path.cwd(), port or [SUPERNODE_PORT], now)
    if folder is not None:
        checked.append(Checked(f"the federation's folder {folder}", findings_of(lambda: check_folder(folder, now))))
    for each in checked:
        for line in lines_of(each):
            typer.echo(line)
    if any(finding.is_fatal for each in checked for finding in each.found):
        raise typer.Exit(EXIT_FAILED)


def lines_of(checked: Checked) -> list[str]:
    """Return what to say of one thing: that it is right, or what is wrong with it."""
    if not checked.found:
        return [f"ok       {checked.what}"]
    return [f"{'error  ' if each.is_fatal else 'warning'}  {checked.what}: {each.text}" for each in checked.found]
