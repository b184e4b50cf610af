"""When a host may train: a decision of what is known of the machine now, and of its owner's rules. It looks at nothing itself."""

from dataclasses import dataclass

from clmm_core.errors import ConfigError

HOURS_A_DAY = 24


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """A machine as it is now."""

    is_paused: bool
    """Whether the wearer paused the host."""
    is_on_battery: bool
    """Whether it runs off its battery. One without a battery does not."""
    temperature_c: float | None
    """Of its hottest thermometer; None where it has none."""
    load_per_core: float
    """Processes that wanted a core over the last minute, a core."""
    hour: float
    """Of the day, in the machine's time zone, 0 to 24."""


@dataclass(frozen=True, kw_only=True)
class TrainingRules:
    """What the owner of a host allows.

    Raises:
        ConfigError: values that cannot be.
    """

    on_battery: bool = False
    """Whether it may train without power."""
    max_temperature_c: float = 75.0
    """Below the 80 C at which a Raspberry Pi slows down."""
    max_load_per_core: float = 1.5
    """0 does not look at it."""
    hours: tuple[float, float] | None = None
    """From when to when, as 22 to 6; None is always."""

    def __post_init__(self) -> None:
        if self.max_load_per_core < 0 or not 0 < self.max_temperature_c < 150:
            found = f"{self.max_load_per_core:g} and {self.max_temperature_c:g} C"
            raise ConfigError(f"expected a largest load from 0 on and a temperature of 0 to 150 C, found {found}")
        if self.hours is not None and not all(0 <= hour <= HOURS_A_DAY for hour in self.hours):
            raise ConfigError(f"--train-hours: expected hours of the day, 0 to {HOURS_A_DAY}, found {self.hours[0]:g}-{self.hours[1]:g}")


def why_not(rules: TrainingRules, now: Conditions) -> str:
    """Return why a host must not train now, in words for the federation's operator; empty where it may."""
    if now.is_paused:
        return "the wearer paused this host"
    if now.is_on_battery and not rules.on_battery:
        return "it runs on its battery: put it on its charger"
    if now.temperature_c is not None and now.temperature_c > rules.max_temperature_c:
        return f"it is hot: {now.temperature_c:.0f} C, above {rules.max_temperature_c:.0f}"
    if rules.max_load_per_core and now.load_per_core > rules.max_load_per_core:
        return f"it is busy: {now.load_per_core:.1f} processes a core, above {rules.max_load_per_core:g}"
    if rules.hours is not None and not _is_within(now.hour, *rules.hours):
        return f"its owner lets it train from {_clock(rules.hours[0])} to {_clock(rules.hours[1])}, and it is {_clock(now.hour)}"
    return ""


def hours_of(text: str) -> tuple[float, float]:
    """Return the hours that a text like `22-6` or `21:30-6` names.

    Raises:
        ConfigError: it names none.
    """
    parts = text.split("-")
    try:
        start, end = (sum(float(part) / 60**i for i, part in enumerate(each.split(":"))) for each in parts)
    except ValueError as error:
        raise ConfigError(f"--train-hours: expected two times of day, as 22-6 or 21:30-6, found '{text}'") from error
    return start, end


def _is_within(hour: float, start: float, end: float) -> bool:
    """Return whether an hour lies from start to end, over midnight where the end is the smaller one."""
    return start <= hour < end if start <= end else hour >= start or hour < end


def _clock(hour: float) -> str:
    minutes = round(hour * 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}"
