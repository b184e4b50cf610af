"""What the finished runs of a study say, in numbers: means over people, and differences between methods paired by run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from scipy.stats import t as student_t

from clmm_core.errors import DataError
from clmm_core.report.metrics import accuracy, group_counts, macro_f1, num_windows_of, personal_gain
from clmm_core.report.records import Group, RunInfo, RunRecord
from clmm_core.report.run_folder import read_run
from simulation.study.plan import Cell


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One finished run, seen from the people it is judged on. Shares in [0, 1]."""

    cell: Cell
    info: RunInfo
    accuracy: Mapping[str, float]
    """By subject."""
    macro_f1: float
    """Over all windows of these subjects."""
    gain: Mapping[str, float]
    """By subject, accuracy gained by personalisation; empty where there was none."""
    curve: tuple[float, ...]
    """Validation accuracy after each round of stage two, then of self-training; empty where they were not looked at after every one."""
    wall_s: float
    num_parameters: int

    @property
    def mean(self) -> float:
        """Mean accuracy over subjects."""
        return fmean(self.accuracy.values())

    @property
    def run(self) -> tuple[str, int]:
        """Split and seed: runs of other methods with the same are this one's pairs."""
        return self.cell.split.test, self.cell.seed

    def rounds_to(self, level: float) -> int:
        """Rounds of stage two until the validation accuracy first reaches a level that it does reach."""
        return next(i for i, value in enumerate(self.curve, start=1) if value >= level)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its 95 % interval by Student's t; None where there is but one value."""

    mean: float
    low: float | None
    high: float | None


def read_outcomes(cells: Iterable[Cell], results: Path, judged_on: Group) -> list[Outcome]:
    """Return the outcome of every cell that is finished.

    Raises:
        DataError: a results folder is not whole, or tests nobody.
    """
    return [outcome_of(cell, read_run(results / cell.name), judged_on) for cell in cells if (results / cell.name).exists()]


def outcome_of(cell: Cell, run: RunRecord, judged_on: Group) -> Outcome:
    """Return what a run says of its test subjects, or of its validation subjects.

    Raises:
        DataError: none of them has a window to be judged on.
    """
    counts = group_counts(run.subjects, judged_on)
    if counts is None or not num_windows_of(counts):
        raise DataError(
            f"{cell.name}: expected {judged_on} subjects with labelled windows, found none; name others in the study's splits, "
            "or label some of their windows"
        )
    tested = [subject for subject in run.subjects if subject.group == judged_on]
    accuracies = {subject.subject: accuracy(subject.counts) for subject in tested}
    gains = {subject.subject: personal_gain(subject) for subject in tested}
    return Outcome(
        cell=cell,
        info=run.info,
        accuracy={name: value for name, value in accuracies.items() if value is not None},
        macro_f1=macro_f1(counts) or 0.0,
        gain={name: value for name, value in gains.items() if value is not None},
        curve=_curve(run),
        wall_s=run.rounds[-1].elapsed_s,
        num_parameters=run.card.num_parameters,
    )


def _curve(run: RunRecord) -> tuple[float, ...]:
    looks = [each.validation_accuracy for each in run.rounds if each.stage in ("finetune", "selftrain")]
    seen = tuple(value for value in looks if value is not None)
    return seen if len(seen) == len(looks) else ()


def of(outcomes: Iterable[Outcome], setting: str, method: str) -> list[Outcome]:
    """Return the outcomes of one method in one setting, by split and seed."""
    return sorted((o for o in outcomes if (o.cell.setting, o.cell.method) == (setting, method)), key=lambda o: o.run)


def by_subject(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return each subject's accuracy, mean over the runs that tested it."""
    return mean_by_subject([outcome.accuracy for outcome in outcomes])


def differences(one: Sequence[Outcome], other: Sequence[Outcome]) -> dict[str, float]:
    """Return each subject's accuracy with `one` minus that with `other`, mean over the runs that both have; empty where they share none."""
    return mean_by_subject(_paired(one, other))


def lead(one: Sequence[Outcome], other: Sequence[Outcome]) -> Interval:
    """Return the mean of `differences` over subjects, with the wider of two intervals: over subjects, and over the runs that both have.

    People differ, and so do runs: those tested by one run share its model and its labels, which an interval over subjects does not see;
    runs of one split share their people, which one over runs does not see.
    """
    pairs = _paired(one, other)
    over_subjects = interval(list(mean_by_subject(pairs).values()))
    over_runs = interval([fmean(pair.values()) for pair in pairs])
    half = max((each.high - each.mean for each in (over_subjects, over_runs) if each.high is not None), default=None)
    mean = over_subjects.mean
    return Interval(mean=mean, low=None if half is None else mean - half, high=None if half is None else mean + half)


def _paired(one: Sequence[Outcome], other: Sequence[Outcome]) -> list[dict[str, float]]:
    """Return for each run that both have, of one split and seed, each subject's difference."""
    theirs = {outcome.run: outcome for outcome in other}
    pairs = [(mine, theirs[mine.run]) for mine in one if mine.run in theirs]
    return [{name: mine.accuracy[name] - its.accuracy[name] for name in mine.accuracy if name in its.accuracy} for mine, its in pairs]


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of values, one a subject or one a run, with its interval."""
    if len(values) < 2:
        return Interval(mean=fmean(values), low=None, high=None)
    half = float(student_t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return Interval(mean=fmean(values), low=fmean(values) - half, high=fmean(values) + half)


def mean_by_subject(of_runs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return each subject's mean over the runs that have it, by name."""
    values: dict[str, list[float]] = {}
    for of_run in of_runs:
        for subject, value in of_run.items():
            values.setdefault(subject, []).append(value)
    return {subject: fmean(values[subject]) for subject in sorted(values)}
