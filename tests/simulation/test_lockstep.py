import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clmm_core.errors import ConfigError
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.messages import HostProfile
from clmm_core.report.records import RunInfo, RunRecord
from clmm_core.report.run_folder import RunFolder
from clmm_core.training import together
from clmm_core.training.profile import profile_host
from clmm_core.training.tasks import ProfileTask
from server.federation import begin, run_federation
from server.hosts import Hosts, Question
from server.run_config import Value, parse_run_config
from simulation import lockstep as module
from simulation.in_process import InProcessHosts
from simulation.lockstep import Lockstep, LockstepHosts

CPU = torch.device("cpu")
Work = Callable[[LockstepHosts], None]
Asked = list[tuple[str, list[Any]]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Answer `double` and `square` of numbers, and write down which were asked together; 13 is bad luck for all."""
    seen: Asked = []

    def answering(name: str, work: Callable[[int], int]) -> Callable[..., list[tuple[int, Arrays]]]:
        def answer(questions: Sequence[tuple[int, Arrays]], device: torch.device) -> list[tuple[int, Arrays]]:
            seen.append((name, [number for number, _ in questions]))
            assert device == CPU
            if any(number == 13 for number, _ in questions):
                raise ConfigError("thirteen")
            return [(work(number), {"asked": np.array([number], np.float32)}) for number, _ in questions]

        return answer

    works = {"double": answering("double", lambda n: 2 * n), "square": answering("square", lambda n: n * n)}
    monkeypatch.setattr(module, "TOGETHER", works)
    return seen


def ask(hosts: Hosts, kind: str, number: int) -> int:
    answers, failures = hosts.ask(kind, {0: Question(number, {})}, int)
    assert failures == {}
    assert answers[0].arrays["asked"].tolist() == [number]
    return answers[0].reply


def doubling(start: int, rounds: int, heard: list[int]) -> Work:
    def work(hosts: LockstepHosts) -> None:
        number = start
        for _ in range(rounds):
            number = ask(hosts, "double", number)
        heard.append(number)

    return work


def test_works_that_ask_unequally_often_all_end_and_each_hears_its_own_answers(asked: Asked):
    heard: list[list[int]] = [[], [], [], []]
    Lockstep(CPU).run([doubling(i + 1, rounds, heard[i]) for i, rounds in enumerate((2, 0, 4, 1))])
    assert heard == [[4], [2], [48], [8]]
    assert asked == [("double", [1, 3, 4]), ("double", [2, 6]), ("double", [12]), ("double", [24])]


def test_nobody_asks_if_there_is_no_work(asked: Asked):
    Lockstep(CPU).run([])
    Lockstep(CPU).run([lambda hosts: None])
    assert asked == []


def test_questions_of_different_kinds_are_answered_apart(asked: Asked):
    heard: dict[int, int] = {}

    def work(number: int) -> Work:
        return lambda hosts: heard.update({number: ask(hosts, "square" if number % 2 else "double", number)})

    Lockstep(CPU).run([work(number) for number in (3, 4, 5, 6)])
    assert heard == {3: 9, 4: 8, 5: 25, 6: 12}
    assert asked == [("double", [4, 6]), ("square", [3, 5])]


def test_one_goes_on_at_a_time_always_in_the_same_order(asked: Asked):
    for _ in range(5):
        steps: list[tuple[int, int]] = []

        def work(i: int, rounds: int, steps: list[tuple[int, int]] = steps) -> Work:
            def go(hosts: LockstepHosts) -> None:
                for n in range(rounds):
                    steps.extend([(n, i)] * 3)
                    ask(hosts, "double", i)
                steps.append((rounds, i))

            return go

        Lockstep(CPU).run([work(0, 2), work(1, 1), work(2, 2)])
        in_turn = [[(0, i)] * 3 for i in range(3)] + [[(1, 0)] * 3, [(1, 1)], [(1, 2)] * 3, [(2, 0)], [(2, 2)]]
        assert steps == [step for each in in_turn for step in each]


@pytest.mark.parametrize("times", [1, 2])
def test_a_full_memory_is_emptied_once_and_then_says_what_to_do(monkeypatch: pytest.MonkeyPatch, times: int):
    """What earlier rounds kept may be all that fills it."""
    calls: list[str] = []

    def full(questions: Sequence[tuple[int, Arrays]], device: torch.device) -> list[tuple[int, Arrays]]:
        calls.append("work")
        if calls.count("work") <= times:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [(2 * number, {"asked": np.array([number], np.float32)}) for number, _ in questions]

    monkeypatch.setattr(module, "TOGETHER", {"double": full})
    monkeypatch.setattr(module, "forget", lambda: calls.append("forget"))
    heard: list[int] = []
    if times == 1:
        Lockstep(CPU).run([doubling(3, 1, heard)])
        assert heard == [6]
    else:
        with pytest.raises(ConfigError, match=r"cpu has no memory left for so many runs \(CUDA out of memory\).*fewer --jobs"):
            Lockstep(CPU).run([doubling(3, 1, heard)])
    assert calls[:3] == ["work", "forget", "work"]


def test_a_work_that_raises_stops_no_other_and_its_error_is_raised_after(asked: Asked):
    heard: list[int] = []

    def breaks(hosts: LockstepHosts) -> None:
        ask(hosts, "double", 1)
        raise ValueError("broke")

    with pytest.raises(ValueError, match="broke"):
        Lockstep(CPU).run([doubling(1, 3, heard), breaks, doubling(5, 2, heard)])
    assert heard == [20, 8]
    assert asked == [("double", [1, 1, 5]), ("double", [2, 10]), ("double", [4])]


def test_of_several_that_raise_the_first_is_heard(asked: Asked):
    def breaks(word: str) -> Work:
        def work(hosts: LockstepHosts) -> None:
            raise ValueError(word)

        return work

    with pytest.raises(ValueError, match="one"):
        Lockstep(CPU).run([breaks("one"), breaks("other")])


def test_an_error_of_the_answer_reaches_everyone_who_asked_together_and_nobody_else(asked: Asked):
    heard: list[Any] = []

    def hears(kind: str, number: int) -> Work:
        def work(hosts: LockstepHosts) -> None:
            try:
                ask(hosts, kind, number)
            except ConfigError as error:
                heard.append((number, str(error)))
            heard.append(ask(hosts, "double", number + 1))

        return work

    Lockstep(CPU).run([hears("double", 13), hears("double", 2), hears("square", 5)])
    assert heard == [(13, "thirteen"), (2, "thirteen"), 28, 6, 12]


def test_an_error_nobody_caught_ends_each_that_asked(asked: Asked):
    heard: list[int] = []
    with pytest.raises(ConfigError, match="thirteen"):
        Lockstep(CPU).run([doubling(13, 2, heard), doubling(2, 2, heard)])
    assert heard == []


def test_what_is_not_better_done_together_is_answered_at_once(run_config: Callable[..., dict[str, Value]], asked: Asked):
    data = parse_run_config(run_config(small=True)).data
    profiles: list[HostProfile] = []

    def work(hosts: LockstepHosts) -> None:
        assert hosts.names() == (0,)
        answers, _ = hosts.ask("query.profile", {0: Question(ProfileTask(data=data), {})}, HostProfile)
        profiles.append(answers[0].reply)

    Lockstep(CPU).run([work, work])
    names = tuple(f"device-{number:05d}" for number in range(6))
    assert profiles == [profile_host(ProfileTask(data=data), names, shares_data=True)] * 2
    assert asked == []


def test_no_thread_is_left(asked: Asked):
    before = set(threading.enumerate())
    Lockstep(CPU).run([doubling(1, 2, []) for _ in range(4)])
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)  # its last word was said: it is about to end
        assert not thread.is_alive()


TINY: dict[str, Value] = {
    "data.modalities": "accelerometer,gyroscope",
    "data.num-devices": 6,
    "data.window-s": 7.0,
    "split.num-test": 1,
    "labels.num-devices": 2,
    "model.embed": 16,
    "pretrain.batch-size": 8,
    "finetune.batch-size": 4,
    "report.points-per-device": 0,
    "personalise.per-class": 0,
}
"""12 windows a device, one of each activity and session; one device has no gyroscope."""
RUNS: tuple[dict[str, Value], ...] = (
    {},
    {"seed": 1, "model.fusion": "uniform", "finetune.rounds": 2, "finetune.lr": 0.01, "communication.update-bits": 4},
    {"pretrain.rounds": 0, "selftrain.rounds": 1, "selftrain.confidence": 0.3},
    {"client.pooled": True, "pretrain.contrast": "per-modality", "pretrain.rounds": 2},
)
"""Runs of unequal length, of the same and of other methods."""
Outcome = tuple[RunRecord, Arrays]


@pytest.fixture
def outcomes(run_config: Callable[..., dict[str, Value]], tmp_path: Path) -> Callable[..., list[Outcome]]:
    """Do whole runs: `outcomes(overrides of each, hosts)`, side by side unless hosts are given."""

    def federate(overrides: Mapping[str, Value], hosts: Hosts, done: list[Outcome], i: int) -> None:
        values = run_config(TINY | overrides, small=True)
        info = RunInfo(name="test", run_config=values, versions={}, machine="", started_at="2026-01-01T00:00:00+00:00")
        folder = RunFolder.create(tmp_path / f"{len(list(tmp_path.iterdir()))}", "test")
        record, arrays = run_federation(begin(hosts, parse_run_config(values), info, folder, lambda _: None))
        rounds = tuple(replace(each, round_s=0.0, elapsed_s=0.0) for each in record.rounds)
        done[i] = (replace(record, rounds=rounds), arrays)

    def make(overrides: Sequence[Mapping[str, Value]], hosts: Hosts | None = None) -> list[Outcome]:
        torch.set_num_threads(1)
        done: list[Any] = [None] * len(overrides)
        if hosts is None:
            Lockstep(CPU).run([lambda hosts, i=i: federate(overrides[i], hosts, done, i) for i in range(len(overrides))])
        else:
            for i, each in enumerate(overrides):
                federate(each, hosts, done, i)
        return done

    return make


def test_runs_side_by_side_are_the_runs_alone_to_the_last_bit(outcomes: Callable[..., list[Outcome]]):
    side_by_side = outcomes(RUNS)
    for overrides, (record, arrays) in zip(RUNS, side_by_side, strict=True):
        ((alone, arrays_alone),) = outcomes([overrides])
        assert arrays.keys() == arrays_alone.keys()
        for name in arrays:
            assert np.array_equal(arrays[name], arrays_alone[name]), name
        assert record == alone
    assert not together._STACKS, "programs are let go of"


def test_where_nothing_is_drawn_a_run_is_the_one_that_trains_one_device_after_the_other(outcomes: Callable[..., list[Outcome]]):
    """All windows in every step, no dropout, copies as they are: both ways of training have the same to do."""
    plain: dict[str, Value] = {
        **{f"augment.{name}": 0.0 for name in ("rotation-deg", "scale", "jitter", "crop", "time-warp", "modality-dropout")},
        **{f"{stage}.batch-size": 100 for stage in ("pretrain", "finetune")},
        **{"model.dropout": 0.0, "client.optimizer": "sgd", "pretrain.lr": 0.005, "finetune.lr": 0.005, "selftrain.rounds": 1},
    }
    ways = [plain, {**plain, "data.zero-fill": True, "seed": 1}, {**plain, "client.pooled": True, "pretrain.aggregation": "l-dawa"}]
    side_by_side = outcomes(ways)
    for overrides, (record, arrays) in zip(ways, side_by_side, strict=True):
        ((one_by_one, arrays_one_by_one),) = outcomes([overrides], InProcessHosts(1))
        assert arrays.keys() == arrays_one_by_one.keys()
        for name in arrays:
            np.testing.assert_allclose(arrays[name], arrays_one_by_one[name], rtol=0, atol=1e-5, err_msg=name)
        for one, other in zip(record.rounds, one_by_one.rounds, strict=True):
            assert (one.loss is None) == (other.loss is None)
            assert one.loss is None or one.loss == pytest.approx(other.loss, rel=1e-4)
        for one, other in zip(record.subjects, one_by_one.subjects, strict=True):
            assert np.array_equal(one.counts.confusion, other.counts.confusion)
