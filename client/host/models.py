"""The models a host recognises with: the current one, and the one before it to go back to."""

import hashlib
import shutil
from pathlib import Path

from clmm_core.errors import ModelFileError
from clmm_core.files import replace_file

FOLDER = "models"
MODEL, GOLDEN = "model.onnx", "model.golden.json"
PERSONAL = "personal.json"
"""Beside a model: what turns it into its wearer's own (`clmm_core.recognise.personal`). Made of their recordings, it goes when they do."""
CURRENT, PREVIOUS = "current", "previous"
"""Files that name a folder beside them."""
SHORT = 12
"""Hexadecimal digits of a model's SHA-256 that name its folder."""


class Models:
    """A folder with one folder a model. Whatever dies half-way, the current model stays whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def current(self) -> Path | None:
        """Return the file of the model to recognise with, None before the first."""
        return self._named(CURRENT)

    def personal(self) -> Path | None:
        """Return the wearer's own head of the current model, None without one."""
        current = self.current()
        file = current.parent / PERSONAL if current is not None else None
        return file if file is not None and file.is_file() else None

    def install(self, content: bytes, golden: str) -> Path:
        """Make a model the current one, and keep the one before; others go.

        Args:
            content: of the ONNX file.
            golden: JSON of its golden vectors.
        """
        name = hashlib.sha256(content).hexdigest()[:SHORT]
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(place / MODEL, content)
        replace_file(place / GOLDEN, golden)
        before = self._name(CURRENT)
        if before != name:
            if before is not None:
                replace_file(self.folder / PREVIOUS, before)
            replace_file(self.folder / CURRENT, name)
        kept = {name, self._name(PREVIOUS)}
        for each in self.folder.iterdir():
            if each.is_dir() and each.name not in kept:
                shutil.rmtree(each)
        return place / MODEL

    def roll_back(self) -> Path:
        """Make the model before the current one again; going back once more returns to the newer one.

        Raises:
            ModelFileError: there is none.
        """
        before, now = self._name(PREVIOUS), self._name(CURRENT)
        if before is None or now is None or self._named(PREVIOUS) is None:
            raise ModelFileError(f"{self.folder}: expected a model before the current one, found none: there is nothing to go back to")
        replace_file(self.folder / CURRENT, before)
        replace_file(self.folder / PREVIOUS, now)
        return self.folder / before / MODEL

    def _named(self, pointer: str) -> Path | None:
        name = self._name(pointer)
        file = self.folder / name / MODEL if name is not None else None
        return file if file is not None and file.is_file() else None

    def _name(self, pointer: str) -> str | None:
        try:
            return (self.folder / pointer).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return None
