"""What is measured, in which order, and that it is measured once."""

from pathlib import Path

import pytest

from clmm_core.errors import ConfigError, DataError
from simulation.bench import measure as measuring
from simulation.bench.command import benchmark_of
from simulation.bench.engine import Engine
from simulation.bench.fleet import Setting
from simulation.bench.host_share import HostShare
from simulation.bench.measure import Benchmark, Measurements, measure

SMALL = Benchmark(num_devices=6, batch_sizes=(8,), fleet_sizes=(9, 4), rounds=2, turns=2)
ENGINE = Engine(torch="2.13", machine="m", preset="edge", matmul_precision="high", matmul_flops_per_s=1.0, copy_bytes_per_s=1.0, results=())


class Stopped(Exception):  # noqa: N818  as Ctrl-C is
    pass


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch, turn_of) -> list[object]:
    """Take the place of everything that is slow; say what was asked for."""
    asked: list[object] = []

    def run_turn(setting: Setting):
        asked.append((setting.way, setting.num_devices))
        return turn_of(setting, 10.0)

    monkeypatch.setattr(measuring, "run_turn", run_turn)
    monkeypatch.setattr(measuring, "ray_start_s", lambda workers: asked.append("ray") or 3.0)
    monkeypatch.setattr(measuring, "measured_engine", lambda arguments, say: asked.append(arguments) or ENGINE)
    share = HostShare(batch_size=8, num_devices=6, windows_ms=1.0, training_ms=2.0)
    monkeypatch.setattr(measuring, "host_share", lambda setting, num_devices: asked.append(num_devices) or share)
    return asked


def test_ways_take_turns_and_fleets_grow(taken: list[object], tmp_path: Path):
    steps: list[Measurements] = []
    found = measure(SMALL, tmp_path, lambda line: None, steps.append)
    engine = ["--device", "cpu", "--devices", "6", "--batch-sizes", "4,8", "--turns", "2"]
    ours, stock = ("ours", 6), ("stock", 6)
    assert taken == ["ray", "ray", ours, stock, ours, stock, 6, engine, ("ours", 4), ("ours", 9)]
    assert [turn.setting.num_devices for turn in found.scaled] == [4, 9]
    assert found.ray_start_s == 3.0
    assert found.engine == ENGINE
    assert [len(step.compared) for step in steps] == [0, 1, 2, 3, 4, 4, 4, 4, 4], "told after each"
    assert steps[-1] == found


def test_what_is_there_is_not_measured_again(taken: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stop_after_three(found: Measurements) -> None:
        if len(found.compared) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        measure(SMALL, tmp_path, lambda line: None, stop_after_three)
    taken.clear()
    whole = measure(SMALL, tmp_path, lambda line: None, lambda found: None)
    assert taken[0] == ("stock", 6)
    assert len(taken) == 5
    taken.clear()
    assert measure(SMALL, tmp_path, lambda line: None, lambda found: None) == whole
    assert taken == []
    monkeypatch.setattr(measuring, "code", lambda: "other")
    measure(SMALL, tmp_path, lambda line: None, lambda found: None)
    assert len(taken) == 10, "of other code nothing is there"


def test_a_damaged_measurement_is_named(taken: list[object], tmp_path: Path):
    measure(SMALL, tmp_path, lambda line: None, lambda found: None)
    file = next(tmp_path.glob("*/stock-cpu-6-batch-8-rounds-2-turn-1.json"))
    file.write_text(file.read_text()[:-9])
    with pytest.raises(DataError, match=r"turn-1\.json: expected a Turn, found a mistake.*; remove the file to measure again"):
        measure(SMALL, tmp_path, lambda line: None, lambda found: None)


def test_the_command_line_is_read_into_a_benchmark():
    assert benchmark_of("cpu", 6, "8", "9, 4", 2, 2) == SMALL
    for device, batches, fleets, says in (
        ("tpu", "8", "4", "--device: expected cpu or cuda, found 'tpu'"),
        ("cpu", "8,", "4", "--batch-sizes: expected numbers from 2 on"),
        ("cpu", "8", "1", "--fleet-sizes: expected numbers from 2 on"),
    ):
        with pytest.raises(ConfigError, match=says):
            benchmark_of(device, 6, batches, fleets, 1, 1)
