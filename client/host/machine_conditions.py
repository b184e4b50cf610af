"""What a Linux machine says of its power, its temperature and its load."""

import os
from datetime import datetime
from pathlib import Path

from client.host.training_rules import Conditions

SYS = Path("/sys/class")


def conditions_now(*, is_paused: bool, now: datetime, sys: Path = SYS) -> Conditions:
    """Return what the machine is like.

    Args:
        is_paused: whether the wearer paused the host.
        now: in the machine's time zone.
        sys: where the kernel tells of devices.
    """
    return Conditions(
        is_paused=is_paused,
        is_on_battery=_is_on_battery(sys / "power_supply"),
        temperature_c=_hottest_c(sys / "thermal"),
        load_per_core=os.getloadavg()[0] / (os.cpu_count() or 1),
        hour=now.hour + now.minute / 60,
    )


def _is_on_battery(supplies: Path) -> bool:
    """Return whether a battery of the machine itself is being emptied; those of mice and headphones are not the machine's."""
    return any(
        _text(supply / "type") == "Battery" and _text(supply / "scope") != "Device" and _text(supply / "status") == "Discharging"
        for supply in supplies.glob("*")
    )


def _hottest_c(thermal: Path) -> float | None:
    read = [_text(each) for each in thermal.glob("thermal_zone*/temp")]
    return max((int(each) / 1000 for each in read if each.lstrip("-").isdecimal()), default=None)


def _text(file: Path) -> str:
    """Return what a file of the kernel's says; nothing where it has none, or cannot say."""
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
