"""Stage one kept in a file, and runs that go on from it."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from clmm_core.errors import DataError
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.traffic import WORDS, Traffic
from clmm_core.report.records import Embedding, RoundRecord, RunRecord
from clmm_core.report.run_folder import WEIGHTS
from clmm_core.training.array_names import is_stage_one
from server.federation import run_stage_one
from server.results import new_folder
from server.run_config import Value, parse_run_config
from server.stage_one import RECORD, StageOne, StageOneRecord, read_stage_one, write_stage_one
from simulation.in_process import InProcessHosts

Train = Callable[..., RunRecord]
ROUND = RoundRecord(stage="pretrain", server_round=1, num_hosts=2, num_devices=3, loss=0.1 + 0.2, round_s=1.5, elapsed_s=2.5)
LEFT = StageOne(
    arrays={
        "modalities.acc.encoder.w": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # lies in memory in another order
        "modalities.acc.mean": np.float32([1e-30, -np.inf]),
    },
    record=StageOneRecord(rounds=(ROUND, replace(ROUND, left_out=("device 'é': too short",))), server_round=7, quality={"acc": 1 / 3}),
)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory, run_config) -> StageOne:
    """What stage one alone leaves in a run of the committed settings, made small."""
    values = run_config({"results-dir": str(tmp_path_factory.mktemp("results")), "run-name": "stage-one", "split.num-test": 1}, small=True)
    config = parse_run_config(values)
    folder, info = new_folder(config, values)
    stage_one = run_stage_one(InProcessHosts(2), config, info, folder, lambda record: None)
    folder.discard()
    return stage_one


def assert_same_arrays(one: Arrays, other: Arrays) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert values.dtype == other[name].dtype
        assert np.array_equal(values, other[name]), name


def untimed(rounds: tuple[RoundRecord, ...]) -> list[RoundRecord]:
    """Without times, and without the bytes of tasks, which also name what a later stage does with the model."""
    return [replace(record, round_s=0.0, elapsed_s=0.0, traffic=tuple(map(wordless, record.traffic))) for record in rounds]


def wordless(traffic: Traffic) -> Traffic:
    return replace(traffic, down={**traffic.down, WORDS: 0}, up={**traffic.up, WORDS: 0})


def test_what_is_written_is_read(tmp_path: Path):
    write_stage_one(tmp_path / "a", LEFT)
    read = read_stage_one(tmp_path / "a")
    assert_same_arrays(read.arrays, LEFT.arrays)
    assert read.record == LEFT.record


def test_a_second_one_takes_the_place_of_the_first(tmp_path: Path):
    write_stage_one(tmp_path / "a", LEFT)
    write_stage_one(tmp_path / "a", replace(LEFT, record=replace(LEFT.record, server_round=8)))
    assert read_stage_one(tmp_path / "a").record.server_round == 8
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no such file at all"),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:40]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"server_round", b"server_rouse")),
        lambda path: save_file({"a": np.zeros(1, np.float32)}, path),
        lambda path: save_file({"a": np.zeros(1, np.float32)}, path, metadata={RECORD: "{}"}),
        lambda path: save_file({"a": np.zeros(1, np.float32)}, path, metadata={RECORD: "[not json"}),
    ],
    ids=["gone", "empty", "other", "cut", "cut-in-header", "other-field", "model", "no-record", "no-json"],
)
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, spoil: Callable[[Path], object]):
    path = tmp_path / "0a1b.safetensors"
    write_stage_one(path, LEFT)
    spoil(path)
    with pytest.raises(DataError, match=rf"(?s){path}: expected what stage one of a run left, cannot read it \(.*remove it and run again"):
        read_stage_one(path)


def test_stage_one_leaves_encoders_projections_and_normalisation_only(left: StageOne):
    assert all(is_stage_one(name) for name in left.arrays)
    assert {name.split(".")[2] for name in left.arrays} == {"encoder", "projection", "mean", "std"}
    assert [(record.stage, record.server_round) for record in left.record.rounds] == [
        *(("profile", None), ("normalise", None), ("pretrain", 1), ("quality", None)),
    ]
    assert left.record.server_round == 1
    assert sum(left.record.quality.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "later",
    [
        {},
        {"model.fusion": "learned", "finetune.rounds": 2, "finetune.participation": 0.5},
        {"model.fusion": "uniform", "model.branches": "linear", "model.shared": False, "finetune.auxiliary": 0.0},
        {"model.branches": "recurrent", "labels.num-devices": 1, "labels.per-class": 0, "personalise.per-class": 0},
        {"labels.unit": "window", "labels.per-class": 3, "selftrain.rounds": 1, "report.points-per-device": 0},
    ],
    ids=lambda later: "-".join(map(str, later.values())) or "same",
)
def test_a_run_that_goes_on_from_stage_one_equals_the_whole_run(train: Train, left: StageOne, tmp_path: Path, later: dict[str, Value]):
    """To the bit, though stage one was trained for other settings of stage two, and by way of a file."""
    write_stage_one(tmp_path / "left", left)
    whole = train(later | {"run-name": "whole"})
    rest = train(later | {"run-name": "rest"}, stage_one=read_stage_one(tmp_path / "left"))
    arrays, from_stage_one = (load_file(tmp_path / "results" / name / WEIGHTS) for name in ("whole", "rest"))
    assert_same_arrays(arrays, from_stage_one)
    assert untimed(rest.rounds) == untimed(whole.rounds)
    for part in ("split", "subjects", "quality", "card", "notes"):
        assert getattr(rest, part) == getattr(whole, part), part
    assert rest.embedding == Embedding(), "its picture is drawn while stage one trains"


def test_the_time_of_a_stage_one_that_another_run_trained_counts(train: Train, left: StageOne):
    took_s = {record.stage: 100.0 * (number + 1) for number, record in enumerate(left.record.rounds)}
    slow = tuple(replace(record, round_s=took_s[record.stage], elapsed_s=0.0) for record in left.record.rounds)
    run = train(stage_one=replace(left, record=replace(left.record, rounds=slow)))
    assert run.rounds[0].round_s < 50, "the profile is its own"
    assert [record.round_s for record in run.rounds[1:4]] == [200.0, 300.0, 400.0]
    assert all(earlier.elapsed_s < later.elapsed_s for earlier, later in pairwise(run.rounds))
    sums = [sum(record.round_s for record in run.rounds[: i + 1]) for i in range(len(run.rounds))]
    assert [record.elapsed_s for record in run.rounds] == pytest.approx(sums, abs=20)


def test_what_stage_one_left_out_is_said_again(train: Train, left: StageOne):
    rounds = tuple(replace(record, left_out=(f"{record.stage}: something",)) for record in left.record.rounds)
    run = train(stage_one=replace(left, record=replace(left.record, rounds=rounds)))
    assert {"normalise: something", "pretrain: something", "quality: something"} <= set(run.notes)
    assert "profile: something" not in run.notes
