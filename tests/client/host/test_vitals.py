import numpy as np
import pytest

from client.host.chunk import packed
from client.host.vitals import NS, Vitals

T0_NS = 1_700_000_000 * NS


def fed(times_s: np.ndarray) -> Vitals:
    vitals = Vitals(last_seen_ns=T0_NS)
    times = (T0_NS + np.rint(times_s * 1e6).astype(np.int64) * 1000).astype(np.int64)
    for i in range(0, len(times), 25):
        vitals.kept(packed(1, i, times[i : i + 25], np.zeros((len(times[i : i + 25]), 3), np.float32)))
    return vitals


def test_an_even_stream_has_its_rate_and_no_gap():
    figures = fed(np.arange(500) / 50).figures()
    assert figures.measured_hz == pytest.approx(50)
    assert figures.jitter_ms == pytest.approx(0, abs=1e-6)
    assert figures.gap_share == 0


def test_jitter_is_the_deviation_of_steps():
    random = np.random.default_rng(0)
    figures = fed(np.cumsum(0.02 + random.normal(0, 0.002, 900))).figures()
    assert figures.jitter_ms == pytest.approx(2, rel=0.1)
    assert figures.measured_hz == pytest.approx(50, rel=0.02)


def test_a_gap_counts_as_gap_and_not_as_a_slow_rate():
    times = np.arange(500) / 50
    figures = fed(np.concatenate([times, times + 12])).figures()
    assert figures.measured_hz == pytest.approx(50, rel=0.01)
    assert figures.gap_share == pytest.approx(2 / 20, abs=0.02)


def test_only_the_newest_samples_count_in_whatever_order_they_came():
    slow, quick = np.arange(0, 100, 0.1), 100 + np.arange(1500) / 50
    vitals = fed(np.concatenate([quick, slow]))
    assert vitals.figures().measured_hz == pytest.approx(50, rel=0.01)
    assert vitals.last_sample_ns == T0_NS + round((100 + 1499 / 50) * NS)


@pytest.mark.parametrize("count", [0, 1])
def test_before_there_are_two_samples_there_are_no_figures(count):
    figures = fed(np.arange(count) / 50).figures()
    assert (figures.measured_hz, figures.jitter_ms, figures.gap_share) == (0, 0, 0)


def arriving(every_s: float, *, ahead_s: float = 0, sent: bool = False) -> tuple[Vitals, int]:
    vitals, now_ns = Vitals(last_seen_ns=T0_NS), T0_NS
    for i in range(5):
        now_ns = T0_NS + round(i * every_s * NS)
        times = np.array([now_ns + round(ahead_s * NS)])
        vitals.arrived(packed(1, i, times, np.zeros((1, 3), np.float32)), now_ns + round(ahead_s * NS) if sent else 0, now_ns)
    return vitals, now_ns


@pytest.mark.parametrize(("every_s", "silent_after_s"), [(0.5, 3), (2, 6)])
def test_a_sensor_is_silent_after_three_seconds_or_three_of_its_own_intervals(every_s, silent_after_s):
    vitals, now_ns = arriving(every_s)
    assert not vitals.is_silent(now_ns + round((silent_after_s - 0.1) * NS))
    assert vitals.is_silent(now_ns + round((silent_after_s + 0.1) * NS))


@pytest.mark.parametrize(
    ("ahead_s", "sent", "is_off"), [(3, False, True), (1, False, False), (-3, False, False), (-3, True, True), (3, True, True)]
)
def test_a_clock_that_is_off_is_noticed(ahead_s, sent, is_off):
    """Late data is no sign of a clock that is behind; a time of sending is."""
    vitals, _ = arriving(0.5, ahead_s=ahead_s, sent=sent)
    assert vitals.clock_is_off() == is_off
    if is_off:
        assert ("3.0 s ahead of" if ahead_s > 0 else "3.0 s behind") in vitals.clock_in_words()
