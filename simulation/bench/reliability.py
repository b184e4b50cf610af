"""`clmm bench reliability`: the rows of docs/results/reliability.md that take longer than a test, each kept as it ends."""

import os
import platform
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import get_args

import numpy as np
import torch

from clmm_core.errors import ConfigError
from clmm_core.federated.arrays import FUSION
from clmm_core.federated.messages import DeviceTraining, HostUpdate
from clmm_core.federated.robust import RuleName
from clmm_core.report.metrics import summarise
from clmm_core.report.run_folder import read_run
from server.gate import Expected, GateConfig, admitted
from server.hosts import Answer
from server.results import train_and_write
from server.run_config import Value, parse_run_config
from simulation.bench.attacks import ATTACKS
from simulation.bench.command import KEPT
from simulation.bench.crashes import KilledRun, KilledWriters, killed_run, killed_writers, whole_run
from simulation.bench.failing import FailingHosts
from simulation.bench.hostile import LABEL_FLIP, SETTINGS, SHARES, Attacked, attacked_run
from simulation.bench.kept import Kept
from simulation.bench.measure import code
from simulation.bench.row import one_row
from simulation.marks import check_marks, replace_between_marks
from simulation.overrides import find_app, read_app_config
from simulation.study.command import without_folders

ROWS = ("R1", "R2", "R4", "R6", "R7")
"""Those that this command measures; the others are tests."""
MARK = "bench reliability"
NUM_KILLED_RUNS, NUM_KILLED_WRITERS = 10, 50
DYING_SHARE = 0.3
GATE_TURNS, GATE_UPDATES, GATE_PARAMETERS = 50, 20, 65_000
MOST_LOST = 2.0
"""Points of macro-F1 that dying devices may cost."""


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """What is asked for."""

    rows: tuple[str, ...] = ROWS
    hapt: Path | None = None
    """HAPT's recordings, which R4 and R7 learn from."""
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if strangers := sorted(set(self.rows) - set(ROWS)):
            raise ConfigError(f"--rows: expected some of {', '.join(ROWS)}, found {', '.join(strangers)}; the others are tests")
        if self.hapt is None and {"R4", "R7"} & set(self.rows):
            raise ConfigError(
                "--hapt: R4 and R7 learn from HAPT: say where its recordings are (clmm data fetch hapt), or leave the two out of --rows"
            )


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Of unseen subjects, in percent."""

    accuracy: float
    macro_f1: float


def run_reliability(asked: Reliability, results: Path, page: Path | None, command: Sequence[str], say: Callable[[str], None]) -> None:
    """Measure what `results/bench` does not have of this code, and say the rows, or write them into a page.

    Raises:
        ClmmError: a run failed, or the page cannot be used.
    """
    if page is not None:
        check_marks(page, MARK)
    torch.set_num_threads(1)
    kept = Kept(results.absolute() / KEPT / code(), say)
    said = shlex.join(without_folders(argument) for argument in command)
    done: list[str] = []
    for row in asked.rows:
        for text in _section(row, asked, kept):
            so_far = "\n\n".join([*done, text])
            if page is not None:
                replace_between_marks(page, MARK, f"{_how(said)}\n\n{so_far}\n")
        done.append(text)
    say(f"wrote {page}" if page is not None else "\n\n".join(done))


def _how(said: str) -> str:
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return f"Measured by `{said}` on {machine}, python {platform.python_version()}, torch {torch.__version__}; code {code()}."


def _section(row: str, asked: Reliability, kept: Kept) -> Iterator[str]:
    """Yield what there is to say of a row, each time that there is more."""
    if row == "R1":
        whole: list[KilledRun] = []
        weights = kept.get("r1-whole", str, lambda: whole_run().hex())
        for seed in range(NUM_KILLED_RUNS):
            whole.append(kept.get(f"r1-{seed}", KilledRun, lambda seed=seed: killed_run(seed, bytes.fromhex(weights))))  # type: ignore[misc]
            yield killed_in_words(whole)
    elif row == "R2":
        yield writers_in_words(kept.get("r2", KilledWriters, lambda: killed_writers(NUM_KILLED_WRITERS)))
    elif row == "R4":
        assert asked.hapt is not None
        pairs: list[tuple[Accuracy, Accuracy]] = []
        for seed in asked.seeds:
            both = [
                kept.get(f"r4-{share}-{seed}", Accuracy, lambda s=share, n=seed: _dying(asked.hapt, s, n)) for share in (0.0, DYING_SHARE)
            ]  # type: ignore[misc]
            pairs.append((both[0], both[1]))
            yield dying_in_words(pairs)
    elif row == "R6":
        yield gate_in_words(kept.get("r6", float, gate_ms))
    else:
        found: list[Attacked] = []
        values = _values(asked.hapt)
        for rule, attack, share, seed in _in_order(asked.seeds):
            name = f"r7-{rule}-{attack or 'none'}-{share}-{seed}"
            found.append(kept.get(name, Attacked, lambda a=(rule, attack, share, seed): attacked_run(values, *a)))  # type: ignore[misc]
            yield attacks_in_a_table(found)


def _in_order(seeds: Sequence[int]) -> Iterator[tuple[RuleName, str, float, int]]:
    """Yield rule, attack, share and seed of every run; of each seed first those in which nobody is hostile."""
    for seed in seeds:
        yield from ((rule, "", SHARES[0], seed) for rule in get_args(RuleName))
        for attack in (*ATTACKS, LABEL_FLIP):
            yield from ((rule, attack, share, seed) for share in SHARES for rule in get_args(RuleName))


def _values(hapt: Path | None) -> dict[str, Value]:
    return {**read_app_config(find_app(None)), **SETTINGS, "data.path": str(hapt)}


def _dying(hapt: Path | None, share: float, seed: int) -> Accuracy:
    """Train while a share of devices dies in each round, and one is always late; 0 for a round without failures."""
    with TemporaryDirectory() as folder:
        config = {**_values(hapt), "seed": seed, "results-dir": folder, "run-name": "run"}
        path = train_and_write(FailingHosts(share, seed), parse_run_config(config), config, lambda line: None, together_on="cpu")
        unseen = summarise(read_run(path).subjects, "unseen")
    assert unseen is not None
    return Accuracy(accuracy=100 * unseen.accuracy_mean, macro_f1=100 * unseen.macro_f1_mean)


def gate_ms() -> float:
    """Return the gate's processor time for one round's updates, in milliseconds: the median of many."""
    random = np.random.default_rng(0)
    learning = {"fusion.w": np.zeros(GATE_PARAMETERS, np.float32)}
    expected = Expected(
        server_round=1, source="code", learning=learning, most_windows=lambda device, part: 40, update_bits=32, is_folded=True
    )
    config = GateConfig(norm_factor=10.0, clip=1e9, strikes=2, quarantine_rounds=10)
    answers = []
    for number in range(GATE_UPDATES):
        row = DeviceTraining(device=str(number), num_windows=20, loss=1.0)
        update = {"fusion.w": random.standard_normal(GATE_PARAMETERS).astype(np.float32)}
        answers.append(Answer(HostUpdate(server_round=1, source="code", weights={FUSION: 20.0}, devices=(row,)), update, (str(number),)))
    times = []
    for _ in range(GATE_TURNS):
        since_s = time.process_time()
        usable, _ = admitted(answers, expected, config)
        times.append(time.process_time() - since_s)
        assert len(usable) == GATE_UPDATES
    return 1000 * median(times)


def killed_in_words(runs: Sequence[KilledRun]) -> str:
    """Return R1's row."""
    num_equal, most = sum(run.is_equal for run in runs), max(run.num_repeated for run in runs)
    rounds = ", ".join(str(run.killed_after) for run in runs)
    return one_row(
        "R1",
        "all processes of a run of 20 rounds killed at a random moment (`kill -9`), then `clmm run --resume`",
        f"{NUM_KILLED_RUNS} of {NUM_KILLED_RUNS} finish with the bits of the uninterrupted run, at most 1 round repeated",
        f"{num_equal} of {len(runs)} have its bits; killed after rounds {rounds}; at most {most} round(s) repeated",
        is_reached=num_equal == len(runs) == NUM_KILLED_RUNS and most <= 1,
    )


def writers_in_words(writers: KilledWriters) -> str:
    """Return R2's row."""
    return one_row(
        "R2",
        "a writer of checkpoints (4 MB each, one after the other) killed at a random moment; a full disk: `tests/server/test_resume.py`",
        f"{NUM_KILLED_WRITERS} of {NUM_KILLED_WRITERS} loadable, nothing half written",
        f"{writers.num_loadable} of {writers.num_killed} loadable, {writers.num_half_written} half written",
        is_reached=writers.num_loadable == writers.num_killed and not writers.num_half_written,
    )


def dying_in_words(pairs: Sequence[tuple[Accuracy, Accuracy]]) -> str:
    """Return R4's row about what is learned."""
    before, after = (fmean(pair[i].macro_f1 for pair in pairs) for i in (0, 1))
    return one_row(
        "R4",
        "30 % of devices die in each round, one is always too late (HAPT, 21 devices with 30 labels each, 15 rounds)",
        "at most 2 points of macro-F1 lost",
        f"{before - after:.1f} lost ({before:.1f} without failures, {after:.1f} with them, {len(pairs)} run(s) each)",
        is_reached=before - after <= MOST_LOST,
    )


def gate_in_words(milliseconds: float) -> str:
    """Return R6's row."""
    return one_row(
        "R6",
        f"the gate's processor time, {GATE_UPDATES} updates x {GATE_PARAMETERS:,} parameters, clipping on",
        "at most 5 ms",
        f"{milliseconds:.1f} ms (median of {GATE_TURNS})",
        is_reached=milliseconds <= 5,
    )


def attacks_in_a_table(found: Sequence[Attacked]) -> str:
    """Return R7: points of accuracy that each attack costs with each rule, against FedAvg's mean without anybody hostile."""
    clean = {each.rule: each.accuracy for each in _means(found) if not each.attack}
    rules = [rule for rule in get_args(RuleName) if rule in clean]
    rows = ["| attack | hostile | " + " | ".join(f"`{rule}`" for rule in rules) + " |", "|---|---|" + "---|" * len(rules)]
    rows.append("| nobody hostile | | " + " | ".join(f"{clean[rule]:.1f}" for rule in rules) + " |")
    for attack in (*ATTACKS, LABEL_FLIP):
        for share in SHARES:
            there = {each.rule: each.accuracy for each in _means(found) if (each.attack, each.share) == (attack, share)}
            if there:
                lost = [f"{there[rule] - clean['mean']:+.1f}" if rule in there else "" for rule in rules]
                rows.append(f"| {attack} | {share:.0%} | " + " | ".join(lost) + " |")
    seeds = sorted({each.seed for each in found})
    return (
        f"R7, accuracy of nine people HAPT's 21 devices never saw, {len(seeds)} run(s) each; below the first row the points that an attack "
        "costs against `mean` with nobody hostile. To reach: at most 3 lost to the first three and to label-flip; mimic as it is.\n\n"
        + "\n".join(rows)
    )


def _means(found: Sequence[Attacked]) -> list[Attacked]:
    """Return one for each rule, attack and share: the mean over seeds."""
    groups: dict[tuple[RuleName, str, float], list[Attacked]] = {}
    for each in found:
        groups.setdefault((each.rule, each.attack, each.share), []).append(each)
    return [
        Attacked(
            rule=rule,
            attack=attack,
            share=share,
            seed=0,
            accuracy=fmean(each.accuracy for each in group),
            macro_f1=fmean(each.macro_f1 for each in group),
        )
        for (rule, attack, share), group in groups.items()
    ]
