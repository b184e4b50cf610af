"""What the page says of measurements, and which targets they reach."""

import re
from dataclasses import replace

import pytest

from simulation.bench.figures import scaling_figure
from simulation.bench.host_share import HostShare
from simulation.bench.measure import Benchmark, Measurements
from simulation.bench.tables import markdown
from simulation.bench.targets import growth, ratio, targets

SMALL = Benchmark(num_devices=50, batch_sizes=(8,), fleet_sizes=(100, 1000), rounds=3, turns=2)


@pytest.fixture
def found(turn_of) -> Measurements:
    ms = iter((10.0, 34.0, 11.0, 32.0))
    compared = tuple(turn_of(setting, next(ms)) for _, setting in SMALL.compared())
    first, last = SMALL.scaled()
    return Measurements(
        compared=compared,
        scaled=(turn_of(first, 40.0, 250.0), turn_of(last, 44.0, 270.0)),
        shares=(HostShare(batch_size=8, num_devices=64, windows_ms=12.5, training_ms=9.25),),
        ray_start_s=4.0,
    )


def test_a_way_is_the_median_of_its_turns_and_the_ratio_that_of_the_ways(found: Measurements):
    ours, stock = (1000 / 10 + 1000 / 11) / 2, (1000 / 34 + 1000 / 32) / 2
    assert found.updates_per_s("ours", 8) == pytest.approx(ours)
    assert ratio(found, 8) == pytest.approx(ours / stock)
    assert ratio(found, 32) is None
    assert growth(found) == (pytest.approx(0.08), pytest.approx(0.10))


def test_each_target_is_held_against_what_was_measured(found: Measurements, turn_of):
    largest = found.scaled[1].setting
    worse = {
        "nothing": {},
        "ratio": {"compared": [turn_of(turn.setting, 10.0) for turn in found.compared]},
        "memory": {"scaled": [turn_of(turn.setting, 40.0, 401.0) for turn in found.scaled]},
        "growing memory": {"scaled": [found.scaled[0], turn_of(largest, 40.0, 280.0)]},
        "growing time": {"scaled": [found.scaled[0], turn_of(largest, 47.0, 250.0)]},
        "start": {"ray_start_s": 2.9},
    }
    reached = {what: [each.is_reached for each in targets(replace(found, **change))] for what, change in worse.items()}
    assert reached == {
        "nothing": [True, True, True, True],
        "ratio": [False, True, True, True],
        "memory": [True, False, True, True],
        "growing memory": [True, False, True, True],
        "growing time": [True, True, False, True],
        "start": [True, True, True, False],
    }


def test_nothing_measured_reaches_nothing_and_misses_nothing():
    assert targets(Measurements()) == []
    text = markdown(SMALL, Measurements(), "clmm bench simulation", None)
    assert text == "No run is finished.\n\n    clmm bench simulation\n\n**0 of 6 runs are done; the tables have these.**"


def test_the_page_has_every_table_and_says_how_it_was_made(found: Measurements):
    text = markdown(SMALL, found, "clmm bench simulation", "figures/x.svg")
    assert text.startswith("Measured with flwr 1.42.0 on Linux, 2 cores; code aaaa.\n\n    clmm bench simulation\n\n### What")
    assert "are done" not in text
    assert re.search(r"\| 8 \| ours \| \d+ \| 95\.45 \(100\.00, 90\.91\) \| 3\.15 \| 0\.5 s \| 200 MB \| 600 MB \|", text)
    assert re.search(r"\| 8 \| stock \| 50 \| 30\.33 \(29\.41, 31\.25\) \|  \| 1\.6 s", text)
    assert "| 1,000 | 44.0 s | 44.0 ms | 3.0 s | 270 MB | 600 MB |" in text
    assert "| the difference | 11.0 s |" in text
    assert "| 8 | 9.2 | 12.5 |" in text
    assert "](figures/x.svg)" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)


def test_processor_time_is_split_over_processes_and_what_is_left_of_the_cores(found: Measurements):
    text = markdown(SMALL, found, "", None)
    rows = re.findall(r"^\| ([^|]+) \| (-?[\d.]+) \| (-?[\d.]+) \|$", text.partition("### Where")[2].partition("batch, ours")[0], re.M)
    shares = {name: (float(ours), float(stock)) for name, ours, stock in rows}
    assert shares["workers"] == (pytest.approx(10.5), pytest.approx(33.0))
    workers = found.compared[0].setting.workers
    assert sum(values[0] for values in shares.values()) == pytest.approx(10.5 * workers, abs=0.31)


def test_the_figure_shows_both_ends_of_the_fleets(found: Measurements):
    svg = scaling_figure(found.scaled)
    assert svg is not None
    assert "From 100 to 1,000 devices: 40.0 to 44.0 ms a device; server from 250 to 270 MB" in svg
    assert scaling_figure(found.scaled[:1]) is None
