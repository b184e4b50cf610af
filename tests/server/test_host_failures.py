"""Whole runs in this process whose hosts are away or fail at a chosen moment."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clmm_core.errors import ClmmError, RoundFailedError
from clmm_core.report.records import RunRecord
from clmm_core.report.run_folder import read_rounds
from server.hosts import Answer, Enough, Question
from server.run_config import Value
from simulation.in_process import InProcessHosts

Train = Callable[..., RunRecord]
Write = Callable[..., Path]
LeftBehind = Callable[[], list[str]]
UNITS = ("accelerometer", "gyroscope")


@dataclass
class FlakyHosts(InProcessHosts):
    """Hosts of which some are away from the n-th question of a kind on, or which raise then."""

    message_type: str
    error: BaseException | None = None
    away: tuple[int, ...] = ()
    before: int = 0
    """Questions of that kind that are answered first."""
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(2)
        self._is_gone = False

    def names(self) -> tuple[int, ...]:
        return tuple(host for host in super().names() if not (self._is_gone and host in self.away))

    def ask(
        self, message_type: str, questions: Mapping[int, Question], reply_kind: type, enough: Enough | None = None
    ) -> tuple[dict[int, Answer], dict[int, str]]:
        if message_type == self.message_type and self.asked.count(message_type) >= self.before:
            self._is_gone = True
            if self.error is not None:
                raise self.error
        self.asked.append(message_type)
        failures = {host: "unplugged" for host in questions if self._is_gone and host in self.away}
        answers, _ = super().ask(message_type, {host: q for host, q in questions.items() if host not in failures}, reply_kind)
        return answers, failures


@pytest.mark.parametrize("error", [RoundFailedError("gone"), RuntimeError("a mistake of ours"), KeyboardInterrupt()])
def test_a_run_that_fails_before_its_first_round_leaves_nothing(train: Train, error: BaseException, left_behind: LeftBehind):
    with pytest.raises(type(error)):
        train(hosts=FlakyHosts("train.pretrain", error))
    assert left_behind() == []


@pytest.mark.parametrize("error", [RoundFailedError("gone"), RuntimeError("a mistake of ours")])
def test_a_run_that_fails_later_leaves_its_rounds(train: Train, tmp_path: Path, error: BaseException, left_behind: LeftBehind):
    with pytest.raises(type(error)):
        train({"pretrain.rounds": 3}, hosts=FlakyHosts("train.pretrain", error, before=2))
    assert left_behind() == ["run.partial"]
    rounds = read_rounds(tmp_path / "results" / "run.partial")
    assert [record.server_round for record in rounds] == [None, None, 1, 2]


def test_a_host_that_leaves_is_named_and_the_run_goes_on(train: Train, write: Write):
    for name in ("ann", "ben", "cat", "dan", "eve", "fay"):  # of two hosts the second has ben, dan and fay
        write(name, modalities=UNITS if name == "ben" else ("accelerometer",))
    hosts = FlakyHosts("train.pretrain", away=(1,), before=1)
    overrides: dict[str, Value] = {"split.test": "ann,ben", "split.validation": "dan", "labels.devices": "cat,fay"}
    run = train({**overrides, "pretrain.rounds": 3}, hosts=hosts)
    pretrain = [record for record in run.rounds if record.stage == "pretrain"]
    assert [record.num_devices for record in pretrain] == [3, 2, 2]
    assert pretrain[1].left_out == ("train.pretrain: host 1 with device(s) 'fay' did not answer: unplugged",)
    assert pretrain[2].left_out == ("train.pretrain: device 'fay': no connected host serves it",)
    finetune = next(record for record in run.rounds if record.stage == "finetune")
    assert finetune.validation_accuracy is None
    assert any(line.startswith("validation: evaluate.subjects: none of the 1 devices") for line in finetune.left_out)
    assert {subject.subject for subject in run.subjects} == {"ann", "cat", "eve"}
    assert "evaluate.subjects: devices 'ben', 'dan', 'fay': no connected host serves it" in run.notes
    assert run.card.modalities["gyroscope"]["unit"] == "rad/s", "known, though the only host that has one is gone"


def test_what_fails_is_one_of_our_errors_with_its_message(train: Train):
    with pytest.raises(ClmmError, match=r"train.finetune: none of the 2 devices asked for is served by a connected host"):
        train({"labels.devices": "device-00001,device-00003"}, hosts=FlakyHosts("query.quality", away=(1,)))


@pytest.mark.parametrize("stage", ["query.sums", "query.quality"])
def test_a_step_counts_the_devices_of_the_hosts_that_answered(train: Train, stage: str):
    run = train({"split.num-test": 0, "split.num-validation": 0}, hosts=FlakyHosts(stage, away=(1,)))
    step = {record.stage: record for record in run.rounds}["normalise" if stage == "query.sums" else "quality"]
    assert (step.num_hosts, step.num_devices) == (1, 3)
    assert step.left_out[0].startswith(f"{stage}: host 1 with device(s) 'device-00001'")


def test_a_host_that_fails_while_it_is_profiled_is_asked_again_so_that_its_devices_are_in_the_split(train: Train):
    class OnceDead(InProcessHosts):
        num_asked = 0

        def ask(
            self, message_type: str, questions: Mapping[int, Question], reply_kind: type, enough: Enough | None = None
        ) -> tuple[dict[int, Answer], dict[int, str]]:
            self.num_asked += 1
            answers, _ = super().ask(message_type, questions, reply_kind)
            return (answers, {}) if self.num_asked > 1 else ({0: answers[0]}, {1: "its worker died"})

    run = train({"split.num-test": 0, "split.num-validation": 0}, hosts=OnceDead(2))
    assert len(run.split.training) == 6
    assert not any("died" in note for note in run.notes)


@pytest.mark.parametrize(("question", "before", "pictures"), [("query.moments", 0, (0, 0)), ("query.plane", 1, (12, 0))])
def test_a_picture_that_fails_does_not_end_the_run(train: Train, question: str, before: int, pictures: tuple[int, int]):
    run = train({}, hosts=FlakyHosts(question, RoundFailedError("no host answered"), before=before))
    assert (len(run.embedding.before), len(run.embedding.after)) == pictures
    assert "embedding picture: no host answered" in run.notes


def test_who_is_not_in_the_picture_is_said(train: Train):
    run = train({"labels.devices": "device-00000"}, hosts=FlakyHosts("query.plane", away=(1,)))
    assert any(note.startswith("query.plane: host 1 with device(s) 'device-00001'") for note in run.notes)
