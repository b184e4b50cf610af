"""What a model gives away of those it was trained on: membership from its losses, and a window from a gradient of it.

Both are attacks that anybody with the model (or one update) can make in minutes, so what they find is the least that leaks, not the most.

Source: loss-threshold membership inference, Yeom et al. 2018, "Privacy Risk in Machine Learning", arXiv 1709.01604; gradient inversion by
L-BFGS, Zhu et al. 2019, "Deep Leakage from Gradients", arXiv 1906.08935, with the label known, as Zhao et al. 2020, arXiv 2001.02610.
Differs: the area under the curve over all thresholds in place of one; the distance of gradients is relative to the true one's length.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from clmm_core.data.fleet import device_names
from clmm_core.errors import DataError
from clmm_core.federated.arrays import Arrays
from clmm_core.models.config import sized
from clmm_core.report.lines import percent
from clmm_core.report.metrics import summarise
from clmm_core.report.privacy import privacy_of
from clmm_core.report.records import RunInfo
from clmm_core.report.run_folder import RunFolder
from clmm_core.seeds import derive_seed, generator, seeded
from clmm_core.training.alone import CPU
from clmm_core.training.device_tensors import DeviceTensors
from clmm_core.training.draws import Draws
from clmm_core.training.finetune import finetune_loss, finetuned_parameters
from clmm_core.training.lessons import whole_windows
from clmm_core.training.predict_together import predict
from clmm_core.training.settings import Augmentation
from clmm_core.training.stackable import stackable
from clmm_core.training.tasks import ModelTask
from server.federation import begin, run_federation
from server.run import Run
from server.run_config import Value, parse_run_config
from simulation.in_process import InProcessHosts

REPLICATES = 1000
"""Of the bootstrap."""
MOST_STEPS = 300
"""Of L-BFGS."""
BUDGET = 1e12
"""Epsilon that a run may cost here: what noise does is measured also where it promises nothing."""
OF_MEMBERSHIP: Mapping[str, Value] = {
    **{"split.test": "", "split.num-validation": 0, "labels.devices": "", "labels.num-devices": 1_000_000, "labels.per-class": 0},
    **{"personalise.per-class": 0, "report.points-per-device": 0, "report.validate-every": 0, "privacy.budget": BUDGET},
}
"""All training people give all their labels, half of the people are unseen, and nothing is looked at on the way."""


@dataclass(frozen=True, kw_only=True)
class Membership:
    """How well a loss tells people who were trained on from others."""

    level: str
    """`device`: a person by the mean loss over its windows; `window`: each window by its own."""
    noise_multiplier: float
    epsilon: float | None
    """None without noise."""
    auc: float
    """Probability that one who was trained on has the lower loss; 0.5 is guessing."""
    low: float
    high: float
    """95 % interval."""
    num_splits: int
    """Models, each trained on other people."""
    num_trained: int
    num_unseen: int
    """People on either side of a split."""
    accuracy_unseen: float
    """What the model is worth."""


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """How much of a window comes back from the gradient of one step on it alone."""

    network: str
    r: tuple[float, ...]
    """By window, the correlation of what was sent and what was found, the best of the starts."""


def membership(values: Mapping[str, Value], noise_multiplier: float, splits: int) -> list[Membership]:
    """Train a model on each of several halves of the people and attack it, by device and by window.

    Args:
        values: a run config; each split has its seed and those that follow.
        noise_multiplier: of differential privacy; 0 for none.
        splits: how many.

    Raises:
        DataError: fewer than four people.
    """
    num_people = len(device_names(parse_run_config(values).data))
    if num_people < 4:
        raise DataError(f"expected recordings of at least 4 people, to train on some and compare with others, found {num_people}")
    seed = int(values["seed"])
    models = []
    for number in range(splits):
        own = {**values, **OF_MEMBERSHIP, "seed": seed + number, "split.num-test": num_people // 2}
        with tempfile.TemporaryDirectory() as folder:
            run = _begun({**own, "privacy.noise-multiplier": noise_multiplier}, Path(folder))
            record, arrays = run_federation(run)
        losses = [_losses(run, arrays, devices) for devices in (run.split.training, run.split.test)]
        summary, spent = summarise(record.subjects, "unseen"), privacy_of(record)
        models.append((losses, 0.0 if summary is None else summary.accuracy_mean))
    found = []
    for level in ("device", "window"):
        sides = [[[losses.mean(keepdims=True) if level == "device" else losses for losses in side] for side in both] for both, _ in models]
        auc, low, high = auc_of([(trained, unseen) for trained, unseen in sides], seed)
        found.append(
            Membership(
                level=level,
                noise_multiplier=noise_multiplier,
                epsilon=None if spent is None else spent.epsilon,
                **{"auc": auc, "low": low, "high": high, "num_splits": splits},
                num_trained=len(models[0][0][0]),
                num_unseen=len(models[0][0][1]),
                accuracy_unseen=float(np.mean([accuracy for _, accuracy in models])),
            )
        )
    return found


def _begun(values: Mapping[str, Value], folder: Path) -> Run:
    """Return a run in this process."""
    info = RunInfo(name="leakage", run_config=values, versions={}, machine="", started_at="")
    return begin(InProcessHosts(1), parse_run_config(values), info, RunFolder.create(folder, info.name), lambda record: None)


def _losses(run: Run, arrays: Arrays, devices: Sequence[str]) -> list[NDArray[np.float64]]:
    """Return the cross-entropy of each person's labelled windows, those without any left out."""
    found = []
    for device in devices:
        task = ModelTask(**run.task_settings(), devices=(device,))
        windows = whole_windows(task, arrays, (device,))
        is_labelled = windows.classes >= 0
        if is_labelled.any():
            (logits,) = predict([(run.model, arrays, windows)], CPU)
            losses = F.cross_entropy(logits[is_labelled].double(), windows.classes[is_labelled], reduction="none")
            found.append(losses.numpy())
    return found


Losses = Sequence[NDArray[np.float64]]
"""By person, `[windows]`."""


def auc_of(splits: Sequence[tuple[Losses, Losses]], seed: int) -> tuple[float, float, float]:
    """Return how often a loss of somebody trained on is below one of somebody unseen, ties half, and its 95 % interval.

    The mean over splits; for the interval splits are drawn anew, which are models too, and in each of them the people of either side.

    Args:
        splits: of each model the losses of those it was trained on, and of others.
        seed: of the bootstrap.
    """
    tables = [_pairs(trained, unseen) for trained, unseen in splits]
    random = np.random.default_rng(derive_seed(seed, "bootstrap"))

    def again() -> float:
        areas = []
        for number in random.integers(len(tables), size=len(tables)):
            below, pairs = tables[number]
            people = np.ix_(*(random.integers(count, size=count) for count in below.shape))
            areas.append(below[people].sum() / pairs[people].sum())
        return float(np.mean(areas))

    low, high = np.quantile([again() for _ in range(REPLICATES)], (0.025, 0.975))
    return float(np.mean([below.sum() / pairs.sum() for below, pairs in tables])), float(low), float(high)


def _pairs(trained: Losses, unseen: Losses) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return by pair of people, `[trained, unseen]`, the pairs of windows in which the first has the lower loss, and all of them."""
    below = np.zeros((len(trained), len(unseen)))
    pairs = np.zeros_like(below)
    for j, other in enumerate(np.sort(losses) for losses in unseen):
        for i, one in enumerate(trained):
            above = len(other) - (np.searchsorted(other, one, "left") + np.searchsorted(other, one, "right")) / 2
            below[i, j], pairs[i, j] = above.sum(), len(one) * len(other)
    return below, pairs


class FlattenedCnn(nn.Module):
    """The positive control: a network known to give its input away. Source: the LeNet of Zhu et al. 2019, in one dimension."""

    def __init__(self, channels: int, time_steps: int, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv1d(channels, 12, 5, padding=2, stride=2), nn.Sigmoid()),
            *(nn.Conv1d(12, 12, 5, padding=2), nn.Sigmoid(), nn.Flatten()),
        )
        with torch.no_grad():
            num_features = self.body(torch.zeros(1, channels, time_steps)).shape[1]
        self.head = nn.Linear(num_features, num_classes)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5)

    def forward(self, windows: Tensor) -> Tensor:
        """Return logits `[B, classes]` of `[B, C, T]`."""
        return self.head(self.body(windows))


def inversions(values: Mapping[str, Value], num_windows: int, starts: int) -> list[Inversion]:
    """Return how much of some windows of the first modality comes back, from the control and from CLMM, both as they are initialised.

    A window alone in its batch, without augmentation or dropout: the attacker's best case. What hosts send is the sum of many steps on
    many windows, from which less comes back.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = _begun({**values, "model.dropout": 0.0}, Path(folder))
    device = min(run.split.training)
    windows = whole_windows(ModelTask(**run.task_settings(), devices=(device,)), run.arrays, (device,))
    name = next(iter(windows.streams))
    usable = (windows.present[name] & (windows.classes >= 0)).nonzero()[:, 0]
    chosen = usable[torch.linspace(0, len(usable) - 1, num_windows).long()]
    normal = windows.streams[name][chosen]
    normal = (normal - normal.mean(dim=2, keepdim=True)) / normal.std(dim=2, keepdim=True).clamp(min=1e-6)
    classes, seed = windows.classes[chosen], run.config.seed
    shape = next(each for each in run.model.modalities if each.name == name)
    with seeded(seed, "leakage"):
        control = FlattenedCnn(shape.channels, shape.time_steps, run.model.num_classes)
    config = sized(run.config.model, (shape,), run.model.num_classes)
    with seeded(seed, "leakage"):
        clmm, _ = stackable(config)
    plain, draws = replace(run.config.finetune, augmentation=_none()), Draws(torch.tensor(0))

    def clmm_loss(window: Tensor, label: Tensor) -> Tensor:
        batch = DeviceTensors({name: window}, {name: torch.ones(1, dtype=torch.bool)}, label)
        return finetune_loss(clmm, batch, plain, draws)

    slow, quick = finetuned_parameters(clmm, (name,))
    attacked: tuple[tuple[str, Callable[[Tensor, Tensor], Tensor], list[nn.Parameter]], ...] = (
        ("CNN, flattened (control)", lambda window, label: F.cross_entropy(control(window), label), list(control.parameters())),
        ("CLMM", clmm_loss, [*slow, *quick]),
    )
    return [
        Inversion(
            network=network,
            r=tuple(
                max(_inverted(loss_of, learning, window[None], label[None], seed + start) for start in range(starts))
                for window, label in zip(normal, classes, strict=True)
            ),
        )
        for network, loss_of, learning in attacked
    ]


def _none() -> Augmentation:
    return Augmentation(scale=0.0, jitter=0.0, crop=0.0)


def _inverted(
    loss_of: Callable[[Tensor, Tensor], Tensor], learning: Sequence[nn.Parameter], window: Tensor, label: Tensor, seed: int
) -> float:
    """Return the correlation of a window `[1, C, T]` with what its gradient is turned back into."""

    def gradient(of: Tensor, *, keep: bool) -> Tensor:
        found = torch.autograd.grad(loss_of(of, label), learning, create_graph=keep, allow_unused=True)
        return torch.cat([each.flatten() for each in found if each is not None])

    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        given = gradient(window, keep=False).detach()
        guess = torch.randn(window.shape, generator=generator(seed, "leakage", "start")).requires_grad_()
        optimizer = torch.optim.LBFGS([guess], max_iter=MOST_STEPS, history_size=50, line_search_fn="strong_wolfe", tolerance_change=1e-12)

        def closure() -> Tensor:
            optimizer.zero_grad()
            distance = (gradient(guess, keep=True) - given).square().sum() / given.square().sum()
            (guess.grad,) = torch.autograd.grad(distance, [guess])
            return distance

        optimizer.step(closure)
    found = guess.detach().flatten()
    return float(torch.corrcoef(torch.stack([found, window.flatten()]))[0, 1]) if found.isfinite().all() else 0.0


@dataclass(frozen=True, kw_only=True)
class Leakage:
    """All that was measured on a data set."""

    data: str
    membership: tuple[Membership, ...]
    inversion: tuple[Inversion, ...]

    def markdown(self) -> str:
        """Return two tables."""
        lines = [
            "| noise multiplier | epsilon | level | AUC (95 % interval) | splits x people | accuracy, unseen |",
            "|---|---|---|---|---|---|",
        ]
        for each in self.membership:
            epsilon = "–" if each.epsilon is None else f"{each.epsilon:.3g}"
            interval = f"{each.auc:.3f} ({each.low:.3f}–{each.high:.3f})"
            people = f"{each.num_splits} x {each.num_trained} and {each.num_unseen}"
            lines.append(
                f"| {each.noise_multiplier:g} | {epsilon} | {each.level} | {interval} | {people} | {percent(each.accuracy_unseen)} |"
            )
        lines += ["", "| gradient of | windows | r, median | r, largest |", "|---|---|---|---|"]
        lines += [f"| {each.network} | {len(each.r)} | {np.median(each.r):.3f} | {max(each.r):.3f} |" for each in self.inversion]
        return "\n".join(lines)


def measure_leakage(
    values: Mapping[str, Value], noise_multipliers: Sequence[float], splits: int, num_windows: int, say: Callable[[str], None]
) -> Leakage:
    """Attack a model without privacy and one for each noise multiplier, and invert some windows.

    Raises:
        ClmmError: the run config or the data cannot be used.
    """
    torch.set_num_threads(1)  # models this small are slower on two
    found: list[Membership] = []
    for noise in (0.0, *noise_multipliers):
        found += membership(values, noise, splits)
        say(f"membership, noise multiplier {noise:g}: AUC {', '.join(f'{each.level} {each.auc:.3f}' for each in found[-2:])}")
    inverted = inversions(values, num_windows, starts=3)
    return Leakage(data=str(values["data.name"]), membership=tuple(found), inversion=tuple(inverted))
