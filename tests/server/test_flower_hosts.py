from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict

from clmm_core import errors
from clmm_core.data.fleet import DataConfig
from clmm_core.errors import ClmmError, CodeMismatchError, DataError, RoundFailedError
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.codec import from_json, to_json
from clmm_core.federated.messages import DeviceTraining, HostUpdate
from clmm_core.training.tasks import SumsTask
from server.flower_hosts import FlowerHosts
from server.hosts import Question

pytestmark = pytest.mark.usefixtures("_in_flower_task")

Respond = Callable[[Message], Message | None]
TASK = SumsTask(data=DataConfig(), devices=("a",), differences=False)


class FakeGrid:
    """Fills in message ids as Flower's grids do, and asks `respond` for the reply to each; None is a host that does not answer."""

    def __init__(self, respond: Respond, nodes: Iterable[list[int]] = ()) -> None:
        self._respond = respond
        self._nodes = iter(nodes)
        self.sent: list[Message] = []
        self.timeout: float | None = None

    def get_node_ids(self) -> list[int]:
        return next(self._nodes)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        self.timeout = timeout
        for number, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = f"message-{number}"
            self.sent.append(message)
        replies = [self._respond(message) for message in self.sent]
        return [reply for reply in reversed(replies) if reply is not None]


def reply(message: Message, text: str, arrays: Arrays) -> Message:
    content = RecordDict({"reply": ConfigRecord({"json": text})})
    content["arrays"] = ArrayRecord({name: Array(values) for name, values in arrays.items()})
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
    return FlowerHosts(grid, **{"min_hosts": 1, "hosts_timeout_s": 10.0, "round_timeout_s": 60.0, **settings})  # type: ignore[arg-type]


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
    assert np.array_equal(grid.sent[0].content["arrays"]["w"].numpy(), weights)
    assert grid.timeout == 60.0


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
    answers, failures = ask(FakeGrid(lambda message: None if message.metadata.dst_node_id == 10 else update_of(message)), 10, 20)
    assert list(answers) == [20]
    assert failures == {10: "no answer within 60 s"}


@pytest.mark.parametrize("kind", [kind for kind in vars(errors).values() if isinstance(kind, type)], ids=lambda kind: kind.__name__)
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


def test_a_refusal_counts_even_when_others_answer():
    grid = FakeGrid(lambda m: update_of(m) if m.metadata.dst_node_id == 10 else refuse(m, "DataError", "no recordings"))
    with pytest.raises(DataError, match=r"no recordings \(said by host 20\)"):
        ask(grid, 10, 20)


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
