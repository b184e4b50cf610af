"""Hosts over Flower's Message API: one message a host and question, and no wait without an end."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from zipfile import BadZipFile

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

from clmm_core import errors
from clmm_core.errors import ClmmError, CodeMismatchError, NotNowError, RoundFailedError
from clmm_core.federated.codec import ARRAYS, ERROR, REPLY, TASK, from_json, join_arrays, split_arrays, to_json
from server.hosts import Answer, Enough, Question

POLL_S = 0.2
LONGEST_POLL_S = 1.0
"""Answers are looked for ever more slowly, up to this; a question is closed at most so long after its time."""
RECOVER_S, LONGEST_RECOVER_S = 5.0, 60.0
"""From a question that too few answered to the same one again; longer, up to the second, while hosts are missing that were there."""
NOT_TAKEN = "the SuperLink did not take the question: it ended meanwhile, or holds the message for too large"
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._grid = grid
        self._min_hosts = min_hosts
        self._hosts_timeout_s = hosts_timeout_s
        self._round_timeout_s = round_timeout_s
        self._sleep, self._clock = sleep, clock
        self._num_before = min_hosts
        """Hosts that were there when they were last listed."""
        self._outstanding: set[str] = set()
        """Messages that nobody waits for any more."""
        self._num_late = 0

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
        self._min_hosts, self._num_before = 1, len(nodes)
        return tuple(nodes)

    def ask(
        self, message_type: str, questions: Mapping[int, Question], reply_kind: type, enough: Enough | None = None
    ) -> tuple[dict[int, Answer], dict[int, str]]:
        """Send every question at once and wait for the answers, at most the round's time; see `Hosts`.

        A host that says that it cannot, or whose answer cannot be read, is one that did not answer: it ends the run only if all are so, and
        not where they only cannot now.
        """
        self._drop_late()
        closes_s = self._clock() + self._round_timeout_s
        waiting = self._sent([Message(_content(question), host, message_type) for host, question in questions.items()])
        answers: dict[int, Answer] = {}
        failures = dict.fromkeys(questions, NOT_TAKEN) | dict.fromkeys(waiting.values(), f"no answer within {self._round_timeout_s:g} s")
        refusals: dict[int, ClmmError] = {}
        for host, reply in self._replies(waiting, closes_s, lambda: enough is not None and enough(answers)):
            if reply.has_error():
                failures[host] = _why(reply.error)
                continue
            try:
                answers[host] = _answer(host, reply.content, reply_kind)
                failures.pop(host, None)
            except ClmmError as error:
                failures[host], refusals[host] = str(error), error
        lasting = [error for error in refusals.values() if not isinstance(error, NotNowError)]
        if lasting and not answers:
            raise lasting[0]
        if enough is not None and enough(answers):
            failures = {host: failures[host] for host in refusals}  # the others are late, which is nobody's fault
        return {host: answers[host] for host in questions if host in answers}, failures

    def recover(self) -> None:
        """See `Hosts`."""
        ends_s = self._clock() + LONGEST_RECOVER_S
        self._sleep(RECOVER_S)
        while len(list(self._grid.get_node_ids())) < self._num_before and self._clock() < ends_s:
            self._sleep(POLL_S)

    def take_late(self) -> int:
        """See `Hosts`."""
        self._drop_late()
        taken, self._num_late = self._num_late, 0
        return taken

    def _sent(self, messages: Sequence[Message]) -> dict[str, int]:
        """Send, and return the host of each message that the SuperLink took, by the message's id."""
        with suppress(ObjectPushError):  # the SuperLink ended meanwhile, and is asked again when it is back
            taken = set(self._grid.push_messages(messages))
            return {each.metadata.message_id: each.metadata.dst_node_id for each in messages if each.metadata.message_id in taken}
        return {}

    def _replies(self, waiting: dict[str, int], closes_s: float, is_enough: Callable[[], bool]) -> Iterator[tuple[int, Message]]:
        """Yield each reply with its host as it comes, until all of `waiting` are there, enough have answered or the time is up."""
        pause_s = POLL_S
        while waiting:
            replies = list(self._grid.pull_messages(list(waiting)))
            while replies:  # each is let go of as soon as it is read: they take as much again as what is read of them
                reply = replies.pop()
                # An error reply may carry another sender: known by the message it answers.
                host = waiting.pop(reply.metadata.reply_to_message_id, None)
                if host is not None:
                    yield host, reply
            left_s = closes_s - self._clock()
            if left_s <= 0 or is_enough():
                break
            if waiting:
                self._sleep(min(pause_s, left_s))
                pause_s = min(1.5 * pause_s, LONGEST_POLL_S)
        self._outstanding |= waiting.keys()

    def _drop_late(self) -> None:
        """Take what came for messages that nobody waits for, so that the SuperLink need not keep it."""
        if not self._outstanding:
            return
        for reply in self._grid.pull_messages(sorted(self._outstanding)):
            self._outstanding.discard(reply.metadata.reply_to_message_id)
            self._num_late += not reply.has_error()


def _why(error: Error) -> str:
    if DEAD_WORKER in (error.reason or ""):  # Ray's own words fill half a screen, and guess
        return "its Ray worker died (out of memory, or ended from outside); another takes its place"
    return error.reason or f"error {error.code}"


def _content(question: Question) -> RecordDict:
    record = RecordDict({TASK: ConfigRecord({"json": to_json(question.task)})})
    record[ARRAYS] = ArrayRecord({name: Array(values) for name, values in join_arrays(question.arrays).items()})
    return record


def _answer(host: int, content: RecordDict, reply_kind: type) -> Answer:
    """Read a host's reply.

    Raises:
        ClmmError: what the host's own code raised on purpose, as the same class.
        CodeMismatchError: it is no such reply.
    """
    if ERROR in content:
        kind = getattr(errors, str(content[ERROR].get("class")), None)
        is_ours = isinstance(kind, type) and issubclass(kind, ClmmError)
        raise (kind if is_ours else ClmmError)(f"{content[ERROR].get('message')} (said by host {host})")
    try:
        text, arrays = str(content[REPLY]["json"]), content[ARRAYS]
    except KeyError as error:
        raise CodeMismatchError(
            f"host {host}: expected a {reply_kind.__name__} with arrays, found no record {error}: other client code answered; reinstall it"
        ) from error
    try:
        return Answer(from_json(reply_kind, text), split_arrays({name: array.numpy() for name, array in arrays.items()}))
    except (ValueError, TypeError, AttributeError, EOFError, OSError, MemoryError, BadZipFile) as error:  # what NumPy makes of other bytes
        raise CodeMismatchError(f"host {host}: expected a {reply_kind.__name__} with arrays, found what cannot be read: {error}") from error
