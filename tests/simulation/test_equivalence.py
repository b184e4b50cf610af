"""What must be equal whatever the federation looks like: federated and central training, few hosts and many, owners and all."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from clmm_core.data.fleet import device_windows
from clmm_core.data.labels import draw_labelled
from clmm_core.federated.arrays import Arrays
from clmm_core.models.clmm import Clmm
from clmm_core.models.config import ModalityShape, sized
from clmm_core.report.records import RunInfo, RunRecord
from clmm_core.report.run_folder import RunFolder
from clmm_core.seeds import derive_seed, generator
from clmm_core.training.cohort import train_cohort
from clmm_core.training.drawn_dropout import draws_for
from clmm_core.training.model_arrays import arrays_of, new_arrays
from clmm_core.training.quality import hopkins
from clmm_core.training.tasks import PretrainTask
from server.federation import begin, run_federation
from server.run_config import RunConfig, Value, parse_run_config
from simulation.in_process import InProcessHosts

MODALITIES = ("accelerometer", "gyroscope")
FLEET: dict[str, Value] = {"data.name": "synthetic", "data.modalities": ",".join(MODALITIES), "data.window-s": 7.0, "data.overlap": 0.0}
"""12 windows a device, one of each activity and session; device-00000 and -00008 of seed 0 have no gyroscope."""
QUICK: dict[str, Value] = {
    "pretrain.views": 3,
    "report.points-per-device": 0,
    "personalise.per-class": 0,
    "pretrain.local-epochs": 1,
    "finetune.local-epochs": 1,
}
NO_AUGMENTATION: dict[str, Value] = {
    f"augment.{name}": 0.0 for name in ("rotation-deg", "scale", "jitter", "crop", "time-warp", "channel-dropout", "modality-dropout")
}
LEARNING_RATE = 0.02
PLAIN_DESCENT: dict[str, Value] = {
    "client.optimizer": "sgd",
    "client.weight-decay": 0.0,
    "client.proximal": 0.0,
    "pretrain.lr": LEARNING_RATE,
    "finetune.lr": LEARNING_RATE,
}

ROUNDS: dict[str, Value] = {"batch-size": 100, "participation": 1.0, "decay": "none", "server-optimizer": "fedavg", "server-lr": 1.0}
METHOD: dict[str, Value] = {
    "pretrain.loss": "hard-positive",
    "pretrain.temperature": 0.07,
    "pretrain.beta": 2.0,
    "pretrain.copies": 2,
    **{f"{stage}.{key}": value for stage in ("pretrain", "finetune") for key, value in ROUNDS.items()},
    "finetune.encoder-rate": 0.2,
    "finetune.auxiliary": 0.3,
    "model.preset": "edge",
    "model.attention": "diff-v1",
    "model.dropout": 0.1,
    "labels.per-class": 1,
}
"""What the training written out below takes as given, so that another default changes nothing here."""


@dataclass(frozen=True)
class Outcome:
    config: RunConfig
    record: RunRecord
    arrays: Arrays


Run = Callable[[int, dict[str, Value]], Outcome]


@pytest.fixture
def run(run_config: Callable[..., dict[str, Value]], tmp_path: Path) -> Run:
    """Run a federation of the synthetic fleet in this process: `run(num_hosts, overrides)`."""
    torch.set_num_threads(1)

    def make(num_hosts: int, overrides: dict[str, Value]) -> Outcome:
        values = run_config(FLEET | QUICK | overrides)
        config = parse_run_config(values)
        info = RunInfo(name="test", run_config=values, versions={}, machine="", started_at="2026-01-01T00:00:00+00:00")
        folder = RunFolder.create(tmp_path / f"{len(list(tmp_path.iterdir()))}", "test")
        return Outcome(config, *run_federation(begin(InProcessHosts(num_hosts), config, info, folder, lambda _: None)))

    return make


def assert_close(one: Arrays, other: Arrays, tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=tolerance, err_msg=name)


def with_differences(samples: np.ndarray) -> np.ndarray:
    """Every channel, then every channel's mean of the steps to and from each sample; a step over the edge of the window is 0."""
    steps = np.diff(samples, axis=2)
    into, out_of = np.pad(steps, ((0, 0), (0, 0), (1, 0))), np.pad(steps, ((0, 0), (0, 0), (0, 1)))
    return np.concatenate([samples, (into + out_of) / 2], axis=1)


@dataclass
class Central:
    """Both stages without a federation, on one device's windows: all of them in every step, gradient descent by hand."""

    config: RunConfig
    classes: tuple[str, ...]
    device: str = "device-00000"
    losses: list[float] = field(default_factory=list)

    def train(self) -> Arrays:
        shapes = tuple(ModalityShape(name=name, channels=3, time_steps=350) for name in MODALITIES)
        self.model = Clmm(sized(self.config.model, shapes, len(self.classes)))
        start = new_arrays(self.model.config, self.config.seed)
        self.model.load_state_dict({name: torch.from_numpy(values) for name, values in start.items()})
        windows = device_windows(self.config.data, self.device)
        self.streams = {name: torch.from_numpy(values) for name, values in windows.streams.items()}
        self.present = {name: torch.from_numpy(mask) for name, mask in windows.present.items()}
        for name in MODALITIES:
            samples = with_differences(windows.streams[name][windows.present[name]].astype(np.float64))
            self.model.part(name).mean.copy_(torch.from_numpy(samples.mean(axis=(0, 2))))
            self.model.part(name).std.copy_(torch.from_numpy(samples.std(axis=(0, 2))))
        stage_one, stage_two = self.config.pretrain_stage.rounds, self.config.finetune_stage.rounds
        for server_round in range(1, stage_one + 1):
            self._step("pretrain", server_round, len(windows), self._contrastive_loss)
        self._measure_quality()
        rows, _ = draw_labelled(windows, self.classes, self.config.labels)
        for values in (self.streams, self.present):
            values |= {name: each[rows] for name, each in values.items()}
        self.truth = torch.tensor([self.classes.index(label) for label in windows.labels[rows]])
        for server_round in range(stage_one + 1, stage_one + stage_two + 1):
            self._step("finetune", server_round, len(rows), self._classification_loss)
        return arrays_of(self.model)

    def _step(self, stage: str, server_round: int, num_windows: int, loss_of: Callable[[Tensor], Tensor]) -> None:
        self.model.train()
        draws = draws_for(self.model, derive_seed(self.config.seed, stage, server_round, self.device))
        order = draws.permutation(num_windows)
        self.draws = draws.step(0)  # what dropout draws from, and before it what would drop modalities and change windows
        self._pass_over(1)
        loss = loss_of(order)
        self.model.zero_grad()
        loss.backward()
        self.losses.append(loss.item())
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                slower = stage == "finetune" and (".encoder." in name or ".projection." in name)
                if parameter.grad is not None:
                    parameter.sub_(LEARNING_RATE * (0.2 if slower else 1.0) * parameter.grad)

    def _pass_over(self, count: int) -> None:
        for _ in range(count):
            self.draws.uniform(1)

    def _contrastive_loss(self, rows: Tensor) -> Tensor:
        present = {name: mask[rows] for name, mask in self.present.items()}
        normal = self.model.normalise({name: values[rows] for name, values in self.streams.items()}, present)
        views = []
        copies = []
        for _ in range(2):  # they differ by dropout
            self._pass_over(3)
            copies.append(self.model.project(self.model.encode(normal)))
        for k, a in enumerate((0.25, 0.5, 0.75)):
            r = copies[k % 2]
            one, other = (r[name] * present[name][:, None] for name in MODALITIES)
            views.append(normalize(a * one + (1 - a) * other, dim=1))
        points, ids = torch.cat(views), torch.arange(len(rows)).repeat(3)
        anchors = []
        for i in range(len(points)):
            s = points @ points[i]
            others = torch.arange(len(points)) != i
            positives = others & (ids == ids[i])
            weights = torch.softmax(2 * (1 - s[positives].detach()), dim=0)
            anchors.append(-(weights * (s[positives] / 0.07 - (s[others] / 0.07).logsumexp(dim=0))).sum())
        return torch.stack(anchors).mean()

    def _classification_loss(self, rows: Tensor) -> Tensor:
        present, truth = {name: mask[rows] for name, mask in self.present.items()}, self.truth[rows]
        normal = self.model.normalise({name: values[rows] for name, values in self.streams.items()}, present)
        self._pass_over(3)
        outputs = self.model.classify(normal, present)
        spoken = {name: present.get(name, torch.ones(len(rows), dtype=torch.bool)) for name in outputs.auxiliary}
        auxiliary = [cross_entropy(logits[spoken[name]], truth[spoken[name]]) for name, logits in outputs.auxiliary.items()]
        return cross_entropy(outputs.primary, truth) + 0.3 * sum(auxiliary) / len(auxiliary)

    @torch.no_grad()
    def _measure_quality(self) -> None:
        self.model.eval()
        above = []
        for name in MODALITIES:
            mask = self.present[name]
            tokens = self.model.encode(self.model.normalise({name: self.streams[name][mask]}, {name: mask[mask]}))[name]
            above.append(max(hopkins(tokens.mean(dim=1), generator(self.config.seed, "quality", self.device, name)) - 0.5, 0.02))
        self.model.fusion.quality.copy_(torch.tensor(above) / sum(above))


def test_one_device_on_one_host_is_central_training(run: Run):
    """The federation adds nothing of its own: eight rounds of one step each, dropout included, end at the same numbers."""
    alone = {"seed": 3, "data.num-devices": 1, "split.num-test": 0, "split.num-validation": 0, "labels.num-devices": 1}
    rounds = {"pretrain.rounds": 4, "finetune.rounds": 4}
    outcome = run(1, alone | rounds | METHOD | PLAIN_DESCENT | NO_AUGMENTATION)
    central = Central(outcome.config, outcome.record.split.classes)
    expected = central.train()
    assert_close(outcome.arrays, expected, tolerance=1e-5)
    losses = [record.loss for record in outcome.record.rounds if record.stage in ("pretrain", "finetune")]
    assert losses == pytest.approx(central.losses, abs=1e-4)
    moved = [np.abs(expected[name] - values).max() for name, values in new_arrays(central.model.config, 3).items()]
    assert min(moved) > 0  # every array, or this test would compare what never changed


# AdamW makes a visible step of a gradient near 0, and so of the last bit of where a round starts: with it, one round of either stage.
ADAMW: dict[str, Value] = {"client.optimizer": "adamw", "pretrain.lr": 0.001, "finetune.lr": 0.001}


@pytest.mark.parametrize(
    ("num_devices", "rounds", "descent"),
    [(40, (2, 2), PLAIN_DESCENT), (12, (1, 0), ADAMW), (12, (0, 1), ADAMW)],
    ids=["sgd", "adamw-pretrain", "adamw-finetune"],
)
def test_few_hosts_equal_many(run: Run, num_devices: int, rounds: tuple[int, int], descent: dict[str, Value]):
    """40 devices, some without a gyroscope: 10 on each of 4 hosts, or one on each of 40."""
    fleet = {"data.num-devices": num_devices, "labels.num-devices": 6, "pretrain.rounds": rounds[0], "finetune.rounds": rounds[1]}
    few, many = (run(num_hosts, fleet | METHOD | descent) for num_hosts in (4, num_devices))
    lacking = {subject.subject for subject in few.record.subjects if "gyroscope" not in subject.modalities}
    assert 0 < len(lacking & set(few.record.split.training)) < num_devices / 2
    assert few.record.split == many.record.split
    assert_close(few.arrays, many.arrays, tolerance=1e-5)
    assert few.record.quality == pytest.approx(many.record.quality, abs=1e-5)
    for one, other in zip(few.record.subjects, many.record.subjects, strict=True):
        assert one.subject == other.subject
        assert np.array_equal(one.counts.confusion, other.counts.confusion)


def test_updates_that_hosts_do_not_fold_give_the_model_that_folded_ones_give(run: Run):
    fleet = {"data.num-devices": 10, "labels.num-devices": 4, "pretrain.rounds": 2, "finetune.rounds": 1, "selftrain.rounds": 1}
    folded, apart = (run(2, fleet | METHOD | PLAIN_DESCENT | {"communication.host-aggregation": is_folded}) for is_folded in (True, False))
    assert_close(apart.arrays, folded.arrays, tolerance=1e-6)
    trained = {stage: [r for r in apart.record.rounds if r.stage == stage] for stage in ("pretrain", "finetune", "selftrain")}
    for stage, records in trained.items():
        same = [r for r in folded.record.rounds if r.stage == stage]
        assert [(r.num_hosts, r.num_devices, r.num_windows) for r in records] == [(r.num_hosts, r.num_devices, r.num_windows) for r in same]
        assert [r.loss for r in records] == pytest.approx([r.loss for r in same], rel=1e-4)
        up, up_folded = (
            sum(sum(each.up.values()) for r in some for each in r.traffic if each.message == f"train.{stage}") for some in (records, same)
        )
        assert up > 1.5 * up_folded, "each device's update was sent"


def test_a_simulated_fleet_is_the_same_on_few_hosts_and_many(run: Run):
    """Who drops out, who is too slow, how long a round takes and what comes of it: from the seed alone."""
    fleet = {"data.num-devices": 12, "labels.num-devices": 4, "pretrain.rounds": 3, "finetune.rounds": 2, "pretrain.participation": 0.7}
    absent = {"fleet.drop-out": 0.2, "fleet.speed-spread": 0.7, "fleet.windows-per-s": 10.0, "fleet.deadline-s": 1.5}
    few, many = (run(num_hosts, fleet | absent | METHOD | PLAIN_DESCENT) for num_hosts in (2, 12))
    kept = ("server_round", "num_devices", "num_dropped_out", "num_stragglers", "simulated_s", "num_windows")
    rounds = [[[getattr(record, name) for name in kept] for record in each.record.rounds if record.server_round] for each in (few, many)]
    assert rounds[0] == rounds[1]
    assert all(sum(record[i] for record in rounds[0]) for i in (1, 2, 3)), "some of each, or this would compare nothing"
    assert_close(few.arrays, many.arrays, tolerance=1e-5)
    assert few.record.notes[-1].startswith("simulated fleet: over 5 rounds")


def test_devices_without_a_gyroscope_leave_its_encoder_as_the_owners_mean(run: Run):
    """To the bit, normalisation included: a round over two owners and two others, against one over the two owners alone."""
    owners, lacking = ("device-00003", "device-00004"), ("device-00000", "device-00008")
    others = {f"device-{number:05d}" for number in range(12)} - {*owners, *lacking}
    split = {"data.num-devices": 12, "split.num-validation": 0, "split.test": ",".join(others), "labels.devices": owners[0]}
    outcome = run(1, split | {"pretrain.rounds": 1, "finetune.rounds": 0})
    assert set(outcome.record.split.training) == {*owners, *lacking}
    shapes = tuple(ModalityShape(name=name, channels=3, time_steps=350) for name in MODALITIES)
    model = sized(outcome.config.model, shapes, len(outcome.record.split.classes))
    start = new_arrays(model, 0) | {name: values for name, values in outcome.arrays.items() if name.endswith((".mean", ".std"))}
    settings = {"data": outcome.config.data, "model": model, "classes": outcome.record.split.classes, "seed": 0, "server_round": 1}
    _, update = train_cohort(PretrainTask(**settings, devices=owners, config=outcome.config.pretrain), start)
    for name in start:
        if name.startswith("modalities.gyroscope.") and name in update:
            np.testing.assert_array_equal(outcome.arrays[name], start[name] + update[name], err_msg=name)
    samples = with_differences(np.concatenate([device_windows(outcome.config.data, owner).streams["gyroscope"] for owner in owners]))
    np.testing.assert_allclose(outcome.arrays["modalities.gyroscope.mean"], samples.mean(axis=(0, 2)), rtol=1e-4, atol=1e-6)
    encoder = "modalities.accelerometer.encoder.positions"
    assert not np.array_equal(outcome.arrays[encoder], start[encoder] + update[encoder])  # the others do train what they have
