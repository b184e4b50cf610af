"""A host's recordings as files that anybody can read: the documented folder format, with Parquet."""

import shutil
import sqlite3
from pathlib import Path

import yaml

from client.host.erasure import EXPORTS
from client.host.header import TIME
from client.host.schema import StoreFullError
from client.host.sessions import NS, Session, recording_of, sessions_of, subjects_of
from clmm_core.data.datasets.recording_file import FILE_NAME
from clmm_core.errors import DataError

OWNER_ONLY = 0o700


def export(connection: sqlite3.Connection, host_folder: Path, subject: str = "") -> tuple[Path, list[str]]:
    """Write everything into `exports` of the host's folder in place of the export before, and return where, and what was left out.

    Args:
        connection: of the store, which nothing else uses meanwhile.
        host_folder: the host's.
        subject: whose; empty is everybody's.

    Raises:
        DataError: there is nothing to export, or pyarrow is not installed.
        StoreFullError: there is no room for it; nothing of it is left.
    """
    folder = host_folder / EXPORTS
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(mode=OWNER_ONLY)
    left_out: list[str] = []
    try:
        for each in [subject] if subject else subjects_of(connection):
            for session in sessions_of(connection, each):
                left_out += write_session(session, folder / each / session.name)
    except OSError as error:
        shutil.rmtree(folder)
        raise StoreFullError(f"{folder}: expected room for an export, cannot write it: {error}: free disk space") from error
    if not any(folder.rglob(FILE_NAME)):
        whose = f"subject '{subject}'" if subject else "anybody"
        raise DataError(f"{host_folder}: expected recordings of {whose} to export, found none{''.join(f'; {each}' for each in left_out)}")
    return folder, left_out


def write_session(session: Session, folder: Path) -> list[str]:
    """Write a session's `recording.yaml` and a Parquet file a stream, and return what the format cannot hold, and why.

    Raises:
        DataError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415  40 MB that a host needs for this alone
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise DataError("an export needs the package 'pyarrow': pip install 'clmm[host]'") from error
    recording, left_out = recording_of(session)
    if recording is None:
        return list(left_out.values())
    folder.mkdir(parents=True)
    entries = {}
    for modality in recording.streams:
        measured = session.streams[modality]
        columns = {TIME: measured.times_ns, **{axis: measured.samples[:, i] for i, axis in enumerate(measured.axes)}}
        parquet.write_table(pa.table(columns), folder / f"{modality}.parquet", compression="zstd")
        entries[modality] = {"file": f"{modality}.parquet", "unit": measured.unit, "columns": list(measured.axes), "time": TIME}
    origin_s = min(int(session.streams[modality].times_ns[0]) for modality in recording.streams) / NS
    intervals = [{"label": each.label, "start_s": each.start_s + origin_s, "end_s": each.end_s + origin_s} for each in recording.intervals]
    content = {"streams": entries, **({"intervals": intervals} if intervals else {})}
    (folder / FILE_NAME).write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return list(left_out.values())
