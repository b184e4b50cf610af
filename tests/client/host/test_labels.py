from dataclasses import replace

import pytest

from client.host.labels import Label, LabelNotFoundError, correct_label, delete_label, find_label, list_labels, put_label
from clmm_core.errors import DataError

NOW = 1_800_000_000_000_000_000
WALK = Label(id="a", subject="anna", recording="monday", activity="walk", start_ns=10, end_ns=20, source=1)


@pytest.fixture
def labels(store, header):
    """The database of a host that knows two subjects."""
    store.register(header(), NOW)
    store.register(header(subject="ben"), NOW)
    return store.connection


def test_the_same_label_again_changes_nothing(labels):
    assert put_label(labels, WALK) == put_label(labels, WALK) == WALK
    assert list_labels(labels) == [WALK]
    with pytest.raises(DataError, match="label 'a': expected a new id"):
        put_label(labels, replace(WALK, activity="run"))


def test_one_without_an_id_gets_one(labels):
    first, second = (put_label(labels, replace(WALK, id="")) for _ in range(2))
    assert first.id != second.id
    assert find_label(labels, first.id) == first


def test_a_correction_takes_its_place_and_the_history_stays(labels):
    put_label(labels, WALK)
    run = correct_label(labels, "a", replace(WALK, id="b", activity="run", subject="ben"))
    assert run == replace(WALK, id="b", activity="run"), "a label stays with its recording"
    assert list_labels(labels) == [run]
    assert list_labels(labels, with_corrected=True) == [replace(WALK, corrected_by="b"), run]
    assert put_label(labels, WALK).corrected_by == "b", "sent once more by a phone that did not get the answer"
    with pytest.raises(LabelNotFoundError, match="'b' corrected it already"):
        correct_label(labels, "a", replace(WALK, id="c"))
    with pytest.raises(LabelNotFoundError, match="expected one to correct, found none"):
        correct_label(labels, "x", replace(WALK, id="c"))
    assert list_labels(labels) == [run], "what was refused left nothing"


def test_what_is_deleted_is_gone_with_its_history(labels):
    put_label(labels, WALK)
    correct_label(labels, "a", replace(WALK, id="b"))
    correct_label(labels, "b", replace(WALK, id="c"))
    put_label(labels, replace(WALK, id="d"))
    delete_label(labels, "c")
    assert [label.id for label in list_labels(labels, with_corrected=True)] == ["d"]
    with pytest.raises(LabelNotFoundError, match="label 'c'"):
        delete_label(labels, "c")


def test_they_are_listed_by_start_of_whom_is_asked_for(labels):
    late = put_label(labels, replace(WALK, id="1", start_ns=15))
    early = put_label(labels, replace(WALK, id="2", subject="ben"))
    assert list_labels(labels) == [early, late]
    assert list_labels(labels, "ben") == [early]
    assert list_labels(labels, "anna", "monday") == [late]
    assert list_labels(labels, "anna", "tuesday") == []


def test_a_recording_that_is_not_there_cannot_be_labelled(labels):
    with pytest.raises(LabelNotFoundError, match="recording 'tuesday': expected a recording of this host"):
        put_label(labels, replace(WALK, recording="tuesday"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"activity": ""}, "expected an activity"),
        ({"activity": " walk"}, "expected an activity"),
        ({"activity": "x" * 65}, "expected an activity"),
        ({"start_ns": 20}, "an end after it"),
        ({"start_ns": -1}, "a start since 1970"),
        ({"end_ns": 2**63 - 1}, "a start since 1970"),
        ({"id": "x" * 65}, "expected an id"),
        ({"id": "a\n"}, "expected an id"),
    ],
)
def test_what_cannot_be_a_label_is_refused(change, expected):
    with pytest.raises(DataError, match=expected):
        replace(WALK, **change)
