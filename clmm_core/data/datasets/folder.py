"""Anybody's own recordings: `PATH/<subject>/<session>/recording.yaml` and one CSV or Parquet file a stream; see docs/data.md."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from clmm_core.data.datasets.recording_file import FILE_NAME, RecordingFile, read_recording_file
from clmm_core.data.datasets.stream_file import read_stream
from clmm_core.data.recording import LabelledInterval, Recording, Stream
from clmm_core.data.windows import WindowSpec
from clmm_core.errors import DataError

LAYOUT = f"<subject>/<session>/{FILE_NAME} (docs/data.md shows one)"
MISPLACED = (("", "too high"), ("*/", "too high"), ("*/*/*/", "too deep"), ("*/*/*/*/", "too deep"))
"""Folders between `data.path` and a recording.yaml that would be overlooked; further down is not looked, a path may be a whole disk."""
RATE_HZ = 50.0
"""Every stream is resampled to this rate in its windows: movement of people lies below 20 Hz."""
WINDOW_S = 2.56
OVERLAP = 0.5
"""Length and overlap of UCI-HAR's windows, the most used ones of this field (Anguita et al., ESANN 2013)."""


@dataclass(frozen=True)
class Folder:
    """The recordings below `path`: a folder a subject, in it a folder a session, in it a recording.yaml and its stream files.

    The recording.yaml files are read once per process; the stream files each time their subject's recordings are asked for.
    """

    path: Path

    @property
    def modalities(self) -> tuple[str, ...]:
        """Every modality that some session has, sorted."""
        return _modalities(self.path)

    @property
    def window(self) -> WindowSpec:
        """Windows of 2.56 s at 50 Hz, half overlapping."""
        return WindowSpec(length_s=WINDOW_S, overlap=OVERLAP, time_steps=dict.fromkeys(self.modalities, round(WINDOW_S * RATE_HZ)))

    def subjects(self) -> tuple[str, ...]:
        """Return the names of the subjects' folders, sorted."""
        return tuple(_by_subject(self.path))

    def recordings(self, subject: str) -> tuple[Recording, ...]:
        """Return this subject's sessions, sorted by name; times count from a session's first sample."""
        return tuple(_recording(file) for file in _by_subject(self.path).get(subject, ()))


@lru_cache(maxsize=4)
def _by_subject(path: Path) -> Mapping[str, tuple[RecordingFile, ...]]:
    root = path.expanduser()
    if not root.is_dir():
        raise DataError(f"{path}: expected a folder with {LAYOUT}, found {'a file' if root.exists() else 'nothing'}: correct data.path")
    for levels, where in MISPLACED:
        for misplaced in sorted(root.glob(f"{levels}{FILE_NAME}")):
            if not any(part.startswith(".") for part in misplaced.relative_to(root).parts):
                raise DataError(f"{misplaced}: expected {LAYOUT} below {path}, found this one {where}: move it, or correct data.path")
    files: dict[str, tuple[RecordingFile, ...]] = {}
    for subject in _visible_folders(root):
        sessions = tuple(read_recording_file(session / FILE_NAME) for session in _visible_folders(subject) if _is_session(session))
        if sessions:
            _check_name(subject)
            files[subject.name] = sessions
    if not files:
        raise DataError(f"{path}: expected {LAYOUT}, found no {FILE_NAME}: correct data.path")
    return files


@lru_cache(maxsize=4)
def _modalities(path: Path) -> tuple[str, ...]:
    """Return every modality that some session has, sorted, once all sessions agree on its number of columns."""
    first: dict[str, RecordingFile] = {}
    for sessions in _by_subject(path).values():
        for session in sessions:
            for modality, entry in session.streams.items():
                expected = len(first.setdefault(modality, session).streams[modality].columns)
                if len(entry.columns) != expected:
                    raise DataError(
                        f"{session.path}: streams.{modality}.columns: expected {expected} as in {first[modality].path}, found "
                        f"{len(entry.columns)}: give both the same columns, or the modality another name"
                    )
    return tuple(sorted(first))


def _check_name(subject: Path) -> None:
    if "," in subject.name or subject.name != subject.name.strip():
        raise DataError(
            f"{subject}: expected a subject's folder without ',' in its name and without blanks around it, because split.test and the like "
            f"list subjects with commas, found '{subject.name}': rename it"
        )


def _visible_folders(path: Path) -> list[Path]:
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    for folder in folders:
        if not folder.name.isprintable():  # what is not UTF-8 on disk reaches Python as lone surrogates, which nothing can write again
            raise DataError(f"{path}: expected folder names of printable characters in UTF-8, found {folder.name!r}: rename it")
    return folders


def _is_session(folder: Path) -> bool:
    if (folder / FILE_NAME).is_file():
        return True
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in (".csv", ".parquet", ".yml", ".yaml"):
            raise DataError(f"{folder}: expected {FILE_NAME} beside {file.name}, found none: write one (docs/data.md), or move the folder")
    return False


def _recording(file: RecordingFile) -> Recording:
    subject, session = file.path.parts[-3:-1]
    streams = {modality: read_stream(entry) for modality, entry in file.streams.items()}
    _check_clocks(file, streams)
    origin_s = min(stream.start_s for stream in streams.values())
    return Recording(
        subject=subject,
        session=session,
        streams={modality: replace(stream, start_s=stream.start_s - origin_s) for modality, stream in streams.items()},
        intervals=tuple(
            replace(interval, start_s=interval.start_s - origin_s, end_s=interval.end_s - origin_s) for interval in file.intervals
        ),
    )


def _check_clocks(file: RecordingFile, streams: Mapping[str, Stream]) -> None:
    """Refuse streams or intervals on different clocks, such as seconds since 1970 beside seconds since the start."""
    by_start = sorted(streams.items(), key=lambda item: item[1].start_s)
    end_s = by_start[0][1].end_s
    for modality, stream in by_start:
        if stream.start_s > end_s:
            raise DataError(
                f"{file.path}: streams.{modality}: expected it to start while another stream runs, before {end_s:.3f} s, found "
                f"{stream.start_s:.3f} s: put all times of a session on one clock, or make two sessions of it"
            )
        end_s = max(end_s, stream.end_s)
    for interval in file.intervals:
        if not _overlaps(interval, by_start[0][1].start_s, end_s):
            raise DataError(
                f"{file.path}: intervals: expected times inside the recording ({by_start[0][1].start_s:.3f} to {end_s:.3f} s), found "
                f"'{interval.label}' at {interval.start_s:.3f} to {interval.end_s:.3f} s: give it in seconds on the streams' clock"
            )


def _overlaps(interval: LabelledInterval, start_s: float, end_s: float) -> bool:
    return interval.start_s < end_s and interval.end_s > start_s
