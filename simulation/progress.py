"""How a run is getting on, read from its results folder while the server writes it.

`RunProgress` is what is known at one moment, a pure value; `PlainProgress` prints a line a step, `LiveProgress` keeps a picture of
it on a terminal. Both are asked to look again by `tick`; the clock and the console are arguments, so tests need no waiting.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from clmm_core.errors import DataError
from clmm_core.report.lines import absent_in_words, describe_round, duration, percent, plural, repeats_in_words, spent_in_words
from clmm_core.report.records import STAGES, RoundRecord, Stage
from clmm_core.report.run_folder import INFO, read_rounds

ROUND_STAGES: tuple[Stage, ...] = ("pretrain", "finetune", "selftrain")
NUM_PACE_ROUNDS = 5
"""Rounds of a stage whose mean time is its pace: enough to smooth, few enough to follow a change."""
SPARKS = "▁▂▃▄▅▆▇█"
SPARKLINE_WIDTH = 24


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """What is known of a run at one moment."""

    planned: dict[Stage, int]
    """Rounds of each stage that has rounds; empty before the server wrote its config."""
    rounds: tuple[RoundRecord, ...] = ()

    @property
    def rounds_total(self) -> int | None:
        """The last `server_round` of the run, None where it is not known."""
        return sum(self.planned.values()) or None

    @property
    def rounds_done(self) -> int:
        """Rounds of training that have ended."""
        return sum(record.server_round is not None for record in self.rounds)

    @property
    def running_stage(self) -> Stage | None:
        """The stage that runs now: the last one seen while it has rounds left, else the next; None after the last."""
        if not self.rounds:
            return STAGES[0]
        last = self.rounds[-1].stage
        if self.rounds_left(last):
            return last
        later = STAGES[STAGES.index(last) + 1 :]
        return next((stage for stage in later if stage not in ROUND_STAGES or self.planned.get(stage)), None)

    def done_in(self, stage: Stage) -> int:
        """Return the steps of a stage that have ended."""
        return sum(record.stage == stage for record in self.rounds)

    def rounds_left(self, stage: Stage) -> int:
        """Return the rounds a stage still has to do, 0 where it has no rounds."""
        return max(0, self.planned.get(stage, 0) - self.done_in(stage))

    def pace_s(self, stage: Stage) -> float | None:
        """Return the seconds a round of a stage takes: the mean of its last few, None before its first."""
        times_s = [record.round_s for record in self.rounds if record.stage == stage][-NUM_PACE_ROUNDS:]
        return sum(times_s) / len(times_s) if times_s else None

    def left_s(self, since_last_step_s: float = 0.0) -> float | None:
        """Estimate the seconds all rounds still to come take; None before the first round has ended.

        A stage not yet begun is taken to go at the pace of the one before. Steps without rounds are not counted.

        Args:
            since_last_step_s: What the step that runs now has taken already.
        """
        pace_s: float | None = None
        left_s = 0.0
        for stage in ROUND_STAGES:
            own_s = self.pace_s(stage)
            pace_s = pace_s if own_s is None else own_s
            if num_left := self.rounds_left(stage):
                if pace_s is None:
                    return None
                already_s = min(since_last_step_s, pace_s) if stage == self.running_stage else 0.0
                left_s += num_left * pace_s - already_s
        return None if pace_s is None else left_s


def read_progress(partial: Path) -> RunProgress:
    """Return what a results folder says so far; before it exists, that is nothing.

    The folder may get its final name at any moment, and its files may be half written: what cannot be read now does not count.

    Args:
        partial: `<results>/<name>.partial`.
    """
    for folder in (partial, partial.with_suffix("")):
        try:
            return RunProgress(planned=_planned(folder), rounds=read_rounds(folder))
        except (DataError, OSError):
            continue
    return RunProgress(planned={})


def _planned(folder: Path) -> dict[Stage, int]:
    try:
        run_config = json.loads((folder / INFO).read_bytes())["run_config"]
        return {stage: int(run_config[f"{stage}.rounds"]) for stage in ROUND_STAGES}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def sparkline(values: list[float], width: int = SPARKLINE_WIDTH) -> str:
    """Return the last values as a line of bars, the smallest lowest; empty below two values."""
    shown = values[-width:]
    if len(shown) < 2:
        return ""
    low, high = min(shown), max(shown)
    if high <= low:
        return SPARKS[0] * len(shown)
    return "".join(SPARKS[round((value - low) / (high - low) * (len(SPARKS) - 1))] for value in shown)


@dataclass(kw_only=True)
class PlainProgress:
    """One line a step, for logs and pipes."""

    partial: Path
    console: Console
    clock: Callable[[], float]
    """Seconds, only ever rising."""
    num_told: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.tick()

    def tick(self) -> None:
        """Look again, and print what is new."""
        progress = read_progress(self.partial)
        for number in range(self.num_told, len(progress.rounds)):
            record = progress.rounds[number]
            then = RunProgress(planned=progress.planned, rounds=progress.rounds[: number + 1])
            left_s = then.left_s()
            left = f"  about {duration(left_s)} left" if left_s else ""
            self.console.print(f"{describe_round(record, then.rounds_total)}{left}", markup=False, highlight=False, soft_wrap=True)
        self.num_told = max(self.num_told, len(progress.rounds))


class LiveProgress:
    """A picture of the run that stays in place on a terminal."""

    def __init__(self, *, partial: Path, console: Console, clock: Callable[[], float]) -> None:
        self._partial, self._clock = partial, clock
        self._started_s = self._last_step_s = clock()
        self._num_seen = 0
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        self.tick()
        return self

    def __exit__(self, *_error: object) -> None:
        self.tick()
        self._live.__exit__(None, None, None)

    def tick(self) -> None:
        """Look again, and draw what is known."""
        progress, now_s = read_progress(self._partial), self._clock()
        if len(progress.rounds) != self._num_seen:
            self._num_seen, self._last_step_s = len(progress.rounds), now_s
        picture = render(progress, elapsed_s=now_s - self._started_s, since_last_step_s=now_s - self._last_step_s)
        self._live.update(picture, refresh=True)


def render(progress: RunProgress, *, elapsed_s: float, since_last_step_s: float) -> RenderableType:
    """Return the picture of a run at one moment."""
    left_s = progress.left_s(since_last_step_s)
    time_line = f"{duration(elapsed_s)} so far" + (f", about {duration(left_s)} of rounds left" if left_s else "")
    lines: list[RenderableType] = [_stage_line(progress)]
    if total := progress.rounds_total:
        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(total=total, completed=progress.rounds_done, width=40), f"round {progress.rounds_done}/{total}")
        lines.append(bar)
    if progress.rounds:
        last = progress.rounds[-1]
        lines += [_curve("loss", progress, lambda record: record.loss, "{:.3f}".format)]
        lines += [_curve("validation accuracy", progress, lambda record: record.validation_accuracy, percent)]
        lines.append(Text(_figures(last)))
        lines += [Text(f"left out: {reason}", style="yellow", overflow="ellipsis", no_wrap=True) for reason in last.left_out[:3]]
    return Group(*lines, Text(time_line, style="dim"))


def _figures(record: RoundRecord) -> str:
    """Return how many devices counted in a step, who did not, and how fast it went."""
    parts = [
        f"{plural(record.num_devices, 'device')} on {plural(record.num_hosts, 'host')}",
        *absent_in_words(record),
        *repeats_in_words(record),
    ]
    parts += spent_in_words(record)
    parts += [plural(record.num_windows, "window")] if record.num_windows else []
    parts += [f"{record.num_devices / record.round_s:,.1f} devices a second"] if record.round_s else []
    return ", ".join(parts)


def _stage_line(progress: RunProgress) -> Text:
    """Return the run's stages in a row, without those of no round: done ones ticked, the running one bold."""
    running = progress.running_stage
    line = Text()
    for stage in (stage for stage in STAGES if progress.planned.get(stage, 1)):
        is_done = bool(progress.done_in(stage)) and stage != running
        count = f" {progress.done_in(stage)}/{progress.planned[stage]}" if progress.planned.get(stage) else ""
        line.append(("  " if line else "") + ("✓ " if is_done else "") + stage + count, style="bold" if stage == running else "dim")
    if not progress.rounds and not progress.planned:
        line = Text("starting Flower and Ray", style="bold")
    elif running is None:
        line.append("  writing the report", style="bold")
    return line


def _curve(name: str, progress: RunProgress, value_of: Callable[[RoundRecord], float | None], write: Callable[[float], str]) -> Text:
    """Return the latest value and its course over the rounds of its own stage: losses of two stages do not compare."""
    having = [(record.stage, value) for record in progress.rounds if (value := value_of(record)) is not None]
    if not having:
        return Text(f"{name} –", style="dim")
    stage = having[-1][0]
    values = [value for its_stage, value in having if its_stage == stage]
    return Text.assemble(f"{name} {write(values[-1])}  ", (sparkline(values), "cyan"))
