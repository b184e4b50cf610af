import csv
import dataclasses
import json
import os
import signal
import string
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file

from clmm_core.errors import ConfigError, DataError
from clmm_core.federated.traffic import Traffic
from clmm_core.files import replace_file
from clmm_core.report.metrics import accuracy
from clmm_core.report.records import (
    GROUPS,
    NUM_CALIBRATION_BINS,
    STAGES,
    EmbeddedWindow,
    Embedding,
    EvaluationCounts,
    ModelCard,
    RoundRecord,
    RunInfo,
    RunRecord,
    Split,
    SubjectRecord,
)
from clmm_core.report.run_folder import LOCK, RECORD_FILES, REPORT, SUBJECT_COLUMNS, RunFolder, read_rounds, read_run
from clmm_core.report.run_json import StoredCounts, readable_json, stored_counts

TEXTS = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12)
MODALITIES = st.text(string.ascii_lowercase + "_", min_size=1, max_size=8)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SHARES = st.floats(0, 1)
COUNTS = st.integers(0, 10**6)


def tuples(of: st.SearchStrategy, **limits) -> st.SearchStrategy:
    return st.lists(of, max_size=limits.pop("max_size", 3), **limits).map(tuple)


def counts(num_classes: int) -> st.SearchStrategy[EvaluationCounts]:
    return st.builds(
        EvaluationCounts,
        confusion=arrays(np.int64, (num_classes, num_classes), elements=st.integers(0, 99)),
        calibration=arrays(np.float64, (NUM_CALIBRATION_BINS, 3), elements=st.floats(0, 99)),
    )


def run_records() -> st.SearchStrategy[RunRecord]:
    classes = tuples(TEXTS, min_size=1, unique=True)
    parts = st.dictionaries(TEXTS, COUNTS, max_size=3)
    rounds = st.builds(
        RoundRecord,
        stage=st.sampled_from(STAGES),
        server_round=st.none() | st.integers(1, 99),
        num_hosts=COUNTS,
        num_devices=COUNTS,
        num_windows=COUNTS,
        loss=st.none() | FINITE,
        validation_accuracy=st.none() | SHARES,
        validation_macro_f1=st.none() | SHARES,
        round_s=FINITE,
        elapsed_s=FINITE,
        left_out=tuples(TEXTS),
        traffic=tuples(st.builds(Traffic, message=TEXTS, down=parts, up=parts)),
    )
    dots = tuples(st.builds(EmbeddedWindow, subject=TEXTS, group=st.sampled_from(GROUPS), label=TEXTS, x=FINITE, y=FINITE))
    cards = st.builds(
        ModelCard,
        modalities=st.dictionaries(MODALITIES, st.dictionaries(TEXTS, COUNTS | FINITE | TEXTS, max_size=2), max_size=2),
        window_s=FINITE,
        classes=classes,
        mean=st.dictionaries(MODALITIES, tuples(FINITE), max_size=2),
        std=st.dictionaries(MODALITIES, tuples(FINITE), max_size=2),
        architecture=st.dictionaries(TEXTS, COUNTS | FINITE | TEXTS, max_size=2),
        num_parameters=COUNTS,
        flops_a_window=COUNTS,
        trained_on=TEXTS,
        licence=TEXTS,
    )
    config = st.dictionaries(TEXTS, st.booleans() | COUNTS | FINITE | TEXTS, max_size=4)

    def runs(split: Split) -> st.SearchStrategy[RunRecord]:
        evaluation = counts(len(split.classes))
        subjects = st.builds(
            SubjectRecord,
            subject=TEXTS,
            group=st.sampled_from(GROUPS),
            modalities=tuples(MODALITIES),
            counts=evaluation,
            personal_before=st.none() | evaluation,
            personal_after=st.none() | evaluation,
        )
        return st.builds(
            RunRecord,
            info=st.builds(
                RunInfo, name=TEXTS, run_config=config, versions=st.dictionaries(TEXTS, TEXTS, max_size=2), machine=TEXTS, started_at=TEXTS
            ),
            split=st.just(split),
            rounds=tuples(rounds),
            subjects=tuples(subjects, unique_by=lambda each: each.subject),
            embedding=st.builds(Embedding, before=dots, after=dots),
            quality=st.dictionaries(MODALITIES, SHARES, max_size=3),
            card=cards,
            notes=tuples(TEXTS),
        )

    names = tuples(TEXTS)
    return st.builds(
        Split,
        seed=st.integers(),
        training=names,
        validation=names,
        test=names,
        labelled=names,
        labels_per_class=COUNTS,
        label_unit=st.sampled_from(["trial", "window"]),
        classes=classes,
    ).flatmap(runs)


@settings(max_examples=40, deadline=None)
@given(run_records())
def test_what_was_written_is_read_back(run: RunRecord):
    with TemporaryDirectory() as results_dir:
        folder = RunFolder.create(Path(results_dir), "any")
        folder.write_results(run)
        assert read_run(folder.finish()) == run


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "results", "spar")


def test_a_run_from_start_to_end(folder: RunFolder, make_run):
    run = make_run()
    folder.write_info(run.info)
    folder.write_split(run.split)
    for number, record in enumerate(run.rounds, start=1):
        folder.append_round(record)
        assert read_rounds(folder.partial) == run.rounds[:number]
    weights = {"encoder.weight": np.arange(6, dtype=np.float32).reshape(2, 3).T, "scale": np.float32(2)}
    folder.write_model(weights)
    folder.write_results(run)
    replace_file(folder.partial / REPORT, "<!DOCTYPE html>")
    path = folder.finish()
    assert path == folder.final
    assert not folder.partial.exists()
    assert {file.name for file in path.iterdir()} == {*RECORD_FILES, "model.safetensors", "report.html"}  # no temporary file is left
    assert read_run(path) == run
    assert read_rounds(path) == run.rounds
    stored = load_file(path / "model.safetensors")
    np.testing.assert_array_equal(stored["encoder.weight"], weights["encoder.weight"])
    assert stored["scale"] == 2


@pytest.mark.parametrize("subjects", [0, 1, 4])
def test_counts_written_a_subject_at_a_time_are_those_written_at_once(folder: RunFolder, make_run, subjects: int):
    run = make_run()
    run = replace(run, subjects=run.subjects[:subjects])
    folder.write_results(run)
    path = folder.partial / "counts.json"
    assert path.read_text() == readable_json(StoredCounts(subjects=tuple(map(stored_counts, run.subjects))), path)


def test_the_table_has_the_worst_subject_first_and_empty_cells_where_not_applicable(folder: RunFolder, make_run):
    run = make_run()
    folder.write_results(run)
    with (folder.partial / "subjects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == SUBJECT_COLUMNS
    assert [float(row["accuracy"]) for row in rows] == sorted(float(row["accuracy"]) for row in rows)
    by_name = {subject.subject: subject for subject in run.subjects}
    for row in rows:
        subject = by_name[row["subject"]]
        assert row["accuracy"] == f"{accuracy(subject.counts):.4f}"
        assert (row["gain"] == "") == (row["personal_windows"] == "") == (subject.personal_after is None)


def test_json_is_for_people_too(folder: RunFolder, make_run):
    folder.write_results(make_run())
    for file in folder.partial.glob("*.json"):
        text = file.read_text()
        assert max(map(len, text.splitlines())) <= 200
        assert text.count("\n") > 3
    summary = json.loads((folder.partial / "summary.json").read_text())
    assert summary["chance"] == pytest.approx(1 / 7)
    assert [group["group"] for group in summary["groups"]] == ["unseen", "validation", "seen", "labelled"]


def test_any_mapping_and_numpy_scalars_are_written(folder: RunFolder, make_run):
    run = dataclasses.replace(make_run(), quality=MappingProxyType({"accelerometer": np.float32(0.5)}))
    folder.write_results(run)
    assert read_run(folder.finish()).quality == {"accelerometer": 0.5}


@pytest.mark.parametrize("figure", [float("nan"), float("inf")])
def test_nan_and_infinity_are_never_written(folder: RunFolder, make_run, figure: float):
    record = dataclasses.replace(make_run().rounds[1], loss=figure)
    with pytest.raises(DataError, match=r"rounds\.jsonl: a figure is NaN"):
        folder.append_round(record)
    assert read_rounds(folder.partial) == ()
    with pytest.raises(DataError, match=r"summary\.json: a figure is NaN"):
        folder.write_results(dataclasses.replace(make_run(), quality={"accelerometer": figure}))
    assert not (folder.partial / "summary.json").exists()


def test_an_existing_run_is_refused(folder: RunFolder, make_run):
    with pytest.raises(ConfigError, match=r"spar\.partial exists: a run of that name goes on"):
        RunFolder.create(folder.final.parent, "spar")
    folder.write_results(make_run())
    folder.finish()
    with pytest.raises(ConfigError, match="spar exists: a run of that name is finished"):
        RunFolder.create(folder.final.parent, "spar")


def test_a_run_that_appeared_meanwhile_is_not_overwritten(folder: RunFolder, make_run):
    folder.write_results(make_run())
    folder.final.mkdir()  # even an empty folder, which a bare rename would replace
    with pytest.raises(ConfigError, match="exists"):
        folder.finish()
    assert folder.partial.is_dir()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", ".hidden", "-x", "a.partial", "a b"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path: Path, name: str):
    with pytest.raises(ConfigError, match="run name"):
        RunFolder.create(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_results_cannot_finish(folder: RunFolder, make_run):
    folder.write_info(make_run().info)
    with pytest.raises(DataError, match=r"without split\.json, rounds\.jsonl, .*model\.json; write its results first"):
        folder.finish()
    assert folder.partial.is_dir()
    assert not folder.final.exists()


def test_discard_removes_the_partial_folder_only(folder: RunFolder, make_run):
    folder.write_results(make_run())
    folder.finish()
    folder.discard()
    assert folder.final.is_dir()
    other = RunFolder.create(folder.final.parent, "other")
    other.discard()
    assert not other.partial.exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from clmm_core.report.records import RoundRecord
from clmm_core.report.run_folder import RunFolder
folder = RunFolder.create(Path(sys.argv[1]), "killed")
folder.append_round(RoundRecord(stage="pretrain", server_round=1, num_hosts=1, num_devices=3, round_s=1.0, elapsed_s=1.0))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_killed_half_way_stays_partial(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], check=False, env=os.environ | {"PYTHONPATH": os.getcwd()}, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["killed.partial"]
    assert [record.server_round for record in read_rounds(tmp_path / "killed.partial")] == [1]
    with pytest.raises(DataError, match="expected a finished run, found one that goes on or was killed"):
        read_run(tmp_path / "killed.partial")


def test_a_half_written_line_does_not_count_yet(folder: RunFolder, make_run):
    first, second = make_run().rounds[:2]
    assert read_rounds(folder.partial) == ()
    folder.append_round(first)
    whole = (folder.partial / "rounds.jsonl").read_bytes()
    folder.append_round(second)
    both = (folder.partial / "rounds.jsonl").read_bytes()
    for end in range(len(whole), len(both)):
        (folder.partial / "rounds.jsonl").write_bytes(both[:end])
        assert read_rounds(folder.partial) == (first,)
    (folder.partial / "rounds.jsonl").write_bytes(b"{half\n" + whole)
    with pytest.raises(DataError, match=r"rounds\.jsonl: line 1: expected a RoundRecord"):
        read_rounds(folder.partial)
    with pytest.raises(DataError, match="expected the folder of a run"):
        read_rounds(folder.partial / "nowhere")


def test_a_write_that_fails_leaves_the_old_file(folder: RunFolder, make_run, monkeypatch: pytest.MonkeyPatch):
    folder.write_info(make_run().info)
    before = (folder.partial / "config.json").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("clmm_core.report.run_folder.os.replace", full)
    with pytest.raises(OSError, match="No space"):
        folder.write_info(dataclasses.replace(make_run().info, machine="another"))
    assert {file.name: file.read_bytes() for file in folder.partial.iterdir()} == {"config.json": before, LOCK: b""}


@pytest.fixture
def finished(folder: RunFolder, make_run) -> Path:
    folder.write_results(make_run())
    return folder.finish()


@pytest.mark.parametrize("name", RECORD_FILES)
def test_a_missing_file_is_named(finished: Path, name: str):
    (finished / name).unlink()
    with pytest.raises(DataError, match=f"no {name}"):
        read_run(finished)


@pytest.mark.parametrize("name", RECORD_FILES)
@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b'{"seed": "1"}\n', b"[]\n"])
def test_a_file_of_another_kind_is_named(finished: Path, name: str, content: bytes):
    (finished / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        read_run(finished)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("config.json", '"machine": "2 cores, 23 GiB"', '"machine": 2', "RunInfo.*machine"),
        ("split.json", '"label_unit": "window"', '"label_unit": "day"', "Split.*label_unit"),
        ("split.json", '"upright row"', '"upright row", "more"', r"counts\.json: subject .*: expected confusion \[8, 8\]"),
        ("subjects.csv", ",unseen,", ",strange,", "'strange'"),
        ("subjects.csv", "S01,", "S99,", r"subjects\.csv and counts\.json name other subjects"),
        ("rounds.jsonl", "}\n", "}", r"rounds\.jsonl: line"),
    ],
)
def test_a_wrong_field_is_named(finished: Path, name: str, old: str, new: str, message: str):
    text = (finished / name).read_text()
    assert old in text
    (finished / name).write_text(text.replace(old, new))
    with pytest.raises(DataError, match=message):
        read_run(finished)


def test_a_table_that_was_cut_off_is_said(finished: Path):
    table = finished / "subjects.csv"
    *rows, last = table.read_text().splitlines()
    table.write_text("\n".join([*rows, last.split(",")[0]]))
    with pytest.raises(DataError, match=r"expected a group of .*, found None"):
        read_run(finished)


def test_an_unknown_field_deep_inside_is_named(finished: Path):
    picture = finished / "embedding.json"
    picture.write_text(picture.read_text().replace('"x":', '"z": 1.0, "x":', 1))
    with pytest.raises(DataError, match=r"embedding\.json: .*mistake in before\.0\.z: an unknown field; written by another version"):
        read_run(finished)


def test_results_from_before_bytes_were_counted_are_read(finished: Path, make_run):
    rounds, summary = finished / "rounds.jsonl", finished / "summary.json"
    lines = [json.loads(line) for line in rounds.read_text().splitlines()]
    rounds.write_text("".join(json.dumps({key: line[key] for key in line if key != "traffic"}) + "\n" for line in lines))
    older = json.loads(summary.read_text())
    assert older.pop("communication")["training_bytes"] > 0
    summary.write_text(json.dumps(older))
    run = make_run()
    assert read_run(finished) == replace(run, rounds=tuple(replace(each, traffic=()) for each in run.rounds))


def test_joined_sensors_stay_one_modality(folder: RunFolder, make_run: Callable[..., RunRecord]):
    run = make_run()
    joined = tuple(replace(subject, modalities=("accelerometer+gyroscope", "skeleton")) for subject in run.subjects)
    folder.write_results(replace(run, subjects=joined))
    assert {subject.modalities for subject in read_run(folder.finish()).subjects} == {("accelerometer+gyroscope", "skeleton")}
