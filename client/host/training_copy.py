"""What a run learns from: a copy of the store as it was when the run began, in the folder format that training reads.

A copy, because the store goes on: a round finds the windows that its host told the server of, and a reader never keeps deleted samples in
the store's write-ahead log. Deletion removes it with everything else.
"""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from client.host.erasure import TRAINING
from client.host.export import write_session
from client.host.schema import FILE, StoreFullError
from client.host.sessions import sessions_of, subjects_of
from clmm_core.data.datasets.recording_file import FILE_NAME
from clmm_core.errors import DataError


def copy_for_training(host_folder: Path, number: int) -> Path:
    """Write a copy in place of those before, and return its folder: each has its own, because a trainer keeps windows by their path.

    Args:
        host_folder: the host's.
        number: of this copy; another one each time.

    Raises:
        DataError: there is nothing to learn from, or pyarrow is not installed.
        StoreFullError: there is no room for it; nothing of it is left.
    """
    all_copies = host_folder / TRAINING
    if all_copies.exists():
        shutil.rmtree(all_copies)
    folder = all_copies / f"{number:06d}"
    folder.mkdir(parents=True, mode=0o700)
    try:
        with closing(sqlite3.connect(f"file:{host_folder / FILE}?mode=ro", uri=True)) as connection:
            for subject in subjects_of(connection):
                for session in sessions_of(connection, subject):
                    write_session(session, folder / subject / session.name)
    except (OSError, sqlite3.Error) as error:
        shutil.rmtree(all_copies)
        raise StoreFullError(f"{folder}: expected room for what training reads, cannot make it: {error}: free disk space") from error
    if not any(folder.rglob(FILE_NAME)):
        raise DataError(f"{host_folder}: expected recordings to learn from, found none yet: wear a sensor first")
    return folder
