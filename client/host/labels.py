"""What the wearer said about stretches of recordings, with what it was corrected to."""

import sqlite3
from dataclasses import dataclass, replace
from uuid import uuid4

from client.host.chunk import MAX_NS
from client.host.schema import transaction
from clmm_core.errors import DataError

MAX_ID, MAX_ACTIVITY = 64, 64
_COLUMNS = "id, subject, recording, activity, start_ns, end_ns, source, corrected_by"


class LabelNotFoundError(DataError):
    """There is no such label or recording; list them and ask again."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """One stretch of one activity.

    Raises:
        DataError: an activity or times that cannot be.
    """

    id: str = ""
    """Chosen by the host where it is empty."""
    subject: str
    recording: str
    activity: str
    start_ns: int
    end_ns: int
    source: int
    """A LabelSource of the API."""
    corrected_by: str | None = None

    def __post_init__(self) -> None:
        where = f"label '{self.id[:80]}'"
        if len(self.id) > MAX_ID or not self.id.isprintable():
            raise DataError(f"{where}: expected an id of at most {MAX_ID} printable characters: choose another")
        if not 1 <= len(self.activity) <= MAX_ACTIVITY or not self.activity.isprintable() or self.activity != self.activity.strip():
            raise DataError(f"{where}: expected an activity of 1 to {MAX_ACTIVITY} printable characters, found {self.activity[:80]!r}")
        if not 0 <= self.start_ns < self.end_ns < MAX_NS:
            raise DataError(f"{where}: expected a start since 1970 and an end after it, in ns, found {self.start_ns} to {self.end_ns}")


def put_label(connection: sqlite3.Connection, label: Label) -> Label:
    """Keep a label and return it with its id; the same one again changes nothing.

    Raises:
        LabelNotFoundError: the host has no such recording.
        DataError: another label has this id.
    """
    with transaction(connection):
        return _insert(connection, label)


def correct_label(connection: sqlite3.Connection, corrected: str, label: Label) -> Label:
    """Keep a label in the place of one that stays as history, and return it.

    Raises:
        LabelNotFoundError: there is no label `corrected`, or it was corrected already.
        DataError: another label has the new one's id.
    """
    with transaction(connection):
        before = _label(connection, corrected)
        if before is None or before.corrected_by is not None:
            found = "none" if before is None else f"that '{before.corrected_by}' corrected it already"
            raise LabelNotFoundError(f"label '{corrected[:80]}': expected one to correct, found {found}: list the labels")
        kept = _insert(connection, replace(label, subject=before.subject, recording=before.recording))
        connection.execute("UPDATE labels SET corrected_by = ? WHERE id = ?", (kept.id, corrected))
        return kept


def find_label(connection: sqlite3.Connection, number: str) -> Label:
    """Return one label.

    Raises:
        LabelNotFoundError: it is not there.
    """
    if (label := _label(connection, number)) is None:
        raise LabelNotFoundError(f"label '{number[:80]}': expected one of this host's, found none: list the labels")
    return label


def delete_label(connection: sqlite3.Connection, number: str) -> None:
    """Remove a label, and those that it corrected.

    Raises:
        LabelNotFoundError: it is not there.
    """
    with transaction(connection):
        find_label(connection, number)
        remove_with_history(connection, number)


def remove_with_history(connection: sqlite3.Connection, number: str) -> None:
    """Remove a label and those that it corrected, within a transaction of the caller's; one that is not there is no error."""
    while number:
        before = connection.execute("SELECT id FROM labels WHERE corrected_by = ?", (number,)).fetchone()
        connection.execute("UPDATE labels SET corrected_by = NULL WHERE corrected_by = ?", (number,))
        connection.execute("DELETE FROM labels WHERE id = ?", (number,))
        number = before[0] if before else ""


def list_labels(connection: sqlite3.Connection, subject: str = "", recording: str = "", *, with_corrected: bool = False) -> list[Label]:
    """Return labels by start; an empty subject or recording is any."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM labels WHERE ? IN ('', subject) AND ? IN ('', recording) AND (? OR corrected_by IS NULL) "
        "ORDER BY start_ns, id",
        (subject, recording, with_corrected),
    )
    return [_of_row(row) for row in rows]


def _insert(connection: sqlite3.Connection, label: Label) -> Label:
    there = connection.execute(
        "SELECT 1 FROM streams WHERE subject = ? AND recording = ? LIMIT 1", (label.subject, label.recording)
    ).fetchone()
    if there is None:
        raise LabelNotFoundError(
            f"label of subject '{label.subject[:80]}', recording '{label.recording[:80]}': expected a recording of this host, found none: "
            "start its sensor first"
        )
    label = label if label.id else replace(label, id=uuid4().hex)
    if (kept := _label(connection, label.id)) is not None:
        if replace(kept, corrected_by=None) != label:
            raise DataError(
                f"label '{label.id}': expected a new id, found one that another label has: choose another, or correct that label"
            )
        return kept
    connection.execute(
        f"INSERT INTO labels ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
        (label.id, label.subject, label.recording, label.activity, label.start_ns, label.end_ns, label.source),
    )
    return label


def _label(connection: sqlite3.Connection, number: str) -> Label | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM labels WHERE id = ?", (number,)).fetchone()
    return None if row is None else _of_row(row)


def _of_row(row: tuple[str, str, str, str, int, int, int, str | None]) -> Label:
    number, subject, recording, activity, start_ns, end_ns, source, corrected_by = row
    return Label(
        id=number,
        subject=subject,
        recording=recording,
        activity=activity,
        start_ns=start_ns,
        end_ns=end_ns,
        source=source,
        corrected_by=corrected_by,
    )
