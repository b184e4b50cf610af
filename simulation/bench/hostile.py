"""A federation some of whose devices are hostile: what each way of aggregation makes of each attack, on people it never saw."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory

from clmm_core.federated.individual import apart, placed
from clmm_core.federated.messages import HostUpdate
from clmm_core.federated.robust import RuleName
from clmm_core.report.metrics import summarise
from clmm_core.report.run_folder import read_run
from clmm_core.seeds import derive_seed
from server.hosts import Answer, Enough, Question
from server.results import train_and_write
from server.run_config import Value, parse_run_config
from simulation.bench.attacks import ATTACKS, attacked
from simulation.in_process import InProcessHosts

LABEL_FLIP = "label-flip"
"""A hostile device learns honestly from labels that are counted from the other end."""
SHARES = (0.2, 0.3)
SETTINGS: Mapping[str, Value] = {
    **{"data.name": "hapt", "data.upright": True, "data.same-side": True, "augment.rotation-deg": 0.0},
    "data.classes": "walking,walking_upstairs,walking_downstairs,sitting,standing,laying",
    **{"split.test": "2,4,9,10,12,13,18,20,24", "split.num-validation": 0},
    **{"labels.num-devices": 21, "labels.per-class": 5, "labels.unit": "window"},
    **{"pretrain.rounds": 0, "finetune.rounds": 15, "finetune.encoder-rate": 1.0, "report.validate-every": 0},
    **{"personalise.per-class": 0, "report.points-per-device": 0, "communication.host-aggregation": False},
}
"""21 devices with 30 labels each learn without stage one, so that every update is of everything that an attack can reach."""


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """What became of one run. Accuracies are of unseen subjects, in percent."""

    rule: RuleName
    attack: str
    """Empty where nobody is hostile."""
    share: float
    """Of devices that are hostile; also what the rule allows for."""
    seed: int
    accuracy: float
    macro_f1: float


class HostileHosts(InProcessHosts):
    """One host that serves every device, some of which know what all others send and answer with what an attack makes of it."""

    def __init__(self, attack: str, share: float, seed: int) -> None:
        super().__init__(1)
        self._attack, self._share, self._seed = attack, share, seed

    def ask(
        self, message_type: str, questions: Mapping[int, Question], reply_kind: type, enough: Enough | None = None
    ) -> tuple[dict[int, Answer], dict[int, str]]:
        """See `Hosts`."""
        if reply_kind is not HostUpdate or not self._attack:
            return super().ask(message_type, questions, reply_kind)
        ((host, question),) = questions.items()
        hostile = self.hostile(question.task.devices)
        if self._attack == LABEL_FLIP:
            return {host: self._flipped(message_type, question, hostile)}, {}
        (answer,) = super().ask(message_type, questions, reply_kind)[0].values()
        rows = answer.reply.devices
        updates = apart(answer.arrays, len(rows))
        honest = [(update, row.weights) for update, row in zip(updates, rows, strict=True) if row.device not in hostile]
        sent = attacked(honest, ATTACKS[self._attack], len(hostile))
        forged = [{name: sent[name] for name in own} if row.device in hostile else own for own, row in zip(updates, rows, strict=True)]
        return {host: Answer(answer.reply, placed(forged))}, {}

    def hostile(self, devices: tuple[str, ...]) -> frozenset[str]:
        """Return which of the devices are hostile: the same in every round that asks the same devices."""
        draw = random.Random(derive_seed(self._seed, "hostile"))
        return frozenset(draw.sample(sorted(devices), int(self._share * len(devices) + 1e-9)))

    def _flipped(self, message_type: str, question: Question, hostile: frozenset[str]) -> Answer:
        """Answer for all devices; hostile ones take the last class for the first."""
        honest = tuple(device for device in question.task.devices if device not in hostile)
        tasks = (
            replace(question.task, devices=honest),
            replace(question.task, devices=tuple(sorted(hostile)), classes=question.task.classes[::-1]),
        )
        answers = [self._answer(message_type, 0, Question(task, question.arrays), HostUpdate) for task in tasks]
        updates = [update for answer in answers for update in apart(answer.arrays, len(answer.reply.devices))]
        rows = tuple(row for answer in answers for row in answer.reply.devices)
        return Answer(replace(answers[0].reply, devices=rows), placed(updates))


def attacked_run(values: Mapping[str, Value], rule: RuleName, attack: str, share: float, seed: int) -> Attacked:
    """Train a federation under attack and return how well it recognises unseen subjects.

    Args:
        values: the whole run config, with the path of HAPT's recordings.
        rule: how updates become one; it allows for as many faulty devices as there are hostile ones.
        attack: one of `ATTACKS`, `LABEL_FLIP`, or empty.
        share: of devices that are hostile.
        seed: of the run, and of who is hostile.
    """
    with TemporaryDirectory() as folder:
        own: dict[str, Value] = {"seed": seed, "results-dir": folder, "run-name": "run", "aggregation.rule": rule}
        own["aggregation.byzantine-share"] = share
        config = {**values, **own}
        hosts = HostileHosts(attack, share, seed)
        record = read_run(train_and_write(hosts, parse_run_config(config), config, lambda line: None, together_on="cpu"))
    unseen = summarise(record.subjects, "unseen")
    assert unseen is not None
    return Attacked(
        rule=rule, attack=attack, share=share, seed=seed, accuracy=100 * unseen.accuracy_mean, macro_f1=100 * unseen.macro_f1_mean
    )
