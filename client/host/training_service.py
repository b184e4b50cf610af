"""`Training`: what the federation asks of this host, answered when it may by the process that trains, from a copy of the recordings."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from client.host.committer import Clock
from client.host.trainer_process import TrainerError, TrainerProcess
from client.host.v1 import training_pb2 as pb
from client.host.v1 import training_pb2_grpc
from clmm_core.errors import ClmmError, NotNowError

IDLE_S = 900.0
"""So long after the last question the process that trains ends, and its memory is free: longer than a round of a fleet takes."""
FIRST = "profile"
"""With this question a run begins: what was recorded up to now is what it learns from, so that later rounds find the same windows."""
_LOG = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Answered:
    """What was answered since the host started."""

    last: str = ""
    """As `train.pretrain`."""
    last_ns: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0


class TrainingService(training_pb2_grpc.TrainingServicer):
    """Answers on a unix socket of this machine; who can open the socket is this user."""

    def __init__(
        self,
        trainer: TrainerProcess,
        why_not: Callable[[], Awaitable[str]],
        copied: Callable[[], Awaitable[Path]],
        models: Path,
        clock: Clock,
        idle_s: float = IDLE_S,
    ) -> None:
        """Serve.

        Args:
            trainer: the process that does the work.
            why_not: says why the host must not train now, or nothing.
            copied: makes a copy of the recordings, and says where.
            models: the folder of the models that this host recognises with.
            clock: tells the time.
            idle_s: so long after the last question the process ends.
        """
        self.why_not = why_not
        self.answered = Answered()
        self._trainer, self._copied, self._models, self._clock, self._idle_s = trainer, copied, models, clock, idle_s
        self._asking = asyncio.Lock()
        self._recordings: Path | None = None
        self._run_id = 0
        """Flower's, of the run that learns from it."""
        self._ending: asyncio.Task[None] | None = None

    async def Query(self, request: pb.QueryRequest, context: Any) -> pb.QueryReply:  # noqa: N802  the API's name
        """Answer what trains nothing."""
        return pb.QueryReply(answered=await self._answered("query", request.question, context))

    async def Train(self, request: pb.TrainRequest, context: Any) -> pb.TrainReply:  # noqa: N802
        """Train a round."""
        return pb.TrainReply(answered=await self._answered("train", request.question, context))

    async def Evaluate(self, request: pb.EvaluateRequest, context: Any) -> pb.EvaluateReply:  # noqa: N802
        """Evaluate on the wearer's own labels."""
        return pb.EvaluateReply(answered=await self._answered("evaluate", request.question, context))

    async def forget(self) -> None:
        """End the process that trains, with all it holds of recordings: they are being deleted, or the daemon ends."""
        if self._ending is not None:
            self._ending.cancel()
        self._recordings = None
        await self._trainer.end()

    async def _answered(self, kind: str, question: pb.Question, context: Any) -> pb.Answered:
        if self._asking.locked():
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "this host still answers the question before")
        async with self._asking:
            if reason := await self.why_not():
                _LOG.info("not asked to %s %s: %s", kind, question.action, reason)
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"this host does not train now: {reason}")
            if self._ending is not None:
                self._ending.cancel()
            try:
                return await self._asked(kind, question)
            except TrainerError as error:
                _LOG.warning("%s", error)
                code, reason = grpc.StatusCode.UNAVAILABLE, str(error)
            except ClmmError as error:
                code, reason = grpc.StatusCode.FAILED_PRECONDITION, str(error)
            finally:
                self._ending = asyncio.create_task(self._end_when_idle())
        await context.abort(code, reason)
        raise AssertionError("abort raises")

    async def _asked(self, kind: str, question: pb.Question) -> pb.Answered:
        own = {"recordings": str(await self._recordings_of(question)), "models": str(self._models)}
        question.node_config = json.dumps(json.loads(question.node_config) | own)
        _LOG.info("asked to %s %s", kind, question.action)
        received, began_s = question.content.ByteSize(), time.monotonic()
        answer = await self._trainer.ask(kind, question)
        _LOG.info("answered %s %s after %.2f s", kind, question.action, time.monotonic() - began_s)
        self.answered.last, self.answered.last_ns = f"{kind}.{question.action}", self._clock()
        self.answered.bytes_received += received
        self.answered.bytes_sent += answer.content.ByteSize()
        return answer

    async def _recordings_of(self, question: pb.Question) -> Path:
        """Return the copy that a question's run learns from: a new one where the run begins, or the daemon did since.

        Raises:
            NotNowError: another run has begun since.
            ClmmError: there are no recordings, or no room for a copy.
        """
        if question.action != FIRST and self._recordings is not None:
            if question.run_id != self._run_id:
                raise NotNowError(f"this host takes part in run {self._run_id}, which began after run {question.run_id}: one run at a time")
            return self._recordings
        if self._recordings is not None:
            self._recordings = None
            await self._trainer.end()  # with the windows of the copy before
        copy = await self._copied()
        self._recordings, self._run_id = copy, question.run_id
        return copy

    async def _end_when_idle(self) -> None:
        await asyncio.sleep(self._idle_s)
        await self._trainer.end()
