"""A study file, checked, and the runs it asks for."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from clmm_core.errors import ConfigError
from server.run_config import parse_run_config
from simulation.overrides import Value, apply_overrides
from simulation.yaml_file import read_yaml

Overrides = Mapping[str, Value]
Figure = Literal["none", "settings", "curve"]
AFTER_STAGE_ONE = (
    *("labels.num-devices", "labels.per-class", "labels.unit", "model.fusion", "model.branches", "model.shared"),
    *("finetune.", "selftrain.", "evaluate.", "personalise.", "report.", "results-dir", "run-name"),
)
"""Keys, or beginnings of keys, that nothing in stage one depends on. A key that is not here counts as one that it does."""
SET_BY_STUDY = ("seed", "split.", "results-dir", "run-name")
"""Keys, or beginnings of keys, that follow from a study's splits and seeds, and from where its results go."""
OF_TREES = ("seed", "data.", "split.", "labels.", "evaluate.")
"""Keys, or beginnings of keys, that extra trees depend on."""
ADDED = {
    **{"evaluate.smooth-s": 0.0, "selftrain.align": False, "data.same-side": False, "communication.update-bits": 32},
    "communication.host-aggregation": True,
    **{"over-selection": 1.3, "quorum": 1, "round-retries": 2},
    **{"aggregation.rule": "mean", "aggregation.mixing": True, "aggregation.byzantine-share": 0.2},
    **{"gate.norm-factor": 10.0, "gate.clip": 0.0, "gate.strikes": 2, "gate.quarantine-rounds": 10},
    **{"privacy.noise-multiplier": 0.0, "privacy.clip": 1.0, "privacy.clip-quantile": 0.0, "privacy.clip-rate": 0.2},
    **{"privacy.delta": 1e-5, "privacy.budget": 0.0, "privacy.secret-file": ""},
    **{"fleet.drop-out": 0.0, "fleet.speed-spread": 0.0, "fleet.windows-per-s": 100.0, "fleet.deadline-s": 0.0},
}
"""Keys that came after the first figures were kept, each with the value at which it changes nothing of them: a run from before keeps its
name."""
MAX_WORDS = 120
"""Characters of a results folder's name beside its digest; file systems take 255."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to learn: run-config values, or a classifier outside the federation."""

    set: Overrides = field(default_factory=dict)
    classifier: Literal["clmm", "extra-trees"] = "clmm"
    """`extra-trees` learns from hand-made features of the same labelled windows, pooled."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Who is kept from training, as `split.test` and `split.validation` take them."""

    test: str
    validation: str = ""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a study file says: every combination of split, seed, setting and method is one run."""

    title: str
    reference: str
    """The method that all others are compared with, run by run."""
    splits: tuple[Split, ...]
    seeds: tuple[int, ...]
    methods: Mapping[str, Method]
    settings: Mapping[str, Overrides] = field(default_factory=lambda: {"": {}})
    """What is varied beside the method: labels, missing sensors. Each gets a table."""
    run: Overrides = field(default_factory=dict)
    """Run-config values of every run."""
    judged_on: Literal["unseen", "validation"] = "unseen"
    """Whose accuracy the tables show: `validation` while something is still being chosen."""
    figure: Figure = "none"
    """`settings`: accuracy over the settings, a line a method; `curve`: validation accuracy over the rounds of stage two."""

    def __post_init__(self) -> None:
        for name in ("splits", "seeds", "methods", "settings"):
            if not getattr(self, name):
                raise ValueError(f"expected at least one of {name}")
        for name, values in (("splits", [split.test for split in self.splits]), ("seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: every one once, found {'; '.join(map(str, values))}")
        if not all(split.test.strip(", ") for split in self.splits):
            raise ValueError("splits: expected test subjects in every split")
        if self.judged_on == "validation" and not all(split.validation for split in self.splits):
            raise ValueError("judged_on: validation: expected validation subjects in every split")
        if self.reference not in self.methods:
            raise ValueError(f"reference: expected one of the methods {', '.join(self.methods)}, found '{self.reference}'")
        for where, overrides in self._overrides().items():
            if own := [key for key in overrides if key.startswith(SET_BY_STUDY)]:
                raise ValueError(f"{where}: {', '.join(own)} follows from the study's splits, seeds and results: leave it out here")

    def _overrides(self) -> dict[str, Overrides]:
        """Return every set of run-config values, by where the file has it."""
        settings = {f"settings.{name}": values for name, values in self.settings.items()}
        return {"run": self.run, **settings, **{f"methods.{name}.set": method.set for name, method in self.methods.items()}}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a study."""

    setting: str
    method: str
    split: Split
    seed: int
    classifier: Literal["clmm", "extra-trees"]
    values: Overrides
    """The whole run config, but where results are written."""

    @property
    def name(self) -> str:
        """The cell's results folder: data, split and seed in words, and a digest of all settings.

        Another setting is another cell; one that two methods or two studies have in common is the same.
        """
        words = re.sub(r"[^A-Za-z0-9]+", "-", f"{self.values['data.name']}-test-{self.split.test}-seed{self.seed}").strip("-")
        counting = _what_counts(self.values)
        if self.classifier == "extra-trees":
            counting = {key: value for key, value in counting.items() if key.startswith(OF_TREES)}
        return f"{words[:MAX_WORDS]}-{_digest({**counting, 'classifier': self.classifier})}"

    @property
    def stage_one(self) -> str:
        """A name for the stage one this run needs; runs with the same name share it. Empty where it has none."""
        if self.classifier != "clmm":
            return ""
        return _digest({key: value for key, value in _what_counts(self.values).items() if not key.startswith(AFTER_STAGE_ONE)})


def read_study(path: Path) -> Study:
    """Return a checked study file.

    Raises:
        ConfigError: it cannot be read, or says something that cannot be; names the file and the key.
    """
    return read_yaml(path, Study, "docs/studies.md")


def cells_of(study: Study, config: Overrides, overrides: Overrides) -> list[Cell]:
    """Return every run of a study, all methods of a split and seed one after the other.

    Args:
        study: what to vary.
        config: the project's run config, a default for every key.
        overrides: of the command line, on top of all that the study says.

    Raises:
        ConfigError: a run config that cannot be; names the setting and the method.
    """
    cells = []
    for seed in study.seeds:
        for split in study.splits:
            for setting, of_setting in study.settings.items():
                for name, method in study.methods.items():
                    own = {**study.run, **of_setting, **method.set, **_split_values(split), "seed": seed, **overrides}
                    try:
                        values = apply_overrides(config, own)
                        parse_run_config(values)
                    except ConfigError as error:
                        raise ConfigError(f"setting '{setting}', method '{name}': {error}") from error
                    cells.append(Cell(setting=setting, method=name, split=split, seed=seed, classifier=method.classifier, values=values))
    return cells


def _split_values(split: Split) -> dict[str, Value]:
    return {"split.test": split.test, "split.validation": split.validation, "split.num-test": 0, "split.num-validation": 0}


def _what_counts(values: Overrides) -> dict[str, Value]:
    """Return what decides the figures of a run: all but where files are, how long to wait, and how a stage without rounds goes on."""
    elsewhere = {"results-dir", "run-name", "resume", "data.path", *(key for key in values if key.endswith("timeout-s"))}
    if values.get("selftrain.rounds") == 0:
        elsewhere |= {key for key in values if key.startswith("selftrain.")}
    return {key: value for key, value in values.items() if key not in elsewhere and ADDED.get(key) != value}


def _digest(values: Mapping[str, Value]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]


def by_stage_one(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Return the cells by the stage one they share; those without one under the empty name."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.stage_one, []).append(cell)
    return groups
