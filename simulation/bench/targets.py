"""What the simulation is to reach, and whether it does: each target with what was measured for it."""

from collections.abc import Iterator
from dataclasses import dataclass

from simulation.bench.measure import Measurements

RATIO_AT = {8: 3.0, 32: 1.5}
"""By batch size, ours over the stock way, in device-updates a second of a whole round."""
MAX_SERVER_BYTES = 400_000_000
MAX_SERVER_GROWTH = 0.10
MAX_TIME_GROWTH = 0.15
"""Of a device, from the smallest fleet to the largest."""
MAX_START_S = 12.0
"""From the command to the first training step, beyond Ray's own start."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One of them."""

    what: str
    wanted: str
    found: str
    is_reached: bool


def targets(found: Measurements) -> list[Target]:
    """Return every target that there is a measurement for."""
    return [*_ratios(found), *_of_scale(found), *_start(found)]


def ratio(found: Measurements, batch_size: int) -> float | None:
    """Return ours over the stock way, of the medians of their turns, None before both had one."""
    ours, stock = (found.updates_per_s(way, batch_size) for way in ("ours", "stock"))
    return ours / stock if ours and stock else None


def growth(found: Measurements) -> tuple[float, float] | None:
    """Return by what share the server's peak memory and the time a device grow from the smallest fleet to the largest."""
    if len(found.scaled) < 2:
        return None
    first, last = found.scaled[0], found.scaled[-1]
    memory = last.peak_bytes["server"] / first.peak_bytes["server"] - 1
    return memory, first.updates_per_s / last.updates_per_s - 1


def start_s(found: Measurements) -> float | None:
    """Return how long the smallest fleet takes from the command to its first training step, beyond Ray's own start."""
    if not found.scaled or found.ray_start_s is None:
        return None
    return found.scaled[0].first_step_s - found.ray_start_s


def _ratios(found: Measurements) -> Iterator[Target]:
    for batch_size, wanted in RATIO_AT.items():
        reached = ratio(found, batch_size)
        if reached is not None:
            devices = f"{found.compared[0].setting.num_devices:,} devices"
            what = f"device-updates a second of a whole round over the stock way's, {devices}, batch {batch_size}"
            yield Target(what=what, wanted=f"{wanted:g} times", found=f"{reached:.2f} times", is_reached=reached >= wanted)


def _of_scale(found: Measurements) -> Iterator[Target]:
    grown = growth(found)
    if grown is None:
        return
    sizes = f"from {found.scaled[0].setting.num_devices:,} to {found.scaled[-1].setting.num_devices:,} devices"
    peak, (memory, time_) = max(turn.peak_bytes["server"] for turn in found.scaled), grown
    yield Target(
        what=f"the server's peak memory, {sizes}",
        wanted=f"{MAX_SERVER_BYTES / 1e6:.0f} MB, grown by at most {MAX_SERVER_GROWTH:.0%}",
        found=f"{peak / 1e6:.0f} MB, {memory:+.0%}",
        is_reached=peak <= MAX_SERVER_BYTES and memory <= MAX_SERVER_GROWTH,
    )
    yield Target(
        what=f"time a device in a round, {sizes}",
        wanted=f"grown by at most {MAX_TIME_GROWTH:.0%}",
        found=f"{time_:+.0%}",
        is_reached=time_ <= MAX_TIME_GROWTH,
    )


def _start(found: Measurements) -> Iterator[Target]:
    start = start_s(found)
    if start is not None:
        what = f"from the command to the first training step of {found.scaled[0].setting.num_devices:,} devices, beyond Ray's own start"
        yield Target(what=what, wanted=f"{MAX_START_S:g} s", found=f"{start:.1f} s", is_reached=start <= MAX_START_S)
