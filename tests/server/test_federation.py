"""Whole runs in this process, on recordings of a few seconds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from clmm_core.data.fleet import DataConfig, device_windows
from clmm_core.data.labels import LabelDraw, draw_labelled
from clmm_core.errors import ConfigError, DataError, RoundFailedError
from clmm_core.report.metrics import num_windows_of
from clmm_core.report.records import GROUPS, RunRecord
from clmm_core.report.run_folder import RECORD_FILES, REPORT, WEIGHTS, read_run
from server.run_config import Value
from simulation.in_process import InProcessHosts

NO_ROUNDS: dict[str, Value] = {"pretrain.rounds": 0, "finetune.rounds": 0}
UNITS = {"accelerometer": "m/s^2", "gyroscope": "rad/s"}
Train = Callable[..., RunRecord]
Write = Callable[..., Path]
LeftBehind = Callable[[], list[str]]


@pytest.mark.parametrize(("every", "looked_at"), [(1, [3, 4, 5]), (2, [4, 5]), (9, [5]), (0, [])])
def test_validation_subjects_are_looked_at_as_often_as_asked(train: Train, every: int, looked_at: list[int]):
    run = train({"pretrain.rounds": 2, "finetune.rounds": 2, "selftrain.rounds": 1, "report.validate-every": every})
    assert [record.server_round for record in run.rounds if record.validation_accuracy is not None] == looked_at
    assert any(subject.group == "validation" for subject in run.subjects)


def test_a_run_leaves_everything_that_the_records_promise(train: Train, tmp_path: Path, left_behind: LeftBehind):
    run = train({"pretrain.rounds": 2}, report=True)
    folder = tmp_path / "results" / "run"
    assert left_behind() == ["run"]
    assert {path.name for path in folder.iterdir()} == {*RECORD_FILES, REPORT, WEIGHTS}
    assert [(record.stage, record.server_round) for record in run.rounds] == [
        *(("profile", None), ("normalise", None), ("pretrain", 1), ("pretrain", 2), ("quality", None), ("finetune", 3), ("evaluate", None)),
    ]
    assert run.rounds[-2].validation_accuracy is not None
    assert all(record.loss is not None and record.num_windows > 0 for record in run.rounds if record.server_round)
    assert sum(run.quality.values()) == pytest.approx(1.0)
    arrays = load_file(folder / WEIGHTS)
    assert sum(values.size for values in arrays.values()) == run.card.num_parameters
    assert all(np.isfinite(values).all() for values in arrays.values())
    assert arrays["fusion.quality"].tolist() == pytest.approx([run.quality[name] for name in run.card.modalities])
    for name, mean in run.card.mean.items():
        assert arrays[f"modalities.{name}.mean"].tolist() == pytest.approx(list(mean))
    assert run.card.modalities["magnetometer"] == {"channels": 3, "time_steps": 32, "rate_hz": 25.0, "unit": "uT"}
    assert run.info.run_config["pretrain.rounds"] == 2
    assert all(subject.subject in (folder / REPORT).read_text() for subject in run.subjects)


def test_every_subject_is_evaluated_in_its_group(train: Train):
    run = train({"split.test": "device-00002,device-00004", "split.validation": "device-00000", "labels.devices": "device-00001"})
    groups = {subject.subject: subject.group for subject in run.subjects}
    assert groups == {
        **{"device-00000": "validation", "device-00001": "labelled", "device-00002": "unseen"},
        **{"device-00003": "seen", "device-00004": "unseen", "device-00005": "seen"},
    }
    assert set(groups.values()) == set(GROUPS)
    assert {subject.subject for subject in run.subjects if subject.personal_after} == {"device-00002", "device-00004"}
    assert {point.subject for point in run.embedding.before} == set(groups)
    assert all(groups[point.subject] == point.group for point in run.embedding.after)
    assert len(run.embedding.before) == len(run.embedding.after) == 2 * 6


@pytest.mark.parametrize("unit", ["trial", "window"])
def test_what_was_trained_on_is_never_evaluated(train: Train, unit: str):
    run = train({"labels.unit": unit, "data.window-s": 0.0, **NO_ROUNDS})
    data = DataConfig(name="synthetic", num_devices=6)
    for subject in run.subjects:
        windows = device_windows(data, subject.subject)
        given, rest = draw_labelled(windows, run.split.classes, LabelDraw(per_class=1, unit=unit))  # type: ignore[arg-type]
        everything = int((windows.labels != "").sum())
        assert num_windows_of(subject.counts) == (len(rest) if subject.group == "labelled" else everything)
        assert len(rest) <= everything - len(given)
        if subject.personal_after is not None:
            assert subject.personal_after.confusion.sum() == len(rest)


def test_the_same_seed_gives_the_same_run_on_any_number_of_hosts(train: Train, write: Write, tmp_path: Path):
    def trained(name: str, num_hosts: int, seed: int) -> dict[str, np.ndarray]:
        run = train({"run-name": name, "seed": seed}, hosts=InProcessHosts(num_hosts))
        assert run.rounds[0].num_hosts == min(num_hosts, 4)
        return load_file(tmp_path / "results" / name / WEIGHTS)

    for name in ("ann", "ben", "cat", "dan"):
        write(name)
    one = trained("one", 1, 0)
    for num_hosts in (3, 8):
        many = trained(f"on-{num_hosts}", num_hosts, 0)
        for name in one:
            np.testing.assert_allclose(many[name], one[name], atol=1e-5)
    again = trained("again", 1, 0)
    assert all(np.array_equal(again[name], one[name]) for name in one)
    assert not np.array_equal(trained("other", 1, 1)["primary.0.weight"], one["primary.0.weight"])


def test_a_device_with_one_window_is_skipped_in_stage_one_and_the_run_goes_on(train: Train, write: Write):
    for name in ("ann", "ben", "cat"):
        write(name)
    write("dan", each_s=0.7, sessions=1, activities=("walk",))
    run = train({"split.test": "ann", "split.num-validation": 0, "labels.devices": "ben"})
    reason = "device 'dan': expected at least 2 windows to contrast, found 1: record longer"
    assert reason in run.notes
    pretrain = next(record for record in run.rounds if record.stage == "pretrain")
    assert (pretrain.num_devices, pretrain.left_out) == (2, (reason,))
    assert {subject.subject: num_windows_of(subject.counts) for subject in run.subjects}["dan"] == 1


def test_a_subject_without_a_modality_takes_part_with_what_it_has(train: Train, write: Write):
    for name in ("ann", "ben", "cat", "dan"):
        write(name, modalities=("accelerometer",) if name in ("ben", "dan") else tuple(UNITS))
    run = train({"split.test": "ann", "split.validation": "dan", "labels.devices": "ben"})
    assert tuple(run.card.modalities) == tuple(UNITS)
    assert {subject.subject: subject.modalities for subject in run.subjects} == {
        **{"ann": tuple(UNITS), "ben": ("accelerometer",), "cat": tuple(UNITS), "dan": ("accelerometer",)},
    }


def test_a_modality_only_a_tested_subject_has_is_said_to_be_untrained(train: Train, write: Write, tmp_path: Path):
    for name in ("ann", "ben", "cat"):
        write(name, modalities=tuple(UNITS) if name == "ann" else ("accelerometer",))
    run = train({"split.test": "ann", "split.num-validation": 0})
    assert "modality 'gyroscope': no training device has it; its encoder stays untrained" in run.notes
    arrays = load_file(tmp_path / "results" / "run" / WEIGHTS)
    assert all(np.isfinite(values).all() for values in arrays.values())
    assert arrays["modalities.gyroscope.std"].tolist() == [1.0] * 6


def test_windows_with_nan_are_left_out_counted_and_said(train: Train, write: Write):
    for name in ("ann", "ben", "cat"):
        write(name, lost=slice(40, 90) if name == "ben" else slice(0))
    run = train({"split.num-validation": 0})
    windows = {subject.subject: num_windows_of(subject.counts) for subject in run.subjects if subject.group != "labelled"}
    # 7.8 s hold 12 windows of 0.64 s; 0.8 s to 1.8 s touch the second and third of each of two sessions, in both modalities.
    assert "device 'ben': 8 window(s) of a modality hold NaN or infinite samples and were left out" in run.notes
    assert "device 'ben': 4 window(s) have none of accelerometer, gyroscope and were left out" in run.notes
    assert set(windows.values()) <= {24, 20}


def test_a_device_with_nothing_but_nan_is_left_out_by_name(train: Train, write: Write):
    for name in ("ann", "ben", "cat", "dan"):
        write(name, lost=slice(None) if name == "ben" else slice(0))
    run = train({"split.num-validation": 0})
    assert any(note.startswith("device 'ben': no window of 0.64 s in 2 recording(s) holds finite samples") for note in run.notes)
    assert {subject.subject for subject in run.subjects} == {"ann", "cat", "dan"}
    assert "ben" not in (*run.split.training, *run.split.test)


def test_a_class_nobody_labelled_is_said_and_the_run_goes_on(train: Train, write: Write):
    for name in ("ann", "ben", "cat"):
        write(name, labels=("still", "walk") if name == "ben" else None)
    run = train({"split.test": "ann", "split.num-validation": 0, "labels.devices": "ben"})
    assert run.split.classes == ("run", "still", "walk")
    assert (
        "activity 'run': none of the labelled devices (ben) has a label of it, so it cannot be recognised; label it on one of them, "
        "or choose other labels.devices" in run.notes
    )


def test_a_subject_without_labels_is_not_evaluated_and_that_is_said(train: Train, write: Write):
    for name in ("ann", "ben", "cat", "dan"):
        write(name, labels=() if name in ("ann", "cat") else None)
    run = train({"split.test": "ann", "split.num-validation": 0})
    assert {subject.subject for subject in run.subjects} == {"ben", "dan"}
    assert "devices 'ann', 'cat': no labelled window to evaluate on (besides those trained on)" in run.notes


def test_fewer_labelled_devices_than_asked_for_is_said(train: Train, write: Write):
    for name in ("ann", "ben", "cat", "dan"):
        write(name, labels=() if name in ("ann", "cat") else None)
    run = train({"split.test": "ann", "split.num-validation": 0, "labels.num-devices": 3, **NO_ROUNDS})
    assert run.split.labelled == ("ben", "dan")
    assert "labels.num-devices asks for 3 labelled devices, but only 2 training devices have labels" in run.notes


@pytest.mark.parametrize(
    ("overrides", "kind", "message"),
    [
        ({"labels.num-devices": 0}, ConfigError, "labels.num-devices: expected at least 1 labelled device, found 0"),
        ({"split.num-test": 9}, ConfigError, r"expected at least 9 subject\(s\) to draw for test, found 6"),
        ({"split.test": "eve"}, ConfigError, "no host has a subject 'eve'"),
        ({"data.modalities": "skeleton"}, ConfigError, "data.modalities: 'synthetic' has accelerometer, gyroscope, magnetometer, not"),
        ({"data.window-s": 99.0}, DataError, "no device has usable recordings: device 'device-00000': no window of 99 s"),
        ({"run-name": "../run"}, ConfigError, "run name: expected letters"),
    ],
)
def test_a_run_that_cannot_begin_says_why_and_leaves_nothing(train: Train, overrides, kind, message: str, left_behind: LeftBehind):
    with pytest.raises(kind, match=message):
        train(overrides)
    assert left_behind() == []


def test_training_devices_without_any_label_end_the_run_at_once(train: Train, write: Write, left_behind: LeftBehind):
    for name in ("ann", "ben", "cat"):
        write(name, labels=None if name == "ann" else ())
    with pytest.raises(DataError, match="none of the 2 training devices has a label"):
        train({"split.test": "ann", "split.num-validation": 0})
    assert left_behind() == []


def test_no_labels_at_all_end_the_run_at_once(train: Train, write: Write, left_behind: LeftBehind):
    for name in ("ann", "ben"):
        write(name, labels=())
    with pytest.raises(DataError, match="expected labels of at least two activities over all devices, found none: label more"):
        train()
    assert left_behind() == []


@pytest.mark.parametrize(
    ("name", "message"), [("folder", "expected a folder with"), ("utd-mhad", "expected a folder, a zip or a tar archive")]
)
def test_a_data_set_that_is_not_there_is_named(train: Train, tmp_path: Path, name: str, message: str, left_behind: LeftBehind):
    path = tmp_path / "nowhere"
    with pytest.raises(DataError, match=rf"{path}.*{message}"):
        train({"data.name": name, "data.path": str(path)})
    assert left_behind() == []


def test_a_data_set_that_is_half_there_is_named(train: Train, write: Write, left_behind: LeftBehind):
    for name in ("ann", "ben"):
        recordings = write(name)
    (recordings / "ben" / "session-1" / "recording.yaml").unlink()
    with pytest.raises(DataError, match=r"ben/session-1: expected recording.yaml beside accelerometer.csv, found none"):
        train()
    assert left_behind() == []


def test_a_stream_file_that_is_gone_leaves_its_device_out_by_name(train: Train, write: Write):
    for name in ("ann", "ben", "cat"):
        recordings = write(name)
    (recordings / "ben" / "session-1" / "gyroscope.csv").unlink()
    run = train({"split.num-validation": 0, "labels.num-devices": 1, **NO_ROUNDS})
    assert any("ben/session-1/gyroscope.csv: expected this stream file, found none" in note for note in run.notes)
    assert {subject.subject for subject in run.subjects} == {"ann", "cat"}


@pytest.mark.parametrize(("pretrain", "finetune"), [(0, 1), (0, 0)])
def test_a_stage_without_rounds_still_gives_whole_results(train: Train, pretrain: int, finetune: int):
    run = train({"pretrain.rounds": pretrain, "finetune.rounds": finetune}, report=True)
    assert sum(record.server_round is not None for record in run.rounds) == pretrain + finetune
    assert len(run.subjects) == 6
    assert bool(run.embedding.after) == bool(pretrain)
    assert run.card.trained_on.endswith(f"; {pretrain + finetune} rounds")


@pytest.mark.parametrize("modalities", ["accelerometer", "accelerometer+gyroscope,magnetometer"])
def test_one_modality_and_joined_modalities(train: Train, modalities: str):
    run = train({"data.modalities": modalities})
    assert ",".join(run.card.modalities) == modalities
    first = next(iter(run.card.modalities.values()))
    assert (first["channels"], first["unit"]) == ((6, "m/s^2+rad/s") if "+" in modalities else (3, "m/s^2"))
    assert sum(run.quality.values()) == pytest.approx(1.0)


FEDADAM = {"pretrain.server-optimizer": "fedadam", "pretrain.server-lr": 0.001, "finetune.server-optimizer": "fedadam"}


@pytest.mark.parametrize(
    "overrides",
    [
        {**FEDADAM, "model.attention": "diff-v2", "labels.unit": "window", "labels.per-class": 3},
        {"pretrain.server-optimizer": "fedavgm", "finetune.server-optimizer": "fedavgm", "pretrain.loss": "tcl", "client.optimizer": "sgd"},
        {"pretrain.loss": "focal", "client.proximal": 0.1, "augment.modality-dropout": 0.5, "augment.channel-dropout": 0.2},
        {"pretrain.loss": "dclw", "labels.per-class": 0, "personalise.per-class": 0, "augment.time-warp": 0.2},
        {"pretrain.participation": 0.5, "finetune.participation": 0.5, "pretrain.decay": "cosine", "finetune.decay": "cosine"},
        {"pretrain.beta": 0.0, "split.num-validation": 0, "split.num-test": 0, "report.points-per-device": 0},
    ],
    ids=lambda overrides: "-".join(f"{value}" for value in overrides.values()),
)
def test_every_choice_runs_through(train: Train, write: Write, overrides: dict[str, Value]):
    for name in ("ann", "ben", "cat", "dan"):
        write(name)
    run = train({"pretrain.rounds": 2, "finetune.rounds": 2, **overrides}, report="split.num-test" in overrides)
    assert [record.server_round for record in run.rounds if record.server_round] == [1, 2, 3, 4]
    assert run.subjects
    assert all(record.loss is not None and np.isfinite(record.loss) for record in run.rounds if record.server_round)


def test_training_that_diverges_everywhere_ends_the_run_and_names_the_devices(train: Train, left_behind: LeftBehind):
    with pytest.raises(RoundFailedError, match=r"pretrain, round \d+: no device could be trained.*'device-0000\d'.*NaN or infinity: lower"):
        train({"client.optimizer": "sgd", "pretrain.lr": 1e30, "pretrain.rounds": 3})
    assert left_behind() in ([], ["run.partial"])


def test_a_name_that_is_taken_is_refused_and_its_results_stay(train: Train, tmp_path: Path):
    before = train(NO_ROUNDS)
    with pytest.raises(ConfigError, match="a run of that name is finished"):
        train(NO_ROUNDS)
    assert read_run(tmp_path / "results" / "run") == before
