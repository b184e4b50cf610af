"""The host's bench measures what it says: small turns of each measurement, and the words for what was found."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clmm_core.errors import ConfigError
from simulation.bench import host as bench
from simulation.bench.host import (
    HostBench,
    deleted_in_words,
    fuzzed_in_words,
    idle_in_words,
    ingest_in_words,
    late_in_words,
    losses_in_words,
    recognising_in_words,
    refusals_in_words,
    rounds_in_words,
    run_host_bench,
    training_in_words,
)
from simulation.bench.host_fuzz import Fuzzed, FuzzedTables, fuzz, fuzz_tables
from simulation.bench.host_ingest import Idle, Ingest, idle, ingest
from simulation.bench.host_losses import Late, Losses, Silent, cut, killed, late, silent
from simulation.bench.host_recognising import Recognising
from simulation.bench.host_refusals import Deleted, FullDisk, Gigabyte, WrongTokens, deleted, full_disk, gigabyte, wrong_tokens
from simulation.bench.host_rounds import Rounds
from simulation.bench.host_samples import num_lost, samples
from simulation.cli import app

INGEST = Ingest(num_samples=1000, host_cpu_s=0.005, sensor_cpu_s=0.005, wall_s=0.02, stored_bytes=50_000, peak_bytes=70_000_000)
LOSSES = Losses(num_broken=20, num_samples=500, num_acknowledged_before=(3,), num_lost=0, num_twice=0, is_whole=True)
LATE = Late(num_samples=10, num_sent=20, num_misplaced=0, num_counted_twice=0, num_duplicates_told=2)
FUZZED = Fuzzed(num_inputs=20_000, num_crashes=0, answers={"OK": 1}, num_witnesses_lost=0, is_whole=True, peak_bytes=1)
TABLES = FuzzedTables(num_inputs=10, num_read=4, num_refused=6, num_crashes=0)
BIG = Gigabyte(code="RESOURCE_EXHAUSTED", said="", grown_bytes=0, is_alive=True, num_lost=0)
DISK = FullDisk(
    num_acknowledged_when_full=9, said="host at x: RESOURCE_EXHAUSTED: y", is_whole=True, num_lost=0, num_twice=0, is_alive=True
)
TOKENS = WrongTokens(num_calls=9, num_let_in=0, answers={})
DELETED = Deleted(
    num_samples=100,
    num_searched_before=10,
    num_found_before=10,
    num_files_of_export=4,
    num_in_range=5,
    num_found_of_range=0,
    num_kept_lost=0,
    num_found_after=0,
    is_label_found_after=False,
    left_bytes=5,
)

RECOGNISING = Recognising(resident_bytes=100_000_000, peak_bytes=110_000_000, num_windows=291, cpu_ms=3.7)
DAEMONS = Rounds(round_s=(4.0, 5.0, 6.0), training_s=0.4, largest={"daemon": 70_000_000, "trainer": 300_000_000, "Flower": 200_000_000})
PLAIN = Rounds(round_s=(7.0, 7.5, 9.0), training_s=0.0, largest={})


@pytest.mark.parametrize(
    ("words", "good", "bad"),
    [
        (ingest_in_words, ([INGEST],), ([replace(INGEST, host_cpu_s=0.02)],)),
        (losses_in_words, (LOSSES, LOSSES), (LOSSES, replace(LOSSES, num_lost=1))),
        (losses_in_words, (LOSSES, LOSSES), (replace(LOSSES, num_broken=19), LOSSES)),
        (losses_in_words, (LOSSES, LOSSES), (replace(LOSSES, num_twice=1), LOSSES)),
        (losses_in_words, (LOSSES, LOSSES), (LOSSES, replace(LOSSES, is_whole=False))),
        (late_in_words, (LATE, Silent(seconds=(3.1, 4.9))), (LATE, Silent(seconds=(3.1, 5.1)))),
        (late_in_words, (LATE, Silent(seconds=(3.1,))), (replace(LATE, num_misplaced=1), Silent(seconds=(3.1,)))),
        (idle_in_words, (Idle(resident_bytes=1, peak_bytes=150_000_000),), (Idle(resident_bytes=1, peak_bytes=150_000_001),)),
        (recognising_in_words, (RECOGNISING,), (replace(RECOGNISING, peak_bytes=250_000_001),)),
        (training_in_words, ([DAEMONS],), ([DAEMONS, replace(DAEMONS, largest={"daemon": 1, "Flower": 600_000_000})],)),
        (rounds_in_words, ([DAEMONS], [PLAIN]), ([DAEMONS], [replace(PLAIN, round_s=(7.0, 7.4, 9.0))])),
        (fuzzed_in_words, (FUZZED, TABLES), (replace(FUZZED, num_crashes=1), TABLES)),
        (fuzzed_in_words, (FUZZED, TABLES), (replace(FUZZED, num_inputs=19_999), TABLES)),
        (fuzzed_in_words, (FUZZED, TABLES), (FUZZED, replace(TABLES, num_crashes=1))),
        (refusals_in_words, (BIG, DISK, TOKENS), (replace(BIG, is_alive=False), DISK, TOKENS)),
        (refusals_in_words, (BIG, DISK, TOKENS), (BIG, replace(DISK, num_lost=25), TOKENS)),
        (refusals_in_words, (BIG, DISK, TOKENS), (BIG, DISK, replace(TOKENS, num_let_in=1))),
        (deleted_in_words, (DELETED,), (replace(DELETED, num_found_after=1),)),
        (deleted_in_words, (DELETED,), (replace(DELETED, num_found_before=9),)),
        (deleted_in_words, (DELETED,), (replace(DELETED, num_found_of_range=1),)),
        (deleted_in_words, (DELETED,), (replace(DELETED, num_kept_lost=1),)),
    ],
)
def test_a_row_says_whether_it_is_enough(words, good, bad):
    assert words(*good).endswith("| reached |")
    assert words(*bad).endswith("| **not reached** |")


def test_what_is_lost_and_what_is_twice_is_counted_by_bytes(tmp_path):
    from client.host.chunk import packed  # noqa: PLC0415
    from simulation.bench.host_samples import times_ns  # noqa: PLC0415

    chunks = [packed(1, number, times_ns(number), samples(number)) for number in (0, 1, 1, 3)]
    assert num_lost(chunks, range(4)) == (25, 25)


def test_ingest_is_measured_and_checked():
    found = ingest(200)
    assert found.num_samples == 5_000
    assert found.host_cpu_s > 0
    assert found.sensor_cpu_s > 0
    assert 30 * 5_000 < found.stored_bytes < 500 * 5_000


def test_drawn_calls_are_counted_and_crash_nothing():
    found = fuzz(150)
    assert found.num_inputs >= 100
    assert (found.num_crashes, found.num_witnesses_lost, found.is_whole) == (0, 0, True)
    assert found.answers.keys() - {"OK"}


def test_drawn_tables_are_read_or_refused():
    found = fuzz_tables(100)
    assert found.num_crashes == 0
    assert min(found.num_read, found.num_refused) > 0


def test_deleted_is_searched_for():
    found = deleted()
    assert (found.num_samples, found.num_found_before, found.num_found_after) == (50_000, found.num_searched_before, 0)
    assert (found.num_in_range, found.num_found_of_range, found.num_kept_lost) == (2_200, 0, 0)


def test_wrong_tokens_open_nothing():
    found = wrong_tokens()
    assert found.num_let_in == 0
    assert found.answers.keys() == {"UNAUTHENTICATED", "PERMISSION_DENIED"}


@pytest.mark.long
def test_the_other_measurements_in_full():
    for losses in (cut(20), killed(10)):
        assert (losses.num_lost, losses.num_twice, losses.is_whole) == (0, 0, True)
        assert losses.num_acknowledged_before[-1] > 0
    assert (late().num_misplaced, late().num_counted_twice) == (0, 0)
    assert max(silent().seconds) <= 5
    assert idle().peak_bytes < 150_000_000
    assert refusals_in_words(gigabyte(), full_disk(), wrong_tokens()).endswith("| reached |")


def test_rows_go_into_a_page_and_are_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    monkeypatch.setattr(bench, "idle", lambda: Idle(resident_bytes=60_000_000, peak_bytes=61_000_000))
    monkeypatch.setattr(bench, "recognising", lambda: RECOGNISING)
    monkeypatch.setattr(bench, "federation", lambda: nullcontext(("here", "app")))
    monkeypatch.setattr(bench, "daemon_rounds", lambda here, app, turn: DAEMONS)
    monkeypatch.setattr(bench, "plain_rounds", lambda here, app, turn: PLAIN)
    page = tmp_path / "host.md"
    page.write_text("before\n<!-- bench host: begin -->\n<!-- bench host: end -->\nafter\n")
    run_host_bench(HostBench(rows=("H5",)), tmp_path, page, ["clmm", "bench", "host"], said.append)
    written = page.read_text()
    assert written.startswith("before\n")
    assert "| H5 |" in written
    assert "60 MB, at most 61 MB" in written
    assert written.count("| H5 |") == 3
    assert "Measured by `clmm bench host` on Linux" in written
    monkeypatch.setattr(bench, "idle", lambda: pytest.fail("measured again"))
    run_host_bench(HostBench(rows=("H5",)), tmp_path, None, ["clmm"], said.append)
    assert said[-1] in written


def test_rows_that_are_not_there_are_refused():
    with pytest.raises(ConfigError, match="expected some of H1, H2, H3, H5, H6, H7, H8, found H4"):
        HostBench(rows=("H1", "H4"))
    result = CliRunner().invoke(app, ["bench", "host", "--rows", "H4"])
    assert (result.exit_code, "found H4" in result.stderr) == (1, True)
