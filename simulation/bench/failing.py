"""A federation whose devices die in the middle of rounds: what that costs on people it never saw."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from clmm_core.federated.messages import HostUpdate
from clmm_core.seeds import derive_seed
from server.hosts import Answer, Enough, Question
from simulation.in_process import InProcessHosts


@dataclass
class FailingHosts(InProcessHosts):
    """One host that serves every device: some die in each round, and one is so slow that its answer always comes too late."""

    share: float
    """Of devices, how many die in a round; drawn from (seed, round, device)."""
    seed: int

    def __post_init__(self) -> None:
        super().__init__(1)

    def ask(
        self, message_type: str, questions: Mapping[int, Question], reply_kind: type, enough: Enough | None = None
    ) -> tuple[dict[int, Answer], dict[int, str]]:
        """See `Hosts`."""
        if reply_kind is not HostUpdate or not self.share:
            return super().ask(message_type, questions, reply_kind)
        left = {
            host: replace(question, task=replace(question.task, devices=self.left(question.task))) for host, question in questions.items()
        }
        return super().ask(message_type, left, reply_kind)

    def left(self, task: object) -> tuple[str, ...]:
        """Return the devices of a task that answer in time: neither the first, which is slow, nor those that die in this round."""
        devices, server_round = task.devices, task.server_round  # type: ignore[attr-defined]
        return tuple(
            device for device in devices[1:] if random.Random(derive_seed(self.seed, "dies", server_round, device)).random() >= self.share
        )
