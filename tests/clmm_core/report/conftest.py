"""Small real records, and a fake run as a real one could have been."""

from collections.abc import Callable

import numpy as np
import pytest

from clmm_core.federated.arrays import FUSION
from clmm_core.federated.traffic import WORDS, Traffic
from clmm_core.report import records
from clmm_core.report.metrics import counts_of

EXERCISES = ("pendulum", "abduction", "forward elevation", "internal rotation", "external rotation", "trapezius", "upright row")


def fake_counts(rng: np.random.Generator, num_classes: int, windows: int, skill: float) -> records.EvaluationCounts:
    """Return counts of a recogniser that mistakes neighbouring classes, and is a little too sure of itself."""
    truth = rng.integers(num_classes, size=windows)
    scores = rng.gumbel(size=(windows, num_classes))
    scores[np.arange(windows), truth] += skill
    scores[np.arange(windows), (truth + 1) % num_classes] += skill / 3
    weights = np.exp(1.3 * (scores - scores.max(axis=1, keepdims=True)))
    return counts_of(weights / weights.sum(axis=1, keepdims=True), truth)


def fake_embedding(rng: np.random.Generator, subjects: list[tuple[str, records.Group]], classes: tuple[str, ...], spread: float):
    middles = rng.normal(size=(len(classes), 2)) * spread
    return tuple(
        records.EmbeddedWindow(subject=subject, group=group, label=label, x=float(middles[index, 0] + x), y=float(middles[index, 1] + y))
        for subject, group in subjects
        for index, label in enumerate(classes)
        for x, y in rng.normal(size=(6, 2))
    )


def fake_traffic(message: str, *, up_share: float = 1.0) -> Traffic:
    """Return what six devices on two hosts would send: a whole modality is 288 kB, what is shared 300 kB, in stage two alone."""
    down = {"accelerometer": 576_000, "gyroscope": 576_000, **({} if message == "train.pretrain" else {FUSION: 600_000}), WORDS: 3_100}
    up = {name: round(count * up_share) for name, count in down.items() if name != WORDS} | {WORDS: 900}
    return Traffic(message=message, down=down, up=up if message.startswith("train.") else {WORDS: 4_000})


def fake_rounds() -> tuple[records.RoundRecord, ...]:
    whole: dict = {"num_hosts": 2, "num_devices": 6}
    rounds = [records.RoundRecord(stage="profile", **whole, round_s=0.4, elapsed_s=0.4)]
    for n in range(1, 21):
        loss = 2.1 + 2.3 * 0.85**n
        rounds.append(
            records.RoundRecord(
                **{"stage": "pretrain", "server_round": n, "num_windows": 1560, "loss": loss, "round_s": 1.8, "elapsed_s": 2 * n},
                **whole,
                traffic=(fake_traffic("train.pretrain", up_share=1 / 8),),
            )
        )
    rounds.append(records.RoundRecord(stage="quality", **whole, round_s=0.7, elapsed_s=41))
    for n in range(21, 36):
        share, left_out = 0.83 - 0.6 * 0.8 ** (n - 20), ("S07: no reply in time",) if n == 25 else ()
        figures: dict = {
            "loss": 1.9 * 0.8 ** (n - 20),
            "validation_accuracy": share,
            "round_s": 1.1,
            "elapsed_s": 20 + n,
            "left_out": left_out,
            "traffic": (fake_traffic("train.finetune", up_share=1 / 8), fake_traffic("evaluate.subjects")),
        }
        rounds.append(records.RoundRecord(stage="finetune", server_round=n, **whole, num_windows=210, **figures))
    return tuple(rounds)


def fake_subject(rng: np.random.Generator, name: str, group: records.Group, num_classes: int, windows: int) -> records.SubjectRecord:
    skill = rng.normal(4.2 if group in ("unseen", "validation") else 5.2, 0.7)
    counts, personal = fake_counts(rng, num_classes, windows, skill), {}
    if group == "unseen":
        before, after = (
            fake_counts(np.random.default_rng(7), num_classes, windows // 2, skill + more) for more in (0, rng.normal(0.5, 0.6))
        )
        personal = {"personal_before": before, "personal_after": after}
    sensors = ("accelerometer", "gyroscope")
    return records.SubjectRecord(subject=name, group=group, modalities=sensors, counts=counts, **personal)


def make_fake_run(*, subjects: int = 10, classes: tuple[str, ...] = EXERCISES, seed: int = 1, windows: int = 260) -> records.RunRecord:
    rng = np.random.default_rng(seed)
    groups: list[records.Group] = [*["unseen"] * max(1, subjects * 3 // 10), "validation", *["labelled"] * max(1, subjects // 4)]
    groups += ["seen"] * (subjects - len(groups))
    people = [(f"S{number:02d}", group) for number, group in enumerate(groups, start=1)]
    unseen, validation, labelled, seen = (
        tuple(n for n, g in people if g == group) for group in ("unseen", "validation", "labelled", "seen")
    )
    split = {"training": labelled + seen, "validation": validation, "test": unseen, "labelled": labelled, "classes": classes}
    config = {"data.name": "spar", "train.rounds": 20, "train.client-lr": 0.001, "loss.beta": 2.0, "privacy.on": False, "split.seed": seed}
    made = {"versions": {"clmm": "0.1.0", "torch": "2.11.0"}, "machine": "2 cores, 23 GiB", "started_at": "2026-11-23T18:00:00Z"}
    statistics = {"mean": {"accelerometer": (0.1, 0.2, 9.8)}, "std": {"accelerometer": (1.0, 1.1, 1.2)}}
    sensors = {"accelerometer": {"channels": 3, "time_steps": 100, "rate_hz": 50, "unit": "m/s^2"}}
    size = {
        "architecture": {"preset": "edge"},
        "num_parameters": 160384,
        "flops_a_window": 5_000_000,
        "trained_on": "SPAR, 6 training devices, 2 of them labelled.",
    }
    return records.RunRecord(
        info=records.RunInfo(name="spar-seed1", run_config=config, **made),
        split=records.Split(seed=seed, **split, labels_per_class=5, label_unit="window"),
        rounds=fake_rounds(),
        subjects=tuple(fake_subject(rng, *who, len(classes), windows if who[0] != "S02" else 41) for who in people),
        quality={"accelerometer": 0.57, "gyroscope": 0.43},
        embedding=records.Embedding(before=fake_embedding(rng, people, classes, 0.8), after=fake_embedding(rng, people, classes, 4.0)),
        card=records.ModelCard(modalities=sensors, window_s=2.0, classes=classes, **statistics, **size),
        notes=("S07 has no gyroscope recording for exercise 4; its windows use the accelerometer alone.",),
    )


@pytest.fixture
def make_run() -> Callable[..., records.RunRecord]:
    return make_fake_run
