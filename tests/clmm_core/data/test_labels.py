import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clmm_core.data.labels import LabelDraw, _touches, draw_labelled
from clmm_core.data.recording import LabelledInterval, Recording, Stream
from clmm_core.data.windows import DeviceWindows, WindowSpec, window_recordings
from clmm_core.errors import ConfigError

CLASSES = ("run", "sit", "walk")
RATE_HZ = 10.0


def recording(session: str, pieces: list[tuple[str, float]], start_s: float = 0.0) -> Recording:
    """One activity after the other, `(label, seconds)`; an empty label is time without one."""
    intervals, now_s = [], start_s
    for label, seconds in pieces:
        if label:
            intervals.append(LabelledInterval(label=label, start_s=now_s, end_s=now_s + seconds))
        now_s += seconds
    samples = np.zeros((round((now_s - start_s) * RATE_HZ), 1), np.float32)
    stream = Stream(samples=samples, rate_hz=RATE_HZ, start_s=start_s, unit="m/s^2")
    return Recording(subject="anna", session=session, streams={"accelerometer": stream}, intervals=tuple(intervals))


def cut(recordings: list[Recording], length_s: float | None = 2.0, overlap: float = 0.5) -> DeviceWindows:
    spec = WindowSpec(length_s=length_s, overlap=overlap, time_steps={"accelerometer": 20})
    return window_recordings("anna", recordings, ("accelerometer",), spec)


def two_sessions() -> DeviceWindows:
    first = [("walk", 6.0), ("run", 6.0), ("", 4.0), ("sit", 6.0), ("walk", 6.0)]
    return cut([recording("one", first), recording("two", [("sit", 6.0), ("run", 6.0)])])


def session_of_trials(recordings: list[Recording]) -> list[int]:
    return [number for number, each in enumerate(recordings) for _ in each.intervals]


@st.composite
def days(draw: st.DrawFn) -> list[Recording]:
    pieces = st.lists(st.tuples(st.sampled_from((*CLASSES, "")), st.sampled_from((2.0, 3.0, 5.0))), min_size=1, max_size=6)
    starts_s = st.sampled_from((0.0, 100.0))
    return [recording(f"{i}", draw(pieces), draw(starts_s)) for i in range(draw(st.integers(1, 3)))]


@given(days(), st.integers(0, 2), st.sampled_from(("trial", "window")), st.integers(0, 5), st.sampled_from((0.0, 0.5, 0.75)))
@settings(max_examples=60, deadline=None)
def test_what_is_drawn_is_never_tested(recordings: list[Recording], per_class: int, unit: str, seed: int, overlap: float):
    windows, sessions = cut(recordings, overlap=overlap), session_of_trials(recordings)
    taken, rest = draw_labelled(windows, CLASSES, LabelDraw(per_class=per_class, unit=unit, seed=seed))
    assert taken.tolist() == sorted(set(taken.tolist()))
    assert rest.tolist() == sorted(set(rest.tolist()) - set(taken.tolist()))
    assert all(windows.labels[row] in CLASSES for row in [*taken, *rest])
    for mine in taken:
        for theirs in rest:
            if sessions[windows.trials[mine]] == sessions[windows.trials[theirs]]:
                assert abs(windows.starts_s[mine] - windows.starts_s[theirs]) >= 2.0 - 1e-6
            if unit == "trial":
                assert windows.trials[mine] != windows.trials[theirs]


@given(days(), st.integers(1, 2), st.sampled_from(("trial", "window")), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_as_many_units_of_each_class_as_there_are(recordings: list[Recording], per_class: int, unit: str, seed: int):
    windows = cut(recordings)
    taken, _ = draw_labelled(windows, CLASSES, LabelDraw(per_class=per_class, unit=unit, seed=seed))
    for label in CLASSES:
        available = np.flatnonzero(windows.labels == label)
        drawn = [row for row in taken if windows.labels[row] == label]
        if unit == "window":
            assert len(drawn) == min(per_class, len(available))
        else:
            trials = set(windows.trials[drawn])
            assert len(trials) == min(per_class, len(set(windows.trials[available])))
            assert set(drawn) == {row for row in available if windows.trials[row] in trials}  # whole trials


@pytest.mark.parametrize("unit", ["trial", "window"])
def test_the_draw_depends_on_seed_and_device_only(unit: str):
    windows = two_sessions()
    draws = [draw_labelled(windows, CLASSES, LabelDraw(per_class=1, unit=unit, seed=seed))[0].tolist() for seed in range(20)]
    again = draw_labelled(windows, CLASSES, LabelDraw(per_class=1, unit=unit, seed=3))[0].tolist()
    assert again == draws[3]
    assert len({tuple(rows) for rows in draws}) > 3


@pytest.mark.parametrize("unit", ["trial", "window"])
def test_0_means_all_and_leaves_none(unit: str):
    windows = two_sessions()
    taken, rest = draw_labelled(windows, CLASSES, LabelDraw(per_class=0, unit=unit))
    assert taken.tolist() == np.flatnonzero(windows.labels != "").tolist()
    assert not len(rest)


def test_a_window_that_shares_samples_with_a_drawn_trial_is_left_out_by_hand():
    """2 s windows every half second over 4.5 s of run, then of walk: run's last starts at 3 s, walk's first at 4 s."""
    windows = cut([recording("one", [("run", 4.5), ("walk", 4.5)])], overlap=0.75)
    assert windows.starts_s[windows.labels == "run"].tolist() == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert windows.starts_s[windows.labels == "walk"].tolist() == [4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0]
    apart = _touches(windows, np.flatnonzero(windows.labels == "walk"), np.flatnonzero(windows.labels == "run"), "trial")
    assert apart.tolist() == [True, True, False, False, False, False, False]


def test_equal_times_of_two_sessions_do_not_overlap():
    """Each session has its own clock: two sessions of one trial each, drawn one, tested on the other whole."""
    windows = cut([recording("one", [("walk", 6.0)]), recording("two", [("walk", 6.0)])])
    taken, rest = draw_labelled(windows, ("walk",), LabelDraw(per_class=1))
    assert len(taken) == len(rest) == 5
    assert windows.starts_s[taken].tolist() == windows.starts_s[rest].tolist()


def test_windows_that_are_whole_trials_are_drawn_one_by_one():
    windows = cut([recording("one", [("walk", 3.0), ("run", 2.0), ("walk", 4.0)])], length_s=None)
    for unit in ("trial", "window"):
        taken, rest = draw_labelled(windows, CLASSES, LabelDraw(per_class=1, unit=unit))
        assert len(taken) == 2
        assert windows.labels[rest].tolist() == ["walk"]


def test_activities_outside_the_classes_are_neither_drawn_nor_tested():
    windows = two_sessions()
    taken, rest = draw_labelled(windows, ("walk",), LabelDraw(per_class=1))
    assert set(windows.labels[[*taken, *rest]]) == {"walk"}


def test_a_negative_number_is_refused():
    with pytest.raises(ConfigError, match=r"labels.per-class: expected 0 .* found -1"):
        LabelDraw(per_class=-1)
