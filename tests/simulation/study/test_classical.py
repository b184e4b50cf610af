import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from clmm_core.data.fleet import DataConfig, device_windows
from clmm_core.data.labels import LabelDraw, draw_labelled
from clmm_core.data.windows import NO_LABEL, DeviceWindows
from clmm_core.errors import ConfigError
from clmm_core.models.config import ModalityShape, ModelChoice, ModelConfig, sized
from clmm_core.report.metrics import num_right_of, num_windows_of
from clmm_core.report.records import RunRecord
from clmm_core.report.run_folder import RECORD_FILES, read_run
from server.results import train_and_write
from server.run_config import Value, parse_run_config
from simulation.in_process import InProcessHosts
from simulation.study import classical
from simulation.study.classical import NUM_FREQUENCIES, features_of, train_extra_trees

Train = Callable[..., RunRecord]
NUM_CLASSES = 6
FEW_TREES = 40
SPLIT: dict[str, Value] = {
    "split.test": "device-00004,device-00005",
    "split.num-validation": 0,
    "labels.devices": "device-00000,device-00001",
}


@pytest.fixture
def train(tmp_path: Path, run_config: Callable[..., dict[str, Value]], monkeypatch: pytest.MonkeyPatch) -> Train:
    """Train trees on a synthetic fleet of six devices and read the run back: `train("name", overrides)`."""
    monkeypatch.setattr(classical, "NUM_TREES", FEW_TREES)

    def make(name: str, overrides: dict[str, Value] | None = None) -> RunRecord:
        values = run_config({**SPLIT, "results-dir": str(tmp_path), "run-name": name, **(overrides or {})}, small=True)
        train_extra_trees(InProcessHosts(1), parse_run_config(values), values)
        return read_run(tmp_path / name)

    return make


def group(run: RunRecord, name: str) -> tuple[int, int]:
    """Return windows recognised and all windows of a group."""
    members = [subject.counts for subject in run.subjects if subject.group == name]
    return sum(map(num_right_of, members)), sum(map(num_windows_of, members))


def test_trees_recognise_people_they_never_saw_better_than_chance(train: Train):
    run = train("run")
    right, windows = group(run, "unseen")
    assert windows > 50
    assert right / windows > 2 / NUM_CLASSES


def test_the_run_is_a_results_folder_like_any_other(train: Train, tmp_path: Path):
    run = train("run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == set(RECORD_FILES)
    assert [record.stage for record in run.rounds] == ["profile", "evaluate"]
    assert run.info.run_config["run-name"] == "run"
    assert run.info.versions["code"]
    assert run.card.architecture["classifier"] == "extra-trees"
    assert run.card.num_parameters > FEW_TREES  # nodes
    assert {subject.subject for subject in run.subjects} == {f"device-{number:05d}" for number in range(6)}
    assert all(subject.personal_after is None for subject in run.subjects)


def test_split_and_labels_are_those_of_the_federated_run(train: Train, tmp_path: Path, run_config):
    overrides: dict[str, Value] = {"split.test": "", "split.num-test": 2, "labels.devices": "", "seed": 3, "pretrain.rounds": 0}
    values = run_config({**SPLIT, **overrides, "results-dir": str(tmp_path), "run-name": "federated", "finetune.rounds": 0}, small=True)
    torch.set_num_threads(1)
    train_and_write(InProcessHosts(1), parse_run_config(values), values, lambda _: None)
    trees, federated = train("trees", overrides), read_run(tmp_path / "federated")
    assert trees.split == federated.split
    assert [(each.subject, num_windows_of(each.counts)) for each in trees.subjects] == [
        (each.subject, num_windows_of(each.counts)) for each in federated.subjects
    ]


@pytest.mark.parametrize("unit", ["trial", "window"])
def test_what_was_trained_on_is_never_tested(train: Train, monkeypatch: pytest.MonkeyPatch, unit: str):
    trained, tested = [], []

    class Watched(classical.ExtraTreesClassifier):
        def fit(self, features, labels):
            trained.extend(map(bytes, features))
            return super().fit(features, labels)

        def predict_proba(self, features):
            tested.extend(map(bytes, features))
            return super().predict_proba(features)

    monkeypatch.setattr(classical, "ExtraTreesClassifier", Watched)
    run = train("run", {"labels.unit": unit})
    assert len(trained) == 2 * NUM_CLASSES if unit == "window" else len(trained) > 2 * NUM_CLASSES
    assert not set(trained) & set(tested)
    data = DataConfig(name="synthetic", num_devices=6, window_s=1.28, overlap=0.0)
    for subject in run.subjects:
        windows = device_windows(data, subject.subject)
        _, rest = draw_labelled(windows, run.split.classes, LabelDraw(per_class=1, unit=unit))  # type: ignore[arg-type]
        everything = int((windows.labels != NO_LABEL).sum())
        assert num_windows_of(subject.counts) == (len(rest) if subject.group == "labelled" else everything)


def test_a_class_without_a_label_is_never_said_and_moves_no_other(train: Train, monkeypatch: pytest.MonkeyPatch):
    """The first but one of six in order, so that every later class would be one place off."""
    classes = train("whole").split.classes
    absent = classes[1]

    def without_its_labels(config: DataConfig, device: str) -> DeviceWindows:
        windows = device_windows(config, device)
        if device not in str(SPLIT["labels.devices"]):
            return windows
        return dataclasses.replace(windows, labels=np.where(windows.labels == absent, NO_LABEL, windows.labels))

    monkeypatch.setattr(classical, "device_windows", without_its_labels)
    run = train("run")
    assert run.split.classes == classes
    confusion = sum(subject.counts.confusion for subject in run.subjects if subject.group == "unseen")
    assert confusion[:, 1].sum() == 0
    assert confusion[1].sum() > 0
    others = np.delete(np.delete(confusion, 1, axis=0), 1, axis=1)
    assert others.trace() / others.sum() > 2 / NUM_CLASSES


def test_the_same_seed_gives_the_same_trees_and_another_seed_others(train: Train):
    one, again = train("one"), train("again")
    assert one.subjects == again.subjects
    assert one.card == again.card
    assert train("other", {"seed": 1}).subjects != one.subjects


def test_a_run_that_fails_leaves_nothing(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="no host has a subject"):
        train("run", {"split.test": "nobody"})
    monkeypatch.setattr(classical, "NUM_TREES", -1)
    with pytest.raises(ValueError, match="n_estimators"):
        train("run")
    assert list(tmp_path.iterdir()) == []


def model_of(*shapes: ModalityShape) -> ModelConfig:
    return sized(ModelChoice(), shapes, 2)


def test_features_are_what_they_are_called():
    """One channel of one window, each figure written out."""
    x = np.array([0, 1, 4, 2, -3, 5, 1, 0, 2, 2, -1, 7, 3, 3, 1, 0, 6, -2, 4, 4], np.float32)
    windows = windows_of({"accelerometer": x[None, None, :]})
    row = features_of(windows, model_of(ModalityShape(name="accelerometer", channels=1, time_steps=len(x))))[0]
    steps = [x[i + 1] - x[i] for i in range(len(x) - 1)]
    expected = [x.sum() / 20, np.sqrt(((x - x.mean()) ** 2).sum() / 20), x.min(), x.max()]
    expected += [np.quantile(x, quarter) for quarter in (0.25, 0.5, 0.75)]
    expected += [np.mean(np.abs(steps)), np.std(steps)]
    expected += [x[i : i + 5].mean() for i in range(0, 20, 5)]
    angles = 2 * np.pi * np.arange(20) / 20
    expected += [abs(sum((x - x.mean()) * np.exp(-1j * k * angles))) / 20 for k in range(1, NUM_FREQUENCIES + 1)]
    assert row == pytest.approx(expected, abs=1e-5)


def test_every_device_has_the_same_columns_whatever_sensors_it_has():
    rng = np.random.default_rng(0)
    accelerometer, gyroscope = (rng.normal(size=(4, 3, 32)).astype(np.float32) for _ in range(2))
    model = model_of(*(ModalityShape(name=name, channels=3, time_steps=32) for name in ("accelerometer", "gyroscope")))
    both = features_of(windows_of({"gyroscope": gyroscope, "accelerometer": accelerometer}), model)
    one = features_of(windows_of({"accelerometer": accelerometer}), model)
    assert both.shape == one.shape == (4, 6 * (13 + NUM_FREQUENCIES))
    half = both.shape[1] // 2
    np.testing.assert_array_equal(one[:, :half], both[:, :half])
    assert not one[:, half:].any()
    assert np.isfinite(both).all()
    np.testing.assert_array_equal(features_of(windows_of({"accelerometer": accelerometer[2:3]}), model), one[2:3])  # a row is its window's


def windows_of(streams: dict[str, np.ndarray]) -> DeviceWindows:
    num_windows = len(next(iter(streams.values())))
    rows = np.arange(num_windows)
    return DeviceWindows(
        device="d",
        streams=streams,
        present={name: np.ones(num_windows, dtype=bool) for name in streams},
        labels=np.array(["a"] * num_windows),
        trials=rows,
        recordings=rows,
        starts_s=rows.astype(float),
    )
