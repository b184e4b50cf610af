import math
from dataclasses import replace
from statistics import median, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clmm_core.data.fleet import DataConfig, device_windows
from clmm_core.data.labels import LabelDraw, draw_labelled
from clmm_core.errors import ConfigError
from clmm_core.federated.messages import DeviceProfile
from clmm_core.report.records import RoundRecord
from clmm_core.training.profile import profile_host
from clmm_core.training.tasks import ProfileTask
from server.availability import Availability, absences, drawn_windows

DEVICES = tuple(f"device-{number:05d}" for number in range(2000))
FLEET = Availability(seed=3, drop_out=0.2, speed_spread=0.5, windows_per_s=10.0, deadline_s=10.0)


def test_by_default_everybody_takes_part_and_nothing_is_simulated():
    turnout = Availability().turnout({"b": 5, "a": 0}, 1, 2)
    assert turnout.present == ("a", "b")
    assert turnout.figures(["a", "b"]) == {}


def test_who_drops_out_differs_from_round_to_round_and_is_the_share_asked_for():
    out = [{device for device in DEVICES if FLEET.drops_out(device, server_round)} for server_round in (1, 2)]
    assert [len(each) / len(DEVICES) for each in out] == pytest.approx([0.2, 0.2], abs=0.03)
    assert len(out[0] & out[1]) / len(DEVICES) == pytest.approx(0.04, abs=0.02), "one round says nothing of the next"


def test_a_device_keeps_its_speed_and_the_median_is_one():
    speeds = [FLEET.speed(device) for device in DEVICES]
    assert speeds == [replace(FLEET, drop_out=0.9).speed(device) for device in DEVICES]
    assert median(speeds) == pytest.approx(1.0, abs=0.05)
    assert stdev(map(math.log, speeds)) == pytest.approx(0.5, abs=0.03)
    assert speeds != [replace(FLEET, seed=4).speed(device) for device in DEVICES]
    assert {Availability(seed=3).speed(device) for device in DEVICES} == {1.0}


def test_a_round_by_hand():
    fleet = Availability(windows_per_s=10.0, deadline_s=3.0)
    turnout = fleet.turnout({"a": 10, "b": 30, "c": 31}, 1, 3)
    assert (turnout.present, turnout.dropped_out, turnout.stragglers) == (("a", "b"), (), ("c",))
    assert turnout.takes_s == {"a": 1.0, "b": 3.0}
    assert turnout.figures(["a"]) == {"num_dropped_out": 0, "num_stragglers": 1, "simulated_s": 3.0}, "waited for c in vain"
    patient = replace(fleet, deadline_s=4.0).turnout({"a": 10, "b": 30, "c": 31}, 1, 3)
    assert patient.simulated_s(["a", "c"]) == pytest.approx(3.1)
    assert patient.simulated_s(["a"]) == pytest.approx(1.0), "those whose host failed do not count"


def test_a_slow_device_takes_longer_by_its_speed():
    turnout = replace(FLEET, drop_out=0.0, deadline_s=0.0).turnout(dict.fromkeys(DEVICES[:5], 20), 1, 5)
    assert turnout.takes_s == {device: pytest.approx(2.0 / FLEET.speed(device)) for device in DEVICES[:5]}


@given(st.integers(0, 100), st.integers(1, 100), st.sets(st.sampled_from(DEVICES[:50])))
def test_every_device_is_in_one_place_and_it_does_not_matter_who_else_was_chosen(seed: int, server_round: int, chosen: set[str]):
    fleet = replace(FLEET, seed=seed)
    turnout = fleet.turnout(dict.fromkeys(chosen, 100), server_round, len(chosen))
    assert sorted((*turnout.present, *turnout.dropped_out, *turnout.stragglers)) == sorted(chosen)
    assert all(seconds <= fleet.deadline_s for seconds in turnout.takes_s.values())
    for device in chosen:
        alone = fleet.turnout({device: 100}, server_round, 1)
        for name in ("present", "dropped_out", "stragglers"):
            assert (device in getattr(turnout, name)) == (device in getattr(alone, name))


@pytest.mark.parametrize(
    ("field", "value", "key"),
    [
        *(("drop_out", value, "fleet.drop-out") for value in (-0.1, 1.1, math.nan)),
        *(("speed_spread", value, "fleet.speed-spread") for value in (-0.1, math.inf)),
        *(("windows_per_s", value, "fleet.windows-per-s") for value in (0.0, -1.0)),
        *(("deadline_s", value, "fleet.deadline-s") for value in (-1.0, math.nan)),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(field: str, value: float, key: str):
    with pytest.raises(ConfigError, match=key):
        Availability(**{field: value})


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (LabelDraw(per_class=0), 17),
        (LabelDraw(per_class=1), 5 + 2),
        (LabelDraw(per_class=3), 15 + 2),
        (LabelDraw(per_class=1, unit="window"), 2),
        (LabelDraw(per_class=4, unit="window"), 4 + 2),
    ],
)
def test_windows_of_stage_two_follow_from_the_profile(draw: LabelDraw, expected: int):
    """Three walks of five windows each, and one run of two."""
    device = DeviceProfile(
        device="a", num_windows=99, modalities={}, labelled_windows={"walk": 15, "run": 2}, labelled_trials={"walk": 3, "run": 1}
    )
    assert drawn_windows(device, draw) == expected


def test_they_are_those_that_a_device_draws():
    data = DataConfig(name="synthetic", num_devices=1)
    (profile,) = profile_host(ProfileTask(data=data), ("device-00000",)).devices
    for draw in (LabelDraw(per_class=1), LabelDraw(per_class=0), LabelDraw(per_class=3, unit="window")):
        drawn, _ = draw_labelled(device_windows(data, "device-00000"), tuple(profile.labelled_windows), draw)
        assert drawn_windows(profile, draw) == pytest.approx(len(drawn), abs=2)


def test_absences_in_a_sentence():
    step = RoundRecord(stage="pretrain", server_round=1, num_hosts=1, num_devices=1, round_s=1.0, elapsed_s=1.0)
    assert absences([step]) == []
    (line,) = absences([step, replace(step, num_dropped_out=3, num_stragglers=1, simulated_s=30.0), replace(step, simulated_s=12.5)])
    assert line.startswith("simulated fleet: over 2 rounds 3 times a chosen device dropped out and 1 times one was too slow")
    assert "42.5 s" in line


def test_of_more_than_are_wanted_the_quickest_take_part_and_nobody_else_is_waited_for():
    fleet = Availability(windows_per_s=10.0, deadline_s=5.0)
    work = {"a": 40, "b": 10, "c": 20, "d": 60, "e": 20}
    turnout = fleet.turnout(work, 1, 3)
    assert (turnout.present, turnout.stragglers) == (("b", "c", "e"), ("d",))
    assert turnout.simulated_s(turnout.present) == 2.0, "d's deadline is of no interest any more"
    assert fleet.turnout(work, 1, 2).present == ("b", "c"), "of c and e, as quick as each other, the first by name"
    everybody = fleet.turnout(work, 1, 5)
    assert everybody.present == ("a", "b", "c", "e")
    assert everybody.simulated_s(everybody.present) == 5.0, "waited for d in vain"
