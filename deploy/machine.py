"""What of a machine keeps it from taking part in a federation, or will soon: looked at, not assumed. Linux."""

import importlib.metadata
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from packaging.requirements import Requirement

from deploy.finding import SET_CLOCK, Finding

OLDEST_PYTHON = (3, 11)
WHEELS = ("x86_64", "aarch64")
"""Kinds of processor for which PyTorch, NumPy and onnxruntime have wheels for Linux; 32-bit ARM has none of the three."""
CPU_INDEX = "pip install torch --index-url https://download.pytorch.org/whl/cpu"
LITTLE_DISK, TOO_LITTLE_DISK = 2_000_000_000, 200_000_000
"""Bytes: a run's results and checkpoints, a week of sensors; a single checkpoint with its temporary file."""
LITTLE_MEMORY = 700_000_000
"""Bytes that a host needs to train: SuperNode, PyTorch and the windows of one person."""
HOT_C = 80.0
"""A Raspberry Pi slows its processor down from here on (its documentation, "Frequency management and thermal control")."""
BEFORE = datetime(2026, 11, 1, tzinfo=UTC)
"""No clock that is right can be before the software it runs: a board without a battery starts in 1970 or at its last shutdown."""
SUPERNODE_PORT = 9094
"""Flower's port between a SuperNode and its ClientApps, on loopback."""


@dataclass(frozen=True)
class Checked:
    """One thing that was looked at."""

    what: str
    """What was found, in words, whether it is right or not."""
    found: Sequence[Finding] = field(default=())


def check_machine(folder: Path, ports: Sequence[int], now: datetime) -> list[Checked]:
    """Look at everything that does not depend on a federation.

    Args:
        folder: where the machine keeps what it records or trains.
        ports: those that it will listen on.
        now: the time by its clock.
    """
    return [
        check_python(sys.version_info[:2], platform.machine(), sys.maxsize > 2**32),
        *check_packages(_installed),
        check_disk(folder, shutil.disk_usage),
        check_memory(Path("/proc/meminfo")),
        check_clock(now, _is_synchronised()),
        check_temperature(Path("/sys/class/thermal")),
        *(check_port(port) for port in ports),
    ]


def check_python(version: tuple[int, ...], processor: str, is_64_bit: bool) -> Checked:
    """Look at Python and at whether there are wheels for the processor."""
    found = []
    if tuple(version) < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        found.append(
            Finding(f"expected Python {oldest} or newer: install it (Raspberry Pi OS 12 has it, `uv python install {oldest}` too)")
        )
    if processor not in WHEELS or not is_64_bit:
        found.append(
            Finding(
                f"expected a 64-bit system on {' or '.join(WHEELS)}, for which PyTorch, NumPy and onnxruntime have wheels: install one, or "
                "let this machine be a sensor of another host"
            )
        )
    return Checked(f"Python {'.'.join(map(str, version))}, {processor}, {64 if is_64_bit else 32} bit", found)


def check_packages(installed: Callable[[str], str | None]) -> list[Checked]:
    """Look at what this project needs on a host, in the versions that it was tested with.

    Args:
        installed: the version of a package, None if it is not there.
    """
    needs = {each.name: each for each in map(Requirement, importlib.metadata.requires("clmm") or ()) if each.marker is None}
    checked = [_package(needs[name], installed(name)) for name in ("flwr", "torch", "numpy")]
    version = installed("torch")
    if version is not None and platform.machine() == "aarch64" and installed("nvidia-cuda-runtime") is not None:
        heavy = Finding(f"PyTorch came with CUDA, gigabytes that a board without an NVIDIA GPU never uses: {CPU_INDEX}", is_fatal=False)
        checked.append(Checked(f"torch {version} with CUDA", (heavy,)))
    if (runtime := installed("onnxruntime")) is None:
        lacking = Finding("expected onnxruntime, without which nothing is recognised: pip install 'clmm[recognise]'", is_fatal=False)
        checked.append(Checked("onnxruntime: none", (lacking,)))
    else:
        checked.append(Checked(f"onnxruntime {runtime}"))
    return checked


def check_disk(folder: Path, usage: Callable[[Path], tuple[int, int, int]]) -> Checked:
    """Look at how much room there is where a machine keeps its data."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    *_, free = usage(there)
    what = f"{free / 1e9:.1f} GB free at {folder}"
    if free < TOO_LITTLE_DISK:
        return Checked(what, (Finding("expected room for a checkpoint and for new recordings: remove old results, or use a larger disk"),))
    if free < LITTLE_DISK:
        return Checked(what, (Finding("expected 2 GB: recordings and results will fill it within weeks", is_fatal=False),))
    return Checked(what)


def check_memory(meminfo: Path) -> Checked:
    """Look at how much memory is left for training."""
    lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="utf-8").splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    what = f"{free / 1e9:.1f} GB of memory free"
    if free < LITTLE_MEMORY:
        return Checked(what, (Finding("expected 0.7 GB to train with: stop other programs, or only record here", is_fatal=False),))
    return Checked(what)


def check_clock(now: datetime, is_synchronised: bool | None) -> Checked:
    """Look at the clock: certificates, signatures and the times of samples count on it.

    Args:
        now: the time by it.
        is_synchronised: whether it is set over the network; None where nobody can say.
    """
    what = f"the clock says {now:%Y-%m-%d %H:%M:%S} UTC"
    if now < BEFORE:
        return Checked(what, (Finding(f"expected a time after this software was made: {SET_CLOCK}"),))
    if is_synchronised is False:
        return Checked(what, (Finding(f"expected a clock that is set over the network: {SET_CLOCK}", is_fatal=False),))
    return Checked(f"{what}, {'set over the network' if is_synchronised else 'whether it is set over the network is not known'}")


def check_temperature(thermal: Path) -> Checked:
    """Look at how hot the processor is."""
    read = [_celsius(each) for each in sorted(thermal.glob("thermal_zone*/temp"))]
    hottest = max((each for each in read if each is not None), default=None)
    if hottest is None:
        return Checked("no thermometer")
    what = f"{hottest:.0f} C at the hottest thermometer"
    if hottest >= HOT_C:
        return Checked(what, (Finding(f"expected below {HOT_C:.0f} C, where the processor slows down: cool it", is_fatal=False),))
    return Checked(what)


def check_port(port: int) -> Checked:
    """Look at whether a port of this machine can be listened on."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
        except OSError as error:
            taken = Finding(
                f"expected a port that nobody has ({error.strerror}): stop what has it (`ss -ltnp`), if it is not this host itself"
            )
            return Checked(f"port {port} is taken", (Finding(taken.text, is_fatal=False),))
    return Checked(f"port {port} is free")


def _package(need: Requirement, version: str | None) -> Checked:
    if version is None:
        how = CPU_INDEX if need.name == "torch" else f"pip install '{need}'"
        return Checked(f"{need.name}: none", (Finding(f"expected {need}: {how}"),))
    if version.split("+")[0] not in need.specifier:
        return Checked(f"{need.name} {version}", (Finding(f"expected {need}, which this project was tested with: pip install '{need}'"),))
    return Checked(f"{need.name} {version}")


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_synchronised() -> bool | None:
    """Return whether systemd says that the clock is set over the network; None where it cannot be asked."""
    if (timedatectl := shutil.which("timedatectl")) is None:
        return None
    asked = subprocess.run([timedatectl, "show", "--property=NTPSynchronized"], capture_output=True, text=True, check=False, timeout=10)
    said: Mapping[str, bool] = {"NTPSynchronized=yes": True, "NTPSynchronized=no": False}
    return said.get(asked.stdout.strip())


def _celsius(file: Path) -> float | None:
    try:
        return int(file.read_text(encoding="ascii")) / 1000
    except (OSError, ValueError):  # a thermometer that is switched off
        return None
