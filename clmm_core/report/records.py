"""What a run leaves behind, as frozen records: the results folder is these, and the report is a function of them.

A results folder holds

    config.json        run config, versions, machine           (RunInfo)
    split.json         who is who, and who had labels          (Split)
    rounds.jsonl       a line a step, written as it ends       (RoundRecord)
    subjects.csv       a row a subject                         (SubjectRecord, without its counts)
    counts.json        confusion and calibration, per subject  (SubjectRecord.counts)
    embedding.json     windows in two dimensions, before and after stage one (EmbeddedWindow)
    summary.json       groups, quality, notes, chance, bytes   (RunRecord.quality, .notes; the rest derived, for people and scripts)
    model.safetensors, model.json   the last round's model and its card
    report.html        all of it to look at
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clmm_core.federated.traffic import Traffic

Stage = Literal["profile", "normalise", "pretrain", "quality", "finetune", "selftrain", "evaluate"]
STAGES: tuple[Stage, ...] = ("profile", "normalise", "pretrain", "quality", "finetune", "selftrain", "evaluate")
Group = Literal["labelled", "seen", "validation", "unseen"]
GROUPS: tuple[Group, ...] = ("unseen", "validation", "seen", "labelled")
"""unseen: never trained on; validation: never trained on, for choices; seen: trained on without labels; labelled: gave the labels."""
NUM_CALIBRATION_BINS = 15


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """How a run was made."""

    name: str
    run_config: Mapping[str, int | float | bool | str]
    """Dotted kebab-case keys, as Flower has them."""
    versions: Mapping[str, str]
    machine: str
    started_at: str
    """UTC, ISO 8601."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Who trains, who is kept for choices, who is only tested, and which devices have how many labels."""

    seed: int
    training: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    labelled: tuple[str, ...]
    """Training devices whose labels are used; the other training devices count as unlabelled."""
    labels_per_class: int
    """Labelled units of each class on each labelled device; 0 means all."""
    label_unit: Literal["trial", "window"]
    classes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An update that the server's gate did not let in."""

    devices: tuple[str, ...]
    """Those it was of."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One step of a run: a round of training, or a stage without rounds (then `server_round` is None)."""

    stage: Stage
    server_round: int | None = None
    """From 1, going on across stages."""
    num_hosts: int
    num_devices: int
    """Devices whose reply counted."""
    num_windows: int = 0
    """Windows trained on, summed over devices."""
    num_dropped_out: int = 0
    """Devices of the cohort that failed, in a simulated fleet; they were not asked."""
    num_stragglers: int = 0
    """Devices that would have missed the deadline of a simulated fleet; they were not asked."""
    num_late: int = 0
    """Answers that came after their round had closed; they were dropped."""
    num_repeats: int = 0
    """How often the step was taken again because too few answered."""
    simulated_s: float | None = None
    """What the round would have taken on a simulated fleet, in seconds; None where nothing is simulated."""
    loss: float | None = None
    """Mean training loss, weighted by windows."""
    epsilon: float | None = None
    """What this and all rounds before have cost at the run's delta, for one device's whole contribution; None without privacy."""
    clip: float | None = None
    """Longest a device's update was allowed to be in this round; None without privacy."""
    validation_accuracy: float | None = None
    """In [0, 1], over all windows of the validation subjects."""
    validation_macro_f1: float | None = None
    round_s: float
    """Wall time of this step, in seconds."""
    elapsed_s: float
    """Wall time since the run started, in seconds."""
    left_out: tuple[str, ...] = ()
    """What did not count in this step, and why."""
    refused: tuple[Refusal, ...] = ()
    """Updates that the gate refused in this round."""
    quarantined: tuple[str, ...] = ()
    """Devices left out of this round because too many of their updates were refused before."""
    traffic: tuple[Traffic, ...] = ()
    """What was sent and received in this step, by message; nothing where nobody counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationCounts:
    """Sums from which accuracy, macro-F1, calibration and the confusion matrix follow; adding them pools subjects."""

    confusion: NDArray[np.int64]
    """`[classes, classes]`, row = truth, column = prediction."""
    calibration: NDArray[np.float64]
    """`[NUM_CALIBRATION_BINS, 3]`: windows, sum of confidence, number right; equal-width bins of confidence over [0, 1]."""

    def __add__(self, other: "EvaluationCounts") -> "EvaluationCounts":
        return EvaluationCounts(confusion=self.confusion + other.confusion, calibration=self.calibration + other.calibration)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EvaluationCounts):
            return NotImplemented
        return np.array_equal(self.confusion, other.confusion) and np.array_equal(self.calibration, other.calibration)

    __hash__ = None  # type: ignore[assignment]  # arrays have no hash


@dataclass(frozen=True, kw_only=True, slots=True)
class SubjectRecord:
    """How well the last round's model recognises one subject."""

    subject: str
    group: Group
    modalities: tuple[str, ...]
    counts: EvaluationCounts
    """Of the windows evaluated: labelled in truth, and not used as training labels."""
    personal_before: EvaluationCounts | None = None
    """The shared model on the windows that `personal_after` is evaluated on; None where personalisation did not apply."""
    personal_after: EvaluationCounts | None = None
    """After fine-tuning on a few labelled windows of this subject, evaluated on its rest."""


@dataclass(frozen=True, kw_only=True)
class EmbeddedWindow:
    """One window in the plane of the two largest principal components of all embeddings."""

    subject: str
    group: Group
    label: str
    x: float
    y: float


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """Shared embeddings before and after stage one."""

    before: tuple[EmbeddedWindow, ...] = ()
    after: tuple[EmbeddedWindow, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What somebody needs to know to use the model: saved beside it as model.json."""

    modalities: Mapping[str, Mapping[str, int | float | str]]
    """By modality: `channels`, `time_steps`, `rate_hz` (NaN never: 0 where a window is a whole trial), `unit`."""
    window_s: float
    """0 where a window is a whole trial."""
    classes: tuple[str, ...]
    mean: Mapping[str, tuple[float, ...]]
    """Per modality and channel, in the channel's unit: subtract, then divide by `std`. With `architecture.differences` the channels
    come first, then their differences from sample to sample."""
    std: Mapping[str, tuple[float, ...]]
    architecture: Mapping[str, bool | int | float | str]
    num_parameters: int
    flops_a_window: int
    """Floating-point operations to recognise one window; 0 where nobody counted."""
    trained_on: str
    """Data set, number of training devices and labels, in one sentence."""
    upright: bool = False
    """Whether accelerometer and gyroscope have to be turned by `clmm_core.data.upright` before the model sees them, as in training."""
    same_side: bool = False
    """Whether those worn on the other side have to be mirrored after that, by `clmm_core.data.same_side`."""
    licence: str = "Apache-2.0"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything a results folder holds, but the model's weights."""

    info: RunInfo
    split: Split
    rounds: tuple[RoundRecord, ...]
    subjects: tuple[SubjectRecord, ...]
    embedding: Embedding
    quality: Mapping[str, float]
    """Measured quality of each modality, summing to 1."""
    card: ModelCard
    notes: tuple[str, ...] = field(default=())
    """What was left out or went otherwise than asked, in words."""
