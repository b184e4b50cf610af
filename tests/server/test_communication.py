"""What whole runs in this process send, to the byte; and what they learn when updates are packed."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from clmm_core.federated.arrays import FUSION, part_of
from clmm_core.federated.traffic import WORDS, Traffic
from clmm_core.report.records import RoundRecord, RunRecord
from clmm_core.report.run_folder import REPORT, SUMMARY, WEIGHTS
from clmm_core.training.array_names import is_measured, is_stage_one
from server.run_config import Value
from simulation.in_process import InProcessHosts

Train = Callable[..., RunRecord]
TWO_ROUNDS: dict[str, Value] = {"pretrain.rounds": 2, "finetune.rounds": 2, "selftrain.rounds": 2, "selftrain.confidence": 0.0}
BITS = "communication.update-bits"


def training(run: RunRecord, stage: str) -> list[Traffic]:
    return [each for record in run.rounds if record.stage == stage for each in record.traffic if each.message == f"train.{stage}"]


def sizes(path: Path, counts: Callable[[str], bool]) -> dict[str, int]:
    """Bytes of the model's arrays that count, by part."""
    total: dict[str, int] = {}
    for name, values in load_file(path).items():
        if counts(name):
            total[part_of(name)] = total.get(part_of(name), 0) + values.nbytes
    return total


def without_words(counts: dict[str, int]) -> dict[str, int]:
    return {part: count for part, count in counts.items() if part != WORDS}


def test_a_round_sends_what_its_stage_needs_and_gets_back_what_it_trains(train: Train, tmp_path: Path):
    run = train({**TWO_ROUNDS, "data.modalities": "accelerometer"})  # that every device has
    model = tmp_path / "results" / "run" / WEIGHTS
    needed = {"pretrain": is_stage_one, "finetune": lambda _: True, "selftrain": lambda _: True}
    for stage, needs in needed.items():
        for number, sent in enumerate(training(run, stage)):
            hosts = [record for record in run.rounds if record.stage == stage][number].num_hosts
            assert without_words(sent.down) == {part: hosts * count for part, count in sizes(model, needs).items()}
            trained = sizes(model, lambda name, needs=needs: needs(name) and not is_measured(name))
            assert without_words(sent.up) == {part: hosts * count for part, count in trained.items()}
            assert 0 < sent.up[WORDS] < sent.down[WORDS] < 10_000
    assert FUSION not in training(run, "pretrain")[0].down


def test_every_step_has_its_own_messages_and_the_picture_has_none(train: Train):
    def messages(record: RoundRecord) -> tuple[str, ...]:
        return tuple(each.message for each in record.traffic)

    run = train({**TWO_ROUNDS, "report.validate-every": 2})
    assert len(run.embedding.before) > 0
    assert [messages(record) for record in run.rounds] == [
        *(("query.profile",), ("query.sums",), ("train.pretrain",), ("train.pretrain",), ("query.quality",)),
        *(("train.finetune",), ("train.finetune", "evaluate.subjects")),
        *(("train.selftrain",), ("train.selftrain", "evaluate.subjects")),
        *(("evaluate.subjects",),),
    ]


@pytest.mark.parametrize(("bits", "times_fewer"), [(8, 3.95), (4, 7.9)])
def test_packed_updates_have_fewer_bytes_and_teach_nearly_the_same(train: Train, tmp_path: Path, bits: int, times_fewer: float):
    results = tmp_path / "results"
    packed = train({**TWO_ROUNDS, "run-name": "packed", BITS: bits}, report=True)
    plain = train({**TWO_ROUNDS, "run-name": "plain"})
    for stage in ("pretrain", "finetune", "selftrain"):
        for before, after in zip(training(plain, stage), training(packed, stage), strict=True):
            assert without_words(after.down) == without_words(before.down)
            assert sum(without_words(before.up).values()) / sum(without_words(after.up).values()) > times_fewer
            assert without_words(after.up).keys() == without_words(before.up).keys()
    assert all(record.loss is not None and np.isfinite(record.loss) for record in packed.rounds if record.server_round)
    one, other = (load_file(results / name / WEIGHTS) for name in ("plain", "packed"))
    apart = np.sqrt(sum(float(((one[name] - other[name]) ** 2).sum()) for name in one if not is_measured(name)))
    largest = np.sqrt(sum(float((values**2).sum()) for name, values in one.items() if not is_measured(name)))
    assert 0 < apart < 0.05 * largest
    summary = json.loads((results / "packed" / SUMMARY).read_text())["communication"]
    assert [each["part"] for each in summary["training"]] == [*packed.card.modalities, FUSION, WORDS]
    assert f"Updates go up in {bits} bits a value" in (results / "packed" / REPORT).read_text()


def test_the_same_seed_packs_the_same(train: Train, tmp_path: Path):
    arrays = []
    for name in ("one", "again"):
        train({**TWO_ROUNDS, "run-name": name, BITS: 4}, hosts=InProcessHosts(3))
        arrays.append(load_file(tmp_path / "results" / name / WEIGHTS))
    assert all(np.array_equal(arrays[0][name], arrays[1][name]) for name in arrays[0])


@pytest.mark.parametrize(
    "overrides",
    [
        {"pretrain.aggregation": "l-dawa", "pretrain.server-optimizer": "fedadam", "pretrain.server-lr": 0.001},
        {"pretrain.participation": 0.5, "finetune.participation": 0.5, "data.missing-share": 0.4},
        {"model.shared": False, "finetune.encoder-rate": 0.0, "finetune.server-optimizer": "fedavgm"},
        {"client.pooled": True, "model.fusion": "uniform", "data.zero-fill": True},
    ],
    ids=lambda overrides: "-".join(map(str, overrides.values())),
)
def test_whatever_is_trained_can_be_packed(train: Train, overrides: dict[str, Value]):
    run = train({**TWO_ROUNDS, BITS: 4, **overrides})
    assert [record.server_round for record in run.rounds if record.server_round] == [1, 2, 3, 4, 5, 6]
    assert not [note for note in run.notes if "refused" in note]
