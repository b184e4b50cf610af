import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clmm_core.data.fleet import DataConfig
from clmm_core.errors import ConfigError, RoundFailedError
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.individual import placed
from clmm_core.federated.messages import DeviceProfile, DeviceTraining, HostProfile, HostUpdate, LeftOut, ModalityProfile
from clmm_core.federated.quantise import pack
from clmm_core.federated.robust import AggregationConfig
from clmm_core.federated.server_optimizer import ServerOptimizerConfig
from clmm_core.federated.source import client_source
from clmm_core.federated.traffic import WORDS
from clmm_core.models.config import ModalityShape, ModelChoice, sized
from clmm_core.report.records import Refusal, RoundRecord, RunInfo, Split
from clmm_core.report.run_folder import RunFolder, read_rounds
from server.availability import Availability
from server.directory import Directory
from server.gate import GateConfig, Quarantine
from server.hosts import Answer, Enough, Question
from server.rounds import TrainingStage, choose_devices, decayed, train_stage
from server.run import Run
from server.run_config import StageConfig, parse_run_config

STAGE = StageConfig(rounds=4, participation=1.0, decay="none", server=ServerOptimizerConfig())
DEVICES = ("a", "b", "c")
NAN = float("nan")


@dataclass
class TrainingHosts:
    """A host a device; each answers with the update it is told, `None` for a device its host left out, and a loss of 2."""

    updates: dict[str, float | None]
    failing: dict[str, str] = field(default_factory=dict)
    cohorts: list[tuple[str, ...]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    sent: list[Arrays] = field(default_factory=list)
    num_recovered: int = 0
    bits: int = 32
    """Below 32 updates are packed, and that of device "z" is cut off."""
    shares_data: bool = True
    closing: list[bool] = field(default_factory=list)
    """Whether each question said when it had enough."""
    is_folded: bool = True
    """Else each host sends two updates by themselves, the second ten times the first at a third of its weight; "z" misnames them."""

    def recover(self) -> None:
        self.num_recovered = self.num_recovered + 1

    def take_late(self) -> int:
        return 0

    def names(self) -> tuple[int, ...]:
        return tuple(range(len(self.updates)))

    def ask(
        self, message_type: str, questions: Mapping[int, Question], reply_kind: type, enough: Enough | None = None
    ) -> tuple[dict[int, Answer], dict[int, str]]:
        names = list(self.updates)
        if message_type == "query.profile":
            return {host: Answer(self._profile(names[host]), {}) for host in questions}, {}
        assert (message_type, reply_kind) == ("train.pretrain", HostUpdate)
        self.closing.append(enough is not None)
        self.cohorts.append(tuple(device for question in questions.values() for device in question.task[0]))
        self.rates += [question.task[1] for question in questions.values()]
        self.sent += [question.arrays for question in questions.values()]
        failures = {host: self.failing[names[host]] for host in questions if names[host] in self.failing}
        return {host: self._answer(names[host], question.task[2]) for host, question in questions.items() if host not in failures}, failures

    def _profile(self, name: str) -> HostProfile:
        owned = {"acc": ModalityProfile(channels=3, time_steps=32, num_windows=10, unit="m/s^2")}
        device = DeviceProfile(device=name, num_windows=10, modalities=owned, labelled_windows={})
        return HostProfile(
            source=client_source(),
            modalities=("acc",),
            window_s=1.0,
            shares_data=self.shares_data,
            devices=(device,) if self.is_folded else (device, replace(device, device=f"{name}2")),
        )

    def _answer(self, name: str, server_round: int) -> Answer:
        value, of_round = self.updates[name], {"server_round": server_round, "source": client_source()}
        if value is None:
            return Answer(HostUpdate(**of_round, weights={}, devices=(), left_out=(LeftOut(device=name, reason="too short"),)), {})
        trained = DeviceTraining(device=name, num_windows=10, loss=2.0)
        arrays = {"modalities.acc.w": np.full(2, value, np.float32)}
        if not self.is_folded:
            rows = (replace(trained, weights={"acc": 3.0}), replace(trained, device=f"{name}2", weights={"acc": 1.0}))
            both = placed([arrays, {"modalities.acc.w": np.full(2, 10 * value, np.float32)}])
            return Answer(HostUpdate(**of_round, weights={}, devices=rows), {"w": arrays["modalities.acc.w"]} if name == "z" else both)
        if self.bits < 32:
            packed = pack(arrays, self.bits, np.random.default_rng(0))
            arrays = {part: data[:-2] if name == "z" else data for part, data in packed.items()}
        return Answer(HostUpdate(**of_round, weights={"acc": 10.0}, devices=(trained,)), arrays)


@pytest.fixture
def make_run(tmp_path: Path, run_config) -> Callable[..., Run]:
    def make(hosts: TrainingHosts, min_reply_share: float = 0.5) -> Run:
        names = {"training": tuple(hosts.updates), "validation": (), "test": (), "labelled": (), "classes": ("x", "y")}
        return Run(
            info=RunInfo(name="run", run_config={}, versions={}, machine="", started_at=""),
            config=parse_run_config(
                run_config({"communication.update-bits": hosts.bits, "communication.host-aggregation": hosts.is_folded})
            ),
            directory=Directory(hosts, DataConfig(), min_reply_share),
            folder=RunFolder.create(tmp_path, "run"),
            report=lambda record: None,
            split=Split(seed=0, labels_per_class=1, label_unit="trial", **names),
            model=sized(ModelChoice(), (ModalityShape(name="acc", channels=3, time_steps=32),), 2),
            units={"acc": "m/s^2"},
            window_s=1.0,
            arrays={"modalities.acc.w": np.zeros(2, np.float32), "fusion.w": np.ones(1, np.float32)},
            started_s=0.0,
        )

    return make


def train(run: Run, config: StageConfig = STAGE, devices: tuple[str, ...] = DEVICES, *, after: bool = False) -> tuple[RoundRecord, ...]:
    stage = TrainingStage(
        name="pretrain",
        config=config,
        devices=devices,
        starts_after=run.server_round,
        work=lambda device: 3,
        most_windows=lambda device: device.num_windows,
        learning_rate=0.5,
        task_for=lambda here, rate: (here, rate, run.server_round),
        travels=lambda name: name.startswith("modalities."),
        learns=lambda name: name.endswith(".w"),
        after_round=lambda: ({"validation_accuracy": 0.5}, ["validation: one is away"] if after else []),
    )
    train_stage(run, stage)
    return tuple(run.rounds)


@given(
    seed=st.integers(0, 2**40),
    server_round=st.integers(1, 10_000),
    count=st.integers(1, 8),
    order=st.permutations([f"d{i}" for i in range(8)]),
)
def test_the_cohort_depends_on_seed_and_round_only(seed: int, server_round: int, count: int, order: list[str]):
    cohort = choose_devices(tuple(order), count, seed, server_round)
    assert cohort == choose_devices(tuple(sorted(order)), count, seed, server_round)
    assert list(cohort) == sorted(set(cohort))
    assert len(cohort) == count


def test_every_device_gets_its_turn():
    devices = tuple(f"d{i}" for i in range(10))
    turns = [choose_devices(devices, 3, 0, server_round) for server_round in range(1, 201)]
    counts = [sum(device in turn for turn in turns) for device in devices]
    assert min(counts) > 35
    assert max(counts) < 85  # 60 expected
    assert turns != [choose_devices(devices, 3, 1, server_round) for server_round in range(1, 201)]


def test_a_learning_rate_stays_or_falls_by_half_a_cosine():
    assert [decayed(0.4, STAGE, n) for n in (1, 2, 3, 4)] == [0.4] * 4
    cosine = replace(STAGE, decay="cosine")
    by_hand = [0.4, 0.4 * (2 + math.sqrt(2)) / 4, 0.2, 0.4 * (2 - math.sqrt(2)) / 4]
    assert [decayed(0.4, cosine, n) for n in (1, 2, 3, 4)] == pytest.approx(by_hand)


def test_rounds_are_counted_recorded_and_applied(make_run):
    hosts = TrainingHosts({"a": 1.0, "b": 3.0, "c": 5.0})
    run = make_run(hosts)
    run.server_round = 7  # of a stage before
    rounds = train(run, replace(STAGE, rounds=2, decay="cosine"))
    assert [record.server_round for record in rounds] == [8, 9]
    for record in rounds:
        assert (record.stage, record.num_hosts, record.num_devices, record.num_windows, record.loss) == ("pretrain", 3, 3, 30, 2.0)
    assert run.arrays["modalities.acc.w"].tolist() == [6.0, 6.0], "the mean update 3, twice"
    assert run.arrays["fusion.w"].tolist() == [1.0]
    assert hosts.rates == [0.5] * 3 + [0.25] * 3
    assert all(set(sent) == {"modalities.acc.w"} for sent in hosts.sent)
    assert read_rounds(run.folder.partial) == rounds


def test_devices_that_drop_out_or_are_too_slow_are_not_asked_and_are_counted(make_run):
    hosts = TrainingHosts(dict.fromkeys("abcdefgh", 1.0))
    run = make_run(hosts)
    run.config = replace(run.config, availability=Availability(drop_out=0.3, speed_spread=1.0, windows_per_s=1.0, deadline_s=4.0))
    run.directory.refresh()
    rounds = train(run, devices=tuple("abcdefgh"))
    turnouts = [run.config.availability.turnout(dict.fromkeys("abcdefgh", 3), number, 8) for number in (1, 2, 3, 4)]
    assert hosts.cohorts == [turnout.present for turnout in turnouts]
    assert [(r.num_devices, r.num_dropped_out, r.num_stragglers) for r in rounds] == [
        (len(turnout.present), len(turnout.dropped_out), len(turnout.stragglers)) for turnout in turnouts
    ]
    assert len({record.num_dropped_out for record in rounds}) > 1
    assert len({turnout.stragglers for turnout in turnouts}) > 1, "a slow device that dropped out is no straggler"
    assert [record.simulated_s for record in rounds] == [4.0] * 4
    assert [record.left_out for record in rounds] == [()] * 4, "a count, whatever their number"


def test_a_deadline_that_nobody_can_keep_ends_the_run_before_its_rounds(make_run):
    run = make_run(TrainingHosts(dict.fromkeys("ab", 1.0)))
    run.config = replace(run.config, availability=Availability(windows_per_s=1.0, deadline_s=2.0))
    run.directory.refresh()
    with pytest.raises(ConfigError, match=r"pretrain: expected at most 2 s a round, but the fastest of 2 device\(s\) needs 3: raise"):
        train(run, devices=("a", "b"))
    assert run.rounds == []


def test_a_round_whose_whole_cohort_is_away_changes_nothing_and_the_next_goes_on(make_run):
    run = make_run(TrainingHosts(dict.fromkeys("ab", 1.0)))
    run.config = replace(run.config, availability=Availability(drop_out=0.6))
    rounds = train(run, replace(STAGE, rounds=8), devices=("a", "b"))
    assert [record.server_round for record in rounds] == list(range(1, 9))
    empty = [record for record in rounds if not record.num_devices]
    assert 0 < len(empty) < 8
    assert {(record.num_hosts, record.num_windows, record.loss, record.num_dropped_out) for record in empty} == {(0, 0, None, 2)}
    assert run.arrays["modalities.acc.w"].tolist() == [8.0 - len(empty)] * 2


def test_thousands_of_things_left_out_are_forty_lines_and_a_count(make_run):
    run = make_run(TrainingHosts({"a": 1.0}))
    run.ended("profile", 0.0, left_out=tuple(f"device {number}: noise" for number in range(5000)))
    assert len(run.rounds[0].left_out) == 41
    assert run.rounds[0].left_out[-1] == "and 4,960 more of this kind"


def test_a_stage_asks_the_cohort_it_chose(make_run):
    hosts = TrainingHosts(dict.fromkeys("abcdef", 1.0))
    run = make_run(hosts)
    train(run, replace(STAGE, participation=0.5), devices=tuple("abcde"))
    assert hosts.cohorts == [choose_devices(tuple("abcde"), 2, run.config.seed, n) for n in (1, 2, 3, 4)]
    assert {len(cohort) for cohort in hosts.cohorts} == {2}
    assert [record.num_devices for record in run.rounds] == [2] * 4


def test_what_a_stage_measures_after_a_round_is_recorded_with_it(make_run):
    (record,) = train(make_run(TrainingHosts({"a": None, "b": 1.0})), replace(STAGE, rounds=1), ("a", "b"), after=True)
    assert record.validation_accuracy == 0.5
    assert record.left_out == ("device 'a': too short", "validation: one is away")


def test_no_rounds_change_nothing(make_run):
    run = make_run(TrainingHosts({"a": 1.0}))
    assert train(run, replace(STAGE, rounds=0), ("a",)) == ()
    assert run.arrays["modalities.acc.w"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
def test_an_update_that_is_not_finite_is_refused_and_named_and_the_others_count(make_run, bad: float):
    run = make_run(TrainingHosts({"a": 1.0, "b": bad, "c": 3.0}))
    (record,) = train(run, replace(STAGE, rounds=1))
    reason = "'modalities.acc.w': expected finite values, found NaN or infinity"
    assert record.left_out == (f"the host of device(s) 'b' sent an update that was refused: {reason}",)
    assert record.refused == (Refusal(devices=("b",), reason=reason),)
    assert (record.num_hosts, record.num_devices, record.num_windows) == (2, 2, 20)
    assert run.arrays["modalities.acc.w"].tolist() == [2.0, 2.0]
    assert run.notes == list(record.left_out)


def test_packed_updates_are_unpacked_and_one_that_cannot_be_is_refused_and_named(make_run):
    run = make_run(TrainingHosts({"a": 1.0, "b": 5.0, "z": 100.0}, bits=8))
    (record,) = train(run, replace(STAGE, rounds=1), ("a", "b", "z"))
    assert run.arrays["modalities.acc.w"].tolist() == pytest.approx([3.0, 3.0], rel=0.01)
    assert (record.num_hosts, record.num_devices) == (2, 2)
    (reason,) = record.left_out
    assert reason.startswith(
        "the host of device(s) 'z' sent an update that was refused: an update that cannot be read: 'modalities.acc.packed'"
    )


def test_updates_that_hosts_do_not_fold_are_averaged_and_refused_one_by_one(make_run):
    """Of "a" 1 with weight 3 and 10 with weight 1; of "b" neither is finite; what "z" sent is nobody's."""
    run = make_run(TrainingHosts({"a": 1.0, "b": NAN, "z": 5.0}, is_folded=False))
    (record,) = train(run, replace(STAGE, rounds=1), ("a", "a2", "b", "b2", "z", "z2"))
    assert run.arrays["modalities.acc.w"].tolist() == pytest.approx([13 / 4, 13 / 4])
    assert (record.num_hosts, record.num_devices, record.num_windows) == (1, 2, 20)
    assert [each.devices for each in record.refused] == [("b",), ("b2",), ("z", "z2")]
    assert "an update that cannot be read: expected arrays whose names end with @" in record.refused[2].reason


def test_a_device_that_sends_nonsense_twice_is_left_out_for_some_rounds(make_run):
    run = make_run(TrainingHosts({"a": 1.0, "b": NAN, "c": 3.0}))
    run.quarantine = Quarantine(GateConfig(norm_factor=10.0, clip=0.0, strikes=2, quarantine_rounds=3))
    rounds = train(run, replace(STAGE, rounds=7))
    assert [[each.devices for each in record.refused] for record in rounds] == [[("b",)]] * 2 + [[]] * 3 + [[("b",)]] * 2
    assert [record.quarantined for record in rounds] == [()] * 2 + [("b",)] * 3 + [()] * 2
    assert "device(s) 'b' in quarantine until round 12" in rounds[1].left_out[1]  # as its own configuration says
    assert [record.num_devices for record in rounds] == [2] * 7


def test_without_anybody_outside_quarantine_the_run_ends(make_run):
    run = make_run(TrainingHosts({"a": 1.0}))
    run.quarantine.until = {"a": 1}
    with pytest.raises(RoundFailedError, match="pretrain: every device is in quarantine"):
        train(run, devices=("a",))


def test_the_bytes_of_a_round_are_in_its_record(make_run):
    """Three hosts, each sent one array of two numbers and sending one back, refused or not."""
    rounds = train(make_run(TrainingHosts({"a": 1.0, "b": NAN, "c": 3.0})), replace(STAGE, rounds=2))
    assert [[each.message for each in record.traffic] for record in rounds] == [["query.profile", "train.pretrain"], ["train.pretrain"]]
    for record in rounds:
        sent = record.traffic[-1]
        assert (sent.down["acc"], sent.up["acc"]) == (3 * 8, 3 * 8)
        assert set(sent.down) == set(sent.up) == {"acc", WORDS}


def test_devices_and_hosts_that_did_not_count_are_named_once_in_the_notes(make_run):
    hosts = TrainingHosts({"a": None, "b": 4.0, "c": 1.0}, failing={"c": "Traceback\nKeyError: 'x'"})
    run = make_run(hosts)
    rounds = train(run, replace(STAGE, rounds=2))
    expected = ("train.pretrain: host 2 with device(s) 'c' did not answer: KeyError: 'x'", "device 'a': too short")
    assert [record.left_out for record in rounds] == [expected, expected]
    assert run.notes == list(expected)
    assert [(record.num_hosts, record.num_devices) for record in rounds] == [(1, 1), (1, 1)]
    assert run.arrays["modalities.acc.w"].tolist() == [8.0, 8.0]


def test_a_round_in_which_nothing_counts_is_taken_again_and_then_ends_the_run_and_says_why(make_run):
    hosts = TrainingHosts({"a": NAN, "b": None, "c": NAN})
    run = make_run(hosts)
    with pytest.raises(
        RoundFailedError, match=r"pretrain, round 1: no device could be trained; device 'b': too short; .*'a'.*; .*'c'.*tried 3 times"
    ):
        train(run)
    assert (len(hosts.cohorts), hosts.num_recovered) == (3, 2)
    assert run.rounds == []
    assert run.arrays["modalities.acc.w"].tolist() == [0.0, 0.0]


def test_too_few_answers_end_the_run(make_run):
    run = make_run(TrainingHosts(dict.fromkeys("abc", 1.0), failing={"a": "gone", "b": "gone"}), min_reply_share=0.6)
    with pytest.raises(RoundFailedError, match=r"at least 60% of 3 host\(s\), found 1: gone"):
        train(run)


def test_the_order_in_which_hosts_are_listed_changes_no_bit(make_run, tmp_path: Path):
    values = {"a": 0.1, "b": 0.2, "c": 0.3}  # whose sum depends on the order
    first = make_run(TrainingHosts(values))
    train(first)
    first.folder.discard()
    second = make_run(TrainingHosts(dict(reversed(values.items()))))
    train(second)
    assert np.array_equal(first.arrays["modalities.acc.w"], second.arrays["modalities.acc.w"])


def test_a_round_that_too_few_answer_is_taken_again_and_ends_as_if_they_had(make_run):
    """Two of three hosts fail the first time."""

    class Recovering(TrainingHosts):
        def recover(self) -> None:
            super().recover()
            self.failing.clear()

    hosts = Recovering({"a": 1.0, "b": 3.0, "c": 5.0}, failing={"a": "gone", "b": "gone"})
    run = make_run(hosts, min_reply_share=0.6)
    rounds = train(run, replace(STAGE, rounds=2))
    assert [(record.server_round, record.num_devices, record.num_repeats) for record in rounds] == [(1, 3, 1), (2, 3, 0)]
    assert run.arrays["modalities.acc.w"].tolist() == [6.0, 6.0]
    assert hosts.num_recovered == 1
    assert run.notes == ["taken again: train.pretrain: expected answers of at least 60% of 3 host(s), found 1: gone"]


def test_a_run_that_ends_says_how_to_go_on_with_what_is_kept(make_run):
    hosts = TrainingHosts(dict.fromkeys("abc", 1.0))
    run = make_run(hosts)
    run.config, run.keeps_checkpoints = replace(run.config, quorum=3, round_retries=0), True
    train(run, replace(STAGE, rounds=1))
    hosts.failing["a"] = "gone"
    with pytest.raises(RoundFailedError) as caught:
        train(run)
    assert "expected updates of at least 3 devices (quorum), found 2" in str(caught.value)
    assert str(caught.value).endswith(f". What was learned is kept: clmm run --resume {run.folder.partial}")


def test_where_devices_may_fail_more_are_asked_than_are_waited_for(make_run):
    hosts = TrainingHosts(dict.fromkeys("abcdefghij", 1.0), shares_data=False)
    run = make_run(hosts)
    run.directory.refresh()
    train(run, replace(STAGE, participation=0.5), devices=tuple("abcdefghij"))
    assert hosts.cohorts == [choose_devices(tuple("abcdefghij"), 7, run.config.seed, n) for n in (1, 2, 3, 4)], "130 % of 5"
    assert hosts.closing == [True] * 4
    train(run, replace(STAGE, rounds=1), devices=tuple("abcdefghij"))
    assert (len(hosts.cohorts[-1]), hosts.closing[-1]) == (10, False), "there are no more than all"


def test_of_a_simulated_fleet_more_are_drawn_and_the_first_take_part(make_run):
    hosts = TrainingHosts(dict.fromkeys("abcdefghij", 1.0))
    run = make_run(hosts)
    run.config = replace(run.config, availability=Availability(speed_spread=1.0))
    run.directory.refresh()
    rounds = train(run, replace(STAGE, participation=0.5), devices=tuple("abcdefghij"))
    assert [record.num_devices for record in rounds] == [5] * 4
    for number, cohort in enumerate(hosts.cohorts, 1):
        drawn = choose_devices(tuple("abcdefghij"), 7, run.config.seed, number)
        assert set(cohort) < set(drawn)
        slowest = min(run.config.availability.speed(device) for device in cohort)
        assert all(run.config.availability.speed(device) < slowest for device in set(drawn) - set(cohort))
    assert hosts.closing == [False] * 4, "who is late is known before anybody is asked"


MEDIAN = AggregationConfig(rule="median", mixing=False, byzantine_share=0.4)


def test_a_rule_that_compares_devices_is_used_in_every_round(make_run):
    hosts = TrainingHosts({"a": 1.0, "b": 3.0, "c": 5.0})
    run = make_run(hosts)
    run.config = replace(run.config, aggregation=MEDIAN, gate=replace(run.config.gate, norm_factor=0.0))
    run.directory.refresh()
    train(run, replace(STAGE, rounds=1))
    hosts.updates["c"] = 1e6
    train(run, replace(STAGE, rounds=1))
    assert run.arrays["modalities.acc.w"].tolist() == [6.0, 6.0]


def test_a_rule_whose_assumption_no_round_can_meet_is_refused_before_the_first(make_run):
    hosts = TrainingHosts(dict.fromkeys("abcd", 1.0))
    run = make_run(hosts)
    run.config = replace(run.config, aggregation=MEDIAN)
    run.directory.refresh()
    with pytest.raises(ConfigError, match=r"aggregation.rule: pretrain: part 'acc': median expects at least 3 devices .* found 2"):
        train(run, replace(STAGE, participation=0.5), devices=tuple("abcd"))
    assert hosts.cohorts == []


def test_a_round_with_too_few_devices_for_the_rule_is_taken_again_and_then_ends_the_run(make_run):
    hosts = TrainingHosts(dict.fromkeys("abc", 1.0), failing={"a": "gone"})
    run = make_run(hosts)
    run.config = replace(run.config, aggregation=MEDIAN)
    run.directory.refresh()
    with pytest.raises(RoundFailedError, match=r"round 1: part 'acc': median expects at least 3 devices .* found 2.*tried 3 times"):
        train(run)
    assert hosts.num_recovered == 2
