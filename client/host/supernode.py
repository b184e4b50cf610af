"""The SuperNode beside the daemon: started with it, started again when it ends, ended with it."""

import asyncio
import ctypes
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from client.host.trainer_process import log_file
from clmm_core.errors import ConfigError

START = "start-supernode"
"""The program that `clmm provision` makes in a host's folder."""
HOST_SOCKET = "CLMM_HOST_SOCKET"
"""As in `client.client_app`, which brings Flower."""
RESTART_S = 15.0
"""After a crash its old session holds for up to a minute; more tries than this are refused for nothing."""
END_S = 10.0
PR_SET_PDEATHSIG = 1
"""Of prctl(2)."""
_LIBC = ctypes.CDLL(None)
_LOG = logging.getLogger(__name__)


class Supernode:
    """One SuperNode, kept running by `run`."""

    def __init__(self, folder: Path, socket: Path, log: Path, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Check the folder.

        Args:
            folder: that `clmm provision` made for this host.
            socket: where the daemon answers `clmm.host.v1.Training`.
            log: file that its output is added to.
            pause: waits so many seconds before another start.

        Raises:
            ConfigError: the folder has no program to start.
        """
        if not os.access(folder / START, os.X_OK):
            raise ConfigError(
                f"--federation {folder}: expected a host's folder of `clmm provision` with {START}, found none: copy it whole"
            )
        self._folder, self._socket, self._log, self._pause = folder, socket, log, pause
        self._process: asyncio.subprocess.Process | None = None

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.returncode is None

    async def run(self) -> None:
        """Start it, and again whenever it ended, until cancelled; then it is ended."""
        try:
            while True:
                try:
                    self._process = await self._started()
                except OSError as error:  # a full disk, too little memory: it may be better later
                    _LOG.warning("the SuperNode cannot be started, and is tried again in %g s: %s", RESTART_S, error)
                else:
                    code = await self._process.wait()
                    _LOG.warning("the SuperNode ended with %d, and starts again in %g s: see %s", code, RESTART_S, self._log)
                    self._signal(signal.SIGKILL)
                await self._pause(RESTART_S)
        finally:
            await self._end()

    async def _started(self) -> asyncio.subprocess.Process:
        with log_file(self._log) as log:
            return await asyncio.create_subprocess_exec(
                str(self._folder.absolute() / START),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {HOST_SOCKET: str(self._socket)},
                start_new_session=True,  # it starts processes of its own, which end with it
                preexec_fn=_end_with_parent,
            )

    async def _end(self) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), END_S)
        self._signal(signal.SIGKILL)
        await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to the SuperNode and all it started."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def _end_with_parent() -> None:
    """Let the kernel end this process when its daemon is killed: a second SuperNode with its key would be refused as long as it lives."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
