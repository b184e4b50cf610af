"""Which host of a simulation trains which device, so that every host has about as many windows.

Hosts of a simulation share one data set, so any of them can train any device. Each profiles every n-th; of a round's cohort that may leave
one host three devices and another none, and the round waits for the first.
"""

from collections.abc import Mapping, Sequence
from heapq import heapify, heapreplace

Shares = Mapping[int, Sequence[str]]


def balanced(shares: Shares, windows: Mapping[str, int]) -> dict[int, tuple[str, ...]]:
    """Return the devices by host, ascending: as they are, unless spreading them anew makes the largest host smaller.

    Each device, the largest first, goes to the host with the fewest windows: at most 4/3 of the best there is for the largest host.

    Args:
        shares: by host, its devices; the hosts in a fixed order, all of them, also those without a device.
        windows: by device, what it weighs.

    Source: longest processing time first, Graham 1969, "Bounds on multiprocessing timing anomalies", theorem 2.
    """
    spread: dict[int, list[str]] = {host: [] for host in shares}
    loads = [(0, place, host) for place, host in enumerate(shares)]
    heapify(loads)
    for device in sorted((device for devices in shares.values() for device in devices), key=lambda device: (-windows[device], device)):
        load, place, host = loads[0]
        spread[host].append(device)
        heapreplace(loads, (load + windows[device], place, host))
    best = spread if largest(spread, windows) < largest(shares, windows) else shares
    return {host: tuple(sorted(devices)) for host, devices in best.items()}


def largest(shares: Shares, windows: Mapping[str, int]) -> int:
    """Return the windows of the host with most: what a round waits for."""
    return max((sum(windows[device] for device in devices) for devices in shares.values()), default=0)
