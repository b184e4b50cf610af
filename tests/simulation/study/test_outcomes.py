import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from clmm_core.errors import DataError
from clmm_core.report.metrics import counts_of
from clmm_core.report.records import EvaluationCounts, Group, RoundRecord, RunRecord, SubjectRecord
from clmm_core.report.run_folder import RunFolder
from simulation.study.outcomes import Outcome, by_subject, differences, interval, lead, mean_by_subject, of, outcome_of, read_outcomes
from simulation.study.plan import Cell, Split

Made = Callable[..., Outcome]
CELL = Cell(setting="", method="CLMM", split=Split(test="S1,S2"), seed=0, classifier="clmm", values={"data.name": "spar"})


def counts(right: int, wrong: int) -> EvaluationCounts:
    """Return counts of two classes: all windows are of the first, some of them taken for the second."""
    said = np.repeat(np.eye(2), [right, wrong], axis=0)
    return counts_of(said, np.zeros(len(said), dtype=int))


def subject(name: str, group: Group, right: int, wrong: int, **personal: EvaluationCounts) -> SubjectRecord:
    return SubjectRecord(subject=name, group=group, modalities=("accelerometer",), counts=counts(right, wrong), **personal)


@pytest.fixture
def run(record: RunRecord) -> RunRecord:
    """Return a run with two people it never saw: 3 of 4 and 1 of 2 windows right; the first gains a quarter by personalisation."""
    step = {"num_hosts": 1, "num_devices": 2, "round_s": 1.0}
    shares = [("pretrain", 1, None), ("finetune", 2, 0.3), ("finetune", 3, 0.55), ("selftrain", 4, 0.6)]
    rounds = [
        RoundRecord(stage=stage, server_round=n, validation_accuracy=share, elapsed_s=float(n), **step)  # type: ignore[arg-type]
        for stage, n, share in shares
    ]
    return dataclasses.replace(
        record,
        rounds=(*rounds, RoundRecord(stage="evaluate", elapsed_s=9.0, **step)),  # type: ignore[arg-type]
        subjects=(
            subject("S1", "unseen", 3, 1, personal_before=counts(2, 2), personal_after=counts(3, 1)),
            subject("S2", "unseen", 1, 1),
            subject("S3", "validation", 1, 3),
            subject("S4", "labelled", 9, 0),
            subject("S5", "unseen", 0, 0),
        ),
    )


def test_an_outcome_is_of_the_people_never_seen_only(run: RunRecord):
    outcome = outcome_of(CELL, run, "unseen")
    assert outcome.accuracy == {"S1": 0.75, "S2": 0.5}  # S5 has no window
    assert outcome.mean == 0.625
    # 4 windows of 6 right, all of one class: its F1 is 2 * 4 / (6 + 4), that of the other, only ever said wrongly, is 0.
    assert outcome.macro_f1 == pytest.approx((0.8 + 0) / 2)
    assert outcome.gain == {"S1": 0.25}
    assert outcome.curve == (0.3, 0.55, 0.6)
    assert [outcome.rounds_to(level) for level in (0.3, 0.31, 0.54, 0.6)] == [1, 2, 2, 3]
    assert (outcome.wall_s, outcome.num_parameters, outcome.info) == (9.0, run.card.num_parameters, run.info)
    assert outcome.run == ("S1,S2", 0)


def test_while_choosing_it_is_of_validation_subjects(run: RunRecord):
    outcome = outcome_of(CELL, run, "validation")
    assert (outcome.accuracy, outcome.gain) == ({"S3": 0.25}, {})


def test_without_validation_there_is_no_curve(run: RunRecord):
    outcome = outcome_of(CELL, dataclasses.replace(run, rounds=(run.rounds[0], run.rounds[-1])), "unseen")
    assert outcome.curve == ()


@pytest.mark.parametrize("kept", [(3,), (3, 4)])
def test_a_run_that_judges_nobody_is_an_error_that_names_it(run: RunRecord, kept: tuple[int, ...]):
    nobody = dataclasses.replace(run, subjects=tuple(run.subjects[i] for i in kept))
    with pytest.raises(DataError, match=f"{CELL.name}: expected unseen subjects with labelled windows"):
        outcome_of(CELL, nobody, "unseen")


def test_only_finished_runs_have_an_outcome(tmp_path: Path, run: RunRecord):
    finished, killed, absent = (dataclasses.replace(CELL, seed=seed) for seed in range(3))
    for cell in (finished, killed):
        folder = RunFolder.create(tmp_path, cell.name)
        folder.write_results(run)
        if cell is finished:
            folder.finish()
    (outcome,) = read_outcomes([finished, killed, absent], tmp_path, "unseen")
    assert (outcome.cell, outcome.accuracy) == (finished, {"S1": 0.75, "S2": 0.5})
    (tmp_path / finished.name / "split.json").unlink()
    with pytest.raises(DataError, match=r"split\.json"):
        read_outcomes([finished], tmp_path, "unseen")


def test_outcomes_of_a_method_are_in_the_order_of_splits_and_seeds(outcome: Made):
    made = [
        outcome({"S1": 0.1}, seed=1),
        outcome({"S1": 0.2}, method="other"),
        outcome({"S1": 0.3}, setting="few"),
        outcome({"S0": 0.4}, seed=2),
        outcome({"S1": 0.5}, seed=0),
    ]
    assert [each.mean for each in of(made, "", "CLMM")] == [0.4, 0.5, 0.1]


def test_a_subject_tested_in_several_runs_counts_once(outcome: Made):
    runs = [outcome({"S1": 0.5, "S2": 0.9}, seed=0), outcome({"S1": 0.7, "S2": 0.8}, seed=1), outcome({"S3": 0.4})]
    assert by_subject(runs) == pytest.approx({"S1": 0.6, "S2": 0.85, "S3": 0.4})
    assert list(by_subject(runs[::-1])) == ["S1", "S2", "S3"]
    # S2 is in one run of two: its mean is that run's, not half of it.
    assert mean_by_subject([{"S1": 1.0, "S2": 3.0}, {"S1": 2.0}]) == {"S1": 1.5, "S2": 3.0}


def test_differences_are_paired_by_split_and_seed(outcome: Made):
    ours = [
        outcome({"S1": 0.8, "S2": 0.6}, seed=0),
        outcome({"S1": 0.6, "S2": 0.5}, seed=1),
        outcome({"S3": 1.0}),  # the other method did not finish this one, so it says nothing
    ]
    theirs = [outcome({"S2": 0.4, "S1": 0.7}, split="S1,S2", seed=0), outcome({"S1": 0.9, "S2": 0.5}, seed=1), outcome({"S4": 0.0})]
    # S1: +0.1 and -0.3; S2: +0.2 and 0.
    assert differences(ours, theirs) == pytest.approx({"S1": -0.1, "S2": 0.1})
    assert differences(theirs, ours) == pytest.approx({"S1": 0.1, "S2": -0.1})
    assert differences(ours, ours) == {"S1": 0, "S2": 0, "S3": 0}
    assert differences(ours, []) == {}


def test_a_lead_has_the_wider_of_the_intervals_over_subjects_and_over_runs(outcome: Made):
    theirs = [outcome({"S1": 0.5, "S2": 0.5}, seed=seed) for seed in range(3)]
    # All people alike, runs not: 0, 0.1 and 0.2.
    alike = [outcome({"S1": 0.5 + gain, "S2": 0.5 + gain}, seed=seed) for seed, gain in enumerate((0.0, 0.1, 0.2))]
    each = lead(alike, theirs)
    assert (each.mean, each.low, each.high) == pytest.approx((0.1, 0.1 - 0.24841, 0.1 + 0.24841), abs=1e-5)
    # All runs alike, people not: 0 and 0.2, for one degree of freedom 12.706 * 0.1.
    apart = [outcome({"S1": 0.5, "S2": 0.7}, seed=seed) for seed in range(3)]
    each = lead(apart, theirs)
    assert (each.mean, each.low, each.high) == pytest.approx((0.1, 0.1 - 1.27062, 0.1 + 1.27062), abs=1e-5)
    one = lead([outcome({"S1": 0.75})], [outcome({"S1": 0.5})])
    assert (one.mean, one.low, one.high) == (0.25, None, None)


def test_an_interval_is_students():
    # The quantile for 2 degrees of freedom is 4.3027; the deviation is 0.1, so the half-width 4.3027 * 0.1 / sqrt(3) = 0.2484.
    each = interval([0.1, 0.2, 0.3])
    assert each.mean == pytest.approx(0.2)
    assert (each.low, each.high) == pytest.approx((0.2 - 0.24841, 0.2 + 0.24841), abs=1e-5)


def test_one_subject_has_no_interval():
    each = interval([0.25])
    assert (each.mean, each.low, each.high) == (0.25, None, None)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=40).filter(lambda values: np.std(values) > 1e-6))
def test_intervals_are_those_of_scipy(values: list[float]):
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    each = interval(values)
    assert (each.low, each.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert each.mean == pytest.approx(np.mean(values), abs=1e-12)
