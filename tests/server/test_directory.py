from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clmm_core.data.fleet import DataConfig
from clmm_core.errors import CodeMismatchError, ConfigError, DataError, RoundFailedError
from clmm_core.federated.arrays import FUSION
from clmm_core.federated.messages import DeviceProfile, HostProfile, LeftOut, ModalityProfile
from clmm_core.federated.source import client_source
from clmm_core.federated.traffic import WORDS, word_bytes
from clmm_core.training.tasks import ProfileTask
from server.directory import Directory
from server.hosts import Answer, Enough, Question

ACCELEROMETER = ModalityProfile(channels=3, time_steps=64, num_windows=4, unit="m/s^2")


def device(name: str, **modalities: ModalityProfile) -> DeviceProfile:
    return DeviceProfile(device=name, num_windows=4, modalities=modalities or {"accelerometer": ACCELEROMETER}, labelled_windows={})


def serves(*devices: str | DeviceProfile, left_out: tuple[LeftOut, ...] = ()) -> HostProfile:
    profiles = tuple(device(each) if isinstance(each, str) else each for each in devices)
    modalities = tuple(dict.fromkeys(name for profile in profiles for name in profile.modalities))
    return HostProfile(source=client_source(), modalities=modalities, window_s=1.28, devices=profiles, left_out=left_out)


@dataclass
class FakeHosts:
    """Hosts by id; those in `failing` do not answer, for the reason there. Replies are the devices asked about."""

    profiles: dict[int, HostProfile]
    failing: dict[int, str] = field(default_factory=dict)
    asked: list[tuple[str, int, Any]] = field(default_factory=list)
    num_recovered: int = 0

    def recover(self) -> None:
        self.num_recovered = self.num_recovered + 1

    def take_late(self) -> int:
        return 0

    def names(self) -> tuple[int, ...]:
        return tuple(sorted(self.profiles))

    def ask(
        self, message_type: str, questions: Mapping[int, Question], reply_kind: type, enough: Enough | None = None
    ) -> tuple[dict[int, Answer], dict[int, str]]:
        del reply_kind
        self.asked += [(message_type, host, question.task) for host, question in questions.items()]
        failures = {host: self.failing[host] for host in questions if host in self.failing}
        replies = {h: self.profiles[h] if message_type == "query.profile" else q.task for h, q in questions.items() if h not in failures}
        return {host: Answer(reply, {}) for host, reply in replies.items()}, failures

    def profiled(self) -> list[int]:
        return [host for message_type, host, _ in self.asked if message_type == "query.profile"]


def directory(hosts: FakeHosts, min_reply_share: float = 0.5) -> Directory:
    return Directory(hosts, DataConfig(name="synthetic"), min_reply_share)


def ask(asked: Directory, *devices: str) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return which devices each answer is about, and what did not count."""
    answers, left_out = asked.ask("train.pretrain", devices, lambda here: here, {}, tuple)
    return [answer.reply for answer in answers], left_out


def test_each_host_is_asked_about_its_own_devices_only():
    hosts = FakeHosts({1: serves("a", "c"), 2: serves("b", "d"), 3: serves()})
    assert ask(directory(hosts), "a", "b", "c") == ([("a", "c"), ("b",)], [])
    assert {host for _, host, _ in hosts.asked if host == 3} == {3}, "profiled, and then not asked"
    assert len(hosts.asked) == 5


def sharing(*devices: DeviceProfile) -> HostProfile:
    return replace(serves(*devices), shares_data=True)


def test_hosts_that_share_their_data_are_asked_about_equally_many_windows():
    large, small = ([replace(device(name), num_windows=size) for name in names] for names, size in (("ace", 30), ("bdf", 10)))
    hosts = FakeHosts({1: sharing(*large), 2: sharing(*small), 3: serves("g")})
    asked = directory(hosts)
    assert ask(asked, *"abcdefg") == ([("a", "e"), ("b", "c", "d", "f"), ("g",)], [])
    assert ask(asked, "a", "c", "g") == ([("a",), ("c",), ("g",)], []), "also those of a cohort that are all in one host's profile"
    assert ask(asked, "a", "g") == ([("a",), ("g",)], []), "nobody is asked about nothing"


def test_a_device_that_only_a_host_that_left_had_profiled_is_not_asked_about():
    hosts = FakeHosts({1: sharing(device("a")), 2: sharing(device("b"))})
    asked = directory(hosts)
    ask(asked, "a", "b")
    del hosts.profiles[2]
    assert ask(asked, "a", "b") == ([("a",)], ["train.pretrain: device 'b': no connected host serves it"])


def test_a_host_is_profiled_once():
    hosts = FakeHosts({1: serves("a"), 2: serves("b")})
    asked = directory(hosts)
    for _ in range(3):
        ask(asked, "a", "b")
    assert hosts.profiled() == [1, 2]


def test_devices_and_hosts_as_profiled():
    asked = directory(FakeHosts({5: serves("b", "a"), 4: serves("c"), 9: serves()}))
    asked.refresh()
    assert list(asked.devices) == ["a", "b", "c"]
    assert asked.num_hosts == 2


def test_hosts_come_and_go_between_questions():
    hosts = FakeHosts({1: serves("a"), 2: serves("b")})
    asked = directory(hosts)
    assert ask(asked, "a", "b", "c") == ([("a",), ("b",)], ["train.pretrain: device 'c': no connected host serves it"])
    del hosts.profiles[1]
    hosts.profiles[3] = serves("c")
    assert ask(asked, "a", "b", "c") == ([("b",), ("c",)], ["train.pretrain: device 'a': no connected host serves it"])
    assert list(asked.devices) == ["b", "c"]
    hosts.profiles[1] = serves("a")
    assert ask(asked, "a", "b", "c") == ([("a",), ("b",), ("c",)], [])
    assert hosts.profiled() == [1, 2, 3, 1]


def test_a_host_that_restarts_has_another_id():
    hosts = FakeHosts({1: serves("a"), 2: serves("b")})
    asked = directory(hosts)
    ask(asked, "a", "b")
    hosts.profiles[77] = hosts.profiles.pop(1)
    assert ask(asked, "a", "b") == ([("a",), ("b",)], [])
    assert hosts.asked[-2] == ("train.pretrain", 77, ("a",))


def test_a_restarted_host_counts_from_the_start_of_its_new_id_while_flower_still_lists_the_old_one():
    """Flower notices that a SuperNode died only when its heartbeat lapses; until then both ids are there."""
    hosts = FakeHosts({1: serves("a"), 2: serves("b")})
    asked = directory(hosts)
    ask(asked, "a", "b")
    hosts.profiles[77] = serves("a")
    for _ in range(2):
        assert ask(asked, "a", "b") == ([("a",), ("b",)], [])
        assert hosts.asked[-2] == ("train.pretrain", 77, ("a",))
    assert hosts.profiled() == [1, 2, 77]
    assert asked.num_hosts == 2


def test_one_subject_on_two_hosts_is_refused():
    with pytest.raises(DataError, match="subject 'b' is served by both host 1 and host 2: give each subject one host"):
        directory(FakeHosts({1: serves("a", "b"), 2: serves("b")})).refresh()


def test_hosts_that_all_run_other_code_end_the_run_and_one_among_others_is_left_out():
    stranger = replace(serves("b"), source="0123456789abcdef")
    why = f"host 2 runs client code 0123456789abcdef, this server expects {client_source()}"
    with pytest.raises(CodeMismatchError, match=why + ".*install"):
        directory(FakeHosts({2: stranger})).refresh()
    mixed = directory(FakeHosts({1: serves("a"), 2: stranger}))
    assert ask(mixed, "a")[0] == [("a",)]
    (line,) = mixed.unanswered
    assert line.startswith(f"query.profile: host 2 did not answer: {why}")
    with pytest.raises(RoundFailedError, match=why):
        directory(FakeHosts({1: serves("a"), 2: stranger}), min_reply_share=0.6).refresh()


def test_hosts_of_enough_devices_are_enough():
    """The hosts say themselves whom they do not wait for; here 3 is late, and counts neither as an answer nor as a failure."""

    class Closing(FakeHosts):
        def ask(self, message_type, questions, reply_kind, enough=None):
            answers, failures = super().ask(message_type, questions, reply_kind)
            if enough is not None:
                assert [enough(hosts) for hosts in ((), (1,), (3,), (1, 2))] == [False, False, True, True]
                answers = {host: answers[host] for host in (1, 2)}
            return answers, failures

    asked = directory(Closing({1: serves("a"), 2: serves("b"), 3: serves("c", "d")}), min_reply_share=1.0)
    answers, left_out = asked.ask("train.pretrain", ("a", "b", "c", "d"), lambda here: here, {}, tuple, waits_for=2)
    assert ([answer.devices for answer in answers], left_out) == ([("a",), ("b",)], [])


def test_it_knows_whether_any_host_can_serve_any_device():
    asked = directory(FakeHosts({1: sharing(device("a")), 2: sharing(device("b"))}))
    asked.refresh()
    assert asked.shares_data
    asked = directory(FakeHosts({1: sharing(device("a")), 2: serves("b")}))
    asked.refresh()
    assert not asked.shares_data


def test_a_failing_host_is_named_with_its_devices_while_enough_answer():
    hosts = FakeHosts({1: serves("a", "c"), 2: serves("b")})
    asked = directory(hosts)
    asked.refresh()
    hosts.failing[1] = "Traceback:\n  File x\nMemoryError: out of memory"
    replies, left_out = ask(asked, "a", "b", "c")
    assert replies == [("b",)]
    assert left_out == ["train.pretrain: host 1 with device(s) 'a', 'c' did not answer: MemoryError: out of memory"]
    del hosts.failing[1]
    assert ask(asked, "a", "b") == ([("a",), ("b",)], [])


@pytest.mark.parametrize(
    ("share", "num_failing", "is_enough"), [(0.5, 2, True), (0.5, 3, False), (1.0, 1, False), (0.0, 3, True), (0, 4, False)]
)
def test_a_share_of_the_hosts_must_answer(share: float, num_failing: int, is_enough: bool):
    hosts = FakeHosts({i: serves(f"d{i}") for i in range(4)})
    asked = directory(hosts, share)
    asked.refresh()
    hosts.failing = {i: f"reason\nerror {i}" for i in range(num_failing)}
    if is_enough:
        assert len(ask(asked, *asked.devices)[0]) == 4 - num_failing
    else:
        expected = rf"train.pretrain: expected answers of at least {share:.0%} of 4 host\(s\), found {4 - num_failing}: .*error 0"
        with pytest.raises(RoundFailedError, match=expected):
            ask(asked, *asked.devices)


def test_too_few_profiles_are_an_error():
    hosts = FakeHosts({i: serves(f"d{i}") for i in range(4)}, failing=dict.fromkeys(range(3), "no app"))
    with pytest.raises(RoundFailedError, match=r"query.profile: expected answers of at least 50% of 4 host\(s\), found 1: no app"):
        directory(hosts).refresh()


def test_a_host_that_does_not_answer_at_first_is_named_and_asked_again():
    hosts = FakeHosts({1: serves("a"), 2: serves("b"), 3: serves("c")}, failing={3: "busy"})
    asked = directory(hosts)
    asked.refresh()
    assert list(asked.devices) == ["a", "b"]
    assert asked.left_out() == ["query.profile: host 3 did not answer: busy"]
    hosts.failing.clear()
    asked.refresh()
    assert list(asked.devices) == ["a", "b", "c"]
    assert asked.left_out() == []


def test_a_late_host_that_cannot_answer_is_named_and_does_not_end_the_run():
    hosts = FakeHosts({1: serves("a"), 2: serves("b")})
    asked = directory(hosts)
    asked.refresh()
    hosts.profiles[3], hosts.failing[3] = serves("c"), "busy"
    assert ask(asked, "a", "b") == ([("a",), ("b",)], ["query.profile: host 3 did not answer: busy"])


def test_devices_that_nobody_serves_any_more_are_an_error():
    hosts = FakeHosts({1: serves("a")})
    asked = directory(hosts)
    with pytest.raises(RoundFailedError, match=r"train\.pretrain: none of the 2 devices asked for is served by a connected host"):
        ask(asked, "x", "y")


@given(ids=st.permutations(range(100, 104)), failing=st.sets(st.integers(0, 3), max_size=2))
def test_nothing_depends_on_the_ids_of_hosts(ids: list[int], failing: set[int]):
    gyroscope = replace(ACCELEROMETER, unit="rad/s")
    profiles = [serves(device("d", gyroscope=gyroscope)), serves("a", "z"), serves("c"), serves("b")]
    hosts = FakeHosts(dict(zip(ids, profiles, strict=True)))
    asked = directory(hosts)
    asked.refresh()
    assert list(asked.modalities()) == ["accelerometer", "gyroscope"], "in the order of devices"
    hosts.failing = {ids[i]: "x" for i in failing}
    replies, left_out = ask(asked, "z", "d", "c", "b", "a")
    serving = [("d",), ("a", "z"), ("c",), ("b",)]
    assert replies == sorted(devices for i, devices in enumerate(serving) if i not in failing)
    assert [line.partition("device")[2] for line in left_out] == [
        f"(s) {', '.join(repr(name) for name in devices)} did not answer: x" for devices in sorted(serving[i] for i in failing)
    ]


def test_bytes_are_counted_of_all_that_is_asked_and_of_all_that_is_answered():
    """A host that does not answer was sent its question; two questions of a kind are one line until they are taken."""
    hosts = FakeHosts({1: serves("a"), 2: serves("b"), 3: serves("c", "d")}, failing={})
    asked = directory(hosts)
    asked.refresh()
    (profile,) = asked.take_traffic()
    assert (profile.message, profile.down) == ("query.profile", {WORDS: 3 * word_bytes(ProfileTask(data=DataConfig(name="synthetic")))})
    assert profile.up == {WORDS: sum(map(word_bytes, hosts.profiles.values()))}
    hosts.failing[2] = "gone"
    arrays = {"modalities.acc.w": np.zeros(5, np.float32), "primary.w": np.zeros((2, 2), np.float32)}
    for _ in range(2):
        asked.ask("train.pretrain", ("a", "b", "c", "d"), lambda here: here, arrays, tuple)
    (training,) = asked.take_traffic()
    assert training.message == "train.pretrain"
    assert training.down == {"acc": 2 * 3 * 20, FUSION: 2 * 3 * 16, WORDS: 2 * len('["a"]["b"]["c","d"]')}
    assert training.up == {WORDS: 2 * len('["a"]["c","d"]')}
    assert asked.take_traffic() == ()


def test_what_hosts_left_out_is_told_in_the_order_of_devices():
    late = serves("b", left_out=(LeftOut(device="z", reason="z is broken"), LeftOut(device="a", reason="a has NaN")))
    asked = directory(FakeHosts({1: late, 2: serves("c", left_out=(LeftOut(device="m", reason="m is short"),))}))
    asked.refresh()
    assert asked.left_out() == ["a has NaN", "m is short", "z is broken"]


def test_each_modality_has_an_owner():
    gyroscope = replace(ACCELEROMETER, channels=2, unit="rad/s")
    both = device("b", accelerometer=ACCELEROMETER, gyroscope=gyroscope)
    asked = directory(FakeHosts({1: serves("a"), 2: serves(both, device("c", gyroscope=gyroscope))}))
    asked.refresh()
    assert {name: owner.device for name, owner in asked.modalities().items()} == {"accelerometer": "a", "gyroscope": "b"}


@pytest.mark.parametrize("change", [{"channels": 6}, {"time_steps": 32}])
def test_devices_that_disagree_about_a_modality_cannot_share_an_encoder(change: dict[str, int]):
    other = replace(ACCELEROMETER, **change)
    asked = directory(FakeHosts({1: serves("a"), 2: serves(device("b", accelerometer=other))}))
    asked.refresh()
    expected = f"'accelerometer': device 'a' has windows of 3 channels x 64 samples, device 'b' of {other.channels} x {other.time_steps}"
    with pytest.raises(ConfigError, match=expected):
        asked.modalities()
