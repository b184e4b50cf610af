"""Servers that are killed: whole runs at a random moment, and writers of checkpoints in the middle of one."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clmm_core.errors import ClmmError
from clmm_core.report.run_folder import PARTIAL_SUFFIX, WEIGHTS, read_rounds, read_run
from clmm_core.seeds import derive_seed
from server.checkpoint import FOLDER, read_newest
from simulation.overrides import find_app

MARK = "CLMM_BENCH"
"""In the environment of every process of a run that is to be killed."""
SETTINGS = (
    *('data.name="synthetic"', "data.num-devices=8", "data.window-s=1.28", "data.overlap=0.0", "report.points-per-device=0"),
    *("pretrain.rounds=10", "finetune.rounds=10", "personalise.per-class=0", 'finetune.server-optimizer="fedavgm"'),
)
ROUNDS = 20
LONGEST_MS = 400
"""A writer of checkpoints is killed at a moment up to this after its first."""
TIMEOUT_S = 900.0
WENT_ON = "went on after round "
"""In the notes of a run that was resumed."""


@dataclass(frozen=True, kw_only=True)
class KilledRun:
    """A run that was killed and gone on with."""

    killed_after: int
    """The round it had ended."""
    num_repeated: int
    """Rounds that it had ended and took again."""
    is_equal: bool
    """Whether its model is that of the run that nobody killed, to the bit."""


@dataclass(frozen=True, kw_only=True)
class KilledWriters:
    """What was left of writers of checkpoints."""

    num_killed: int
    num_loadable: int
    """After how many of them the newest whole checkpoint is the last that they said was there, or one after it."""
    num_half_written: int
    """How many left a checkpoint that cannot be read under a checkpoint's name."""


def whole_run() -> bytes:
    """Return the model of the run that nobody kills."""
    with tempfile.TemporaryDirectory(prefix="clmm-bench-") as folder:
        _wait(_clmm(Path(folder), "run", "--name", "whole", *_set(SETTINGS)))
        return (Path(folder) / "whole" / WEIGHTS).read_bytes()


def killed_run(seed: int, weights: bytes) -> KilledRun:
    """Kill a run at a moment that the seed draws, go on with it, and compare its model with `weights`."""
    draw = random.Random(derive_seed(seed, "kill"))
    after, later_s = 1 + draw.randrange(ROUNDS - 1), draw.uniform(0.0, 2.0)  # before the first there is nothing to go on with
    with tempfile.TemporaryDirectory(prefix="clmm-bench-") as folder:
        results = Path(folder)
        partial = results / f"cut{PARTIAL_SUFFIX}"
        process = _clmm(results, "run", "--name", "cut", *_set(SETTINGS))
        try:
            _wait_until(process, lambda: _num_done(partial) >= after)
            time.sleep(later_s)
        finally:
            _kill_all(process, results)
        num_done = _num_done(partial)
        _wait(_clmm(results, "run", "--resume", str(partial)))
        finished = results / "cut"
        (went_on,) = [int(note.split(WENT_ON)[1].split()[0]) for note in read_run(finished).notes if WENT_ON in note]
        return KilledRun(
            killed_after=num_done,
            num_repeated=num_done - went_on,
            is_equal=(finished / WEIGHTS).read_bytes() == weights,
        )


def _num_done(partial: Path) -> int:
    return max((record.server_round or 0 for record in read_rounds(partial)), default=0) if partial.is_dir() else 0


def _set(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def _clmm(results: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start `clmm` as a user does; all its processes can be found by its folder of results."""
    where = ("--results", str(results)) if "--resume" not in arguments else ()
    command = [str(Path(sys.executable).with_name("clmm")), *arguments, *where, "--app", str(find_app(None))]
    with (results / "output").open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, MARK: str(results)})


def _wait(process: subprocess.Popen[bytes]) -> None:
    """Wait until a run has ended well.

    Raises:
        ClmmError: it has not.
    """
    code = process.wait(TIMEOUT_S)
    if code:
        raise ClmmError(f"{process.args}: expected the run to end well, it ended with {code}")


def _wait_until(process: subprocess.Popen[bytes], is_so: Callable[[], bool]) -> None:
    ends_s = time.monotonic() + TIMEOUT_S
    while not is_so():
        if process.poll() is not None or time.monotonic() > ends_s:
            raise ClmmError(f"{process.args}: expected the run to go on until it is killed, it ended with {process.poll()}")
        time.sleep(0.05)


def _kill_all(process: subprocess.Popen[bytes], results: Path) -> None:
    """Kill every process of a run at once, as a power cut does: those with its mark."""
    mark = f"{MARK}={results}\0".encode()
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (each / "environ").read_bytes():
                os.kill(int(each.name), signal.SIGKILL)
    process.wait()


def killed_writers(count: int) -> KilledWriters:
    """Kill so many writers of checkpoints, each at a moment of its own, and look at what they left."""
    num_loadable = num_half_written = 0
    for number in range(count):
        command = [sys.executable, "-m", "simulation.bench.checkpoint_writer"]
        with (
            tempfile.TemporaryDirectory(prefix="clmm-bench-") as folder,
            subprocess.Popen([*command, folder], stdout=subprocess.PIPE) as process,
        ):
            assert process.stdout is not None
            process.stdout.readline()  # the first is there
            time.sleep(random.Random(derive_seed(number, "kill")).uniform(0, LONGEST_MS) / 1000)
            process.kill()
            said = process.stdout.read().split()
            process.wait()
            checkpoint, wrong = read_newest(Path(folder) / FOLDER)
            last = int(said[-1]) if said else 1
            num_loadable += checkpoint.record.server_round in (last, last + 1)  # killed before it could say so
            num_half_written += bool(wrong)
    return KilledWriters(num_killed=count, num_loadable=num_loadable, num_half_written=num_half_written)
