"""Records as JSON that people can read and that never holds NaN, and back again with the file named when it is wrong."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
from pydantic import ValidationError

from clmm_core.errors import DataError
from clmm_core.federated.codec import from_json_strict
from clmm_core.federated.messages import Counts
from clmm_core.report.communication import Communication, communication_of
from clmm_core.report.metrics import GroupSummary, chance, counts_as_arrays, counts_as_lists, group_counts, majority_share, summarise
from clmm_core.report.privacy import Privacy, privacy_of
from clmm_core.report.records import GROUPS, Group, RunRecord, SubjectRecord

T = TypeVar("T")
UNKNOWN_FIELD = "unexpected_keyword_argument"
"""What pydantic calls a field that a dataclass does not have."""
MAX_LINE = 140
"""Lists of plain values and small objects that fit into a line stand on one."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """summary.json: what a person or a script wants to know first."""

    name: str
    classes: tuple[str, ...]
    chance: float
    """Accuracy of guessing each class equally often."""
    majority_share: float | None
    """Accuracy of always saying the class most frequent with unseen subjects; None without such subjects."""
    groups: tuple[GroupSummary, ...]
    quality: Mapping[str, float]
    notes: tuple[str, ...]
    communication: Communication | None = None
    """None where the rounds counted no bytes, as those of older versions did not."""
    privacy: Privacy | None = None
    """None where no noise was added."""


@dataclass(frozen=True, kw_only=True)
class StoredSubject:
    """The columns of subjects.csv that are not derived."""

    group: str
    modalities: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SubjectCounts:
    """The counts of one subject."""

    subject: str
    counts: Counts
    personal_before: Counts | None
    personal_after: Counts | None

    def record(self, row: StoredSubject, path: Path, num_classes: int) -> SubjectRecord:
        """Join these counts with the subject's row of the table.

        Raises:
            DataError: the group is unknown, or a shape differs from the run's.
        """
        if row.group not in get_args(Group):
            raise DataError(f"{path.parent}: subject {self.subject!r}: expected a group of {', '.join(GROUPS)}, found {row.group!r}")
        try:
            return SubjectRecord(
                subject=self.subject,
                group=row.group,  # type: ignore[arg-type]  # checked above
                modalities=row.modalities,
                counts=counts_as_arrays(self.counts, num_classes),
                personal_before=None if self.personal_before is None else counts_as_arrays(self.personal_before, num_classes),
                personal_after=None if self.personal_after is None else counts_as_arrays(self.personal_after, num_classes),
            )
        except DataError as error:
            raise DataError(f"{path}: subject {self.subject!r}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class StoredCounts:
    """counts.json, in the record's order of subjects."""

    subjects: tuple[SubjectCounts, ...]


def stored_counts(subject: SubjectRecord) -> SubjectCounts:
    """Return what counts.json holds of a subject."""
    return SubjectCounts(
        subject=subject.subject,
        counts=counts_as_lists(subject.counts),
        personal_before=None if subject.personal_before is None else counts_as_lists(subject.personal_before),
        personal_after=None if subject.personal_after is None else counts_as_lists(subject.personal_after),
    )


def counts_json(subjects: Sequence[SubjectRecord], path: Path) -> Iterator[str]:
    """Yield counts.json, `StoredCounts` as `readable_json` has it, a subject at a time: ten thousand are 70 MB while they are being made.

    Raises:
        DataError: a count is NaN or infinite.
    """
    yield '{\n  "subjects": ['
    for number, subject in enumerate(subjects):
        yield f"{',' if number else ''}\n    {_indented(_plain(stored_counts(subject)), path, indent='    ')}"
    yield ("\n  ]" if subjects else "]") + "\n}\n"


def summary_of(run: RunRecord) -> Summary:
    """Return what summary.json holds."""
    unseen = group_counts(run.subjects, "unseen")
    return Summary(
        name=run.info.name,
        classes=run.split.classes,
        chance=chance(len(run.split.classes)),
        majority_share=None if unseen is None else majority_share(unseen),
        groups=tuple(summary for group in GROUPS if (summary := summarise(run.subjects, group)) is not None),
        quality=run.quality,
        notes=run.notes,
        communication=communication_of(run.rounds),
        privacy=privacy_of(run),
    )


def one_line_json(record: Any, path: Path) -> str:
    """Return a record as one line of JSON.

    Raises:
        DataError: it holds NaN or infinity; names the file it was meant for.
    """
    return _dumped(_plain(record), path)


def readable_json(record: Any, path: Path) -> str:
    """Return a record as indented JSON, with what fits into a line on one.

    Raises:
        DataError: it holds NaN or infinity; names the file it was meant for.
    """
    return _indented(_plain(record), path, indent="") + "\n"


def _plain(value: Any) -> Any:
    """Return dicts, lists and Python scalars; unlike `dataclasses.asdict`, of any Mapping and of numpy scalars too."""
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(child) for child in value]
    return value.item() if isinstance(value, np.generic) else value


def _dumped(value: Any, path: Path) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise DataError(f"{path}: a figure is NaN or infinite, which JSON cannot hold; the model may have diverged") from error


def _indented(value: Any, path: Path, *, indent: str) -> str:
    if not (isinstance(value, dict | list) and value):
        return _dumped(value, path)
    inner = indent + "  "
    children = list(value.values()) if isinstance(value, dict) else value
    # The top level always spreads; below it, a list or object of plain values stays on a line if it fits.
    if indent and not any(isinstance(child, dict | list) for child in children):
        line = _dumped(value, path)
        if len(line) + len(indent) <= MAX_LINE:
            return line
    texts = [_indented(child, path, indent=inner) for child in children]
    if isinstance(value, dict):
        texts = [f"{_dumped(key, path)}: {text}" for key, text in zip(value, texts, strict=True)]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return opening + ",".join(f"\n{inner}{text}" for text in texts) + f"\n{indent}{closing}"


def read_json(path: Path, kind: type[T], *, line: bytes | None = None, line_number: int = 0) -> T:
    """Read one record from a file, or from one line of it.

    Raises:
        DataError: it is not JSON, or not of this kind; names the file, the line, the field and what was found.
    """
    where = f"{path}: line {line_number}" if line is not None else str(path)
    text = path.read_bytes() if line is None else line
    try:
        return from_json_strict(kind, text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        found = "an unknown field; written by another version?" if first["type"] == UNKNOWN_FIELD else first["msg"]
        raise DataError(f"{where}: expected a {kind.__name__}, found a mistake{f' in {field}' if field else ''}: {found}") from error
