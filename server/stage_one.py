"""What stage one leaves, kept in one file: so that runs which differ only in what follows need not train it again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from clmm_core.errors import DataError
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.codec import from_json_strict, to_json
from clmm_core.files import replace_file
from clmm_core.report.records import RoundRecord
from clmm_core.training.array_names import is_stage_one
from server.run import Run

RECORD = "stage-one"
"""The file's metadata key that holds everything but the arrays."""


@dataclass(frozen=True, kw_only=True)
class StageOneRecord:
    """How stage one went."""

    rounds: tuple[RoundRecord, ...]
    """Every step until its end, from the profile on."""
    server_round: int
    quality: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class StageOne:
    """Encoders, projections and normalisation after stage one, and how it went."""

    arrays: Arrays
    record: StageOneRecord

    @classmethod
    def of(cls, run: Run) -> "StageOne":
        """Return what stage one of `run` left."""
        arrays = {name: values for name, values in run.arrays.items() if is_stage_one(name)}
        return cls(arrays=arrays, record=StageOneRecord(rounds=tuple(run.rounds), server_round=run.server_round, quality=run.quality))

    def give_to(self, run: Run) -> None:
        """Put a new run where this one's stage one ended, as if it had trained it itself."""
        run.arrays = {**run.arrays, **self.arrays}
        run.server_round = self.record.server_round
        own = len(run.rounds)
        for record in self.record.rounds[own:]:
            run.repeat(record)
        run.quality = self.record.quality


def write_stage_one(path: Path, stage_one: StageOne) -> None:
    """Write the file in one piece."""
    arrays = {name: np.asarray(values, order="C") for name, values in stage_one.arrays.items()}
    replace_file(path, save(arrays, metadata={RECORD: to_json(stage_one.record)}))


def read_stage_one(path: Path) -> StageOne:
    """Read it back.

    Raises:
        DataError: the file is missing or is not such a file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  the file is no mapping
            record = from_json_strict(StageOneRecord, (file.metadata() or {})[RECORD])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"{path}: expected what stage one of a run left, cannot read it ({error}); remove it and run again") from error
    return StageOne(arrays=arrays, record=record)
