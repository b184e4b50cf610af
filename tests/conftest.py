"""What the tests of several packages share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from simulation.overrides import Value, apply_overrides, read_app_config

PROJECT = Path(__file__).parent.parent
SMALL: dict[str, Value] = {
    "data.name": "synthetic",
    "data.num-devices": 6,
    "data.window-s": 1.28,
    "pretrain.rounds": 1,
    "pretrain.views": 3,
    "finetune.rounds": 1,
    "finetune.local-epochs": 1,
    "personalise.local-epochs": 1,
    "report.points-per-device": 2,
}
"""A run of a second or two."""


@pytest.fixture(scope="session")
def run_config() -> Callable[..., dict[str, Value]]:
    """Make the committed run config by dotted key, with overrides: `run_config({"seed": 1})`; with `small=True` one of a few seconds."""

    def make(overrides: dict[str, Value] | None = None, *, small: bool = False) -> dict[str, Value]:
        return apply_overrides(read_app_config(PROJECT), (SMALL if small else {}) | (overrides or {}))

    return make
