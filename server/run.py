"""What the stages of one run share."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from clmm_core.errors import RoundFailedError
from clmm_core.federated.arrays import Arrays
from clmm_core.models.config import ModelConfig
from clmm_core.report.records import Embedding, RoundRecord, RunInfo, Split, Stage
from clmm_core.report.run_folder import RunFolder
from server.checkpoint import FOLDER, Checkpoint, CheckpointRecord, write_checkpoint
from server.directory import Directory, TaskFor
from server.gate import Quarantine
from server.hosts import Answer
from server.privacy import StagePrivacy, secret_seed
from server.run_config import RunConfig

MAX_LEFT_OUT = 40
"""Lines of what a step left out that are kept; the others are counted."""
Report = Callable[[RoundRecord], None]
"""Told of each step as it ends."""
Given = TypeVar("Given")


@dataclass
class Run:
    """The state that goes from stage to stage; `arrays` is the global model, replaced by each round."""

    config: RunConfig
    info: RunInfo
    directory: Directory
    folder: RunFolder
    report: Report
    split: Split
    model: ModelConfig
    arrays: Arrays
    units: dict[str, str]
    """By modality, the unit of its samples."""
    window_s: float
    """0 where a window is a whole trial."""
    started_s: float
    server_round: int = 0
    """The last round begun, from 1, going on across stages."""
    first: Arrays = field(default_factory=dict)
    """Moments of the server optimiser in the stage that goes on."""
    second: Arrays = field(default_factory=dict)
    epsilons: tuple[float, ...] = ()
    """Spent after each planned round; nothing without privacy."""
    secret_seed: int = field(init=False)
    """What the samples and the noise of privacy are drawn from."""
    stage_privacy: StagePrivacy | None = None
    """Of the stage that goes on; None without privacy."""
    quarantine: Quarantine = field(init=False)
    embedding: Embedding = field(default_factory=Embedding)
    quality: Mapping[str, float] = field(default_factory=dict)
    """Empty until it is measured."""
    rounds: list[RoundRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_resumed: bool = False
    """Whether it goes on from a checkpoint, which is past normalisation."""
    keeps_checkpoints: bool = False
    num_repeats: int = 0
    """How often the step that goes on was taken again."""

    def __post_init__(self) -> None:
        self.quarantine = Quarantine(self.config.gate)
        self.secret_seed = secret_seed(self.config.privacy, self.config.seed)

    def task_settings(self) -> dict[str, Any]:
        """Return what every task that uses the model says, but its devices."""
        return {
            "data": self.config.data,
            "model": self.model,
            "classes": self.split.classes,
            "seed": self.config.seed,
            "server_round": self.server_round,
        }

    def update_settings(self) -> dict[str, Any]:
        """Return what every task that is answered with an update says, but its devices."""
        config, clip = self.config, self.stage_privacy.clip if self.stage_privacy else 0.0
        return {**self.task_settings(), "update_bits": config.update_bits, "host_aggregation": config.host_aggregation, "clip": clip}

    def note(self, left_out: Iterable[str]) -> None:
        """Keep what was left out, and why, for the results; each once."""
        self.notes += [reason for reason in dict.fromkeys(left_out) if reason not in self.notes]

    def ask(
        self, message_type: str, devices: Sequence[str], task_for: TaskFor, arrays: Arrays, kind: type
    ) -> tuple[list[Answer], list[str]]:
        """Ask hosts about their devices, again if too few answer; see `Directory.ask`."""
        return self.repeated(lambda: self.directory.ask(message_type, devices, task_for, arrays, kind))

    def repeated(self, step: Callable[[], Given]) -> Given:
        """Return what a step gives; one that too few answered is taken again, `round-retries` times at most.

        Raises:
            RoundFailedError: too few answered each time; says what is kept.
        """
        for left in range(self.config.round_retries, -1, -1):
            try:
                return step()
            except RoundFailedError as error:
                if not left:
                    raise RoundFailedError(f"{error}{self._after_all()}") from error
                self.note([f"taken again: {error}"])
                self.num_repeats += 1
                self.directory.hosts.recover()
        raise AssertionError("the last try returns or raises")

    def _after_all(self) -> str:
        """Return what to say of a run that cannot go on."""
        tries = self.config.round_retries + 1
        tried = f" (tried {tries} times)" if tries > 1 else ""
        is_kept = self.keeps_checkpoints and any(record.server_round for record in self.rounds)
        return tried + (f". What was learned is kept: clmm run --resume {self.folder.partial}" if is_kept else "")

    def ended(self, stage: Stage, since_s: float, **figures: Any) -> None:
        """Record a step that began at `since_s` on the monotonic clock; what it left out also goes to the notes."""
        now_s = time.monotonic()
        figures["left_out"] = _shortened(figures.get("left_out", ()))
        figures = {"num_hosts": self.directory.num_hosts, "num_devices": len(self.directory.devices), **figures}
        figures |= {"traffic": self.directory.take_traffic(), "num_late": self.directory.hosts.take_late(), "num_repeats": self.num_repeats}
        self.num_repeats = 0
        self._add(RoundRecord(stage=stage, round_s=now_s - since_s, elapsed_s=now_s - self.started_s, **figures))

    def repeat(self, record: RoundRecord) -> None:
        """Record a step that another run went through for this one; the time it took counts here too."""
        self.started_s -= record.round_s
        self._add(replace(record, elapsed_s=time.monotonic() - self.started_s))

    def keep(self) -> None:
        """Write a checkpoint of where the run is, if it keeps any; a full disk is no reason to lose what is still in memory."""
        if not self.keeps_checkpoints:
            return
        record = CheckpointRecord(
            info=self.info,
            split=self.split,
            model=self.model,
            units=self.units,
            window_s=self.window_s,
            server_round=self.server_round,
            rounds=tuple(self.rounds),
            notes=tuple(self.notes),
            embedding=self.embedding,
            quality=self.quality,
            strikes=self.quarantine.strikes,
            quarantined_until=self.quarantine.until,
            stage_privacy=self.stage_privacy,
        )
        try:
            write_checkpoint(
                self.folder.partial / FOLDER, Checkpoint(record=record, arrays=self.arrays, first=self.first, second=self.second)
            )
        except OSError as error:
            self.note([f"no checkpoint of round {self.server_round}: {error}; killed now, the run would go on from an earlier one"])

    def _add(self, record: RoundRecord) -> None:
        self.rounds.append(record)
        self.note(record.left_out)
        self.folder.append_round(record)
        self.report(record)


def _shortened(left_out: tuple[str, ...]) -> tuple[str, ...]:
    more = len(left_out) - MAX_LEFT_OUT
    return left_out if more <= 0 else (*left_out[:MAX_LEFT_OUT], f"and {more:,} more of this kind")
