"""The results folder of a run: written step by step as `<name>.partial`, renamed to `<name>` when it is whole.

So a folder without `.partial` is always complete, and one with it belongs to a run that goes on or was killed. Which file
holds what: see `records`. Every file but rounds.jsonl appears in one piece (temporary file, fsync, rename).
"""

import csv
import fcntl
import io
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from clmm_core.errors import ConfigError, DataError
from clmm_core.files import replace_file, sync_folder
from clmm_core.report.metrics import accuracy, expected_calibration_error, macro_f1, num_windows_of, personal_gain, worst_first
from clmm_core.report.records import Embedding, ModelCard, RoundRecord, RunInfo, RunRecord, Split, SubjectRecord
from clmm_core.report.run_json import (
    StoredCounts,
    StoredSubject,
    Summary,
    counts_json,
    one_line_json,
    read_json,
    readable_json,
    summary_of,
)

PARTIAL_SUFFIX, LOCK = ".partial", ".lock"
INFO, SPLIT, ROUNDS, SUBJECTS = "config.json", "split.json", "rounds.jsonl", "subjects.csv"
COUNTS, EMBEDDING, SUMMARY, CARD = "counts.json", "embedding.json", "summary.json", "model.json"
WEIGHTS, REPORT = "model.safetensors", "report.html"
RECORD_FILES = (INFO, SPLIT, ROUNDS, SUBJECTS, COUNTS, EMBEDDING, SUMMARY, CARD)
"""What `read_run` needs; the weights and the page can be absent."""

SUBJECT_COLUMNS = (
    *("subject", "group", "modalities", "windows", "accuracy", "macro_f1", "ece"),
    *("personal_windows", "accuracy_before", "accuracy_personalised", "gain"),
)
MODALITY_SEPARATOR = ","
"""No modality's name has a comma; one that joins two sensors has a plus."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def check_name(name: str) -> None:
    """Refuse what cannot be a run's name.

    Raises:
        ConfigError: it is no plain folder name.
    """
    if not _NAME.fullmatch(name) or name.endswith(PARTIAL_SUFFIX):
        raise ConfigError(f"run name: expected letters, digits, '.', '_' and '-', not '.' or '-' first nor '.partial' last, found {name!r}")


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """Where one run writes its results. `RunFolder.create` makes it; `finish` or `discard` ends it."""

    partial: Path
    final: Path
    lock: list[int] = field(default_factory=list, compare=False, repr=False)
    """Descriptor of the file that this process holds while the run goes on; the system lets go of it also when the process is killed."""

    @classmethod
    def create(cls, results_dir: Path, name: str) -> Self:
        """Make `<results_dir>/<name>.partial/` for a new run.

        Raises:
            ConfigError: the name is no plain folder name, or a finished or partial run has it already.
        """
        check_name(name)
        folder = cls(partial=results_dir / f"{name}{PARTIAL_SUFFIX}", final=results_dir / name)
        folder._refuse_existing(folder.final)
        results_dir.mkdir(parents=True, exist_ok=True)
        try:
            folder.partial.mkdir()
        except FileExistsError as error:
            raise ConfigError(
                f"{folder.partial} exists: a run of that name goes on or was killed half-way. Choose another name, remove the folder, or "
                f"go on with it: clmm run --resume {folder.partial}"
            ) from error
        return replace(folder, lock=[_held(folder.partial)])

    @classmethod
    def reopen(cls, results_dir: Path, name: str) -> Self:
        """Return the folder of a run that was killed, to go on with it.

        Raises:
            ConfigError: there is none, or its run is finished or still goes on.
        """
        check_name(name)
        folder = cls(partial=results_dir / f"{name}{PARTIAL_SUFFIX}", final=results_dir / name)
        if not folder.partial.is_dir():
            found = f"that run is finished: {folder.final}" if folder.final.is_dir() else "found none"
            raise ConfigError(f"{folder.partial}: expected the folder of a run that was killed, {found}")
        return replace(folder, lock=[_held(folder.partial)])

    def write_info(self, info: RunInfo) -> None:
        """Write config.json."""
        self._write(INFO, readable_json(info, self.partial / INFO))

    def write_split(self, split: Split) -> None:
        """Write split.json."""
        self._write(SPLIT, readable_json(split, self.partial / SPLIT))

    def write_rounds(self, records: Sequence[RoundRecord]) -> None:
        """Write rounds.jsonl anew, of these steps alone."""
        self._write(ROUNDS, "".join(one_line_json(record, self.partial / ROUNDS) + "\n" for record in records))

    def append_round(self, record: RoundRecord) -> None:
        """Add a line to rounds.jsonl, visible to readers at once.

        Raises:
            DataError: the record holds NaN or infinity.
        """
        path = self.partial / ROUNDS
        line = one_line_json(record, path)
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(line + "\n")

    def write_model(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Write model.safetensors; its card is part of the record."""
        # safetensors stores memory as it lies, so a transposed array must be made contiguous first.
        self._write(WEIGHTS, save({name: np.asarray(array, order="C") for name, array in arrays.items()}))

    def write_results(self, run: RunRecord) -> None:
        """Write every file of the record, so that `read_run` returns it as it is.

        Raises:
            DataError: the record holds NaN or infinity.
        """
        assert len({subject.subject for subject in run.subjects}) == len(run.subjects), "a subject is evaluated once"
        self.write_info(run.info)
        self.write_split(run.split)
        self.write_rounds(run.rounds)
        self._write(SUBJECTS, _subjects_csv(run.subjects))
        self._write(COUNTS, counts_json(run.subjects, self.partial / COUNTS))
        self._write(EMBEDDING, readable_json(run.embedding, self.partial / EMBEDDING))
        self._write(SUMMARY, readable_json(summary_of(run), self.partial / SUMMARY))
        self._write(CARD, readable_json(run.card, self.partial / CARD))

    def finish(self) -> Path:
        """Give the folder its final name and return it.

        Raises:
            DataError: a file of the record is missing; `write_results` comes first.
            ConfigError: meanwhile another run has finished under this name; the partial folder stays.
        """
        missing = [name for name in RECORD_FILES if not (self.partial / name).is_file()]
        if missing:
            raise DataError(f"{self.partial}: cannot finish a run without {', '.join(missing)}; write its results first")
        self._refuse_existing(self.final)
        self.release()
        try:
            self.partial.rename(self.final)
        except OSError as error:
            raise ConfigError(f"{self.partial} could not be renamed to {self.final}: {error}. The results are whole; rename it") from error
        sync_folder(self.final.parent)
        return self.final

    def discard(self) -> None:
        """Remove the partial folder with all it holds; a finished one stays."""
        self.release()
        shutil.rmtree(self.partial, ignore_errors=True)

    def release(self) -> None:
        """Let go of the folder, which stays as it is: its run can be gone on with."""
        while self.lock:  # copies of this folder share it
            (self.partial / LOCK).unlink(missing_ok=True)
            os.close(self.lock.pop())

    @staticmethod
    def _refuse_existing(final: Path) -> None:
        if final.exists():
            raise ConfigError(f"{final} exists: a run of that name is finished. Choose another name, or move the folder away")

    def _write(self, name: str, content: str | bytes | Iterable[str]) -> None:
        replace_file(self.partial / name, content)


def _held(partial: Path) -> int:
    """Return the descriptor of a run's lock.

    Raises:
        ConfigError: another process has it.
    """
    descriptor = os.open(partial / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConfigError(f"{partial}: its run goes on in another process: wait for its end, or stop it") from error
    return descriptor


def read_run(path: Path) -> RunRecord:
    """Read a finished results folder back.

    Raises:
        DataError: the folder or a file of it is missing, is not what its name says, or does not fit the others.
    """
    if path.name.endswith(PARTIAL_SUFFIX):
        raise DataError(f"{path}: expected a finished run, found one that goes on or was killed half-way; `read_rounds` reads its rounds")
    missing = [name for name in RECORD_FILES if not (path / name).is_file()]
    if missing:
        raise DataError(f"{path}: expected the results of a run, found no {', '.join(missing)}; was the folder copied whole?")
    return read_results(path)


def read_results(path: Path) -> RunRecord:
    """Return the record that `RunFolder.write_results` wrote, in a folder finished or not."""
    info, split = read_json(path / INFO, RunInfo), read_json(path / SPLIT, Split)
    summary = read_json(path / SUMMARY, Summary)
    return RunRecord(
        info=info,
        split=split,
        rounds=_rounds(path / ROUNDS, is_finished=True),
        subjects=_read_subjects(path, num_classes=len(split.classes)),
        embedding=read_json(path / EMBEDDING, Embedding),
        quality=summary.quality,
        card=read_json(path / CARD, ModelCard),
        notes=summary.notes,
    )


def read_rounds(path: Path) -> tuple[RoundRecord, ...]:
    """Return the steps so far of a run that may still go on: a last line half written does not count yet.

    Args:
        path: The results folder, partial or finished; before its first step has ended it has no rounds.

    Raises:
        DataError: there is no such folder, or a whole line is not a step.
    """
    if not path.is_dir():
        raise DataError(f"{path}: expected the folder of a run, found none")
    return _rounds(path / ROUNDS, is_finished=False) if (path / ROUNDS).is_file() else ()


def _rounds(path: Path, *, is_finished: bool) -> tuple[RoundRecord, ...]:
    *whole, last = path.read_bytes().split(b"\n")
    if is_finished and last:
        raise DataError(f"{path}: line {len(whole) + 1} is half written; the file was cut off")
    return tuple(read_json(path, RoundRecord, line=line, line_number=number) for number, line in enumerate(whole, start=1))


def _subjects_csv(subjects: tuple[SubjectRecord, ...]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(SUBJECT_COLUMNS)
    for subject in worst_first(subjects):
        before, after = subject.personal_before, subject.personal_after
        shared = (accuracy(subject.counts), macro_f1(subject.counts), expected_calibration_error(subject.counts))
        personal = (before and accuracy(before), after and accuracy(after), personal_gain(subject))
        writer.writerow(
            [
                *(subject.subject, subject.group, MODALITY_SEPARATOR.join(subject.modalities), num_windows_of(subject.counts)),
                *("" if share is None else f"{share:.4f}" for share in shared),
                "" if after is None else num_windows_of(after),
                *("" if share is None else f"{share:.4f}" for share in personal),
            ]
        )
    return text.getvalue()


def _read_subjects(path: Path, *, num_classes: int) -> tuple[SubjectRecord, ...]:
    """Join subjects.csv with counts.json, in the order of the latter, which is the record's."""
    rows = _read_csv(path / SUBJECTS)
    counts = read_json(path / COUNTS, StoredCounts).subjects
    if sorted(rows) != sorted(subject.subject for subject in counts):
        raise DataError(f"{path}: {SUBJECTS} and {COUNTS} name other subjects; they are of two runs, or were edited")
    return tuple(subject.record(rows[subject.subject], path / COUNTS, num_classes) for subject in counts)


def _read_csv(path: Path) -> dict[str, StoredSubject]:
    try:
        reader = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8"), newline=""), strict=True)
        if tuple(reader.fieldnames or ()) != SUBJECT_COLUMNS:
            raise DataError(f"{path}: expected the columns {', '.join(SUBJECT_COLUMNS)}; found {reader.fieldnames}")
        return {row["subject"]: _stored_subject(row) for row in reader}
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DataError(f"{path}: expected a table of subjects, found {error}") from error


def _stored_subject(row: Mapping[str, str]) -> StoredSubject:
    modalities = tuple(row["modalities"].split(MODALITY_SEPARATOR)) if row["modalities"] else ()
    return StoredSubject(group=row["group"], modalities=modalities)
