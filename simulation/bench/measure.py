"""What the benchmark measures, in order; each measurement is kept as it ends, so that a benchmark that was stopped goes on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from clmm_core.federated.source import fingerprint
from simulation.bench.engine import Engine, measured_engine
from simulation.bench.fleet import Device, Setting, Way
from simulation.bench.host_share import HostShare, host_share
from simulation.bench.kept import Kept
from simulation.bench.ray_start import ray_start_s
from simulation.bench.turn import Turn, run_turn

PACKAGES = ("clmm_core", "client", "server", "simulation")
WAYS: tuple[Way, ...] = ("ours", "stock")
SCALED_BATCH = 32
"""Of the fleets of growing size: one step a device, so that what is not training shows."""
SHARE_DEVICES = 64
"""A process, where a host's share is timed."""
ENGINE_DEVICES = {"cpu": 16, "cuda": 1024}
ENGINE_TURNS = 3


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What is asked for."""

    device: Device = "cpu"
    num_devices: int = 500
    """Where both ways are compared."""
    batch_sizes: tuple[int, ...] = (8, 32)
    fleet_sizes: tuple[int, ...] = (100, 300, 1000, 3000, 10_000)
    rounds: int = 3
    """In a turn, where both ways are compared."""
    turns: int = 2
    """Of each way, ours first, then the stock way, then ours again."""

    def compared(self) -> list[tuple[int, Setting]]:
        """Return the turns that compare both ways, numbered from 1, in the order that they are run in."""
        return [
            (number, Setting(way=way, num_devices=self.num_devices, batch_size=batch_size, rounds=self.rounds, device=self.device))
            for batch_size in self.batch_sizes
            for number in range(1, self.turns + 1)
            for way in WAYS
        ]

    def first_of_ours(self) -> list[Setting]:
        """Return our way's setting of each batch size."""
        return [setting for number, setting in self.compared() if number == 1 and setting.way == "ours"]

    def scaled(self) -> list[Setting]:
        """Return a round of ours over each size of the fleet."""
        fixed = {"way": "ours", "batch_size": SCALED_BATCH, "rounds": 1, "device": self.device}
        return [Setting(num_devices=size, **fixed) for size in sorted(self.fleet_sizes)]

    @property
    def engine_arguments(self) -> list[str]:
        """The engine's own benchmark, as its command line takes it."""
        sizes = ",".join(str(size) for size in sorted({4, *self.batch_sizes}))
        return [
            *("--device", self.device, "--devices", str(min(self.num_devices, ENGINE_DEVICES[self.device]))),
            *("--batch-sizes", sizes, "--turns", str(min(self.turns, ENGINE_TURNS))),
        ]


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """All that there is so far."""

    compared: Sequence[Turn] = ()
    scaled: Sequence[Turn] = ()
    shares: Sequence[HostShare] = ()
    ray_start_s: float | None = None
    engine: Engine | None = None

    def updates_per_s(self, way: Way, batch_size: int) -> float | None:
        """Return device-updates a second, the median over a way's turns, None where it had none."""
        values = [turn.updates_per_s for turn in self.turns_of(way, batch_size)]
        return median(values) if values else None

    def turns_of(self, way: Way, batch_size: int) -> list[Turn]:
        """Return a way's turns at a batch size."""
        return [turn for turn in self.compared if (turn.setting.way, turn.setting.batch_size) == (way, batch_size)]


def measure(benchmark: Benchmark, folder: Path, say: Callable[[str], None], so_far: Callable[[Measurements], None]) -> Measurements:
    """Measure what is not in `folder` yet, and return everything.

    Args:
        benchmark: what is asked for.
        folder: where measurements are kept, those of each state of the code apart.
        say: told what is measured, and what came out.
        so_far: given everything there is after each measurement.
    """
    kept, found = _KeptTurns(folder / code(), say), Measurements()

    def add(**more: Any) -> None:
        nonlocal found
        found = replace(found, **more)
        so_far(found)

    add(ray_start_s=kept.get(f"ray-start-{benchmark.device}", float, lambda: _ray_start_s(benchmark)))
    for number, setting in benchmark.compared():
        add(compared=(*found.compared, kept.turn(setting, number)))
    for setting in benchmark.first_of_ours():
        add(shares=(*found.shares, kept.share(setting, min(SHARE_DEVICES, benchmark.num_devices))))
    asked = benchmark.engine_arguments
    add(engine=kept.get(f"engine{'-'.join(asked)}", Engine, lambda: measured_engine(asked, say)))
    for setting in benchmark.scaled():
        add(scaled=(*found.scaled, kept.turn(setting, 1)))
    return found


def code() -> str:
    """Return 16 hex digits of all the code that is measured."""
    return fingerprint([Path(__file__).parents[2] / package for package in PACKAGES])


def _ray_start_s(benchmark: Benchmark) -> float:
    workers = benchmark.first_of_ours()[0].workers
    return median(ray_start_s(workers) for _ in range(benchmark.turns))


class _KeptTurns(Kept):
    """Runs and hosts' shares, which say how quick they were."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        super().__init__(folder, say)
        self._tell = say

    def turn(self, setting: Setting, number: int) -> Turn:
        """Return a run of this setting, and say how quick it was."""
        name = f"{setting.way}-{setting.device}-{setting.num_devices}-batch-{setting.batch_size}-rounds-{setting.rounds}-turn-{number}"
        turn = self.get(name, Turn, lambda: run_turn(setting))
        rounds = ", ".join(f"{each:.1f}" for each in turn.round_s)
        self._tell(f"{name}: {turn.updates_per_s:.2f} device-updates/s (rounds of {rounds} s)")
        return turn

    def share(self, setting: Setting, num_devices: int) -> HostShare:
        """Return where a host's share of a round goes."""
        name = f"host-share-{setting.device}-{num_devices}-batch-{setting.batch_size}"
        return self.get(name, HostShare, lambda: host_share(setting, num_devices))
