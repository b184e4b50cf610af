"""`clmm data`: which recordings there are to train on, and what is in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clmm_core.data.datasets.dataset import Dataset
from clmm_core.data.datasets.folder import LAYOUT, Folder
from clmm_core.data.datasets.recording_file import FILE_NAME
from clmm_core.data.datasets.utd_mhad import HALVES, UtdMhad
from clmm_core.data.summary import StreamSummary, SubjectSummary, summarise, warnings_of
from clmm_core.data.windows import NO_LABEL
from clmm_core.errors import ClmmError, DataError

app = typer.Typer(help="Look at recordings before a run.", no_args_is_help=True)

MAX_CLASSES_SHOWN = 8
"""Above this a subject's classes are counted, not listed."""


@dataclass(frozen=True, kw_only=True)
class Loader:
    """A row of `clmm data list`."""

    name: str
    subjects: str
    modalities: tuple[str, ...]
    classes: str
    source: str
    needs_path: bool


LOADERS = (
    Loader(
        name="spar",
        subjects="10",
        modalities=("accelerometer", "gyroscope"),
        classes="7 shoulder exercises",
        source="comes with the pip package seglearn",
        needs_path=False,
    ),
    Loader(
        name="utd-mhad",
        subjects="8",
        modalities=("accelerometer", "gyroscope", "skeleton"),
        classes="27 actions",
        source="download it, see docs/data.md",
        needs_path=True,
    ),
    Loader(
        name="folder",
        subjects="yours",
        modalities=("any",),
        classes="yours",
        source="your own CSV or Parquet files and a recording.yaml, see docs/data.md",
        needs_path=True,
    ),
    Loader(
        name="synthetic",
        subjects="any number",
        modalities=("accelerometer", "gyroscope", "magnetometer"),
        classes="6 activities",
        source="made from the run's seed, for scale and tests; never for an accuracy claim",
        needs_path=False,
    ),
)


@app.command("list")
def list_loaders() -> None:
    """Show what data.name can be."""
    table = Table(title="data.name", show_lines=True)
    for title in ("name", "subjects", "modalities", "classes", "where it comes from", "needs data.path"):
        table.add_column(title, overflow="fold", no_wrap=title in ("name", "modalities"))
    for loader in LOADERS:
        needs_path = "yes" if loader.needs_path else "no"
        table.add_row(loader.name, loader.subjects, "\n".join(loader.modalities), loader.classes, loader.source, needs_path)
    Console().print(table)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A folder in our format (docs/data.md), or UTD-MHAD: folder, zips or tar archive.")],
) -> None:
    """Show what is in PATH, subject by subject, and what to look out for."""
    try:
        name, dataset = detect(path)
        subjects = summarise(dataset)
        modalities = dataset.modalities
    except ClmmError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    console = Console()
    console.print(_table(f"{name}: {path}", subjects))
    warnings = warnings_of(modalities, subjects)
    for warning in warnings:
        console.print(f"warning: {escape(warning)}", style="yellow", soft_wrap=True)
    console.print(f"{len(subjects)} subject(s), {sum(subject.num_windows for subject in subjects)} windows, {len(warnings)} warning(s)")


def detect(path: Path) -> tuple[str, Dataset]:
    """Return the loader's name and the loader for what lies at `path`.

    Raises:
        DataError: it is none of the formats we read.
    """
    if not path.exists():
        raise DataError(f"{path}: expected a folder or an archive of recordings, found nothing there: correct the path")
    if path.is_file():
        return "utd-mhad", UtdMhad(path=path)
    if any(any(path.glob(f"{above}{FILE_NAME}")) for above in ("", "*/", "*/*/")):
        return "folder", Folder(path=path)
    halves = (f"{above}{half}{suffix}" for above in ("", "*/") for half in HALVES for suffix in ("", ".zip"))
    if any(any(path.glob(half)) for half in halves):
        return "utd-mhad", UtdMhad(path=path)
    raise DataError(f"{path}: expected {LAYOUT}, or Inertial and Skeleton of UTD-MHAD, found neither: correct the path")


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
