from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

from clmm_core import errors
from clmm_core.data.fleet import DataConfig
from clmm_core.errors import ClmmError, CodeMismatchError, DataError, RoundFailedError
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.codec import JOINED, from_json, join_arrays, split_arrays, to_json
from clmm_core.federated.messages import DeviceTraining, HostUpdate
from clmm_core.training.tasks import SumsTask
from server.flower_hosts import LONGEST_RECOVER_S, NOT_TAKEN, POLL_S, RECOVER_S, FlowerHosts
from server.hosts import Question

pytestmark = pytest.mark.usefixtures("_in_flower_task")

Respond = Callable[[Message], Message | None]
TASK = SumsTask(data=DataConfig(), devices=("a",), differences=False)


class FakeGrid:
    """Fills in message ids as Flower's grids do, and asks `respond` for the reply to each; None is a host that does not answer.

    Each look at what came takes no time; who waits for the next one lets it pass.
    """

    def __init__(self, respond: Respond, nodes: Iterable[list[int]] = ()) -> None:
        self._respond = respond
        self._nodes = iter(nodes)
        self.sent: list[Message] = []
        self.come: dict[str, Message] = {}
        """Replies by the message they answer, until they are taken."""
        self.now_s = 0.0
        self.looks: list[int] = []
        """How many messages were asked for in each look."""
        self.after: dict[float, list[Message]] = {}
        """Replies that come at some time."""
        self.takes: Callable[[Message], bool] = lambda message: True

    def get_node_ids(self) -> list[int]:
        return next(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        taken = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"message-{len(self.sent)}"
            self.sent.append(message)
            if not self.takes(message):
                continue
            taken.append(message.metadata.message_id)
            if (answer := self._respond(message)) is not None:
                self.come[message.metadata.message_id] = answer
        return taken

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        wanted = list(message_ids)
        self.looks.append(len(wanted))
        for when_s in [when_s for when_s in self.after if when_s <= self.now_s]:
            self.come |= {each.metadata.reply_to_message_id: each for each in self.after.pop(when_s)}
        return [self.come.pop(each) for each in reversed(wanted) if each in self.come]

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def reply(message: Message, text: str, arrays: Arrays) -> Message:
    content = RecordDict({"reply": ConfigRecord({"json": text})})
    content["arrays"] = ArrayRecord({name: Array(values) for name, values in join_arrays(arrays).items()})
    return Message(content, reply_to=message)


def update_of(message: Message) -> Message:
    host = message.metadata.dst_node_id
    update = HostUpdate(
        server_round=1,
        source="code",
        weights={"acc": float(host)},
        devices=(DeviceTraining(device=f"d{host}", num_windows=host, loss=0.5),),
    )
    return reply(message, to_json(update), {"modalities.acc.w": np.full(2, host, np.float32)})


def refuse(message: Message, kind: str, text: str) -> Message:
    return Message(RecordDict({"error": ConfigRecord({"class": kind, "message": text})}), reply_to=message)


def lost(message: Message, reason: str = "", code: int = 3) -> Message:
    """Return Flower's own error reply, which comes from the SuperLink instead of the host that was asked."""
    answer = Message(Error(code, reason), reply_to=message)
    answer.metadata.__dict__["_src_node_id"] = 1
    return answer


def hosts_over(grid: FakeGrid, **settings: Any) -> FlowerHosts:
    usual = {"min_hosts": 1, "hosts_timeout_s": 10.0, "round_timeout_s": 60.0, "sleep": grid.sleep, "clock": lambda: grid.now_s}
    return FlowerHosts(grid, **{**usual, **settings})  # type: ignore[arg-type]


def ask(grid: FakeGrid, *hosts: int, arrays: Arrays | None = None) -> Any:
    return hosts_over(grid).ask("train.pretrain", {host: Question(TASK, arrays or {}) for host in hosts}, HostUpdate)


def test_each_host_gets_its_question_and_answers_come_in_the_order_asked():
    grid = FakeGrid(update_of)
    weights = np.arange(6, dtype=np.float32).reshape(2, 3).T  # not contiguous
    answers, failures = ask(grid, 30, 10, 20, arrays={"w": weights})
    assert failures == {}
    assert list(answers) == [30, 10, 20]
    for host, answer in answers.items():
        assert answer.reply.devices[0].device == f"d{host}"
        assert answer.arrays["modalities.acc.w"].tolist() == [host, host]
    assert [(m.metadata.dst_node_id, m.metadata.message_type) for m in grid.sent] == [(host, "train.pretrain") for host in (30, 10, 20)]
    assert from_json(SumsTask, str(grid.sent[0].content["task"]["json"])) == TASK
    sent = split_arrays({name: array.numpy() for name, array in grid.sent[0].content["arrays"].items()})
    assert np.array_equal(sent["w"], weights)
    assert (grid.now_s, grid.looks) == (0.0, [3]), "nobody is waited for who has answered"


def test_an_error_reply_belongs_to_the_host_it_answers_whoever_it_comes_from():
    grid = FakeGrid(lambda message: update_of(message) if message.metadata.dst_node_id == 20 else lost(message, "node unavailable"))
    answers, failures = ask(grid, 10, 20, 30)
    assert list(answers) == [20]
    assert failures == {10: "node unavailable", 30: "node unavailable"}


def test_a_worker_that_died_is_said_in_a_line():
    reason = "<class 'ray.exceptions.ActorDiedError'>:<'The actor died unexpectedly.\n\tclass_name: ClientAppActor\nIt may be OOM.'>"
    _, failures = ask(FakeGrid(lambda message: lost(message, reason)), 10)
    assert failures == {10: "its Ray worker died (out of memory, or ended from outside); another takes its place"}


def test_an_error_without_a_reason_shows_its_code():
    assert ask(FakeGrid(lost), 10) == ({}, {10: "error 3"})


def test_a_host_that_does_not_answer_is_named():
    grid = FakeGrid(lambda message: None if message.metadata.dst_node_id == 10 else update_of(message))
    answers, failures = ask(grid, 10, 20)
    assert list(answers) == [20]
    assert failures == {10: "no answer within 60 s"}
    assert grid.now_s == pytest.approx(60.0), "closed when the time is up"
    assert set(grid.looks[1:]) == {1}, "who has answered is not looked for again"


LASTING = [kind for kind in vars(errors).values() if isinstance(kind, type) and kind is not errors.NotNowError]


@pytest.mark.parametrize("kind", LASTING, ids=lambda kind: kind.__name__)
def test_what_a_host_refuses_is_raised_here_as_the_same_class(kind: type[ClmmError]):
    grid = FakeGrid(lambda message: refuse(message, kind.__name__, "anna/monday: expected m/s^2, found g"))
    with pytest.raises(ClmmError) as caught:
        ask(grid, 10)
    assert type(caught.value) is kind
    assert str(caught.value) == "anna/monday: expected m/s^2, found g (said by host 10)"


@pytest.mark.parametrize("kind", ["SystemExit", "NoSuchError", "__doc__", "__name__"])
def test_a_refusal_of_a_class_we_do_not_have_is_still_one_of_ours(kind: str):
    with pytest.raises(ClmmError, match="as it says"):
        ask(FakeGrid(lambda message: refuse(message, kind, "as it says")), 10)


def test_hosts_that_cannot_now_did_not_answer_and_may_be_asked_again():
    answers, failures = ask(FakeGrid(lambda message: refuse(message, "NotNowError", "it runs on its battery")), 10, 20)
    assert answers == {}
    assert failures == {host: f"it runs on its battery (said by host {host})" for host in (10, 20)}
    kinds = {10: "NotNowError", 20: "DataError"}
    with pytest.raises(DataError, match="as it says"):
        ask(FakeGrid(lambda message: refuse(message, kinds[message.metadata.dst_node_id], "as it says")), 10, 20)


def test_a_host_that_refuses_or_sends_nonsense_is_one_that_did_not_answer_while_others_do():
    nonsense = {20: lambda m: refuse(m, "DataError", "no recordings"), 30: lambda m: reply(m, '{"weights": NaN}', {})}
    nonsense |= {40: lambda m: Message(RecordDict({"error": ConfigRecord({})}), reply_to=m), 50: broken}
    grid = FakeGrid(lambda m: nonsense.get(m.metadata.dst_node_id, update_of)(m))
    answers, failures = ask(grid, 10, 20, 30, 40, 50)
    assert list(answers) == [10]
    assert failures[20] == "no recordings (said by host 20)"
    assert "expected a HostUpdate" in failures[30]
    assert failures[40] == "None (said by host 40)"
    assert "host 50: expected a HostUpdate with arrays, found what cannot be read" in failures[50]


def broken(message: Message) -> Message:
    """Return an update whose bytes are no array."""
    answer = update_of(message)
    answer.content["arrays"][JOINED].data = b"\x93NUMPY no array"
    return answer


def late(grid: FakeGrid, number: int) -> Message:
    return update_of(grid.sent[number])


def test_answers_that_come_after_the_time_is_up_are_dropped_and_counted_once():
    grid = FakeGrid(lambda message: None if message.metadata.dst_node_id == 10 else update_of(message))
    hosts = hosts_over(grid)
    question = Question(TASK, {})
    assert list(hosts.ask("train.pretrain", {10: question, 20: question}, HostUpdate)[0]) == [20]
    assert hosts.take_late() == 0
    grid.after[grid.now_s] = [late(grid, 0)]
    answers, _ = hosts.ask("train.pretrain", {20: question}, HostUpdate)
    assert list(answers) == [20], "the late one answers another question"
    assert (hosts.take_late(), hosts.take_late()) == (1, 0)


def test_a_late_error_is_no_late_answer():
    grid = FakeGrid(lambda message: None)
    hosts = hosts_over(grid)
    hosts.ask("train.pretrain", {10: Question(TASK, {})}, HostUpdate)
    grid.come["message-0"] = lost(grid.sent[0], "unavailable")
    assert hosts.take_late() == 0
    looks = len(grid.looks)
    assert hosts.take_late() == 0
    assert len(grid.looks) == looks, "and is not looked for again"


def test_a_question_that_has_enough_answers_is_closed():
    grid = FakeGrid(lambda message: update_of(message) if message.metadata.dst_node_id < 30 else None)
    questions = {host: Question(TASK, {}) for host in (10, 20, 30, 40)}
    hosts = hosts_over(grid)
    answers, failures = hosts.ask("train.pretrain", questions, HostUpdate, lambda answered: len(answered) >= 2)
    assert (list(answers), failures, grid.now_s) == ([10, 20], {}, 0.0), "who is late has not failed"
    grid.come |= {f"message-{number}": late(grid, number) for number in (2, 3)}
    assert hosts.take_late() == 2


def test_what_the_superlink_does_not_take_is_not_waited_for():
    grid = FakeGrid(update_of)
    grid.takes = lambda message: message.metadata.dst_node_id != 10
    answers, failures = ask(grid, 10, 20)
    assert (list(answers), grid.now_s) == ([20], 0.0)
    assert failures == {10: NOT_TAKEN}


def test_a_superlink_that_ends_while_it_is_told_takes_nothing(monkeypatch: pytest.MonkeyPatch):
    grid = FakeGrid(update_of)

    def push(messages: Iterable[Message]) -> list[str]:
        raise ObjectPushError("object", 1, "session")

    monkeypatch.setattr(grid, "push_messages", push)
    assert ask(grid, 10) == ({}, {10: NOT_TAKEN})


@pytest.mark.parametrize(
    ("back", "waited_s"), [([[7, 8]], RECOVER_S), ([[], [7], [7, 9]], RECOVER_S + 2 * POLL_S), ([[7]] * 1000, LONGEST_RECOVER_S)]
)
def test_hosts_are_given_time_to_come_back_all_of_them(back: list[list[int]], waited_s: float):
    grid = FakeGrid(update_of, [[7, 8], *back])
    hosts = hosts_over(grid)
    hosts.names()
    hosts.recover()
    assert grid.now_s == pytest.approx(waited_s, abs=2 * POLL_S - 0.01)


@pytest.mark.parametrize(
    "respond",
    [
        lambda message: reply(message, '{"weights": {}}', {}),
        lambda message: reply(message, '{"weights": {}, "devices": "many"}', {}),
        lambda message: reply(message, "not json", {}),
        lambda message: Message(RecordDict(), reply_to=message),
        lambda message: Message(RecordDict({"metrics": ConfigRecord({"x": 1})}), reply_to=message),
        lambda message: Message(RecordDict({"reply": ConfigRecord({"json": "{}"})}), reply_to=message),
    ],
)
def test_a_reply_of_other_code_is_a_mismatch(respond: Respond):
    with pytest.raises(CodeMismatchError, match=r"expected a HostUpdate.*reinstall"):
        ask(FakeGrid(respond), 10)


def test_hosts_are_listed_in_order():
    assert hosts_over(FakeGrid(update_of, [[3, 1, 2]])).names() == (1, 2, 3)


def test_hosts_are_waited_for():
    slept: list[float] = []
    hosts = hosts_over(FakeGrid(update_of, [[], [], [7], [7, 5], [8], [], [9]]), min_hosts=2, sleep=slept.append)
    assert hosts.names() == (5, 7)
    assert len(slept) == 3
    assert hosts.names() == (8,), "two were needed to begin; one is enough to go on"
    assert hosts.names() == (9,)


def test_nobody_is_waited_for_longer_than_said():
    slept: list[float] = []
    hosts = hosts_over(FakeGrid(update_of, iter(lambda: [4], None)), min_hosts=3, hosts_timeout_s=5.0, sleep=slept.append)
    with pytest.raises(RoundFailedError, match=r"at least 3 host\(s\) within 5 s, found 1: start more SuperNodes"):
        hosts.names()
    assert sum(slept) == pytest.approx(5.0, abs=0.3)
