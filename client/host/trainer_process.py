"""The process in which a host trains: started for the first question, kept warm, ended when nothing was asked for a while."""

import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc

from client.host.v1 import training_pb2 as pb
from client.host.v1 import training_pb2_grpc
from clmm_core.errors import ClmmError

SOCKET = "trainer.sock"
START_S = 120.0
"""PyTorch takes ten seconds to load on a slow card."""
END_S = 5.0
LONGEST_S = 3600.0
"""See `client.training.forward.LONGEST_S`, which this package does not import: it brings Flower."""
MESSAGE_BYTES = 256_000_000
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
        except grpc.RpcError as error:
            await self.end()
            asked = f"{kind}.{question.action}"
            raise TrainerError(f"the process that trains failed over '{asked}': {error.details()}: see {self._log}") from error
        return answered

    async def end(self) -> None:
        """End the process, whatever it does."""
        if self._channel is not None:
            await self._channel.close()
        if self._process is not None and self._process.returncode is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                await asyncio.wait_for(self._process.wait(), END_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        self._channel = self._process = None

    async def _start(self) -> None:
        await self.end()
        with suppress(FileNotFoundError):
            self._socket.unlink()
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "client.training.trainer", str(self._socket)), stdin=asyncio.subprocess.PIPE, stdout=log, stderr=log
            )
        self._channel = grpc.aio.insecure_channel(f"unix:{self._socket}", options=OPTIONS)
        ready = asyncio.ensure_future(self._channel.channel_ready())
        ended = asyncio.ensure_future(self._process.wait())
        done, _ = await asyncio.wait({ready, ended}, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        for each in (ready, ended):
            each.cancel()
        if ready not in done:
            await self.end()
            raise TrainerError(f"expected the process that trains to start within {START_S:g} s, it did not: see {self._log}")
