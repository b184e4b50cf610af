"""The hosts of a federation, asked one question at a time: over Flower's grid, or (in tests and studies) in this process."""

from collections.abc import Mapping
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


class Hosts(Protocol):
    """Something that carries questions to hosts and answers back."""

    def names(self) -> tuple[int, ...]:
        """Return the hosts there are now, in a fixed order.

        Raises:
            RoundFailedError: none appeared in time.
        """
        ...

    def ask(self, message_type: str, questions: Mapping[int, Question], reply_kind: type) -> tuple[dict[int, Answer], dict[int, str]]:
        """Return the answers by host, in the order asked, and why others did not answer.

        Raises:
            ClmmError: what a host raised itself; it concerns the run, not the connection.
        """
        ...
