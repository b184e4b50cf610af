from datetime import datetime
from pathlib import Path

import pytest

from client.host.machine_conditions import conditions_now

NOON = datetime(2026, 12, 24, 12, 30)


def supply(sys: Path, name: str, **files: str) -> None:
    folder = sys / "power_supply" / name
    folder.mkdir(parents=True)
    for file, text in files.items():
        (folder / file).write_text(text + "\n")


def test_a_machine_without_battery_or_thermometer(tmp_path: Path):
    found = conditions_now(is_paused=True, now=NOON, sys=tmp_path)
    assert (found.is_paused, found.is_on_battery, found.temperature_c, found.hour) == (True, False, None, 12.5)
    assert found.load_per_core >= 0


@pytest.mark.parametrize(
    ("files", "on_battery"),
    [
        ({"type": "Battery", "status": "Discharging"}, True),
        ({"type": "Battery", "status": "Charging"}, False),
        ({"type": "Battery", "status": "Full"}, False),
        ({"type": "Battery", "status": "Discharging", "scope": "Device"}, False),  # a mouse
        ({"type": "Mains", "online": "1"}, False),
    ],
)
def test_only_the_machine_s_own_battery_that_empties_counts(tmp_path: Path, files: dict[str, str], on_battery: bool):
    supply(tmp_path, "BAT0", **files)
    supply(tmp_path, "AC", type="Mains", online="0")
    assert conditions_now(is_paused=False, now=NOON, sys=tmp_path).is_on_battery is on_battery


def test_the_hottest_thermometer_counts_and_one_that_is_off_does_not(tmp_path: Path):
    for i, text in enumerate(("45200", "-1000", "", "61300")):
        (tmp_path / "thermal" / f"thermal_zone{i}").mkdir(parents=True)
        (tmp_path / "thermal" / f"thermal_zone{i}" / "temp").write_text(text)
    assert conditions_now(is_paused=False, now=NOON, sys=tmp_path).temperature_c == 61.3


def test_this_machine_can_be_read():
    assert conditions_now(is_paused=False, now=datetime.now()).load_per_core >= 0
