from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clmm_core.data.fleet import DataConfig, device_names
from clmm_core.data.labels import LabelDraw
from clmm_core.errors import ConfigError
from clmm_core.federated.individual import apart
from clmm_core.federated.messages import HostUpdate
from clmm_core.federated.source import client_source
from clmm_core.models.config import ModalityShape, ModelChoice, sized
from clmm_core.training.model_arrays import new_arrays
from clmm_core.training.settings import FinetuneConfig, LocalConfig
from clmm_core.training.tasks import FinetuneTask
from server.hosts import Question
from simulation.bench import reliability
from simulation.bench.attacks import ATTACKS, sign_flip
from simulation.bench.crashes import KilledRun, KilledWriters, killed_writers
from simulation.bench.failing import FailingHosts
from simulation.bench.hostile import LABEL_FLIP, Attacked, HostileHosts
from simulation.bench.reliability import (
    Accuracy,
    Reliability,
    attacks_in_a_table,
    dying_in_words,
    gate_in_words,
    gate_ms,
    killed_in_words,
    run_reliability,
    writers_in_words,
)

DATA = DataConfig(name="synthetic", modalities=("accelerometer", "gyroscope"), num_devices=5, window_s=1.28, overlap=0.0)
DEVICES = tuple(device_names(DATA))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def question() -> Question:
    """A round of stage two on five devices, whose updates come back one by one."""
    shapes = tuple(ModalityShape(name=name, channels=3, time_steps=64) for name in ("accelerometer", "gyroscope"))
    model = sized(ModelChoice(embed=16), shapes, 3)
    local = LocalConfig(epochs=1, batch_size=16, learning_rate=0.1, optimizer="sgd")  # AdamW makes much of rounding
    task = FinetuneTask(
        data=DATA,
        model=model,
        classes=("run", "still", "walk"),
        seed=0,
        server_round=1,
        devices=DEVICES,
        host_aggregation=False,
        config=FinetuneConfig(local=local, encoder_rate=1.0),
        labels=LabelDraw(per_class=1, unit="trial", seed=0),
    )
    return Question(task, new_arrays(model, 0))


def updates_of(hosts: HostileHosts, question: Question) -> dict[str, dict[str, np.ndarray]]:
    (answer,) = hosts.ask("train.finetune", {0: question}, HostUpdate)[0].values()
    assert (answer.reply.server_round, answer.reply.source) == (1, client_source())
    rows = answer.reply.devices
    assert sorted(row.device for row in rows) == sorted(DEVICES)
    return dict(zip((row.device for row in rows), apart(answer.arrays, len(rows)), strict=True))


@pytest.mark.parametrize("attack", [*ATTACKS, LABEL_FLIP])
def test_hostile_devices_send_what_the_attack_says_and_the_others_what_they_learned(question: Question, attack: str):
    honest, attacked = updates_of(HostileHosts("", 0.4, 3), question), updates_of(hosts := HostileHosts(attack, 0.4, 3), question)
    hostile = hosts.hostile(DEVICES)
    assert len(hostile) == 2
    for device in DEVICES:
        is_same = all(np.allclose(attacked[device][name], honest[device][name], rtol=1e-3, atol=1e-5) for name in honest[device])
        assert is_same == (device not in hostile), device
    if attack == "sign-flip":
        name = next(iter(honest[DEVICES[0]]))
        rows = np.stack([honest[device][name].ravel() for device in DEVICES if device not in hostile])
        for device in hostile:
            np.testing.assert_allclose(attacked[device][name].ravel(), sign_flip(rows, 2), rtol=1e-5, atol=1e-8)


def test_who_dies_is_a_draw_of_seed_round_and_device_and_the_first_is_always_late(question: Question):
    left = [FailingHosts(0.3, 1).left(replace(question.task, server_round=number)) for number in range(200)]
    assert left == [FailingHosts(0.3, 1).left(replace(question.task, server_round=number)) for number in range(200)]
    assert not any(DEVICES[0] in each for each in left)
    shares = [sum(device in each for each in left) / 200 for device in DEVICES[1:]]
    assert all(0.6 < share < 0.8 for share in shares)
    (answer,) = FailingHosts(0.3, 1).ask("train.finetune", {0: question}, HostUpdate)[0].values()
    assert tuple(row.device for row in answer.reply.devices) == FailingHosts(0.3, 1).left(question.task)


def test_a_writer_that_is_killed_leaves_a_checkpoint_that_can_be_read():
    assert killed_writers(2) == KilledWriters(num_killed=2, num_loadable=2, num_half_written=0)


def test_the_gates_time_is_taken():
    assert 0 < gate_ms() < 1000


def test_rows_say_what_was_found_and_whether_it_is_enough():
    run = KilledRun(killed_after=4, num_repeated=1, is_equal=True)
    assert "| 10 of 10 have its bits; killed after rounds 4, 4, 4, 4, 4, 4, 4, 4, 4, 4; at most 1 round(s) repeated | reached |" in (
        killed_in_words([run] * 10)
    )
    assert "**not reached**" in killed_in_words([run] * 9)
    assert "**not reached**" in killed_in_words([run] * 9 + [replace(run, is_equal=False)])
    assert "**not reached**" in killed_in_words([run] * 9 + [replace(run, num_repeated=2)])
    assert "49 of 50 loadable, 0 half written | **not reached**" in (
        writers_in_words(KilledWriters(num_killed=50, num_loadable=49, num_half_written=0))
    )
    pair = (Accuracy(accuracy=92.0, macro_f1=91.0), Accuracy(accuracy=90.0, macro_f1=89.5))
    assert "1.5 lost (91.0 without failures, 89.5 with them, 1 run(s) each) | reached |" in dying_in_words([pair])
    assert "5.1 ms (median of 50) | **not reached** |" in gate_in_words(5.1)


def test_attacks_are_points_lost_against_the_mean_without_anybody_hostile():
    def found(rule, attack, share, seed, accuracy):
        return Attacked(rule=rule, attack=attack, share=share, seed=seed, accuracy=accuracy, macro_f1=accuracy)

    runs = [found("mean", "", 0.2, 0, 90.0), found("mean", "", 0.2, 1, 92.0), found("median", "", 0.2, 0, 89.0)]
    runs += [found("mean", "alie", 0.3, 0, 40.0), found("median", "alie", 0.3, 0, 88.5)]
    lines = attacks_in_a_table(runs).splitlines()
    assert lines[2:] == [
        "| attack | hostile | `mean` | `median` |",
        "|---|---|---|---|",
        "| nobody hostile | | 91.0 | 89.0 |",
        "| alie | 30% | -51.0 | -2.5 |",
    ]
    assert lines[0].startswith("R7, ")
    assert "2 run(s) each" in lines[0]


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ConfigError, match=r"--rows: expected some of R1, R2, R4, R6, R7, found R3; the others are tests"):
        Reliability(rows=("R3",))
    with pytest.raises(ConfigError, match="--hapt: R4 and R7 learn from HAPT"):
        Reliability(rows=("R7",))


def test_rows_go_into_a_page_and_are_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench reliability: begin -->\n<!-- bench reliability: end -->\nafter\n")
    said: list[str] = []
    run_reliability(Reliability(rows=("R6",)), tmp_path, page, ["clmm", "bench", "reliability"], said.append)
    first = page.read_text()
    assert "| R6 | the gate's processor time" in first
    assert first.startswith("before\n")
    assert first.endswith("after\n")
    monkeypatch.setattr(reliability, "gate_ms", lambda: pytest.fail("measured again"))
    run_reliability(Reliability(rows=("R6",)), tmp_path, page, ["clmm", "bench", "reliability"], said.append)
    assert page.read_text() == first
