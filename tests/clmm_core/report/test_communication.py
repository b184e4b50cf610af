import dataclasses
from collections.abc import Callable

import pytest

from clmm_core.federated.arrays import FUSION
from clmm_core.federated.traffic import WORDS, Traffic
from clmm_core.report.communication import PartBytes, communication_in_words, communication_of, communication_table
from clmm_core.report.lines import NOTHING
from clmm_core.report.records import RoundRecord, RunRecord

MakeRun = Callable[..., RunRecord]


def traffic(message: str, down: dict[str, int], up: dict[str, int]) -> Traffic:
    return Traffic(message=message, down=down, up=up)


def record(stage: str, *sent: Traffic, devices: int = 4, share: float | None = None) -> RoundRecord:
    times = {"round_s": 1.0, "elapsed_s": 1.0}
    return RoundRecord(stage=stage, num_hosts=2, num_devices=devices, validation_accuracy=share, traffic=sent, **times)  # type: ignore[arg-type]


PRETRAIN = traffic("train.pretrain", {WORDS: 10, "gyro": 100, "acc": 200}, {"gyro": 10, "acc": 20, WORDS: 5})
FINETUNE = traffic("train.finetune", {"gyro": 100, "acc": 200, FUSION: 300, WORDS: 10}, {"acc": 25, FUSION: 30, WORDS: 5})
LOOK = traffic("evaluate.subjects", {"acc": 1000}, {WORDS: 50})
ROUNDS = (
    record("profile", traffic("query.profile", {WORDS: 7}, {WORDS: 13})),
    record("pretrain", PRETRAIN),
    record("pretrain", PRETRAIN),
    record("finetune", FINETUNE, LOOK, devices=2, share=0.5),
    record("finetune", FINETUNE, LOOK, devices=2, share=0.73),
    record("finetune", FINETUNE, LOOK, devices=2, share=0.8),
    record("evaluate", LOOK),
)


def test_training_is_added_up_by_part_and_told_from_the_rest():
    found = communication_of(ROUNDS)
    assert found is not None
    assert found.training == (
        PartBytes(part="gyro", down_bytes=500, up_bytes=20),
        PartBytes(part="acc", down_bytes=1000, up_bytes=115),
        PartBytes(part=FUSION, down_bytes=900, up_bytes=90),
        PartBytes(part=WORDS, down_bytes=50, up_bytes=25),
    )
    assert found.training_bytes == 2 * 345 + 3 * 670
    assert found.device_round_bytes == 2700 / (2 * 4 + 3 * 2)
    assert found.other_bytes == 20 + 4 * 1050


def test_nearly_there_is_the_first_look_at_nine_tenths_of_the_last():
    found = communication_of(ROUNDS)
    assert found is not None
    assert found.nearly_final_bytes == 2 * 345 + 2 * 670
    blind = [dataclasses.replace(each, validation_accuracy=None) for each in ROUNDS]
    assert communication_of(blind).nearly_final_bytes is None  # type: ignore[union-attr]
    nothing_learnt = [dataclasses.replace(each, validation_accuracy=each.validation_accuracy and 0.0) for each in ROUNDS]
    assert communication_of(nothing_learnt).nearly_final_bytes == 345  # type: ignore[union-attr]


def test_rounds_that_nobody_counted_say_nothing():
    assert communication_of([dataclasses.replace(each, traffic=()) for each in ROUNDS]) is None
    assert communication_of(ROUNDS[:1]) is None, "no training"
    assert communication_of(()) is None


def test_the_table_has_a_round_of_each_stage_and_all_rounds():
    columns, rows = communication_table(ROUNDS)
    assert columns == ["pretrain, a round", "finetune, a round", "all rounds"]
    assert rows == [
        ["gyro", "100 B", "10 B", "100 B", NOTHING, "500 B", "20 B"],
        ["acc", "200 B", "20 B", "200 B", "25 B", "1.00 kB", "115 B"],
        ["shared by all sensors", NOTHING, NOTHING, "300 B", "30 B", "900 B", "90 B"],
        ["tasks and replies", "10 B", "5 B", "10 B", "5 B", "50 B", "25 B"],
        ["all", "310 B", "35 B", "610 B", "60 B", "2.45 kB", "250 B"],
    ]


@pytest.mark.parametrize(("bits", "how"), [(32, "Updates go up as they are."), (4, "Updates go up in 4 bits a value, and")])
def test_the_sentences_say_what_it_took(bits: int, how: str):
    found = communication_of(ROUNDS)
    assert found is not None
    text = communication_in_words(found, bits)
    for part in ("2.45 kB down", "250 B up", "193 B a round and device", "90% of the last validation accuracy took 2.03 kB", how, "4.22"):
        assert part in text
    blind = dataclasses.replace(found, nearly_final_bytes=None)
    assert "validation" not in communication_in_words(blind, bits)


def test_a_whole_run_has_its_parts_in_the_models_order(make_run: MakeRun):
    found = communication_of(make_run().rounds)
    assert found is not None
    assert [each.part for each in found.training] == ["accelerometer", "gyroscope", FUSION, WORDS]
