from collections.abc import Callable

import pytest

from simulation.study.outcomes import Outcome
from simulation.study.plan import Method, Split, Study
from simulation.study.tables import columns_in_words, study_tables, tables_of, what_is_missing, what_was_run

Made = Callable[..., Outcome]
STUDY = Study(
    title="T",
    reference="ours",
    splits=(Split(test="S1,S2"), Split(test="S3")),
    seeds=(0,),
    methods={"ours": Method(), "theirs": Method(), "none yet": Method()},
)


@pytest.fixture
def outcomes(outcome: Made) -> list[Outcome]:
    """Return two finished runs of one method and one of another: its run of the other split is missing."""
    more = {"curve": (0.2, 0.5, 0.5), "wall_s": 30.0, "num_parameters": 218010}
    return [
        outcome({"S1": 0.9, "S2": 0.5}, method="ours", macro_f1=0.65, gain={"S1": 0.1, "S2": -0.2}, **more),
        outcome({"S3": 0.4}, method="ours", macro_f1=0.35, gain={"S3": 0.0}, **more),
        outcome({"S1": 0.6, "S2": 0.6}, method="theirs", macro_f1=0.5, wall_s=12.4),
    ]


def test_every_figure_of_a_table_by_hand(outcomes: list[Outcome]):
    (table,) = tables_of(STUDY, outcomes)
    assert table.header == (
        *("method", "accuracy", "macro-F1", "worst subject", "ours minus this", "better for"),
        *("personalised", "hurt", "rounds to 90 %", "with stage one", "to a common level", "parameters", "wall time"),
    )
    # Means of 70 and 40 %, their deviation 15 * sqrt(2); gains +10, -20 and 0 with the interval -3.3 ± 4.3027 * 15.275 / sqrt(3).
    assert table.rows[0] == (
        *("ours", "55.0 ± 21.2", "50.0 ± 21.2", "40.0", "", ""),
        *("-3.3 (-41.3 to +34.6)", "1 of 3: S2 (-20.0)", "2.0 of 3", "7.0", "2.0", "218,010", "30 s"),
    )
    # One run: no deviation. +30 and -10 points on S1 and S2, who both have; S3 is not in it. 10 ± 12.706 * 20.
    assert table.rows[1] == (
        *("theirs (1 of 2 runs)", "60.0", "50.0", "60.0", "+10.0 (-244.1 to +264.1)", "1 of 2"),
        *("–", "–", "–", "–", "–", "1,000", "12 s"),
    )
    assert table.rows[2] == ("none yet", "not finished", *[""] * 11)


def test_a_missing_run_counts_neither_for_nor_against(outcome: Made, outcomes: list[Outcome]):
    """S2 has another run with one method only, in which it is far worse: paired, it does not matter."""
    study = Study(title="T", reference="ours", splits=STUDY.splits, seeds=(0, 1), methods=STUDY.methods)
    more = outcome({"S1": 0.0, "S2": 0.0}, method="theirs", seed=1)
    (table,) = tables_of(study, [*outcomes, more])
    assert table.rows[1][4:6] == ("+10.0 (-244.1 to +264.1)", "1 of 2")


def test_rounds_to_a_common_level_are_those_to_what_the_lowest_of_a_run_ends_at(outcome: Made):
    """90 % of 0.4 in one run and of 0.5 in the other: 0.36, which it has after two rounds, and 0.45, which it has after one."""
    runs = [
        outcome({"S1": 0.9}, method="ours", curve=(0.2, 0.8, 0.9)),
        outcome({"S1": 0.4}, method="theirs", curve=(0.1, 0.2, 0.4)),
        outcome({"S3": 0.9}, method="ours", curve=(0.5, 0.8, 0.9)),
        outcome({"S3": 0.5}, method="theirs", curve=(0.1, 0.45, 0.5)),
    ]
    (table,) = tables_of(STUDY, runs)
    column = table.header.index("to a common level")
    assert [row[column] for row in table.rows[:2]] == ["1.5", "2.5"]
    assert [row[column - 2] for row in table.rows[:2]] == ["3.0 of 3", "2.5 of 3"]


def test_columns_without_a_figure_are_left_out(outcomes: list[Outcome]):
    (table,) = tables_of(STUDY, outcomes[2:])
    assert "personalised" not in table.header
    assert "rounds to 90 %" not in table.header
    assert {len(row) for row in table.rows} == {len(table.header)} == {8}


def test_methods_that_share_no_run_are_not_compared(outcomes: list[Outcome]):
    (table,) = tables_of(STUDY, outcomes[1:])
    assert table.rows[1][4:6] == ("–", "–")


def test_a_table_a_setting(outcome: Made):
    study = Study(
        title="T", reference="ours", splits=STUDY.splits, seeds=(0,), methods=STUDY.methods, settings={"few": {}, "all labels": {}}
    )
    tables = tables_of(study, [outcome({"S1": 0.25}, method="ours", setting="all labels")])
    assert [table.setting for table in tables] == ["few", "all labels"]
    assert tables[0].rows[0][1] == "not finished"
    assert tables[1].rows[0][1] == "25.0"
    assert tables[1].markdown().startswith("**all labels**\n\n| method | accuracy |")


def test_the_markdown_is_a_table_with_its_sentence(outcomes: list[Outcome]):
    lines = study_tables(STUDY, outcomes).splitlines()
    assert lines[0] == "2 runs a method: test subjects S1,S2; S3, each with seed 0 for the labels drawn and the initial model."
    assert lines[1:4] == ["", "**3 runs failed or not finished; the rows say of how many runs they are.**", ""]
    assert lines[5] == "|---" * 13 + "|"
    assert lines[7].startswith("| theirs (1 of 2 runs) | 60.0 | 50.0 | 60.0 | +10.0 (-244.1 to +264.1) | 1 of 2 |")
    assert len({line.count("|") for line in lines[4:]}) == 1
    assert len(lines) == 9


def test_a_bar_or_a_line_end_in_a_name_does_not_break_the_table(outcome: Made):
    study = Study(title="T", reference="a|b\nc", splits=STUDY.splits[:1], seeds=(0,), methods={"a|b\nc": Method()})
    text = study_tables(study, [outcome({"S1": 0.5}, method="a|b\nc")])
    assert "| a\\|b c | 50.0 |" in text
    assert "a\\|b c minus this" in text


def test_who_is_judged_is_said(outcomes: list[Outcome]):
    choosing = Study(
        title="T",
        reference="ours",
        splits=(Split(test="S1", validation="S2"), Split(test="S3", validation="S4")),
        seeds=(0, 1),
        methods=STUDY.methods,
        judged_on="validation",
    )
    assert what_was_run(choosing) == (
        "4 runs a method: judged on validation subjects S2 (never touching S1); S4 (never touching S3), each with seeds 0, 1 "
        "for the labels drawn and the initial model."
    )
    assert what_was_run(Study(title="T", reference="a", splits=STUDY.splits[:1], seeds=(0,), methods={"a": Method()})).startswith("1 run a")


def test_what_is_missing_is_counted_over_all_settings_and_methods(fake):
    study, outcomes = fake(methods=3, settings=("few", "all"), subjects=4, seeds=2)
    assert what_is_missing(study, outcomes) == ""
    assert what_is_missing(study, outcomes[:-1]).startswith("1 run failed or not finished")
    assert what_is_missing(study, []).startswith("24 runs failed")


def test_every_column_is_explained_and_no_other(fake):
    study, outcomes = fake(methods=2)
    tables = tables_of(study, outcomes)
    assert list(columns_in_words(study, tables)) == list(tables[0].header[1:])
    assert "personalised" not in columns_in_words(study, tables_of(study, []))
