"""What a loader offers: subjects, their recordings, and the window its field uses."""

from typing import Protocol

from clmm_core.data.recording import Recording
from clmm_core.data.windows import WindowSpec


class Dataset(Protocol):
    """A set of recordings of many subjects. Loaders are frozen dataclasses in a file each."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities a subject may have, in the order the model is built with."""
        ...

    @property
    def window(self) -> WindowSpec:
        """The window this data set is cut into unless the user asks for another."""
        ...

    def subjects(self) -> tuple[str, ...]:
        """Return every subject's name, in a fixed order.

        Raises:
            DataError: the data are not there, or only half there.
        """
        ...

    def recordings(self, subject: str) -> tuple[Recording, ...]:
        """Return this subject's recordings, in a fixed order.

        Raises:
            DataError: a file cannot be read; names the file.
        """
        ...
