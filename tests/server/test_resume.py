"""Runs that are stopped anywhere and gone on with, in this process."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from clmm_core.errors import ConfigError, DataError
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.messages import HostProfile
from clmm_core.report.records import RunRecord
from clmm_core.report.run_folder import ROUNDS, WEIGHTS
from server.checkpoint import FOLDER
from server.hosts import Answer, Enough, Question
from server.run_config import Value
from simulation.in_process import InProcessHosts

Train = Callable[..., RunRecord]
ROUNDS_OF_ALL: dict[str, Value] = {
    **{"pretrain.rounds": 2, "finetune.rounds": 2, "selftrain.rounds": 1, "report.points-per-device": 4},
    **{"pretrain.server-optimizer": "fedadam", "pretrain.server-lr": 0.01, "finetune.server-optimizer": "fedavgm"},
}


class KilledError(BaseException):
    """Like a signal: nothing catches it."""


class HostsUntil(InProcessHosts):
    """Hosts of a server that is killed while it waits for the answers to a question."""

    def __init__(self, number: int) -> None:
        super().__init__(2)
        self.left = number
        self.asked: list[str] = []

    def ask(
        self, message_type: str, questions: Mapping[int, Question], reply_kind: type, enough: Enough | None = None
    ) -> tuple[dict[int, Answer], dict[int, str]]:
        self.asked.append(message_type)
        self.left -= 1
        if not self.left:
            raise KilledError
        return super().ask(message_type, questions, reply_kind)


def weights(folder: Path) -> Arrays:
    return load_file(folder / WEIGHTS)


def assert_equal(one: Arrays, other: Arrays) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


def killed_at(train: Train, number: int, name: str, overrides: Mapping[str, Value] | None = None) -> list[str]:
    hosts = HostsUntil(number)
    with pytest.raises(KilledError):
        train({**ROUNDS_OF_ALL, **(overrides or {}), "run-name": name}, hosts=hosts, keeps_checkpoints=True)
    return hosts.asked


def test_stopped_at_any_question_and_gone_on_with_it_ends_in_the_same_model(train: Train, tmp_path: Path):
    hosts = HostsUntil(10_000)
    whole = train({**ROUNDS_OF_ALL, "run-name": "whole"}, hosts=hosts, keeps_checkpoints=True)
    results = tmp_path / "results"
    assert not (results / "whole" / FOLDER).exists()
    expected, num_rounds = weights(results / "whole"), [record.server_round for record in whole.rounds]
    first_kept = hosts.asked.index("train.pretrain") + 2  # before that a run that fails leaves nothing
    for number in range(first_kept, len(hosts.asked) + 1, 2):
        name = f"killed-{number}"
        killed_at(train, number, name)
        record = train({**ROUNDS_OF_ALL, "run-name": name, "resume": True}, keeps_checkpoints=True)
        assert_equal(weights(results / name), expected)
        assert [each.server_round for each in record.rounds] == num_rounds, hosts.asked[number - 1]
        assert record.subjects == whole.subjects
        assert record.embedding == whole.embedding
        assert any("went on after round" in note for note in record.notes)
        elapsed = [each.elapsed_s for each in record.rounds]
        assert elapsed == sorted(elapsed)


def test_a_private_run_goes_on_with_the_same_clip_and_the_same_noise(train: Train, tmp_path: Path):
    """In the middle of each stage, and between them; the clip adapts in each."""
    pytest.importorskip("opacus", reason="extra `privacy`")
    private: dict[str, Value] = {
        **{"privacy.noise-multiplier": 0.2, "privacy.clip-quantile": 0.5, "privacy.budget": 1000.0, "privacy.clip": 0.3},
        **{"pretrain.participation": 0.7, "finetune.participation": 0.9, "labels.num-devices": 3},
    }
    hosts = HostsUntil(10_000)
    whole = train({**ROUNDS_OF_ALL, **private, "run-name": "whole"}, hosts=hosts, keeps_checkpoints=True)
    results = tmp_path / "results"
    figures = [(record.server_round, record.epsilon, record.clip) for record in whole.rounds]
    assert len({clip for _, _, clip in figures if clip}) > 2
    trainings = [number for number, asked in enumerate(hosts.asked, start=1) if asked.startswith("train.")][2:]
    for number in trainings[::2]:
        name = f"killed-{number}"
        killed_at(train, number, name, private)
        record = train({**ROUNDS_OF_ALL, **private, "run-name": name, "resume": True}, keeps_checkpoints=True)
        assert_equal(weights(results / name), weights(results / "whole"))
        assert [(each.server_round, each.epsilon, each.clip) for each in record.rounds] == figures


def test_a_private_run_that_goes_on_is_held_to_its_budget(train: Train, monkeypatch: pytest.MonkeyPatch):
    private: dict[str, Value] = {"privacy.noise-multiplier": 1.0, "privacy.budget": 1000.0}
    monkeypatch.setattr("server.accountant.epsilons", lambda rates, noise, delta: (1.0,) * len(rates))
    killed_at(train, 7, "run", private)
    monkeypatch.setattr("server.accountant.epsilons", lambda rates, noise, delta: (1001.0,) * len(rates))
    with pytest.raises(ConfigError, match=r"privacy.budget: expected the 5 planned rounds"):
        train({**ROUNDS_OF_ALL, **private, "resume": True}, keeps_checkpoints=True)


def test_it_can_be_stopped_again(train: Train, tmp_path: Path):
    train({**ROUNDS_OF_ALL, "run-name": "whole"})
    killed_at(train, 6, "run")
    with pytest.raises(KilledError):
        train({**ROUNDS_OF_ALL, "resume": True}, hosts=HostsUntil(4), keeps_checkpoints=True)
    train({**ROUNDS_OF_ALL, "resume": True}, keeps_checkpoints=True)
    assert_equal(weights(tmp_path / "results" / "run"), weights(tmp_path / "results" / "whole"))


def test_steps_after_the_last_checkpoint_are_taken_again(train: Train, tmp_path: Path):
    killed_at(train, 7, "run")
    rounds = tmp_path / "results" / "run.partial" / ROUNDS
    rounds.write_text(rounds.read_text() + rounds.read_text().splitlines()[-1] + '\n{"stage": "half')
    record = train({**ROUNDS_OF_ALL, "resume": True}, keeps_checkpoints=True)
    assert [each.server_round for each in record.rounds if each.server_round] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"finetune.lr": 0.5}, r"begun with other settings: finetune.lr was 0\.\d+, now 0.5. Set them back, or begin a new run"),
        ({"seed": 3, "labels.per-class": 2}, "labels.per-class was 1, now 2; seed was 0, now 3"),
    ],
)
def test_other_settings_are_refused_and_nothing_is_lost(train: Train, tmp_path: Path, overrides: dict[str, Value], message: str):
    killed_at(train, 7, "run")
    with pytest.raises(ConfigError, match=message):
        train({**ROUNDS_OF_ALL, **overrides, "resume": True}, keeps_checkpoints=True)
    train({**ROUNDS_OF_ALL, "resume": True, "round-timeout-s": 7.0}, keeps_checkpoints=True)  # what changes nothing may differ


def test_other_code_is_refused(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    killed_at(train, 7, "run")
    monkeypatch.setattr("server.results.client_source", lambda: "another")
    with pytest.raises(ConfigError, match=r"begun by code \w+ \(clmm .*\), this is another: install that version again"):
        train({**ROUNDS_OF_ALL, "resume": True}, keeps_checkpoints=True)


def test_a_damaged_checkpoint_costs_a_round(train: Train, tmp_path: Path):
    train({**ROUNDS_OF_ALL, "run-name": "whole"})
    killed_at(train, 9, "run")
    newest = max((tmp_path / "results" / "run.partial" / FOLDER).iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])
    record = train({**ROUNDS_OF_ALL, "resume": True}, keeps_checkpoints=True)
    assert any(newest.name in note and "cannot use it" in note for note in record.notes)
    assert_equal(weights(tmp_path / "results" / "run"), weights(tmp_path / "results" / "whole"))


def test_without_a_usable_checkpoint_it_says_so_and_keeps_the_folder(train: Train, tmp_path: Path):
    killed_at(train, 7, "run")
    partial = tmp_path / "results" / "run.partial"
    shutil.rmtree(partial / FOLDER)
    with pytest.raises(DataError, match="expected a checkpoint, found none"):
        train({**ROUNDS_OF_ALL, "resume": True}, keeps_checkpoints=True)
    assert (partial / ROUNDS).is_file()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"run-name": "never"}, "never.partial: expected the folder of a run that was killed, found none"),
        ({"run-name": "done"}, "that run is finished: "),
        ({"run-name": ""}, "expected the name of a run in run-name, found none"),
    ],
)
def test_what_cannot_go_on_says_why(train: Train, overrides: dict[str, Value], message: str):
    train({"run-name": "done", "pretrain.rounds": 0})
    with pytest.raises(ConfigError, match=message):
        train({**overrides, "resume": True}, keeps_checkpoints=True)


def test_a_run_that_goes_on_cannot_be_gone_on_with(train: Train, tmp_path: Path):
    class Meanwhile(InProcessHosts):
        def ask(
            self, message_type: str, questions: Mapping[int, Question], reply_kind: type, enough: Enough | None = None
        ) -> tuple[dict[int, Answer], dict[int, str]]:
            if message_type == "train.finetune":
                with pytest.raises(ConfigError, match="its run goes on in another process"):
                    train({"resume": True}, keeps_checkpoints=True)
            return super().ask(message_type, questions, reply_kind)

    train({}, hosts=Meanwhile(2), keeps_checkpoints=True)


def test_recordings_that_do_not_fit_the_model_are_refused(train: Train):
    class Shorter(InProcessHosts):
        def ask(
            self, message_type: str, questions: Mapping[int, Question], reply_kind: type, enough: Enough | None = None
        ) -> tuple[dict[int, Answer], dict[int, str]]:
            answers, failures = super().ask(message_type, questions, reply_kind)
            return {host: replace(answer, reply=shorter(answer.reply)) for host, answer in answers.items()}, failures

    def shorter(profile: HostProfile) -> HostProfile:
        devices = [
            replace(device, modalities={name: replace(each, time_steps=7) for name, each in device.modalities.items()})
            for device in profile.devices
        ]
        return replace(profile, devices=tuple(devices))

    killed_at(train, 7, "run")
    with pytest.raises(
        DataError, match=r"device 'device-0000.' has windows of '\w+' of 3 channels x 7 samples, the run's model has 3 channels"
    ):
        train({**ROUNDS_OF_ALL, "resume": True}, hosts=Shorter(2), keeps_checkpoints=True)


def test_a_full_disk_is_told_and_the_run_ends_well(train: Train, monkeypatch: pytest.MonkeyPatch):
    def full(folder: Path, checkpoint: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("server.run.write_checkpoint", full)
    record = train({"pretrain.rounds": 2}, keeps_checkpoints=True)
    assert any("no checkpoint of round 2: [Errno 28] No space left on device" in note for note in record.notes)
    assert record.rounds[-1].stage == "evaluate"
