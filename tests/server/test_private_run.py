"""Whole runs with differential privacy, in this process."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from clmm_core.errors import ConfigError
from clmm_core.federated.arrays import Arrays, part_of
from clmm_core.federated.messages import DeviceProfile, HostProfile, HostUpdate
from clmm_core.report.page import render
from clmm_core.report.records import RunRecord
from clmm_core.report.run_folder import SUMMARY, WEIGHTS
from clmm_core.training import engine
from clmm_core.training.array_names import is_measured
from server import budget as budget_module
from server.hosts import Answer, Enough, Question
from server.run_config import Value
from simulation.in_process import InProcessHosts

pytest.importorskip("opacus", reason="extra `privacy`")
Train = Callable[..., RunRecord]
PRIVATE: dict[str, Value] = {
    **{"privacy.noise-multiplier": 1.0, "privacy.clip": 0.5, "privacy.budget": 50.0},
    **{"pretrain.rounds": 2, "pretrain.participation": 0.6, "labels.num-devices": 3},
}


@pytest.fixture
def model(tmp_path: Path) -> Callable[[], Arrays]:
    """Read the weights that the run left."""
    return lambda: load_file(tmp_path / "results" / "run" / WEIGHTS)


class Recorded(InProcessHosts):
    """Hosts whose questions and profiles are kept."""

    def __init__(self, number: int = 2) -> None:
        super().__init__(number)
        self.asked: list[tuple[str, Question]] = []
        self.profiles: dict[str, DeviceProfile] = {}

    def ask(
        self, message_type: str, questions: Mapping[int, Question], reply_kind: type, enough: Enough | None = None
    ) -> tuple[dict[int, Answer], dict[int, str]]:
        self.asked += [(message_type, question) for question in questions.values()]
        answers, failures = super().ask(message_type, questions, reply_kind)
        profiles = [answer.reply for answer in answers.values() if isinstance(answer.reply, HostProfile)]
        self.profiles |= {device.device: device for profile in profiles for device in profile.devices}
        return answers, failures


class Failing(InProcessHosts):
    """Hosts that no training task comes back from."""

    def ask(
        self, message_type: str, questions: Mapping[int, Question], reply_kind: type, enough: Enough | None = None
    ) -> tuple[dict[int, Answer], dict[int, str]]:
        if message_type == "train.pretrain":
            return {}, dict.fromkeys(questions, "lost")
        return super().ask(message_type, questions, reply_kind)


def test_a_private_run_says_what_it_cost(train: Train, tmp_path: Path):
    record = train(PRIVATE)
    rounds = [each for each in record.rounds if each.server_round]
    spent = [each.epsilon for each in rounds]
    assert spent == sorted(spent)
    assert 0 < spent[0] < spent[-1] <= 50
    assert [each.clip for each in rounds] == [0.5] * 3
    assert all(each.epsilon is None for each in record.rounds if not each.server_round)
    summary = json.loads((tmp_path / "results" / "run" / SUMMARY).read_text())
    assert summary["privacy"] == {"epsilon": spent[-1], "delta": 1e-5, "budget": 50.0, "noise_multiplier": 1.0, "clip": 0.5}
    page = render(record)
    assert f"epsilon {spent[-1]:.3g} of 50 at delta 1e-05" in page
    assert "It does not cover" in page


def test_without_noise_nothing_is_different(train: Train, tmp_path: Path):
    record = train({"privacy.clip": 0.5, "privacy.budget": 3.0, "privacy.clip-quantile": 0.5})
    assert all(each.epsilon is None and each.clip is None for each in record.rounds)
    assert json.loads((tmp_path / "results" / "run" / SUMMARY).read_text())["privacy"] is None
    assert "Differential privacy" not in render(record)


def test_the_update_of_a_round_is_the_clipped_sum_over_the_devices_expected(
    train: Train, model: Callable[[], Arrays], monkeypatch: pytest.MonkeyPatch
):
    """With next to no noise: what each device learns by itself, shortened, added up by hand."""
    hosts = Recorded()
    monkeypatch.setattr(budget_module.Budget, "epsilons", lambda self: (1.0,) * 10)  # so little noise has no epsilon
    settings = {**PRIVATE, "privacy.noise-multiplier": 1e-9, "pretrain.rounds": 1, "finetune.rounds": 0, "data.missing-share": 0.3}
    split = train(settings, hosts=hosts).split
    asked = [question for message, question in hosts.asked if message == "train.pretrain"]
    has = {device: profile.modalities for device, profile in hosts.profiles.items() if device in split.training}
    assert 1 < len({name for names in has.values() for name in names}) < sum(len(names) for names in has.values()), "some lack some"
    totals: dict[str, NDArray[np.float64]] = {}
    for question in asked:
        for device in question.task.devices:
            alone = Question(replace(question.task, devices=(device,), clip=0.0), question.arrays)
            update = InProcessHosts(1).ask("train.pretrain", {0: alone}, HostUpdate)[0][0].arrays
            length = np.sqrt(sum(float((values.astype(np.float64) ** 2).sum()) for values in update.values()))
            for name, values in update.items():
                totals[name] = totals.get(name, 0.0) + values.astype(np.float64) * min(1.0, 0.5 / length)
    after = model()
    for name, total in totals.items():
        owners = sum(part_of(name) in names for names in has.values())
        np.testing.assert_allclose(after[name], asked[0].arrays[name] + total / (0.6 * owners), rtol=0, atol=2e-6, err_msg=name)


def close(one: Arrays, other: Arrays, tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=tolerance, err_msg=name)


def test_hosts_that_fold_and_hosts_that_do_not_end_in_the_same_model(train: Train, model: Callable[[], Arrays], tmp_path: Path):
    folded = train(
        {**PRIVATE, "privacy.clip-quantile": 0.5, "privacy.noise-multiplier": 0.2, "privacy.budget": 1000.0}, hosts=InProcessHosts(3)
    )
    first = model()
    shutil.rmtree(tmp_path / "results")
    apart = train(
        {
            **PRIVATE,
            "privacy.clip-quantile": 0.5,
            "privacy.noise-multiplier": 0.2,
            "privacy.budget": 1000.0,
            "communication.host-aggregation": False,
        }
    )
    close(first, model(), 1e-5)
    assert [each.clip for each in folded.rounds] == [each.clip for each in apart.rounds]
    clips = [each.clip for each in folded.rounds if each.server_round]
    assert clips[0] == clips[2] == 0.5, "each stage begins anew"
    assert clips[1] != 0.5, "it adapts"


def test_who_shares_a_stack_changes_nothing_but_rounding(train: Train, model: Callable[[], Arrays], tmp_path: Path, monkeypatch):
    train(PRIVATE)
    first = model()
    shutil.rmtree(tmp_path / "results")
    monkeypatch.setattr(engine, "is_worth_a_stack", lambda alike: True)
    train(PRIVATE)
    close(first, model(), 1e-4)


def test_a_round_of_nobody_is_noise_and_costs_as_any_other(train: Train, model: Callable[[], Arrays]):
    hosts = Recorded()
    settings = {**PRIVATE, "pretrain.participation": 1e-6, "pretrain.rounds": 1, "finetune.rounds": 0, "privacy.clip": 1e-6}
    record = train(settings, hosts=hosts)
    (only,) = (each for each in record.rounds if each.server_round)
    assert (only.num_hosts, only.num_devices, only.loss) == (0, 0, None)
    assert only.epsilon is not None
    assert not [message for message, _ in hosts.asked if message == "train.pretrain"]
    assert any(not is_measured(name) and np.abs(values).max() > 0.1 for name, values in model().items())


def test_a_round_whose_hosts_all_fail_is_noise_and_is_told(train: Train):
    record = train({**PRIVATE, "pretrain.participation": 1.0}, hosts=Failing(2))
    first, *_ = (each for each in record.rounds if each.server_round)
    assert first.num_devices == 0
    assert any("expected answers of at least 50%" in line for line in first.left_out)
    assert record.rounds[-1].stage == "evaluate"


def test_a_run_over_its_budget_is_refused_before_it_trains(train: Train, left_behind: Callable[[], list[str]]):
    hosts = Recorded()
    message = (
        r"privacy.budget: expected the 3 planned rounds \(pretrain 2 at participation 0.6, finetune 1 at participation 1\) to cost an "
        r"epsilon of at most 5 at delta 1e-05, found \d+\.\d+; the first 1 would fit: plan fewer rounds"
    )
    with pytest.raises(ConfigError, match=message):
        train({**PRIVATE, "privacy.budget": 5.0}, hosts=hosts)
    assert not any(message.startswith("train.") for message, _ in hosts.asked)
    assert left_behind() == []


def test_too_few_devices_for_the_clip_to_adapt_are_refused_before_it_trains(train: Train):
    with pytest.raises(ConfigError, match=r"pretrain: privacy.clip-quantile: expected 0 with so few devices.*more than 10 devices"):
        train({**PRIVATE, "privacy.clip-quantile": 0.5})


def test_the_task_tells_the_clip_and_nothing_of_the_noise(train: Train):
    hosts = Recorded()
    train(PRIVATE, hosts=hosts)
    tasks = [question.task for message, question in hosts.asked if message.startswith("train.")]
    assert {task.clip for task in tasks} == {0.5}
