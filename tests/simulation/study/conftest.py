"""A study and outcomes as its runs could have left them."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from clmm_core.report.records import Embedding, ModelCard, RunInfo, RunRecord, Split
from simulation.study import plan
from simulation.study.outcomes import Outcome
from simulation.study.plan import Cell, Method, Study

NAMES = (
    *("CLMM", "no stage one", "finetuned from stage one, encoders at full rate", "FedAvg, all parts, nobody's sensors missing"),
    *("SimCLR", "FedProx", "softmax attention instead of differential attention", "extra-trees", "uniform fusion", "one branch, linear"),
    *("local only", "pooled in one place: what no federation can reach"),
)
"""Methods, some of them with long names."""


def make_study(*, methods: int = 3, settings: Sequence[str] = ("",), subjects: int = 6, seeds: int = 2, **more) -> Study:
    """Return a study that tests its subjects two by two."""
    people = [f"S{number:02d}" for number in range(1, subjects + 1)]
    return Study(
        title="What each part is worth",
        reference=NAMES[0],
        splits=tuple(plan.Split(test=",".join(people[i : i + 2])) for i in range(0, subjects, 2)),
        seeds=tuple(range(seeds)),
        methods={name: Method() for name in NAMES[:methods]},
        settings={name: {} for name in settings},
        **more,
    )


def make_info(code: str = "0123456789abcdef") -> RunInfo:
    versions = {"python": "3.11.7", "code": code, "clmm": "0.1.0", "torch": "2.13.0"}
    return RunInfo(name="run", run_config={}, versions=versions, machine="Linux, 2 cores", started_at="2026-11-23T18:00:00Z")


def make_outcome(
    accuracy: dict[str, float], *, method: str = "CLMM", setting: str = "", split: str | None = None, seed: int = 0, **more
) -> Outcome:
    """Return the outcome of one run; its split tests those whose accuracy is given."""
    test = split or ",".join(accuracy)
    values = {"data.name": "spar", "pretrain.rounds": 5}
    cell = Cell(setting=setting, method=method, split=plan.Split(test=test), seed=seed, classifier="clmm", values=values)
    figures = {"info": make_info(), "macro_f1": 0.5, "gain": {}, "curve": (), "wall_s": 60.0, "num_parameters": 1000, **more}
    return Outcome(cell=cell, accuracy=accuracy, **figures)


def make_outcomes(study: Study, *, rounds: int = 20) -> list[Outcome]:
    """Return an outcome of every run: hard and easy people, methods and settings that get worse one by one."""
    rng = np.random.default_rng(4)
    ease = {name: rng.normal(0.75, 0.1) for split in study.splits for name in split.test.split(",")}
    made = []
    for s, setting in enumerate(study.settings):
        for m, method in enumerate(study.methods):
            for split in study.splits:
                for seed in study.seeds:
                    people = split.test.split(",")
                    values = {name: float(np.clip(ease[name] - 0.03 * m - 0.05 * s + rng.normal(0, 0.03), 0, 1)) for name in people}
                    end = float(np.mean(list(values.values())))
                    curve = tuple(end * (1 - (0.7 + 0.02 * m) ** n) + rng.normal(0, 0.01) for n in range(1, rounds + 1))
                    gain = {name: float(rng.normal(0.03, 0.03)) for name in people}
                    more = {"method": method, "setting": setting, "split": split.test, "seed": seed, "wall_s": 60.0 - m}
                    made.append(make_outcome(values, **more, macro_f1=end - 0.01, gain=gain, curve=curve))
    return made


@pytest.fixture
def outcome() -> Callable[..., Outcome]:
    return make_outcome


@pytest.fixture
def record() -> RunRecord:
    """Return a run that evaluated nobody."""
    sizes = {"architecture": {}, "num_parameters": 218010, "flops_a_window": 7, "trained_on": "nothing"}
    people = {"training": ("S4",), "validation": ("S3",), "test": ("S1", "S2"), "labelled": ("S4",)}
    return RunRecord(
        info=make_info(),
        split=Split(seed=0, **people, labels_per_class=1, label_unit="trial", classes=("a", "b")),
        rounds=(),
        subjects=(),
        embedding=Embedding(),
        quality={},
        card=ModelCard(modalities={}, window_s=2.0, classes=("a", "b"), mean={}, std={}, **sizes),
    )


@pytest.fixture
def fake() -> Callable[..., tuple[Study, list[Outcome]]]:
    """Make a study and its outcomes: `fake(methods=..., settings=..., subjects=...)`."""

    def make(*, rounds: int = 20, **size) -> tuple[Study, list[Outcome]]:
        study = make_study(**size)
        return study, make_outcomes(study, rounds=rounds)

    return make
