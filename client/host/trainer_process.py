"""The process in which a host trains: started for the first question, kept warm, ended when nothing was asked for a while."""

import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import grpc

from client.host.v1 import training_pb2 as pb
from client.host.v1 import training_pb2_grpc
from clmm_core.errors import ClmmError

SOCKET = "trainer.sock"
START_S = 120.0
"""PyTorch takes ten seconds to load on a slow card."""
MAX_LOG_BYTES = 5_000_000
LONGEST_S = 3600.0
"""No round of training on a device takes longer; the server's own `round-timeout-s` is over before."""
MESSAGE_BYTES = 256_000_000
"""Models are a megabyte; this is what ends a mistake."""
OPTIONS = (("grpc.max_receive_message_length", MESSAGE_BYTES), ("grpc.max_send_message_length", MESSAGE_BYTES))


class TrainerError(ClmmError):
    """The process that trains did not start, or died; the next question starts another."""


class TrainerProcess:
    """At most one process, asked one question at a time; nobody else may use an instance meanwhile."""

    def __init__(self, folder: Path, log: Path) -> None:
        self._socket, self._log = folder / SOCKET, log
        self._process: asyncio.subprocess.Process | None = None
        self._channel: Any = None

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """Of the process, where there is one."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def ask(self, kind: str, question: pb.Question) -> pb.Answered:
        """Return the answer to a question of a kind: query, train or evaluate.

        Raises:
            TrainerError: the process cannot be started, or died over this question.
        """
        if not self.is_running:
            await self._start()
        stub = training_pb2_grpc.TrainingStub(self._channel)
        call, request = {
            "query": (stub.Query, pb.QueryRequest),
            "train": (stub.Train, pb.TrainRequest),
            "evaluate": (stub.Evaluate, pb.EvaluateRequest),
        }[kind]
        try:
            answered: pb.Answered = (await call(request(question=question), timeout=LONGEST_S)).answered
        except (grpc.RpcError, asyncio.CancelledError) as error:  # the second also where `end` closed the channel meanwhile
            await self.end()
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            asked = f"{kind}.{question.action}"
            reason = error.details() if isinstance(error, grpc.aio.AioRpcError) else "it was ended"
            raise TrainerError(f"the process that trains failed over '{asked}': {reason}: see {self._log}") from error
        return answered

    async def end(self) -> None:
        """Kill the process, whatever it does: it keeps nothing that anybody needs."""
        process, channel = self._process, self._channel
        self._process = self._channel = None
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if channel is not None:
            await channel.close()

    async def _start(self) -> None:
        await self.end()
        with suppress(FileNotFoundError):
            self._socket.unlink()
        with log_file(self._log) as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "client.training.trainer", str(self._socket)), stdin=asyncio.subprocess.PIPE, stdout=log, stderr=log
            )
        # A pool of its own: else gRPC would take the connection to the process before, which has just ended.
        own = (*OPTIONS, ("grpc.use_local_subchannel_pool", 1))
        channel: Any = grpc.aio.insecure_channel(f"unix:{self._socket}", options=own)
        self._process, self._channel = process, channel
        ready, ended = asyncio.ensure_future(channel.channel_ready()), asyncio.ensure_future(process.wait())
        done, waiting = await asyncio.wait({ready, ended}, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
        await asyncio.gather(ready, ended, return_exceptions=True)
        if ready not in done or ready.exception() is not None or self._process is not process:
            await self.end()
            raise TrainerError(f"expected the process that trains to start within {START_S:g} s, it did not: see {self._log}")


def log_file(path: Path) -> BinaryIO:
    """Open a log to be added to; one that has grown too long begins anew."""
    is_long = path.exists() and path.stat().st_size > MAX_LOG_BYTES
    return path.open("wb" if is_long else "ab")


def _is_cancelled() -> bool:
    """Return whether whoever waits for this was told to stop."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
