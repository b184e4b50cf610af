import dataclasses

import pytest

from clmm_core.report.lines import (
    NOTHING,
    SUBJECT_HEADER,
    by_reason,
    describe_round,
    duration,
    headline,
    headline_group,
    interval,
    listed,
    percent,
    plural,
    points,
    rerun_command,
    size,
    subject_table,
)
from clmm_core.report.metrics import summarise
from clmm_core.report.records import RoundRecord, RunInfo

PRETRAIN = RoundRecord(stage="pretrain", server_round=3, num_hosts=2, num_devices=8, loss=2.3141, round_s=1.84, elapsed_s=6.0)


@pytest.mark.parametrize(
    ("changes", "rounds_total", "line"),
    [
        ({}, 20, "pretrain  round 3/20  8 devices  loss 2.314  1.8 s"),
        ({}, None, "pretrain  round 3  8 devices  loss 2.314  1.8 s"),
        ({"stage": "quality", "server_round": None, "loss": None, "num_devices": 1}, 20, "quality  1 device  1.8 s"),
        (
            {"validation_accuracy": 0.7126, "validation_macro_f1": 0.7},
            20,
            "pretrain  round 3/20  8 devices  loss 2.314  validation accuracy 71.3 %  macro-F1 70.0 %  1.8 s",
        ),
        (
            {"num_dropped_out": 1200, "num_stragglers": 3, "simulated_s": 75.2},
            20,
            "pretrain  round 3/20  8 devices  1,200 dropped out  3 too slow  1 min 15 s simulated  loss 2.314  1.8 s",
        ),
        ({"simulated_s": 7.5}, 20, "pretrain  round 3/20  8 devices  7.5 s simulated  loss 2.314  1.8 s"),
        (
            {"left_out": ("S03: no reply\nin time",)},
            20,
            "pretrain  round 3/20  8 devices  loss 2.314  1.8 s  left out: S03: no reply in time",
        ),
        (
            {"left_out": ("S03: late", "S04: late", "S05: late"), "round_s": 75.2},
            20,
            "pretrain  round 3/20  8 devices  loss 2.314  1 min 15 s  left out: S03: late (and 2 more)",
        ),
    ],
)
def test_one_plain_line_a_step(changes: dict, rounds_total: int | None, line: str):
    assert describe_round(dataclasses.replace(PRETRAIN, **changes), rounds_total) == line


def test_of_thousands_of_devices_a_few_are_named():
    names = [f"d{number}" for number in range(1, 2001)]
    assert listed(names[:5]) == "'d1', 'd2', 'd3', 'd4', 'd5'"
    assert listed(names) == "'d1', 'd2', 'd3', 'd4', 'd5' and 1,995 more"
    assert by_reason([("a", "late"), ("b", "lost"), ("c", "late"), ("a", "lost")]) == ["devices 'a', 'c': late", "devices 'b', 'a': lost"]
    assert by_reason([("a", "late")]) == ["device 'a': late"]
    assert by_reason([]) == []


def test_figures_have_the_precision_they_deserve():
    assert [percent(share) for share in (None, 0, 0.81249, 1)] == [NOTHING, "0.0 %", "81.2 %", "100.0 %"]
    assert [points(share) for share in (None, 0.032, -0.032, -0.0001, 0.0)] == [NOTHING, "+3.2", "−3.2", "0.0", "0.0"]
    assert [duration(s) for s in (0.04, 59.9, 59.97, 60, 245, 7980)] == [
        "0.0 s",
        "59.9 s",
        "1 min 00 s",
        "1 min 00 s",
        "4 min 05 s",
        "2 h 13 min",
    ]
    assert [size(count) for count in (0, 812, 999.4, 999.6, 12_345, 123_456, 999_400, 999_600, 4_560_000, 7.2e10)] == [
        *("0 B", "812 B", "999 B", "1.00 kB", "12.3 kB", "123 kB", "999 kB", "1.00 MB", "4.56 MB", "72.0 GB")
    ]
    assert [plural(1, "window"), plural(12345, "window"), plural(0, "class", "classes")] == ["1 window", "12,345 windows", "0 classes"]
    assert (interval(81, 263), interval(0, 0)) == ("25.5–36.6 %", NOTHING)


def test_the_table_has_every_subject_unseen_first_and_the_worst_first_in_each_group(make_run):
    run = make_run()
    header, *rows = subject_table(run)
    assert header == list(SUBJECT_HEADER)
    assert {len(row) for row in rows} == {len(header)}
    assert sorted(row[0] for row in rows) == sorted(subject.subject for subject in run.subjects)
    assert [row[1] for row in rows] == ["unseen"] * 3 + ["validation"] + ["seen"] * 4 + ["labelled"] * 2
    assert rows[0][0] == summarise(run.subjects, "unseen").worst_subject
    marked = {row[0] for row in rows if row[4].startswith("≈")}
    assert marked == {"S02"}  # the one with 41 windows
    assert all((row[-1] == NOTHING) == (row[1] != "unseen") for row in rows)


def test_the_headline_answers_for_people_it_never_saw(make_run):
    run = make_run()
    unseen = summarise(run.subjects, "unseen")
    sentence = headline(run)
    assert sentence.startswith("On 3 people it never saw, it recognises")
    assert f"{100 * unseen.accuracy_mean:.1f} ± {100 * unseen.accuracy_std:.1f} % of windows right" in sentence
    for part in (percent(unseen.macro_f1_mean), f"{unseen.worst_subject} at {percent(unseen.worst_accuracy)}", "7 classes gets 14.3 %"):
        assert part in sentence


@pytest.mark.parametrize(
    ("group", "beginning"),
    [
        ("validation", "No unseen subject was evaluated; on 1 person kept for validation"),
        ("seen", "Nobody was kept apart, so this is no figure for new people: on 4 people"),
        ("labelled", "Nobody was kept apart, so this is no figure for new people: on 2 people whose labels"),
    ],
)
def test_without_unseen_subjects_the_headline_says_so_first(make_run, group: str, beginning: str):
    run = make_run()
    run = dataclasses.replace(run, subjects=tuple(subject for subject in run.subjects if subject.group == group))
    assert headline(run).startswith(beginning)
    assert headline_group(run).group == group
    assert ("±" in headline(run)) == (len(run.subjects) > 1)
    assert ("worst" in headline(run)) == (len(run.subjects) > 1)


def test_without_subjects_there_is_no_figure(make_run):
    run = dataclasses.replace(make_run(), subjects=())
    assert headline_group(run) is None
    assert "says nothing" in headline(run)
    assert subject_table(run) == [list(SUBJECT_HEADER)]


def test_the_command_quotes_what_a_shell_would_split():
    info = RunInfo(name="a", run_config={"b.on": True, "a.name": "it's", "c.lr": 0.5}, versions={}, machine="", started_at="")
    assert rerun_command(info) == """clmm run --set 'a.name="it'"'"'s"' --set b.on=true --set c.lr=0.5"""
    assert rerun_command(dataclasses.replace(info, run_config={})) == "clmm run"
