"""Windows and answers from streams; the model is a fake that keeps what it is asked."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clmm_core.data.recording import Recording, Stream
from clmm_core.data.upright import upright
from clmm_core.data.windows import WindowSpec, window_recordings
from clmm_core.errors import DataError, ModelFileError
from clmm_core.recognise.metadata import FORMAT, ModalityInput, ModelMetadata
from clmm_core.recognise.onnx_model import OnnxModel
from clmm_core.recognise.recogniser import Answer, Recogniser

RATE_HZ, STEPS, WINDOW_S = 50.0, 100, 2.0
NS = 1_000_000_000
SENSOR = {"channels": 3, "rate_hz": RATE_HZ, "time_steps": STEPS}
METADATA = ModelMetadata(
    format=FORMAT,
    run="toy",
    server_round=1,
    trained_on="nothing",
    licence="Apache-2.0",
    weights_sha256="0" * 64,
    precision="fp32",
    modalities=(ModalityInput(name="accelerometer", unit="m/s^2", **SENSOR), ModalityInput(name="gyroscope", unit="rad/s", **SENSOR)),
    window_s=WINDOW_S,
    classes=("sit", "walk"),
    upright=False,
    same_side=False,
    temperature=1.0,
    threshold=0.7,
    calibrated_on="nobody",
)


class Asked:
    """In the place of onnxruntime's session: keeps the windows, and says `walk` as surely as it is told."""

    def __init__(self, walk: float = 0.9) -> None:
        self.walk = walk
        self.batches: list[dict[str, np.ndarray]] = []

    def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.batches.append(feeds)
        shares = np.tile(np.array([1 - self.walk, self.walk], np.float32), (len(next(iter(feeds.values()))), 1))
        return [np.log(shares), shares]

    def windows(self, modality: str) -> np.ndarray:
        return np.concatenate([batch[modality] for batch in self.batches])


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def recogniser(asked: Asked) -> Recogniser:
    return Recogniser(OnnxModel(METADATA, asked), smooth_s=0)


def acceleration(times_ns: np.ndarray) -> np.ndarray:
    t = times_ns[:, None] / NS
    return (np.array([0.0, 0.0, 9.8]) + np.sin(2 * np.pi * t * np.array([1.0, 1.5, 2.0]))).astype(np.float32)


def turning(times_ns: np.ndarray) -> np.ndarray:
    return np.cos(2 * np.pi * times_ns[:, None] / NS * np.array([0.5, 1.0, 2.0])).astype(np.float32)


STREAMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"accelerometer": acceleration, "gyroscope": turning}


def regular(seconds: float, rate_hz: float = RATE_HZ, start_s: float = 0.0) -> np.ndarray:
    return np.round((start_s + np.arange(round(seconds * rate_hz)) / rate_hz) * NS).astype(np.int64)


def feed(recogniser: Recogniser, streams: dict[str, tuple[np.ndarray, np.ndarray]], chunk_s: float = 0.1) -> list[Answer]:
    """Add all streams in step, a chunk of each at a time."""
    answers = []
    first, last = min(times[0] for times, _ in streams.values()), max(times[-1] for times, _ in streams.values())
    for start in range(int(first), int(last) + 1, round(chunk_s * NS)):
        for name, (times, samples) in streams.items():
            rows = (times >= start) & (times < start + round(chunk_s * NS))
            answers += recogniser.add(name, times[rows], samples[rows])
    return answers


def both(seconds: float = 6.0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    times = regular(seconds)
    return {name: (times, signal(times)) for name, signal in STREAMS.items()}


def test_an_answer_a_hop(recogniser: Recogniser):
    answers = feed(recogniser, both())
    assert [answer.start_ns / NS for answer in answers] == [0, 1, 2, 3, 4]
    assert {answer.activity for answer in answers} == {"walk"}
    assert answers[0].confidence == pytest.approx(0.9)
    assert not answers[0].left_out


@pytest.mark.parametrize(("rate_hz", "start_s"), [(50.0, 0.0), (52.0, 0.0), (100.0, 1.7), (50.0, 1.6e9)])
def test_windows_are_those_that_training_cuts(asked: Asked, recogniser: Recogniser, rate_hz: float, start_s: float):
    """A recording whose sensors begin and end apart, one of them with a hole of NaN."""
    streams = {}
    for name, late_s, rate in (("accelerometer", 0.0, rate_hz), ("gyroscope", 0.9, RATE_HZ)):
        times = regular(11.0 - 2 * late_s, rate, start_s + late_s)
        streams[name] = (times, STREAMS[name](times - round(start_s * NS)))
    streams["gyroscope"][1][200:210] = np.nan
    answers = feed(recogniser, streams)
    recording = Recording(
        subject="a",
        session="b",
        streams={
            name: Stream(samples=samples, rate_hz={"accelerometer": rate_hz}.get(name, RATE_HZ), start_s=times[0] / NS - start_s, unit="x")
            for name, (times, samples) in streams.items()
        },
    )
    spec = WindowSpec(length_s=WINDOW_S, overlap=0.5, time_steps=dict.fromkeys(streams, STEPS))
    cut = window_recordings("a", [recording], list(streams), spec)
    np.testing.assert_allclose([answer.start_ns / NS - start_s for answer in answers], cut.starts_s[: len(answers)], atol=1e-6)
    assert len(answers) >= len(cut) - 1, "the last one waits for the sensor that ended before"
    for name in streams:
        ours, theirs = asked.windows(name), cut.streams[name][: len(answers)]
        has = cut.present[name][: len(answers)]
        assert np.array_equal(np.isfinite(ours).all(axis=(1, 2)), has)
        np.testing.assert_allclose(ours[has], theirs[has], atol=1e-5)


def test_a_sensor_that_never_comes_is_nan_for_the_model_and_named(asked: Asked, recogniser: Recogniser):
    answers = feed(recogniser, {"accelerometer": both()["accelerometer"]})
    assert len(answers) == 4, "each waits half a second for the other sensor"
    assert {answer.left_out["gyroscope"] for answer in answers} == {"no samples"}
    assert np.isnan(asked.windows("gyroscope")).all()
    assert {answer.activity for answer in answers} == {"walk"}


def test_a_sensor_that_stops_is_named_with_how_far_it_is_behind(recogniser: Recogniser):
    streams = both(8)
    streams["gyroscope"] = tuple(each[:150] for each in streams["gyroscope"])  # 3 s
    answers = feed(recogniser, streams)
    assert [dict(answer.left_out) for answer in answers[:2]] == [{}, {}]
    assert answers[2].left_out["gyroscope"] == "samples for a part of the window only, 1 s behind the others"
    assert answers[4].left_out["gyroscope"] == "no samples, 3 s behind the others"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda times, samples: (times, np.where(np.arange(len(times))[:, None] == 60, np.nan, samples)), "NaN"),
        (lambda times, samples: (np.delete(times, slice(40, 80)), np.delete(samples, slice(40, 80), axis=0)), "a gap of 0.82 s"),
        (lambda times, samples: (times[::4], samples[::4]), "12.5 Hz, where the model was trained at 50 Hz"),
        (lambda times, samples: (times, samples / 9.80665), "is it in g or mg"),
        (lambda times, samples: (times, samples * 1000), "is it in g or mg"),
        (lambda times, samples: (times, samples - [0, 0, 9.8]), "without gravity"),
        (lambda times, samples: (times, samples * 1e9), "samples up to"),
    ],
)
def test_samples_that_cannot_be_used_are_left_out_and_the_reason_is_said(recogniser: Recogniser, spoil, reason: str):
    answers = feed(recogniser, {"accelerometer": spoil(*both(3)["accelerometer"])})
    assert reason in answers[0].left_out["accelerometer"]
    assert answers[0].activity is None
    assert answers[0].confidence == 0.5


def test_a_wrong_unit_silences_the_other_sensor_too(recogniser: Recogniser):
    streams = both()
    streams["gyroscope"] = (streams["gyroscope"][0], np.rad2deg(streams["gyroscope"][1]))
    answers = feed(recogniser, streams)
    assert {answer.activity for answer in answers} == {None}
    assert "is it in deg/s?" in answers[0].left_out["gyroscope"]
    with pytest.raises(DataError, match="expected samples in rad/s, found deg/s"):
        recogniser.add("gyroscope", *streams["gyroscope"], unit="deg/s")


def test_below_the_threshold_it_is_not_sure_and_smoothing_counts():
    asked = Asked(walk=0.6)
    recogniser = Recogniser(OnnxModel(METADATA, asked), smooth_s=2.0)
    times = regular(4)
    assert recogniser.add("accelerometer", times, acceleration(times))[-1].activity is None
    asked.walk = 0.99
    later = regular(4, start_s=4.0)
    answers = recogniser.add("accelerometer", later, acceleration(later))
    assert answers[0].confidence == pytest.approx((0.6 + 0.6 + 0.99) / 3, abs=0.14)
    assert answers[-1].confidence == pytest.approx(0.99, abs=0.01)
    assert answers[-1].activity == "walk"


def test_a_model_that_answers_nan_is_not_sure(asked: Asked, recogniser: Recogniser):
    asked.walk = float("nan")
    assert {answer.activity for answer in feed(recogniser, both())} == {None}


BAD = [
    (lambda times, samples: (times[::-1], samples[::-1]), "never go back"),
    (lambda times, samples: (times / NS, samples), "seconds times 1e9"),
    (lambda times, samples: (times // 1_000_000, samples), "seconds times 1e9"),
    (lambda times, samples: (times // 1_000, samples), "seconds times 1e9"),
    (lambda times, samples: (np.where(times > 0, times, np.nan), samples), "found NaN"),
    (lambda times, samples: (times, samples[:, :2]), "expected 3 channels as in training, found 2"),
    (lambda times, samples: (times[1:], samples), "expected numbers"),
    (lambda times, samples: (times, samples.astype(str)), "expected numbers"),
    (lambda times, samples: (times, samples[:, 0]), "expected numbers"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD)
def test_what_cannot_be_samples_is_refused_and_nothing_of_it_taken(asked: Asked, recogniser: Recogniser, spoil, message: str):
    times = regular(1)
    with pytest.raises(DataError, match=message):
        recogniser.add("accelerometer", *spoil(times, acceleration(times)))
    assert len(feed(recogniser, both())) == 5
    np.testing.assert_allclose(asked.windows("accelerometer")[0].T, acceleration(regular(2)), atol=1e-5)


def test_a_clock_that_goes_back_is_refused_until_reset(recogniser: Recogniser):
    feed(recogniser, both())
    with pytest.raises(DataError, match=r"never go back.*reset\(\)"):
        recogniser.add("accelerometer", *both(1)["accelerometer"])
    recogniser.reset()
    assert len(feed(recogniser, both())) == 5


def test_sensors_on_two_clocks_are_refused(recogniser: Recogniser):
    times = regular(1, start_s=1.7e9)
    recogniser.add("accelerometer", times, acceleration(times))
    with pytest.raises(DataError, match=r"one clock with 'accelerometer', found them 1.7e\+09 s behind"):
        recogniser.add("gyroscope", regular(1), turning(regular(1)))


def test_an_unknown_stream_is_refused(recogniser: Recogniser):
    with pytest.raises(DataError, match="expected one of accelerometer, gyroscope"):
        recogniser.add("heart", regular(1), np.zeros((50, 1)))


def test_a_pause_of_a_year_takes_no_time_and_has_no_windows(recogniser: Recogniser):
    feed(recogniser, both(4))
    later = regular(4, start_s=31e6)
    torn, *rest = feed(recogniser, {name: (later, signal(later)) for name, signal in STREAMS.items()}, chunk_s=1.0)
    assert torn.activity is None
    assert len(torn.left_out) == 2
    assert 2 <= len(rest) <= 5
    assert all(answer.end_ns > later[0] for answer in rest)
    assert rest[-1].activity == "walk"


def test_memory_is_bounded(recogniser: Recogniser):
    for minute in range(5):
        times = regular(60, start_s=60.0 * minute)
        recogniser.add("accelerometer", times, acceleration(times))
    assert len(recogniser._streams["accelerometer"].times) < 6 * RATE_HZ


def test_a_joined_modality_is_made_of_its_streams():
    joined = ModalityInput(name="accelerometer+gyroscope", unit="m/s^2+rad/s", channels=6, rate_hz=RATE_HZ, time_steps=STEPS)
    asked = Asked()
    recogniser = Recogniser(OnnxModel(replace(METADATA, modalities=(joined,)), asked))
    assert len(feed(recogniser, both())) == 5
    window = asked.windows(joined.name)[0]
    np.testing.assert_allclose(window.T, np.concatenate([signal(regular(2)) for signal in STREAMS.values()], axis=1), atol=1e-5)
    recogniser.reset()
    recogniser.add("accelerometer", regular(1), acceleration(regular(1)))
    with pytest.raises(DataError, match="expected 3 channels"):
        recogniser.add("gyroscope", regular(1), np.zeros((50, 1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"upright": True, "same_side": True}, "other side of the body"),
        ({"window_s": 0.0, "modalities": tuple(replace(each, rate_hz=0.0) for each in METADATA.modalities)}, "whole trials"),
    ],
)
def test_models_that_no_stream_can_feed_are_refused(change: dict, message: str):
    with pytest.raises(ModelFileError, match=message):
        Recogniser(OnnxModel(replace(METADATA, **change), Asked()))


@pytest.mark.parametrize("settings", [{"hop_s": 0.0}, {"hop_s": 2.1}, {"smooth_s": -1.0}])
def test_a_hop_that_leaves_gaps_is_refused(settings: dict):
    with pytest.raises(DataError, match="expected a hop"):
        Recogniser(OnnxModel(METADATA, Asked()), **settings)


# Streams as no sensor should send them: any rate, jitter, gaps, NaN; in chunks of any size, some of them in the wrong order.
@st.composite
def bad_streams(draw: st.DrawFn) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    streams = {}
    for name, signal in STREAMS.items():
        random = np.random.default_rng(draw(st.integers(0, 2**32)))
        rate_hz = draw(st.sampled_from([5.0, 30.0, 50.0, 64.0, 200.0]))
        times = regular(draw(st.sampled_from([0.4, 3.0, 7.0])), rate_hz, draw(st.sampled_from([0.0, 0.3])))
        times = np.sort(times + (random.random(len(times)) * draw(st.sampled_from([0.0, 0.4, 3.0])) / rate_hz * NS).astype(np.int64))
        is_gap = (times > 2.5 * NS) & (times < draw(st.sampled_from([0, 4 * NS])))
        kept = (random.random(len(times)) > draw(st.sampled_from([0.0, 0.1]))) & ~is_gap
        kept[0] = True
        samples = signal(times)
        samples[random.random(len(times)) < draw(st.sampled_from([0.0, 0.002]))] = np.nan
        streams[name] = (times[kept], samples[kept])
    return streams


def slow_window(times: np.ndarray, samples: np.ndarray, start_ns: int) -> np.ndarray:
    """What training would interpolate, a channel at a time, before the first sample and after the last those."""
    wanted = start_ns / NS + np.arange(STEPS) / RATE_HZ
    return np.stack([np.interp(wanted, times / NS, channel) for channel in samples.T])


def usable(streams: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    firsts = {name: np.concatenate([[True], np.diff(times) > 0]) for name, (times, _) in streams.items()}
    return {name: (times[firsts[name]], samples[firsts[name]]) for name, (times, samples) in streams.items()}


@settings(deadline=None, max_examples=60)
@given(streams=bad_streams(), chunk_s=st.sampled_from([0.05, 0.3, 0.45]))
def test_every_window_is_what_the_sensors_measured_or_is_left_out_with_a_reason(streams, chunk_s: float):
    asked = Asked()
    recogniser = Recogniser(OnnxModel(METADATA, asked))
    answers = feed(recogniser, streams, chunk_s)
    clean = usable(streams)
    for row, answer in enumerate(answers):
        for name, (times, samples) in clean.items():
            window = asked.windows(name)[row]
            if name in answer.left_out:
                assert np.isnan(window).all()
                assert answer.left_out[name]
            else:
                np.testing.assert_allclose(window, slow_window(times, samples, answer.start_ns), atol=1e-4)
        assert answer.activity in (None, "walk")
        assert answer.activity is None or len(answer.left_out) < 2
    assert all(later.start_ns > answer.start_ns for answer, later in pairwise(answers))


@settings(deadline=None, max_examples=40)
@given(streams=bad_streams(), sizes=st.tuples(st.sampled_from([0.02, 0.2]), st.sampled_from([0.07, 0.45])))
def test_how_samples_are_cut_into_chunks_changes_nothing(streams, sizes: tuple[float, float]):
    found = []
    for chunk_s in sizes:
        asked = Asked()
        answers = feed(Recogniser(OnnxModel(METADATA, asked)), streams, chunk_s)
        found.append({(a.start_ns, n): w for n in STREAMS for a, w in zip(answers, asked.windows(n) if answers else (), strict=True)})
    for key in found[0].keys() & found[1].keys():
        np.testing.assert_allclose(found[0][key], found[1][key], atol=1e-5)
    assert abs(len(found[0]) - len(found[1])) <= 2, "but for a last window of each stream"


@settings(deadline=None, max_examples=40)
@given(order=st.permutations(range(8)))
def test_chunks_in_the_wrong_order_are_refused_and_never_answered_wrong(order: list[int]):
    asked = Asked()
    recogniser = Recogniser(OnnxModel(METADATA, asked))
    times = regular(8)
    chunks = np.split(times, 8)
    answers, taken = [], []
    for index in order:
        is_late = bool(taken) and index < max(taken)
        if is_late:
            with pytest.raises(DataError, match="never go back"):
                recogniser.add("accelerometer", chunks[index], acceleration(chunks[index]))
            continue
        answers += recogniser.add("accelerometer", chunks[index], acceleration(chunks[index]))
        taken.append(index)
    for row, answer in enumerate(answers):
        if "accelerometer" not in answer.left_out:
            np.testing.assert_allclose(
                asked.windows("accelerometer")[row].T, acceleration(regular(2, start_s=answer.start_ns / NS)), atol=1e-4
            )


def test_a_model_of_upright_sensors_gets_them_turned_as_in_training():
    """The phone lies askew in the pocket; nothing is answered until it has seen its wearer move, and the last window is training's."""
    asked = Asked()
    recogniser = Recogniser(OnnxModel(replace(METADATA, upright=True), asked))
    askew = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0].astype(np.float32)
    streams = {name: (times, samples @ askew) for name, (times, samples) in both(12).items()}
    answers = feed(recogniser, streams)
    assert [answer.activity for answer in answers[:5]] == [None] * 4 + ["walk"]
    assert "walk about" in answers[3].left_out["gyroscope"]
    assert "4 of 5 windows" in answers[3].left_out["accelerometer"]
    recording = Recording(
        subject="a",
        session="b",
        streams={name: Stream(samples=samples, rate_hz=RATE_HZ, unit="x") for name, (_, samples) in streams.items()},
    )
    spec = WindowSpec(length_s=WINDOW_S, overlap=0.5, time_steps=dict.fromkeys(streams, STEPS))
    expected = upright(window_recordings("a", [recording], list(streams), spec))
    for name in streams:
        np.testing.assert_allclose(asked.windows(name)[-1], expected.streams[name][-1], atol=1e-4)
    recogniser.reset()
    assert feed(recogniser, both(3))[0].activity is None, "another wearer hangs it otherwise"
