"""Measurements in a folder, a file each: a benchmark that was stopped goes on where it was."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from clmm_core.errors import DataError
from clmm_core.federated.codec import to_json
from clmm_core.files import replace_file
from clmm_core.report.run_json import read_json

Measured = TypeVar("Measured")


class Kept:
    """What was measured of one state of the code."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder, say
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, kind: type[Measured], take: Callable[[], Measured]) -> Measured:
        """Return a measurement that is there, else take it and keep it.

        Raises:
            DataError: what is there cannot be read.
        """
        file = self._folder / f"{name}.json"
        if not file.exists():
            self._say(f"measuring {name}")
            replace_file(file, to_json(take()))
        try:
            return read_json(file, kind)
        except DataError as error:
            raise DataError(f"{error}; remove the file to measure again") from error
