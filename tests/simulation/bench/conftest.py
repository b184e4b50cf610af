"""Turns as if they had been run."""

from collections.abc import Callable

import pytest

from clmm_core.report.records import RunInfo
from simulation.bench.fleet import Setting
from simulation.bench.processes import KINDS
from simulation.bench.turn import Turn

INFO = RunInfo(
    name="bench", run_config={"seed": 0}, versions={"flwr": "1.42.0", "code": "aaaa"}, machine="Linux, 2 cores", started_at="now"
)


@pytest.fixture
def turn_of() -> Callable[..., Turn]:
    """Make a turn in which every round takes so many milliseconds a device, on two busy cores."""

    def make(setting: Setting, ms: float, server_mb: float = 200.0) -> Turn:
        round_s = ms * setting.num_devices / 1000
        watched_s = round_s * setting.rounds
        return Turn(
            setting=setting,
            first_step_s=15.0,
            prepared_s=3.0,
            round_s=(round_s,) * setting.rounds,
            watched_s=watched_s,
            cpu_s=dict.fromkeys(KINDS, 0.0) | {"worker": watched_s, "server": watched_s / 2},
            peak_bytes=dict.fromkeys(KINDS, 50_000_000) | {"server": round(server_mb * 1e6), "worker": 600_000_000},
            info=INFO if setting.way == "ours" else None,
        )

    return make
