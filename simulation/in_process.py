"""Hosts in this process: the same server and the same cohorts without Flower, for tests and studies."""

from collections.abc import Mapping
from typing import Any

from clmm_core.data.fleet import device_names
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.codec import from_json, to_json
from clmm_core.federated.error_feedback import Residual
from clmm_core.federated.messages import HostProfile
from clmm_core.training.cohort import train_cohort
from clmm_core.training.evaluate import evaluate_cohort
from clmm_core.training.outgoing import outgoing_update
from clmm_core.training.plane import project_on_plane, sum_moments
from clmm_core.training.profile import profile_host, sum_channels
from clmm_core.training.quality import measure_quality
from clmm_core.training.tasks import FinetuneTask, PretrainTask
from server.hosts import Answer, Enough, Question

WORK = {
    "query.sums": sum_channels,
    "train.pretrain": train_cohort,
    "query.quality": measure_quality,
    "train.finetune": train_cohort,
    "train.selftrain": train_cohort,
    "evaluate.subjects": evaluate_cohort,
    "query.moments": sum_moments,
    "query.plane": project_on_plane,
}


class InProcessHosts:
    """`num_hosts` hosts that share the devices of a data set as a simulation's SuperNodes do."""

    def __init__(self, num_hosts: int) -> None:
        self._num_hosts = num_hosts
        self._residuals: dict[int, Residual | None] = {}
        """By host, what its packed updates left out."""

    def names(self) -> tuple[int, ...]:
        """Return 0 .. num_hosts - 1."""
        return tuple(range(self._num_hosts))

    def ask(
        self, message_type: str, questions: Mapping[int, Question], reply_kind: type, enough: Enough | None = None
    ) -> tuple[dict[int, Answer], dict[int, str]]:
        """Answer one host after the other, all of them; messages cross as JSON, as on the wire."""
        return {host: self._answer(message_type, host, question, reply_kind) for host, question in questions.items()}, {}

    def recover(self) -> None:
        """Do nothing: these hosts are always here."""

    def take_late(self) -> int:
        """Return 0: none of them is ever late."""
        return 0

    def _answer(self, message_type: str, host: int, question: Question, reply_kind: type) -> Answer:
        task: Any = from_json(type(question.task), to_json(question.task))
        arrays: Arrays = {}
        reply: Any
        if message_type == "query.profile":
            reply = self._profile(task, host)
        else:
            reply, arrays = WORK[message_type](task, question.arrays)
            arrays = self._outgoing(host, task, arrays)
        return Answer(from_json(reply_kind, to_json(reply)), arrays)

    def _outgoing(self, host: int, task: Any, arrays: Arrays) -> Any:
        """Return what a host sends: an update packed, if that is asked, with what its last one left out."""
        if not isinstance(task, PretrainTask | FinetuneTask):
            return arrays
        outgoing, self._residuals[host] = outgoing_update(task, arrays, self._residuals.get(host))
        return outgoing

    def _profile(self, task: Any, host: int) -> HostProfile:
        return profile_host(task, device_names(task.data)[host :: self._num_hosts], shares_data=True)
