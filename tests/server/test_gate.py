import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clmm_core.errors import ConfigError
from clmm_core.federated.arrays import FUSION, Arrays
from clmm_core.federated.individual import placed
from clmm_core.federated.messages import DeviceTraining, HostUpdate
from clmm_core.federated.quantise import pack
from clmm_core.federated.robust import AggregationConfig, RuleName, aggregate
from clmm_core.report.records import Refusal
from server.gate import Expected, GateConfig, Quarantine, Update, admitted
from server.hosts import Answer

STRICT = GateConfig(norm_factor=10.0, clip=0.0, strikes=2, quarantine_rounds=3)
LEARNING: Arrays = {
    "modalities.acc.w": np.zeros((3, 4), np.float32),
    "modalities.gyro.w": np.zeros(5, np.float32),
    "fusion.b": np.zeros(2, np.float32),
}
EXPECTED = Expected(server_round=7, source="code", learning=LEARNING, most_windows=lambda device, part: 40, update_bits=32, is_folded=True)
NAN = math.nan


def update_of(seed: int, *parts: str) -> Arrays:
    random = np.random.default_rng(seed)
    wanted = parts or ("acc", "gyro", FUSION)
    names = {"acc": "modalities.acc.w", "gyro": "modalities.gyro.w", FUSION: "fusion.b"}
    return {names[part]: random.normal(size=LEARNING[names[part]].shape).astype(np.float32) for part in wanted}


def answer_of(device: str, arrays: Arrays, num_windows: int = 20) -> Answer:
    parts = {"modalities.acc.w": "acc", "modalities.gyro.w": "gyro", "fusion.b": FUSION}
    weights = {parts[name]: float(num_windows) for name in arrays if name in parts}
    row = DeviceTraining(device=device, num_windows=num_windows, loss=1.0)
    return Answer(HostUpdate(server_round=7, source="code", weights=weights, devices=(row,)), arrays, (device,))


def honest() -> list[Answer]:
    return [answer_of(device, update_of(seed)) for seed, device in enumerate("abcd")]


def with_reply(**changes: object) -> Callable[[Answer], Answer]:
    return lambda answer: replace(answer, reply=replace(answer.reply, **changes))


def with_row(**changes: object) -> Callable[[Answer], Answer]:
    return lambda answer: replace(answer, reply=replace(answer.reply, devices=(replace(answer.reply.devices[0], **changes),)))


def with_array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Answer], Answer]:
    return lambda answer: replace(answer, arrays={**answer.arrays, name: change(answer.arrays[name])})


def first_is(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        changed = values.copy()
        changed.flat[0] = value
        return changed

    return change


FAULTS: dict[str, tuple[Callable[[Answer], Answer], str]] = {
    "NaN": (with_array("fusion.b", first_is(NAN)), "'fusion.b': expected finite values, found NaN or infinity"),
    "infinity": (with_array("modalities.acc.w", first_is(math.inf)), "'modalities.acc.w': expected finite values"),
    "shape": (with_array("fusion.b", lambda v: v[:1]), r"'fusion.b': expected float32 \[2\], found float32 \[1\]"),
    "rank": (with_array("modalities.acc.w", np.ravel), r"expected float32 \[3, 4\], found float32 \[12\]"),
    "dtype": (with_array("fusion.b", lambda v: v.astype(np.float64)), r"expected float32 \[2\], found float64 \[2\]"),
    "missing key": (
        lambda answer: replace(answer, arrays={n: v for n, v in answer.arrays.items() if n != "modalities.gyro.w"}),
        "found no 'modalities.gyro.w'",
    ),
    "extra key": (lambda answer: replace(answer, arrays={**answer.arrays, "x": np.zeros(1, np.float32)}), "found also 'x'"),
    "100 MB": (lambda answer: replace(answer, arrays={**answer.arrays, "x": np.zeros(25_000_000, np.float32)}), "found also 'x'"),
    "examples -5": (with_row(num_windows=-5), "expected 1 to 40 windows of device e, as its profile says, found -5"),
    "examples 0": (with_row(num_windows=0), "found 0"),
    "examples 1e9": (with_row(num_windows=10**9), "found 1000000000"),
    "weight 1e9": (with_reply(weights={"acc": 1e9, "gyro": 20.0, FUSION: 20.0}), "expected a weight of part 'acc' above 0 and at most 40"),
    "weight NaN": (with_reply(weights={"acc": NAN, "gyro": 20.0, FUSION: 20.0}), "found nan"),
    "weight 0": (with_reply(weights={"acc": 0.0, "gyro": 20.0, FUSION: 20.0}), "found 0"),
    "weight -1": (with_reply(weights={"acc": -1.0, "gyro": 20.0, FUSION: 20.0}), "found -1"),
    "no weight": (with_reply(weights={}), "expected the weight of a part of the model, found none"),
    "weight of another part": (
        with_reply(weights={"acc": 20.0, "gyro": 20.0, FUSION: 20.0, "mag": 20.0}),
        "expected weights of 'acc', 'fusion.', 'gyro', found also of 'mag'",
    ),
    "loss NaN": (with_row(loss=NAN), "expected a finite loss of device e, found nan"),
    "replay": (with_reply(server_round=6), "expected a reply to round 7, found one to round 6"),
    "other code": (with_reply(source="else"), "expected client code code, found 'else'"),
    "another's device": (with_row(device="a"), "expected devices it was asked about, found 'a'"),
    "100 x norm": (
        lambda answer: replace(answer, arrays={n: 100 * v for n, v in answer.arrays.items()}),
        "times as long as the round's median",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_update_is_refused_and_named_and_the_others_count(fault: str) -> None:
    change, reason = FAULTS[fault]
    usable, refusals = admitted([*honest(), change(answer_of("e", update_of(9)))], EXPECTED, STRICT)
    assert [update.names for update in usable] == [("a",), ("b",), ("c",), ("d",)]
    assert [refusal.devices for refusal in refusals] == [("e",)]
    assert re.search(reason, refusals[0].reason), refusals[0].reason


@pytest.mark.parametrize("mixing", [True, False])
@pytest.mark.parametrize("rule", get_args(RuleName))
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_one_device_sends_each_rule_gives_what_it_gives_of_the_others(fault: str, rule: RuleName, mixing: bool) -> None:
    others = [*honest(), answer_of("f", update_of(7))]
    config = AggregationConfig(rule=rule, mixing=mixing, byzantine_share=0.2)
    alone, combined = (
        aggregate([(each.arrays, each.weights) for each in admitted(answers, EXPECTED, STRICT)[0]], config)
        for answers in (others, [*others, FAULTS[fault][0](answer_of("e", update_of(9)))])
    )
    assert combined.keys() == LEARNING.keys()
    for name, values in combined.items():
        assert np.isfinite(values).all()
        np.testing.assert_array_equal(values, alone[name])


def test_honest_updates_all_count_as_they_are() -> None:
    answers = honest()
    usable, refusals = admitted(answers, EXPECTED, STRICT)
    assert not refusals
    assert [update.host for update in usable] == [0, 1, 2, 3]
    assert all(update.arrays is answer.arrays for update, answer in zip(usable, answers, strict=True))


def test_a_device_without_a_modality_sends_no_arrays_of_it() -> None:
    usable, refusals = admitted([*honest(), answer_of("e", update_of(5, "acc", FUSION))], EXPECTED, STRICT)
    assert not refusals
    assert set(usable[-1].weights) == {"acc", FUSION}


def test_a_device_counts_once_a_round() -> None:
    again = answer_of("a", update_of(8))
    usable, refusals = admitted([*honest(), again], EXPECTED, STRICT)
    assert len(usable) == 4
    assert refusals == [Refusal(devices=("a",), reason="expected a device's update once a round, found a second one of 'a'")]


def test_a_device_cannot_stand_twice_in_one_update() -> None:
    answer = honest()[0]
    rows = answer.reply.devices * 2
    usable, refusals = admitted([replace(answer, reply=replace(answer.reply, devices=rows))], EXPECTED, STRICT)
    assert not usable
    assert "found a second one of 'a'" in refusals[0].reason


def test_of_devices_trained_as_one_some_may_have_nothing_to_learn_from():
    answer = answer_of("a", update_of(0))
    rows = (*answer.reply.devices, DeviceTraining(device="b", num_windows=0, loss=1.0))
    pooled = replace(answer, reply=replace(answer.reply, devices=rows), devices=("a", "b"))
    assert not admitted([pooled], EXPECTED, STRICT)[1]
    assert (
        "found -1"
        in admitted([replace(pooled, reply=replace(pooled.reply, devices=(rows[0], replace(rows[1], num_windows=-1))))], EXPECTED, STRICT)[
            1
        ][0].reason
    )


def test_an_update_grows_with_the_windows_it_is_of() -> None:
    many = answer_of("e", {name: 12 * values for name, values in update_of(5).items()}, num_windows=36)
    few = [answer_of(device, update_of(seed), num_windows=1) for seed, device in enumerate("abcd")]
    assert not admitted([*few, many], EXPECTED, STRICT)[1]  # 12 times as long, but of 36 times the windows
    assert admitted([*honest(), many], EXPECTED, replace(STRICT, norm_factor=5.0))[1]


def test_of_two_updates_nobody_knows_which_is_too_long() -> None:
    long = answer_of("e", {name: 100 * values for name, values in update_of(5).items()})
    assert not admitted([honest()[0], long], EXPECTED, STRICT)[1]
    assert not admitted([*honest(), long], EXPECTED, replace(STRICT, norm_factor=0.0))[1]


def test_updates_of_nothing_are_no_reason_to_refuse_another() -> None:
    still = [answer_of(device, {name: 0 * values for name, values in update_of(0).items()}) for device in "abc"]
    assert len(admitted([*still, answer_of("e", update_of(5))], EXPECTED, STRICT)[0]) == 4


def test_a_clip_shortens_what_is_longer_and_leaves_the_rest() -> None:
    arrays = update_of(1)
    length = math.sqrt(sum(float((values.astype(float) ** 2).sum()) for values in arrays.values()))
    half, whole = (admitted([answer_of("a", arrays)], EXPECTED, replace(STRICT, clip=share * length))[0][0] for share in (0.5, 1.1))
    for name, values in arrays.items():
        np.testing.assert_allclose(half.arrays[name], 0.5 * values, rtol=1e-6)
        np.testing.assert_array_equal(whole.arrays[name], values)


def test_packed_updates_go_through_the_same_gate() -> None:
    packed_expected = replace(EXPECTED, update_bits=8)
    random = np.random.default_rng(0)
    answers = [answer_of(device, update_of(seed)) for seed, device in enumerate("abcd")]
    packed = [replace(answer, arrays=pack(answer.arrays, 8, random)) for answer in answers]
    cut = replace(packed[3], arrays={name: data[:-2] for name, data in packed[3].arrays.items()})
    usable, refusals = admitted([*packed[:3], cut], packed_expected, STRICT)
    assert [update.names for update in usable] == [("a",), ("b",), ("c",)]
    assert refusals[0].devices == ("d",)
    assert "cannot be read" in refusals[0].reason


def test_each_device_by_itself_where_hosts_do_not_fold() -> None:
    rows = tuple(DeviceTraining(device=device, num_windows=20, loss=1.0, weights={"acc": 20.0}) for device in "abc")
    arrays = placed([update_of(seed, "acc") for seed in range(2)] + [{"modalities.acc.w": np.full((3, 4), NAN, np.float32)}])
    answer = Answer(HostUpdate(server_round=7, source="code", weights={}, devices=rows), arrays, ("a", "b", "c"))
    usable, refusals = admitted([answer], replace(EXPECTED, is_folded=False), STRICT)
    assert [update.names for update in usable] == [("a",), ("b",)]
    assert [refusal.devices for refusal in refusals] == [("c",)]


@given(st.lists(st.sampled_from(sorted(FAULTS)), max_size=5))
def test_whatever_some_send_the_others_count_and_all_is_finite(faults: list[str]) -> None:
    bad = [FAULTS[fault][0](answer_of("e", update_of(20 + i))) for i, fault in enumerate(faults)]
    usable, _ = admitted([*honest(), *bad], EXPECTED, STRICT)
    assert {"a", "b", "c", "d"} == {name for update in usable for name in update.names}
    assert all(np.isfinite(values).all() for update in usable for values in update.arrays.values())


def test_too_many_refusals_leave_a_device_out_for_some_rounds() -> None:
    quarantine = Quarantine(STRICT)
    refusal = Refusal(devices=("e",), reason="NaN")
    assert quarantine.strike([refusal], 4) == []
    assert not quarantine.holds("e", 5)
    assert quarantine.strike([refusal], 6) == ["e"]
    assert [n for n in range(7, 12) if quarantine.holds("e", n)] == [7, 8, 9]
    assert quarantine.strike([refusal], 10) == []  # it begins anew


@pytest.mark.parametrize("changes", [{"norm_factor": -1.0}, {"clip": NAN}])
def test_values_out_of_range_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected 0 or more"):
        replace(STRICT, **changes)


def test_an_update_knows_its_devices() -> None:
    row = DeviceTraining(device="a", num_windows=1, loss=0.0)
    assert Update(host=0, arrays={}, weights={}, devices=(row, replace(row, device="b"))).names == ("a", "b")
