"""`clmm bench host`: the rows of docs/results/host.md, each kept as it ends."""

import os
import platform
import shlex
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import grpc

from clmm_core.errors import ConfigError
from simulation.bench.command import KEPT
from simulation.bench.host_fuzz import Fuzzed, FuzzedTables, fuzz, fuzz_tables
from simulation.bench.host_ingest import Idle, Ingest, idle, ingest
from simulation.bench.host_losses import Late, Losses, Silent, cut, killed, late, silent
from simulation.bench.host_recognising import WINDOW_S, Recognising, recognising
from simulation.bench.host_refusals import Deleted, FullDisk, Gigabyte, WrongTokens, deleted, full_disk, gigabyte, wrong_tokens
from simulation.bench.host_rounds import Rounds, RoundsInTurn, daemon_rounds, federation, plain_rounds
from simulation.bench.kept import Kept
from simulation.bench.measure import code
from simulation.bench.processes import check_can_be_watched
from simulation.bench.row import one_row
from simulation.marks import check_marks, replace_between_marks
from simulation.study.command import without_folders

ROWS = ("H1", "H2", "H3", "H5", "H6", "H7", "H8")
"""Those that this command measures."""
MARK = "bench host"
TURNS = 5
LEAST_SAMPLES_A_CPU_SECOND = 100_000
NUM_CUTS, NUM_KILLS = 20, 10
LONGEST_SILENCE_S = 5.0
MOST_IDLE_BYTES, MOST_RECOGNISING_BYTES, MOST_TRAINING_BYTES = 150_000_000, 250_000_000, 600_000_000
ROUND_TURNS = 2
LEAST_QUICKER = 1.5
NUM_FUZZED = 20_000
MB = 1e6


@dataclass(frozen=True, kw_only=True)
class HostBench:
    """What is asked for.

    Raises:
        ConfigError: rows that this command does not measure.
    """

    rows: tuple[str, ...] = ROWS

    def __post_init__(self) -> None:
        if strangers := sorted(set(self.rows) - set(ROWS)):
            raise ConfigError(f"--rows: expected some of {', '.join(ROWS)}, found {', '.join(strangers)}")


def run_host_bench(asked: HostBench, results: Path, page: Path | None, command: Sequence[str], say: Callable[[str], None]) -> None:
    """Measure what `results/bench` does not have of this code, and say the rows, or write them into a page.

    Raises:
        ClmmError: it cannot be measured here, or the page cannot be used.
    """
    check_can_be_watched()
    if page is not None:
        check_marks(page, MARK)
    kept = Kept(results.absolute() / KEPT / code(), say)
    said = shlex.join(without_folders(argument) for argument in command)
    done: list[str] = []
    for name in asked.rows:
        done += rows_of(name, kept)
        if page is not None:
            replace_between_marks(page, MARK, f"{_how(said, kept)}\n\n" + "\n\n".join(done) + "\n")
    say(f"wrote {page}" if page is not None else "\n\n".join(done))


def _how(said: str, kept: Kept) -> str:
    busy = kept.get("host-load", float, lambda: os.getloadavg()[1])
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    versions = f"python {platform.python_version()}, grpcio {grpc.__version__}, SQLite {sqlite3.sqlite_version}"
    return f"Measured by `{said}` on {machine} with other work on them (load {busy:.1f}), {versions}; code {code()}."


def rows_of(name: str, kept: Kept) -> Iterator[str]:
    """Yield the tables of a row, measured where that was not done."""
    if name == "H1":
        yield ingest_in_words([kept.get(f"h1-{turn}", Ingest, ingest) for turn in range(TURNS)])
    elif name == "H2":
        yield losses_in_words(kept.get("h2-cut", Losses, lambda: cut(NUM_CUTS)), kept.get("h2-killed", Losses, lambda: killed(NUM_KILLS)))
    elif name == "H3":
        yield late_in_words(kept.get("h3-late", Late, late), kept.get("h3-silent", Silent, silent))
    elif name == "H5":
        yield idle_in_words(kept.get("h5", Idle, idle))
        yield recognising_in_words(kept.get("h5-recognising", Recognising, recognising))
        yield training_in_words(_rounds(kept)[0])
    elif name == "H6":
        yield rounds_in_words(*_rounds(kept))
    elif name == "H7":
        yield fuzzed_in_words(kept.get("h7-fuzz", Fuzzed, fuzz), kept.get("h7-tables", FuzzedTables, fuzz_tables))
        yield refusals_in_words(
            kept.get("h7-gigabyte", Gigabyte, gigabyte),
            kept.get("h7-disk", FullDisk, full_disk),
            kept.get("h7-tokens", WrongTokens, wrong_tokens),
        )
    else:
        yield deleted_in_words(kept.get("h8", Deleted, deleted))


def ingest_in_words(turns: Sequence[Ingest]) -> str:
    """Return H1's row."""
    rates = sorted(each.num_samples / each.host_cpu_s for each in turns)
    one = turns[0]
    both = median(each.num_samples / (each.host_cpu_s + each.sensor_cpu_s) for each in turns)
    wall = median(each.num_samples / each.wall_s for each in turns)
    found = (
        f"{median(rates):,.0f} (median of {len(turns)}, {rates[0]:,.0f} to {rates[-1]:,.0f}); {both:,.0f} with the sensor's processor "
        f"time; {wall:,.0f} a second of the clock; {one.stored_bytes / one.num_samples:.0f} bytes a sample on the disk; the daemon held "
        f"at most {max(each.peak_bytes for each in turns) / MB:.0f} MB"
    )
    return one_row(
        "H1",
        f"ingest of {one.num_samples:,} samples (25 of 9 channels a chunk) over one connection into the store, on the disk before it is "
        "acknowledged; a sample is all channels at one time; counted is the daemon's process, user and system, all threads",
        f"at least {LEAST_SAMPLES_A_CPU_SECOND:,} samples a CPU-second",
        found,
        is_reached=median(rates) >= LEAST_SAMPLES_A_CPU_SECOND,
    )


def losses_in_words(cuts: Losses, kills: Losses) -> str:
    """Return H2's row."""
    found = "; ".join(
        f"{each.num_lost} lost and {each.num_twice} twice of {each.num_samples:,} through {each.num_broken} {what}"
        for each, what in ((cuts, "disconnects"), (kills, "kills"))
    )
    is_enough = cuts.num_broken >= NUM_CUTS and kills.num_broken >= NUM_KILLS
    return one_row(
        "H2",
        f"{NUM_CUTS} disconnects without a word, and `kill -9` of the daemon {NUM_KILLS} times, at drawn moments while a sensor sends 500 "
        "chunks a second; then every sample that it gave is looked for in the store by its bytes",
        "0 acknowledged samples lost, 0 duplicated",
        found + ("" if cuts.is_whole and kills.is_whole else "; SQLite finds the store damaged"),
        is_reached=is_enough and all(each.num_lost == each.num_twice == 0 and each.is_whole for each in (cuts, kills)),
    )


def late_in_words(found_late: Late, found_silent: Silent) -> str:
    """Return H3's row."""
    slowest = max(found_silent.seconds)
    found = (
        f"{found_late.num_misplaced} of {found_late.num_samples:,} misplaced, {found_late.num_counted_twice} counted twice of "
        f"{found_late.num_sent:,} sent; alarm after {min(found_silent.seconds):.1f} to {slowest:.1f} s ({len(found_silent.seconds)} times)"
    )
    return one_row(
        "H3",
        "chunks up to 15 s late, out of order, each sent twice; a sensor that sends every half second goes silent",
        f"placed right, counted once; alarm in the status in at most {LONGEST_SILENCE_S:g} s",
        found,
        is_reached=not (found_late.num_misplaced or found_late.num_counted_twice) and slowest <= LONGEST_SILENCE_S,
    )


def idle_in_words(found: Idle) -> str:
    """Return H5's row, the part without a model."""
    return one_row(
        "H5",
        "memory of the daemon while nobody talks to it",
        f"at most {MOST_IDLE_BYTES / MB:.0f} MB",
        f"{found.resident_bytes / MB:.0f} MB, at most {found.peak_bytes / MB:.0f} MB since its start",
        is_reached=found.peak_bytes <= MOST_IDLE_BYTES,
    )


def _rounds(kept: Kept) -> tuple[list[Rounds], list[Rounds]]:
    """Return the runs with daemons and those without, taken in turn in one federation."""

    def take() -> RoundsInTurn:
        with federation() as (here, app):
            pairs = [(daemon_rounds(here, app, turn), plain_rounds(here, app, turn)) for turn in range(ROUND_TURNS)]
        return RoundsInTurn(daemons=tuple(daemons for daemons, _ in pairs), plain=tuple(plain for _, plain in pairs))

    found = kept.get("h6", RoundsInTurn, take)
    return list(found.daemons), list(found.plain)


def recognising_in_words(found: Recognising) -> str:
    """Return H5's row, the part with a model."""
    return one_row(
        "H5",
        "memory of the daemon while it recognises: two sensors of a person of SPAR, `edge` preset",
        f"at most {MOST_RECOGNISING_BYTES / MB:.0f} MB",
        f"{found.resident_bytes / MB:.0f} MB, at most {found.peak_bytes / MB:.0f} MB; {found.cpu_ms:.1f} ms of a core a window of "
        f"{WINDOW_S:g} s, with taking samples in and keeping them, over {found.num_windows:,} windows",
        is_reached=found.peak_bytes <= MOST_RECOGNISING_BYTES,
    )


def training_in_words(daemons: Sequence[Rounds]) -> str:
    """Return H5's row, the part with training."""
    largest = max((each.largest for each in daemons), key=lambda each: sum(each.values()))
    ours = largest["daemon"] + largest.get("trainer", 0)
    return one_row(
        "H5",
        "memory of one host's processes while it trains (what they share is divided among them): daemon and trainer; Flower's SuperNode, "
        "SuperExec and ClientApp beside them",
        f"at most {MOST_TRAINING_BYTES / MB:.0f} MB",
        f"{ours / MB:.0f} MB (daemon {largest['daemon'] / MB:.0f}, trainer {largest.get('trainer', 0) / MB:.0f}); with Flower's "
        f"{largest.get('Flower', 0) / MB:.0f} MB it is {sum(largest.values()) / MB:.0f}",
        is_reached=sum(largest.values()) <= MOST_TRAINING_BYTES,
    )


def rounds_in_words(daemons: Sequence[Rounds], plain: Sequence[Rounds]) -> str:
    """Return H6's row."""
    ours, theirs = ([round_s for each in turns for round_s in each.round_s] for turns in (daemons, plain))
    training_s = median(each.training_s for each in daemons)
    ratio = median(theirs) / median(ours)
    return one_row(
        "H6",
        f"a round of stage one of a deployed federation with three hosts, two of which train; {len(daemons)} runs with daemons and "
        f"{len(plain)} whose ClientApps load PyTorch, in turn; TLS and keys, on loopback",
        f"at least {LEAST_QUICKER:g} times quicker",
        f"{ratio:.2f} times: {median(ours):.1f} s ({min(ours):.1f} to {max(ours):.1f}) and {median(theirs):.1f} s ({min(theirs):.1f} to "
        f"{max(theirs):.1f}), medians of {len(ours)} and {len(theirs)} rounds; the slower host's training took {training_s:.1f} s of it, "
        f"so Flower's floor (polls, a process a message) is {median(ours) - training_s:.1f} s",
        is_reached=ratio >= LEAST_QUICKER,
    )


def fuzzed_in_words(messages: Fuzzed, tables: FuzzedTables) -> str:
    """Return H7's row about drawn inputs."""
    answers = ", ".join(f"{count:,} {code}" for code, count in sorted(messages.answers.items(), key=lambda item: -item[1]))
    found = (
        f"{messages.num_crashes} crashes in {messages.num_inputs:,} calls ({answers}), {messages.num_witnesses_lost} samples of before "
        f"lost, store {'whole' if messages.is_whole else 'DAMAGED'}, at most {messages.peak_bytes / MB:.0f} MB; {tables.num_crashes} in "
        f"{tables.num_inputs:,} tables ({tables.num_read:,} read, {tables.num_refused:,} refused)"
    )
    is_fine = messages.is_whole and not (messages.num_crashes or messages.num_witnesses_lost or tables.num_crashes)
    return one_row(
        "H7",
        "calls of every method with messages drawn by hypothesis (bytes, fields of any value, real chunks with bytes changed; a crash is "
        "also a status of UNKNOWN, INTERNAL, UNAVAILABLE or a time-out); CSV tables likewise, into the folder loader",
        f"at least {NUM_FUZZED:,} inputs, 0 crashes, clear refusals, store intact",
        found,
        is_reached=is_fine and messages.num_inputs >= NUM_FUZZED,
    )


def refusals_in_words(big: Gigabyte, disk: FullDisk, tokens: WrongTokens) -> str:
    """Return H7's row about hostile and unlucky circumstances."""
    found = (
        f"1 GB: {big.code} after {big.grown_bytes / MB:.0f} MB more memory, {big.num_lost} samples lost; full disk: "
        f"{disk.said.partition(': ')[2].partition(':')[0]} after {disk.num_acknowledged_when_full:,} chunks, then {disk.num_lost} lost, "
        f"{disk.num_twice} twice, store {'whole' if disk.is_whole else 'DAMAGED'}; tokens: {tokens.num_let_in} of {tokens.num_calls} calls "
        "let in"
    )
    is_refused = big.code == "RESOURCE_EXHAUSTED" and "RESOURCE_EXHAUSTED" in disk.said and not tokens.num_let_in
    is_fine = big.is_alive and disk.is_alive and disk.is_whole and not (big.num_lost or disk.num_lost or disk.num_twice)
    return one_row(
        "H7",
        "a chunk of 1 GB; a disk that is full (RLIMIT_FSIZE) while a sensor sends and has room again later; every method without a token, "
        "with a wrong one, and with one of each role that may not",
        "0 crashes, clear refusals, store intact",
        found,
        is_reached=is_refused and is_fine,
    )


def deleted_in_words(found: Deleted) -> str:
    """Return H8's row."""
    is_searched = found.num_found_before == found.num_searched_before > 0 and found.num_files_of_export > 0
    is_all_gone = not (found.num_found_of_range or found.num_found_after or found.is_label_found_after)
    label = "the label's words too" if found.is_label_found_after else "nor the label's words"
    said = (
        f"{found.num_found_of_range} of {found.num_in_range:,} samples found after two times were deleted ({found.num_kept_lost} of the "
        f"others looked for were lost); {found.num_found_after} of {found.num_samples:,} after all were, {label}, in "
        f"{found.left_bytes:,} bytes that are left; before, the same search found {found.num_found_before} of {found.num_searched_before}"
    )
    return one_row(
        "H8",
        "two overlapping times deleted, then `delete all`, while the daemon runs, after recording, labelling and exporting; each time the "
        "samples' bytes are looked for in every file of the host's folder: store, write-ahead log, exports",
        "no byte of the samples left",
        said,
        is_reached=is_searched and is_all_gone and not found.num_kept_lost,
    )
