"""The browser's recogniser against Python's, on the same streams, in a real browser."""

from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import pytest

from clmm_core.errors import ClmmError
from clmm_core.recognise.metadata import FORMAT, ModalityInput, ModelMetadata
from clmm_core.recognise.onnx_model import OnnxModel
from clmm_core.recognise.recogniser import Answer, Recogniser

NS = 1_000_000_000
SENSOR = {"channels": 3, "rate_hz": 50.0, "time_steps": 100}
METADATA = ModelMetadata(
    format=FORMAT,
    run="toy",
    server_round=1,
    trained_on="nothing",
    licence="Apache-2.0",
    weights_sha256="0" * 64,
    precision="fp32",
    modalities=(ModalityInput(name="accelerometer", unit="m/s^2", **SENSOR), ModalityInput(name="gyroscope", unit="rad/s", **SENSOR)),
    window_s=2.0,
    classes=("sit", "walk"),
    upright=False,
    same_side=False,
    temperature=1.0,
    threshold=0.7,
    calibrated_on="nobody",
)
JOINED = ModalityInput(name="accelerometer+gyroscope", unit="m/s^2+rad/s", channels=6, rate_hz=50.0, time_steps=100)


class Step(NamedTuple):
    """One call of `add`, or of `reset` where there is no stream."""

    stream: str | None
    times: np.ndarray = np.zeros(0, np.int64)
    samples: np.ndarray = np.zeros((0, 3))
    unit: str | None = None


class Weighing:
    """The twin of the one in replay.js, in the place of onnxruntime's session."""

    def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        flat = [values.reshape(len(values), -1).astype(np.float64) for values in feeds.values()]
        sums = sum(np.where(np.isfinite(own).all(axis=1), own @ np.sin(np.arange(own.shape[1])), 0) for own in flat)
        share = 1 / (1 + np.exp(-sums / 10))
        return [np.zeros((len(share), 2)), np.stack([1 - share, share], axis=1).astype(np.float32)]


def in_browser(page: Any, metadata: ModelMetadata, settings: dict[str, float], steps: list[Step]) -> list[Any]:
    plain = [
        {
            "stream": step.stream,
            "is_float": step.times.dtype.kind == "f",
            "times": without_nan(step.times) if step.times.dtype.kind == "f" else [str(time) for time in step.times.tolist()],
            "samples": [without_nan(row) for row in step.samples],
            "unit": step.unit,
        }
        for step in steps
    ]
    names = {"hop_s": "hopS", "smooth_s": "smoothS"}
    case = {"metadata": asdict(metadata), "settings": {names[key]: value for key, value in settings.items()}, "steps": plain}
    script = """const [example, done] = arguments;
        import("./replay.js").then(({ replay }) => replay(example)).then(done, (error) => done(`${error.name}: ${error.message}`));"""
    return page.execute_async_script(script, case)


def without_nan(values: np.ndarray) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values.astype(np.float64).tolist()]


def in_python(metadata: ModelMetadata, settings: dict[str, float], steps: list[Step]) -> list[Any]:
    recogniser = Recogniser(OnnxModel(metadata, Weighing()), **settings)
    found: list[Any] = []
    for step in steps:
        try:
            if step.stream is None:
                recogniser.reset()
                found.append([])
            else:
                found.append(recogniser.add(step.stream, step.times, step.samples, unit=step.unit))
        except ClmmError as error:
            found.append(f"{type(error).__name__}: {error}")
    return found


def assert_same(python: list[Any], browser: list[Any]) -> None:
    assert len(python) == len(browser)
    for expected, found in zip(python, browser, strict=True):
        if isinstance(expected, str):
            assert found == expected
            continue
        assert len(expected) == len(found), (expected, found)
        for ours, theirs in zip(expected, found, strict=True):
            assert isinstance(ours, Answer)
            assert (int(theirs["start_ns"]), int(theirs["end_ns"])) == (ours.start_ns, ours.end_ns)
            assert theirs["left_out"] == dict(ours.left_out)
            np.testing.assert_allclose(theirs["probabilities"], ours.probabilities, rtol=0, atol=1e-4)
            assert abs(ours.confidence - theirs["confidence"]) <= 1e-4
            if abs(ours.confidence - 0.7) > 1e-4:
                assert theirs["activity"] == ours.activity


def signal(stream: str, times: np.ndarray) -> np.ndarray:
    t = times[:, None] / NS
    if stream == "accelerometer":
        return np.array([0.0, 3.0, 9.3]) + 2 * np.sin(2 * np.pi * t * np.array([1.0, 1.5, 2.0]))
    return np.cos(2 * np.pi * t * np.array([0.5, 1.0, 2.0]))


def random_steps(seed: int) -> list[Step]:
    """Two streams that are anything but regular, in chunks of any size, with calls among them that have to be refused."""
    random = np.random.default_rng(seed)
    start = int(random.choice([0, 1_700_000_000 * NS + 123_456_789]))
    streams = {}
    for name in ("accelerometer", "gyroscope")[: random.choice([1, 2, 2, 2])]:
        rate_hz, late_s = random.choice([20.0, 30.0, 50.0, 64.0, 200.0]), random.choice([0.0, 0.4, 3.0])
        own = np.arange(round(random.choice([4.0, 9.0, 14.0]) * rate_hz)) / rate_hz * NS
        own += random.random(len(own)) * random.choice([0.0, 0.4, 3.0]) / rate_hz * NS + late_s * NS
        own = np.sort(own.astype(np.int64))
        samples = signal(name, own) * (np.rad2deg(1) if name == "gyroscope" and random.random() < 0.3 else 1)
        samples = samples / (9.80665 if name == "accelerometer" and random.random() < 0.2 else 1)
        samples[random.random(len(own)) < random.choice([0.0, 0.003])] = np.nan
        kept = random.random(len(own)) > random.choice([0.0, 0.1])
        kept &= (own < 5 * NS) | (own > random.choice([5.0, 5.45, 5.55, 8.0]) * NS)
        streams[name] = (own[kept] + start, samples[kept])
    steps, chunk_ns = [], int(random.choice([0.05, 0.3, 1.0, 20.0]) * NS)
    for begin in range(start, start + 18 * NS, chunk_ns):
        for name, (times, samples) in streams.items():
            rows = (times >= begin) & (times < begin + chunk_ns)
            if rows.any():  # of no samples Python has a shape, JavaScript has not
                kind = random.choice([np.int64, np.float64]) if start == 0 else np.int64
                steps.append(Step(name, times[rows].astype(kind), samples[rows]))
    for _ in range(4):
        at = int(random.integers(len(steps)))
        steps[at:at] = [mistaken(random, steps[at])] if random.random() < 0.7 else [Step(None), mistaken(random, steps[at])]
    return steps


def mistaken(random: np.random.Generator, step: Step) -> Step:
    kind = random.integers(8)
    if kind == 0 or step.stream is None or not len(step.times):
        return Step(None) if random.random() < 0.5 else Step("heart")
    late = (step.times - 3600 * NS).astype(np.int64)
    return {
        1: step._replace(unit="g"),
        2: step._replace(times=late),
        3: step._replace(times=step.times / NS),
        4: step._replace(samples=step.samples[:, :2]),
        5: step._replace(times=step.times[::-1]),
        6: step._replace(times=step.times // 1_000_000),
        7: step._replace(times=np.where(np.arange(len(step.times)) == 0, np.nan, step.times)),
    }[int(kind)]


CASES = {
    "two sensors": (METADATA, {}),
    "upright": (replace(METADATA, upright=True), {"hop_s": 0.7}),
    "joined": (replace(METADATA, modalities=(JOINED,)), {"smooth_s": 0.0}),
    "uneven window": (replace(METADATA, window_s=1.9999, modalities=METADATA.modalities[:1]), {"hop_s": 0.333, "smooth_s": 5.0}),
}


@pytest.mark.parametrize("kind", CASES)
def test_both_recognisers_say_the_same_of_any_stream(page: Any, kind: str):
    answers, refusals, reasons = 0, set(), set()
    for seed in range(20):
        steps = random_steps(seed)
        python = in_python(*CASES[kind], steps)
        assert_same(python, in_browser(page, *CASES[kind], steps))
        answers += sum(len(each) for each in python if not isinstance(each, str))
        refusals |= {each.partition("expected")[2][:25] for each in python if isinstance(each, str)}
        reasons |= {reason[:12] for each in python if not isinstance(each, str) for answer in each for reason in answer.left_out.values()}
    assert answers > 50
    assert len(refusals) >= 4, "the streams have mistakes of many kinds"
    assert len(reasons) >= 3, "and windows are left out for many reasons"


def test_a_pause_of_a_year_takes_no_time(page: Any):
    times = np.arange(200) * NS // 50
    steps = [Step("accelerometer", own, signal("accelerometer", own)) for own in (times, times + 31_536_000 * NS)]
    python = in_python(METADATA, {}, steps)
    assert_same(python, in_browser(page, METADATA, {}, steps))
    assert len(python[1]) > 2


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        ({"same_side": True}, {}),
        ({"window_s": 0.0, "modalities": tuple(replace(each, rate_hz=0.0) for each in METADATA.modalities)}, {}),
        ({}, {"hop_s": 2.5}),
        ({}, {"hop_s": 0.5, "smooth_s": -0.5}),
    ],
)
def test_both_refuse_the_same_models_and_settings(page: Any, change: dict[str, Any], settings: dict[str, float]):
    metadata = replace(METADATA, **change)
    with pytest.raises(ClmmError) as refused:
        Recogniser(OnnxModel(metadata, Weighing()), **settings)
    found = in_browser(page, metadata, settings, [])
    assert found.replace("undefined", "None") == f"{type(refused.value).__name__}: {refused.value}"
