"""What the processes of a run take, by what they are for: peak memory and processor time, as the kernel counts them (Linux)."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from clmm_core.errors import ConfigError

Kind = Literal["server", "apart", "worker", "ray", "flower", "command"]
"""`server`: the ServerApp with Ray's driver; `apart`: what it calls in a process of its own (`server.apart`); `worker`: a Ray worker,
which trains; `ray`: what Ray runs beside them; `flower`: SuperLink, SuperExec and `flwr run`; `command`: what started all that."""
KINDS: tuple[Kind, ...] = get_args(Kind)
_BEGINNINGS: Mapping[str, Kind] = {"ray::": "worker"}
_PARTS: Mapping[str, Kind] = {
    "-m server.apart": "apart",
    "simulation.flwr_simulation": "server",
    "flwr-simulation": "server",
    "gcs_server": "ray",
    "raylet": "ray",
    "/ray/": "ray",
    "flower-super": "flower",
    "/flwr": "flower",
}
"""In a command line, the first that is there; Ray's own programs name the driver's folder, so they come after it."""
_PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """At one moment."""

    cpu_s: Mapping[str, float] = field(default_factory=dict)
    """By kind, over all of its processes since they began."""
    peak_bytes: Mapping[str, int] = field(default_factory=dict)
    """By kind, of the process that ever held most."""


def check_can_be_watched() -> None:
    """Make sure that the kernel tells.

    Raises:
        ConfigError: there is no `/proc`.
    """
    if not (_PROC / "self" / "stat").is_file():
        raise ConfigError(f"expected Linux, which says in {_PROC} what processes take, found none: run the benchmark there")


class Watch:
    """Adds up what a process and all below it take, whenever it is asked to look; those that ended count as last seen."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._seen: dict[int, tuple[Kind, float, int]] = {}

    def look(self) -> Usage:
        """Return what they have taken so far."""
        for pid in _with_descendants(self._root):
            kind, cpu_s, peak = kind_of(_command_line(pid)), _cpu_s(pid), _peak_bytes(pid)
            if cpu_s is not None and peak is not None:
                self._seen[pid] = (kind, cpu_s, max(peak, self._seen.get(pid, (kind, 0.0, 0))[2]))
        return Usage(
            cpu_s={kind: sum(cpu_s for each, cpu_s, _ in self._seen.values() if each == kind) for kind in KINDS},
            peak_bytes={kind: max((peak for each, _, peak in self._seen.values() if each == kind), default=0) for kind in KINDS},
        )


def kind_of(command_line: str) -> Kind:
    """Return what a process is for, as its command line tells."""
    for beginning, kind in _BEGINNINGS.items():
        if command_line.startswith(beginning):
            return kind
    return next((kind for part, kind in _PARTS.items() if part in command_line), "command")


def family(root: int) -> list[tuple[int, str]]:
    """Return the number and the command line of a process and of all below it."""
    return [(pid, _command_line(pid)) for pid in _with_descendants(root)]


def resident_bytes(pid: int) -> int:
    """Return the memory that a process holds now, what it shares with others divided among them; 0 where it has ended."""
    found = [line.split()[1] for line in _read(pid, "smaps_rollup").splitlines() if line.startswith("Pss:")]
    return 1024 * int(found[0]) if found else 0


def _with_descendants(root: int) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for pid in (int(each) for each in os.listdir(_PROC) if each.isdecimal()):
        stat = _stat(pid)
        if stat:
            children.setdefault(int(stat[1]), []).append(pid)
    waiting = [root]
    while waiting:
        yield (pid := waiting.pop())
        waiting += children.get(pid, [])


def _stat(pid: int) -> list[str]:
    """Return `/proc/PID/stat` from the state on: the name before it may hold anything."""
    return _read(pid, "stat").rpartition(")")[2].split()


def _cpu_s(pid: int) -> float | None:
    stat = _stat(pid)
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK") if stat else None  # utime, stime


def _peak_bytes(pid: int) -> int | None:
    found = [line.split()[1] for line in _read(pid, "status").splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(found[0]) if found else None


def _command_line(pid: int) -> str:
    return _read(pid, "cmdline").replace("\0", " ")


def _read(pid: int, name: str) -> str:
    """Return a file about a process, nothing where it has ended meanwhile."""
    try:
        return (_PROC / str(pid) / name).read_text(errors="replace")
    except OSError:
        return ""
