from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.host.training_rules import Conditions, TrainingRules, hours_of, why_not
from clmm_core.errors import ConfigError


def now(**changed: Any) -> Conditions:
    usual: dict[str, Any] = {"is_paused": False, "is_on_battery": False, "temperature_c": 45.0, "load_per_core": 0.2, "hour": 12.0}
    return Conditions(**usual | changed)


def test_a_quiet_machine_on_its_charger_trains():
    assert why_not(TrainingRules(), now()) == ""
    assert why_not(TrainingRules(), now(temperature_c=None)) == "", "a machine without a thermometer is not hot"


@pytest.mark.parametrize(
    ("rules", "conditions", "reason"),
    [
        ({}, {"is_paused": True}, "the wearer paused this host"),
        ({"on_battery": True}, {"is_paused": True}, "the wearer paused this host"),
        ({}, {"is_on_battery": True}, "put it on its charger"),
        ({}, {"temperature_c": 75.1}, "it is hot: 75 C, above 75"),
        ({"max_temperature_c": 60.0}, {"temperature_c": 61.0}, "above 60"),
        ({}, {"load_per_core": 1.6}, "it is busy: 1.6 processes a core, above 1.5"),
        ({"hours": (22.0, 6.5)}, {"hour": 21.75}, "from 22:00 to 06:30, and it is 21:45"),
    ],
)
def test_what_keeps_it_from_training_is_said(rules: dict[str, Any], conditions: dict[str, Any], reason: str):
    assert reason in why_not(TrainingRules(**rules), now(**conditions))


def test_an_owner_may_allow_more():
    assert why_not(TrainingRules(on_battery=True), now(is_on_battery=True)) == ""
    assert why_not(TrainingRules(max_load_per_core=0), now(load_per_core=50.0)) == ""
    assert why_not(TrainingRules(max_temperature_c=90.0), now(temperature_c=85.0)) == ""


@given(start=st.integers(0, 24), end=st.integers(0, 24), quarter=st.integers(0, 95))
def test_hours_over_midnight_are_those_that_the_hours_of_the_day_do_not_have(start: int, end: int, quarter: int):
    hour = quarter / 4
    allowed = why_not(TrainingRules(hours=(start, end)), now(hour=hour)) == ""
    by_hand = hour in [each / 4 for each in range(4 * start, 4 * end)] if start <= end else not end <= hour < start
    assert allowed == by_hand


def test_hours_are_read_as_people_write_them():
    assert hours_of("22-6") == (22.0, 6.0)
    assert hours_of("21:30-06:15") == (21.5, 6.25)
    for wrong in ("22", "22-6-7", "late-6", ""):
        with pytest.raises(ConfigError, match="expected two times of day, as 22-6"):
            hours_of(wrong)
    with pytest.raises(ConfigError, match="hours of the day"):
        TrainingRules(hours=hours_of("22-30"))


@pytest.mark.parametrize("wrong", [{"max_load_per_core": -1}, {"max_temperature_c": 0}, {"max_temperature_c": 400}])
def test_rules_that_cannot_be_are_refused(wrong: dict[str, float]):
    with pytest.raises(ConfigError, match="largest load"):
        TrainingRules(**wrong)
