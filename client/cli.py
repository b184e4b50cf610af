"""`clmm data`: which recordings there are to train on, how to get them, and what is in them."""

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from client.fetch import CHECKSUMS, TO, Fetched, Watch, copy_from, fetch, left_by_interruption, missing
from client.loaders import LOADERS
from client.sources import SOURCES, Source
from clmm_core.data.datasets.archive import archived_files
from clmm_core.data.datasets.dataset import Dataset
from clmm_core.data.datasets.folder import LAYOUT
from clmm_core.data.datasets.recording_file import FILE_NAME
from clmm_core.data.fleet import DataConfig, open_dataset
from clmm_core.data.summary import StreamSummary, SubjectSummary, summarise, warnings_of
from clmm_core.data.windows import NO_LABEL
from clmm_core.errors import ClmmError, ConfigError, DataError

app = typer.Typer(help="Get recordings, and look at them before a run.", no_args_is_help=True)

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130
MAX_CLASSES_SHOWN = 8
"""Above this a subject's classes are counted, not listed."""
WITHOUT_ARCHIVE = "written from the description of its format, tested on files made for the test"


@app.command("list")
def list_loaders() -> None:
    """Show what data.name can be."""
    table = Table(title="data.name", caption=f"no: {WITHOUT_ARCHIVE}", show_lines=True)
    for title, min_width in (
        ("name", 9),
        ("subjects, classes", 12),
        ("modalities", 14),
        ("where it comes from", 12),
        ("met the real archive", 8),
    ):
        table.add_column(title, overflow="fold", min_width=min_width)
    for loader in LOADERS:
        modalities = loader.modalities or _by_sensor(open_dataset(DataConfig(name=loader.name, path="-")).modalities)
        source = loader.source if loader.needs_path else f"{loader.source}; needs no data.path"
        table.add_row(loader.name, f"{loader.subjects} subjects\n{loader.classes}", modalities, source, loader.met_archive)
    Console().print(table)


@app.command("fetch")
def fetch_archives(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"One of {', '.join(source.name for source in SOURCES)}.")],
    to: Annotated[Path, typer.Option(help="Folder that gets a folder NAME with the archives.")] = TO,
    given: Annotated[
        Path | None,
        typer.Option("--from", metavar="PATH", help="Copy them from here instead: an archive, or a folder with the official files."),
    ] = None,
) -> None:
    """Get the archives of NAME, a data set of `clmm data list`; run it again to go on after an interruption, or to check them."""
    console = Console()
    try:
        source = _source(name)
        _say(console, f"{source.name}: {source.page if given is None else given}")
        try:
            with _watching(console) as watch:
                fetched = fetch(source, to, watch) if given is None else copy_from(given, source, to, watch)
        except KeyboardInterrupt as error:
            typer.echo(f"Stopped. {left_by_interruption(source, to)}", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from error
    except ClmmError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_FAILED) from error
    _say_what_next(console, source, to, fetched)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A folder in our format (docs/data.md), or a data set: its folder or an archive of it.")],
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Read it as this data set, where its file names do not tell.")
    ] = None,
) -> None:
    """Show what is in PATH, subject by subject, and what to look out for."""
    try:
        name, dataset = detect(path, name)
        subjects = summarise(dataset)
        modalities = dataset.modalities
    except ClmmError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_FAILED) from error
    console = Console()
    console.print(_table(f"{name}: {path}", subjects))
    warnings = warnings_of(modalities, subjects)
    for warning in warnings:
        console.print(f"warning: {escape(warning)}", style="yellow", soft_wrap=True)
    console.print(f"{len(subjects)} subject(s), {sum(subject.num_windows for subject in subjects)} windows, {len(warnings)} warning(s)")


def detect(path: Path, name: str | None = None) -> tuple[str, Dataset]:
    """Return the loader's name, `name` itself if given, and the loader for what lies at `path`.

    Raises:
        ConfigError: no loader that reads files is called `name`.
        DataError: nothing is there, or it is none of the formats we read.
    """
    readers = [loader.name for loader in LOADERS if loader.needs_path]
    if name is not None and name not in readers:
        raise ConfigError(f"--as: expected one of {', '.join(readers)}, found '{name}'")
    if not path.exists():
        raise DataError(f"{path}: expected a folder or an archive of recordings, found nothing there: correct the path")
    found = name or _recognised(path)
    if found is None:
        raise DataError(f"{path}: expected {LAYOUT}, or files of {', '.join(readers)}, found neither: correct the path, or tell with --as")
    return found, open_dataset(DataConfig(name=found, path=str(path)))


def _recognised(path: Path) -> str | None:
    """Return the name of the loader that the file names call for."""
    if path.is_dir() and any(any(path.glob(f"{above}{FILE_NAME}")) for above in ("", "*/", "*/*/")):
        return "folder"
    official = {f"set{i}": loader for i, loader in enumerate(LOADERS) if loader.file}
    names = re.compile("|".join(f"(?P<{group}>(^|/){loader.file}$)" for group, loader in official.items()))
    for file, _ in archived_files(path, names):  # one pass for all of them: a tar has no index
        match = names.search(file)
        return next(loader.name for group, loader in official.items() if match is not None and match[group] is not None)
    return None


def _source(name: str) -> Source:
    for source in SOURCES:
        if source.name == name:
            return source
    names = ", ".join(source.name for source in SOURCES)
    raise ConfigError(f"NAME: expected one of {names}, found '{name}': `clmm data list` says where each set comes from")


@contextmanager
def _watching(console: Console) -> Iterator[Watch]:
    """Show a bar for each file on a terminal; a log file needs none."""
    if not console.is_terminal:
        yield lambda file, done, total: None
        return
    bars: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:

        def watch(file: str, done: int, total: int | None) -> None:
            if file not in bars:  # it starts where the file goes on, so that the speed is that of what comes now
                bars[file] = progress.add_task(file, total=total, completed=done)
            progress.update(bars[file], completed=done)

        yield watch


def _say_what_next(console: Console, source: Source, to: Path, fetched: Sequence[Fetched]) -> None:
    folder = to / source.name
    for archive in fetched:
        state = "already there, with the checksum" if archive.was_there else "whole, its checksum is"
        _say(console, f"{archive.path}: {state} in {folder / CHECKSUMS}")
    _say(console, f"Licence: {source.licence}. Please cite: {source.citation}")
    if absent := missing(source, to):
        _say(console, f"Still missing: {', '.join(absent)}; fetch again")
        return
    where = shlex.quote(str(folder))
    _say(console, f"Look at it:  clmm data inspect {where}")
    _say(console, f"Train on it: clmm run --data {source.name} --path {where}")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _by_sensor(modalities: Sequence[str]) -> str:
    """Return the names a line a sensor, short for a table: `accelerometer _chest _wrist`."""
    places: dict[str, list[str]] = {}
    for modality in modalities:
        sensor, underscore, place = modality.partition("_")
        places.setdefault(sensor, []).append(underscore + place)
    return "\n".join(" ".join([sensor, *where]).strip() for sensor, where in places.items())


def _table(title: str, subjects: Sequence[SubjectSummary]) -> Table:
    table = Table(title=escape(title), show_lines=True)
    for name in ("subject", "recorded", "modalities", "NaN", "windows a class"):
        table.add_column(name, overflow="fold", no_wrap=name in ("recorded", "modalities", "NaN"))
    for subject in subjects:
        table.add_row(
            escape(subject.subject),
            f"{subject.num_sessions} sessions\n{subject.recorded_s / 60:.1f} minutes\n{subject.num_windows} windows",
            escape("\n".join(f"{modality} {_rate(stream)} {stream.unit}" for modality, stream in subject.streams.items())),
            "\n".join(f"{stream.nan_share:.1%}" for stream in subject.streams.values()),
            escape(_classes(subject)),
        )
    return table


def _rate(stream: StreamSummary) -> str:
    lowest, highest = f"{stream.min_rate_hz:.3g}", f"{stream.max_rate_hz:.3g}"
    return f"{lowest} Hz" if lowest == highest else f"{lowest}-{highest} Hz"


def _classes(subject: SubjectSummary) -> str:
    labelled = {label: count for label, count in subject.class_counts.items() if label != NO_LABEL}
    lines = [f"{label} {count}" for label, count in labelled.items()]
    if len(labelled) > MAX_CLASSES_SHOWN:
        lowest, highest = min(labelled.values()), max(labelled.values())
        lines = [f"{len(labelled)} classes, {lowest if lowest == highest else f'{lowest} to {highest}'} each"]
    if NO_LABEL in subject.class_counts:
        lines.append(f"(no label) {subject.class_counts[NO_LABEL]}")
    return "\n".join(lines)
