"""What hosts tell the server, as frozen dataclasses. What the server asks of hosts is in `training/tasks.py`.

`update` = local minus global, applied by addition. Counts, sums and metrics cross the wire; samples never do. The label of a
single window does for the few windows of the embedding picture only (`report.points-per-device = 0` sends none).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from clmm_core.federated.channel_sums import ChannelSums


@dataclass(frozen=True, kw_only=True, slots=True)
class ModalityProfile:
    """What a device has of one modality."""

    channels: int
    time_steps: int
    """Samples a window."""
    num_windows: int
    unit: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceProfile:
    """What a device has: counts only."""

    device: str
    num_windows: int
    modalities: Mapping[str, ModalityProfile]
    labelled_windows: Mapping[str, int]
    """By activity; unlabelled windows are in none."""
    labelled_trials: Mapping[str, int] = field(default_factory=dict)
    """By activity, in how many labelled intervals those are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """A device or a part of its data that did not count, and why."""

    device: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class HostProfile:
    """Answer to `query.profile`."""

    source: str
    """Fingerprint of the client code the host runs."""
    modalities: tuple[str, ...]
    """In the data set's order, whether or not a device here has them."""
    window_s: float
    """0 where a window is a whole trial."""
    devices: tuple[DeviceProfile, ...]
    left_out: tuple[LeftOut, ...] = ()
    shares_data: bool = False
    """Whether it reads the run's data set like other hosts, and so can train any of its devices: a host of a simulation."""
    takes_model: bool = False
    """Whether it recognises with the run's model, and so is sent it at the end."""


@dataclass(frozen=True, kw_only=True)
class HostReceipt:
    """Answer to `query.model`: what a host did with the exported model it was sent."""

    is_installed: bool
    why: str
    """In words, in either case."""


@dataclass(frozen=True, kw_only=True)
class HostSums:
    """Answer to `query.sums`: normalisation sums by modality, added over the devices asked."""

    sums: Mapping[str, ChannelSums]


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceTraining:
    """How training went on one device."""

    device: str
    num_windows: int
    loss: float
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of its own update, by part of the model, where the host did not fold it; `individual.placed` has it at this row's place."""
    num_within_clip: int = 0
    """1 where that update was no longer than the task's clip, and so was sent as it is."""


@dataclass(frozen=True, kw_only=True)
class HostUpdate:
    """Answer to a training task; beside it travels the mean update of the cohort, weighted as said here, packed where that is asked.

    Where hosts do not fold, each device's update travels instead.
    """

    server_round: int
    """The one it was asked for."""
    source: str
    """Fingerprint of the client code that trained."""
    weights: Mapping[str, float]
    """By part of the model: windows trained on, over the devices that own it; with a clip, those devices. Empty where not folded."""
    devices: tuple[DeviceTraining, ...]
    num_within_clip: int = 0
    """Devices whose update was no longer than the task's clip; 0 where updates are not folded, or not clipped."""
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True, kw_only=True)
class HostQuality:
    """Answer to `query.quality`: by modality, Hopkins value times windows, and windows, over the devices asked."""

    weighted: Mapping[str, float]
    num_windows: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Evaluation counts on the wire; `report.records.EvaluationCounts` is the same as arrays."""

    confusion: tuple[tuple[int, ...], ...]
    calibration: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceEvaluation:
    """How the model recognises one device's subject."""

    device: str
    modalities: tuple[str, ...]
    counts: Counts
    personal_before: Counts | None = None
    personal_after: Counts | None = None


@dataclass(frozen=True, kw_only=True)
class HostEvaluation:
    """Answer to `evaluate.subjects`."""

    devices: tuple[DeviceEvaluation, ...]
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True, kw_only=True)
class HostMoments:
    """Answer to `query.moments`: count, sum `[D]` and second moment `[D, D]` travel beside it as arrays."""

    num_windows: int


@dataclass(frozen=True, kw_only=True)
class PlanePoint:
    """One window in two dimensions, and what it is labelled as; nothing else of it is sent."""

    device: str
    label: str
    x: float
    y: float


@dataclass(frozen=True, kw_only=True)
class HostPlane:
    """Answer to `query.plane`."""

    points: tuple[PlanePoint, ...] = field(default=())
