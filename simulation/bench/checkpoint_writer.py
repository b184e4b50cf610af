"""Writes one checkpoint after the other into a folder and says the number of each that is there, until it is killed.

python -m simulation.bench.checkpoint_writer FOLDER
"""

import sys
from itertools import count
from pathlib import Path

import numpy as np

from clmm_core.models.config import ModalityShape, ModelChoice, sized
from clmm_core.report.records import Embedding, RunInfo, Split
from server.checkpoint import FOLDER, Checkpoint, CheckpointRecord, write_checkpoint

NUM_PARAMETERS = 340_000
"""As many as the default network has, and as many moments: most of a write is theirs."""


def main() -> None:
    """Write until killed."""
    folder = Path(sys.argv[1]) / FOLDER
    for number in count(1):
        values = np.random.default_rng(number).standard_normal((3, NUM_PARAMETERS)).astype(np.float32)
        write_checkpoint(
            folder, Checkpoint(record=record_of(number), **{name: {"w": row} for name, row in zip(NAMES, values, strict=True)})
        )
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


NAMES = ("arrays", "first", "second")


def record_of(number: int) -> CheckpointRecord:
    """Return all but the arrays of a checkpoint."""
    names = {"training": ("a",), "validation": (), "test": (), "labelled": ("a",), "classes": ("x", "y")}
    return CheckpointRecord(
        info=RunInfo(name="run", run_config={}, versions={}, machine="", started_at=""),
        split=Split(seed=0, labels_per_class=1, label_unit="trial", **names),
        model=sized(ModelChoice(), (ModalityShape(name="acc", channels=3, time_steps=32),), 2),
        units={"acc": "m/s^2"},
        window_s=1.0,
        server_round=number,
        rounds=(),
        notes=(),
        embedding=Embedding(),
        quality={},
        strikes={},
        quarantined_until={},
    )


if __name__ == "__main__":
    main()
