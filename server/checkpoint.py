"""What a killed run goes on from: after each round one file, there as a whole or not at all, of which the newest few are kept."""

import hashlib
import re
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
from clmm_core.models.config import ModelConfig
from clmm_core.report.records import Embedding, RoundRecord, RunInfo, Split
from server.privacy import StagePrivacy

FOLDER = "checkpoints"
"""In the results folder of a run that goes on."""
KEPT = 2
"""Files: the newest, and the one before in case a disk loses it."""
RECORD, CHECKSUM = "run", "sha256"
"""The file's metadata: everything but the arrays, and the digest of both."""
MODEL, FIRST, SECOND = "model:", "first:", "second:"
"""Before the names of the model's arrays, and of the server optimiser's moments."""
_NAME = re.compile(r"round-(\d{6,})\.safetensors")


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord:
    """Where a run was."""

    info: RunInfo
    """How it was made: its run config, and the code it ran."""
    split: Split
    model: ModelConfig
    units: Mapping[str, str]
    window_s: float
    server_round: int
    """The last round that ended; 0 after normalisation."""
    rounds: tuple[RoundRecord, ...]
    notes: tuple[str, ...]
    embedding: Embedding
    quality: Mapping[str, float]
    """Empty until it is measured."""
    strikes: Mapping[str, int]
    quarantined_until: Mapping[str, int]
    """See `gate.Quarantine`."""
    stage_privacy: StagePrivacy | None = None
    """Of the stage that goes on, with the next round's clip. What was spent follows from the settings and the round."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All of a run after a round. There is no generator's state in it: every random number comes from (seed, round, device)."""

    record: CheckpointRecord
    arrays: Arrays
    first: Arrays
    """Moments of the server optimiser in this stage; empty where it has none."""
    second: Arrays


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint in one piece, then remove those beyond the newest `KEPT`; return its file.

    Raises:
        OSError: it cannot be written; the older ones are as they were.
    """
    folder.mkdir(exist_ok=True)
    groups = ((MODEL, checkpoint.arrays), (FIRST, checkpoint.first), (SECOND, checkpoint.second))
    arrays = {prefix + name: np.asarray(values, order="C") for prefix, group in groups for name, values in group.items()}
    record = to_json(checkpoint.record)
    path = folder / f"round-{checkpoint.record.server_round:06d}.safetensors"
    replace_file(path, save(arrays, metadata={RECORD: record, CHECKSUM: _digest(record, arrays)}))
    for old in _files(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def read_newest(folder: Path) -> tuple[Checkpoint, list[str]]:
    """Return the newest checkpoint that is whole, and what is wrong with newer ones.

    Raises:
        DataError: there is none that can be read.
    """
    wrong: list[str] = []
    for path in _files(folder):
        try:
            return read_checkpoint(path), wrong
        except DataError as error:
            wrong.append(str(error))
    raise DataError("; ".join(wrong) or f"{folder}: expected a checkpoint, found none: the run ended before its first; start it again")


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint back.

    Raises:
        DataError: it cannot be read, or is not what was written.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  the file is no mapping
            metadata = file.metadata() or {}
        text, checksum = metadata[RECORD], metadata[CHECKSUM]
        if _digest(text, arrays) != checksum:
            raise ValueError("its content is not that of its checksum")
        record = from_json_strict(CheckpointRecord, text)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"{path}: expected a checkpoint of this version, cannot use it: {error}") from error

    def group(prefix: str) -> Arrays:
        return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}

    return Checkpoint(record=record, arrays=group(MODEL), first=group(FIRST), second=group(SECOND))


def _files(folder: Path) -> list[Path]:
    """Return the checkpoints, the newest first; what a killed writer left is none."""
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def _digest(record: str, arrays: Arrays) -> str:
    """Return SHA-256 of the record and of every array with its name, type and shape."""
    digest = hashlib.sha256(record.encode())
    for name, values in sorted(arrays.items()):
        digest.update(f"\0{name} {values.dtype} {values.shape}\0".encode())
        digest.update(np.ascontiguousarray(values).view(np.uint8).data if values.size else b"")
    return digest.hexdigest()
