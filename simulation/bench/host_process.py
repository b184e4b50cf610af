"""A host's daemon as users start it, and what its process takes (Linux)."""

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from client.host.calls import bearer
from client.host.tokens import Role, add_token, read_tokens
from clmm_core.errors import ClmmError

START_S = 60.0
STOP_S = 30.0
PROJECT = Path(__file__).parents[2]
_PROC = Path("/proc")


class HostProcess:
    """One that runs.

    Raises:
        ClmmError: it did not start.
    """

    def __init__(self, folder: Path, port: int, max_file_bytes: int | None) -> None:
        command = [sys.executable, "-c", "from simulation.cli import app; app()", "host", "run", "--folder", str(folder)]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1"}
        self._log = (folder.parent / "host.log").open("ab")
        self.process = subprocess.Popen(
            [*command, "--listen", f"127.0.0.1:{port}"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._log, env=environment
        )
        if max_file_bytes is not None:
            resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (max_file_bytes, resource.RLIM_INFINITY))
        assert self.process.stdout is not None
        said = self.process.stdout.readline().decode()
        found = re.match(r"listening on .*:(\d+),", said)
        if found is None:
            self.kill()
            raise ClmmError(f"clmm host run: expected it to listen, it said '{said.strip()}'; {self._log.name} has the rest")
        self.port = int(found[1])

    @property
    def target(self) -> str:
        """Return where it listens."""
        return f"127.0.0.1:{self.port}"

    def allow_files_of_any_size(self) -> None:
        """End the limit that it was started with."""
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def cpu_s(self) -> float:
        """Return the processor time of all its threads since it was started."""
        fields = (_PROC / str(self.process.pid) / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self) -> tuple[int, int]:
        """Return what it holds now, and the most that it ever held."""
        status = (_PROC / str(self.process.pid) / "status").read_text()
        now, peak = (int(re.findall(rf"{name}:\s+(\d+)", status)[0]) * 1024 for name in ("VmRSS", "VmHWM"))
        return now, peak

    def is_alive(self) -> bool:
        """Return whether it still runs."""
        return self.process.poll() is None

    def kill(self) -> None:
        """End it as a power cut does."""
        self.process.kill()
        self._reap()

    def stop(self) -> int:
        """Tell it to end, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
        return self._reap()

    def _reap(self) -> int:
        code = self.process.wait(STOP_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()
        return code


@contextmanager
def host_process(folder: Path, port: int = 0, max_file_bytes: int | None = None) -> Iterator[HostProcess]:
    """Run a daemon inside the block.

    Args:
        folder: the host's; its log goes beside it.
        port: 0 is any free one.
        max_file_bytes: no file of it may be larger, as on a disk that is full then.
    """
    host = HostProcess(folder, port, max_file_bytes)
    try:
        yield host
    finally:
        if host.is_alive():
            host.stop()


def token_of(folder: Path, role: Role) -> str:
    """Return a new token of a host."""
    return add_token(folder, f"bench {len(read_tokens(folder))}", role)


def metadata_of(folder: Path, role: Role) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a new token's owner."""
    return bearer(token_of(folder, role))
