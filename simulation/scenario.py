"""A scenario file, checked: what fleet is simulated, how it behaves and on what it runs. It becomes run-config values and a `FlowerRun`.

A scenario is nothing of its own: the same values given to `clmm run` make the same run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict

from clmm_core.data.fleet import device_names
from server.run_config import parse_run_config
from simulation.overrides import Value, apply_overrides
from simulation.yaml_file import read_yaml

LABELLED = "labels.num-devices"


def _with_hyphens(name: str) -> str:
    return name.replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What a scenario file says; in it keys have hyphens. What it leaves out stays as the run config has it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(alias_generator=_with_hyphens)

    title: str
    data: str = "synthetic"
    """A data set, as `clmm data list` names it."""
    path: str = ""
    """Where its recordings are, on every machine that trains."""
    devices: int | None = None
    """Devices of `synthetic`; other sets have as many as they have people."""
    missing_share: float | None = None
    """Probability that a device lacks a sensor, beside those that a data set itself lacks."""
    label_share: float | None = None
    """Share of the training devices that give labels, at least one."""
    participation: float | None = None
    """Share of a stage's devices in each of its rounds."""
    drop_out: float | None = None
    """Probability that a chosen device fails in a round."""
    speed_spread: float | None = None
    """Standard deviation of the logarithm of a device's speed."""
    windows_per_s: float | None = None
    """Windows a second that a device of median speed trains on."""
    deadline_s: float | None = None
    """Simulated seconds after which a round goes on without the devices that are not done."""
    hosts: int = 2
    """Simulated SuperNodes among which a round's devices are spread."""
    workers_per_gpu: int = 0
    """Ray workers that share a GPU; 0 keeps GPUs from them."""
    ray_address: str = ""
    """HOST:PORT of a Ray cluster to join; empty starts one on this machine."""
    run: Mapping[str, Value] = field(default_factory=dict)
    """Any other run-config values, over all of the above."""

    def __post_init__(self) -> None:
        if not self.title.strip():
            raise ValueError("title: expected what the scenario is about")
        if (self.devices is not None) != (self.data == "synthetic"):
            raise ValueError("devices: expected for data: synthetic, and for no other data set: those have one a person")
        if self.label_share is not None and not 0 < self.label_share <= 1:
            raise ValueError(f"label-share: expected a share in (0, 1], found {self.label_share}")

    @property
    def values(self) -> dict[str, Value]:
        """The run-config values it asks for, but the number of labelled devices, which is only known with the others."""
        own = {key: value for name, keys in KEYS.items() if (value := getattr(self, name)) is not None for key in keys}
        return {"data.name": self.data, "data.path": self.path, **own, **self.run}


KEYS: Mapping[str, tuple[str, ...]] = {
    "devices": ("data.num-devices",),
    "missing_share": ("data.missing-share",),
    "participation": ("pretrain.participation", "finetune.participation"),
    "drop_out": ("fleet.drop-out",),
    "speed_spread": ("fleet.speed-spread",),
    "windows_per_s": ("fleet.windows-per-s",),
    "deadline_s": ("fleet.deadline-s",),
}
"""The run-config keys that each of its fields stands for."""


def read_scenario(path: Path) -> Scenario:
    """Return a checked scenario file.

    Raises:
        ConfigError: it cannot be read, or says something that cannot be; names the file and the key.
    """
    return read_yaml(path, Scenario, "docs/simulation.md")


def overrides_of(scenario: Scenario, config: Mapping[str, Value], settings: Mapping[str, Value]) -> dict[str, Value]:
    """Return the run-config overrides of a scenario.

    Args:
        scenario: what to simulate.
        config: the project's run config, a default for every key.
        settings: of the command line, over all that the scenario says.

    Raises:
        ConfigError: a run config that cannot be.
        DataError: the data set is not there, and a share of its devices is asked for.
    """
    overrides = {**scenario.values, **settings}
    if scenario.label_share is None or LABELLED in overrides:
        return overrides
    wanted = parse_run_config(apply_overrides(config, overrides))
    num_kept = (len(wanted.split.test) or wanted.split.num_test) + (len(wanted.split.validation) or wanted.split.num_validation)
    num_training = len(device_names(wanted.data)) - num_kept
    return {**overrides, LABELLED: max(1, round(scenario.label_share * num_training))}
