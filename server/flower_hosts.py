"""Hosts over Flower's Message API: one message a host and question."""

import time
from collections.abc import Callable, Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from clmm_core import errors
from clmm_core.errors import ClmmError, RoundFailedError
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.codec import from_json, to_json
from server.hosts import Answer, Question

ARRAYS, TASK, REPLY, ERROR = "arrays", "task", "reply", "error"
"""Records of a message; client/client_app.py has the same."""
POLL_S = 0.2


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
        for reply in replies:
            host = asked.get(reply.metadata.reply_to_message_id, reply.metadata.src_node_id)
            if reply.has_error():
                failures[host] = reply.error.reason or f"error {reply.error.code}"
                continue
            _raise_if_refused(reply.content)
            failures.pop(host, None)
            answers[host] = Answer(from_json(reply_kind, str(reply.content[REPLY]["json"])), _arrays(reply.content))
        return {host: answers[host] for host in questions if host in answers}, failures


def _content(question: Question) -> RecordDict:
    record = RecordDict({TASK: ConfigRecord({"json": to_json(question.task)})})
    record[ARRAYS] = ArrayRecord({name: Array(np.ascontiguousarray(values)) for name, values in question.arrays.items()})
    return record


def _arrays(content: RecordDict) -> Arrays:
    return {name: array.numpy() for name, array in content[ARRAYS].items()}


def _raise_if_refused(content: RecordDict) -> None:
    """Raise what the host's own code raised on purpose, as the same class."""
    if ERROR in content:
        kind = getattr(errors, str(content[ERROR]["class"]), ClmmError)
        raise kind(str(content[ERROR]["message"]))
