"""Hosts over Flower's Message API: one message a host and question."""

import time
from collections.abc import Callable, Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid

from clmm_core import errors
from clmm_core.errors import ClmmError, CodeMismatchError, RoundFailedError
from clmm_core.federated.codec import ARRAYS, ERROR, REPLY, TASK, from_json, to_json
from server.hosts import Answer, Question

POLL_S = 0.2
DEAD_WORKER = "ray.exceptions.Actor"
"""In the reason of an error that Flower's simulation replies with: ActorDiedError, or ActorUnavailableError where a node is gone."""


class FlowerHosts:
    """The SuperNodes that are connected, asked through a `Grid`."""

    def __init__(
        self,
        grid: Grid,
        *,
        min_hosts: int,
        hosts_timeout_s: float,
        round_timeout_s: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._grid = grid
        self._min_hosts = min_hosts
        self._hosts_timeout_s = hosts_timeout_s
        self._round_timeout_s = round_timeout_s
        self._sleep = sleep

    def names(self) -> tuple[int, ...]:
        """Return the connected node ids, ascending; the first call waits for `min_hosts` of them, later ones for one. See `Hosts`."""
        waited_s = 0.0
        while len(nodes := sorted(self._grid.get_node_ids())) < self._min_hosts:
            if waited_s >= self._hosts_timeout_s:
                raise RoundFailedError(
                    f"expected at least {self._min_hosts} host(s) within {self._hosts_timeout_s:g} s, found {len(nodes)}: "
                    "start more SuperNodes, or lower min-hosts"
                )
            self._sleep(POLL_S)
            waited_s += POLL_S
        self._min_hosts = 1
        return tuple(nodes)

    def ask(self, message_type: str, questions: Mapping[int, Question], reply_kind: type) -> tuple[dict[int, Answer], dict[int, str]]:
        """Send every question at once and wait for the answers, at most the round's time; see `Hosts`."""
        messages = [Message(_content(question), host, message_type) for host, question in questions.items()]
        answers: dict[int, Answer] = {}
        failures = dict.fromkeys(questions, f"no answer within {self._round_timeout_s:g} s")
        # An error reply may carry another sender: map by the message it answers. push_messages fills in the ids.
        asked = {}
        replies = list(self._grid.send_and_receive(messages, timeout=self._round_timeout_s))
        for message in messages:
            asked[message.metadata.message_id] = message.metadata.dst_node_id
        while replies:  # each is let go of as soon as it is read: of thousands of devices they take as much again as what is read of them
            reply = replies.pop()
            host = asked.get(reply.metadata.reply_to_message_id, reply.metadata.src_node_id)
            if reply.has_error():
                failures[host] = _why(reply.error)
                continue
            _raise_if_refused(host, reply.content)
            failures.pop(host, None)
            answers[host] = _answer(host, reply.content, reply_kind)
        return {host: answers[host] for host in questions if host in answers}, failures


def _why(error: Error) -> str:
    if DEAD_WORKER in (error.reason or ""):  # Ray's own words fill half a screen, and guess
        return "its Ray worker died (out of memory, or ended from outside); another takes its place"
    return error.reason or f"error {error.code}"


def _content(question: Question) -> RecordDict:
    record = RecordDict({TASK: ConfigRecord({"json": to_json(question.task)})})
    record[ARRAYS] = ArrayRecord({name: Array(np.ascontiguousarray(values)) for name, values in question.arrays.items()})
    return record


def _answer(host: int, content: RecordDict, reply_kind: type) -> Answer:
    try:
        text, arrays = str(content[REPLY]["json"]), content[ARRAYS]
    except KeyError as error:
        raise CodeMismatchError(
            f"host {host}: expected a {reply_kind.__name__} with arrays, found no record {error}: other client code answered; reinstall it"
        ) from error
    return Answer(from_json(reply_kind, text), {name: array.numpy() for name, array in arrays.items()})


def _raise_if_refused(host: int, content: RecordDict) -> None:
    """Raise what the host's own code raised on purpose, as the same class."""
    if ERROR in content:
        kind = getattr(errors, str(content[ERROR]["class"]), None)
        is_ours = isinstance(kind, type) and issubclass(kind, ClmmError)
        raise (kind if is_ours else ClmmError)(f"{content[ERROR]['message']} (said by host {host})")
