"""The hosts of a federation, asked one question at a time: over Flower's grid, or (in tests and studies) in this process."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from clmm_core.federated.arrays import Arrays


@dataclass(frozen=True)
class Question:
    """One host's task and the arrays that go with it."""

    task: Any
    arrays: Arrays


@dataclass(frozen=True)
class Answer:
    """One host's reply, of the kind that was asked for."""

    reply: Any
    arrays: Arrays
    devices: tuple[str, ...] = ()
    """Those it was asked about; the directory says, which knows who serves whom."""


Enough = Callable[[Collection[int]], bool]
"""Whether these hosts' answers are all that a question waits for."""


class Hosts(Protocol):
    """Something that carries questions to hosts and answers back."""

    def names(self) -> tuple[int, ...]:
        """Return the hosts there are now, in a fixed order.

        Raises:
            RoundFailedError: none appeared in time.
        """
        ...

    def ask(
        self, message_type: str, questions: Mapping[int, Question], reply_kind: type, enough: Enough | None = None
    ) -> tuple[dict[int, Answer], dict[int, str]]:
        """Return the answers by host, in the order asked, and why others did not answer.

        Args:
            message_type: what is asked, as the client registers it.
            questions: by host.
            reply_kind: what an answer is read as.
            enough: where not all are needed, whether those that have answered are; the others are not waited for.

        Raises:
            ClmmError: what every host asked raised itself, or the first of them; it concerns the run, not the connection.
        """
        ...

    def recover(self) -> None:
        """Give hosts that failed time to come back, before they are asked the same again."""
        ...

    def take_late(self) -> int:
        """Return how many answers came after their question was closed, since this was called last; they are dropped."""
        ...
