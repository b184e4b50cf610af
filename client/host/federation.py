"""A host's part in a federation: its SuperNode beside the daemon, and the questions that its ClientApp brings here."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import grpc

from client.host.committer import Clock
from client.host.machine_conditions import conditions_now
from client.host.models import FOLDER
from client.host.store import Store
from client.host.supernode import Supernode
from client.host.trainer_process import OPTIONS, TrainerProcess
from client.host.training_copy import copy_for_training
from client.host.training_rules import TrainingRules, why_not
from client.host.training_service import TrainingService
from client.host.turn import Turn
from client.host.v1 import status_pb2, training_pb2_grpc
from clmm_core.errors import ConfigError

SOCKET = "federation.sock"
MAX_SOCKET_PATH = 107
"""Bytes, of a unix socket's address on Linux."""


@dataclass(frozen=True, kw_only=True)
class FederationConfig:
    """With whom a host trains, and when."""

    folder: Path
    """That `clmm provision` made for this host."""
    rules: TrainingRules = field(default_factory=TrainingRules)


class Federation:
    """What runs while a host takes part."""

    def __init__(self, supernode: Supernode, training: TrainingService) -> None:
        self._supernode, self._training = supernode, training

    async def forget(self) -> None:
        """Let go of what is held of recordings; see `TrainingService`."""
        await self._training.forget()

    async def status(self) -> status_pb2.FederationStatus:
        """Return how it stands."""
        answered = self._training.answered
        return status_pb2.FederationStatus(
            is_supernode_running=self._supernode.is_running,
            why_not=await self._training.why_not(),
            last_answered=answered.last,
            last_answered_ns=answered.last_ns,
            bytes_received=answered.bytes_received,
            bytes_sent=answered.bytes_sent,
        )


@asynccontextmanager
async def taking_part(config: FederationConfig, host_folder: Path, store: Store, turn: Turn, clock: Clock) -> AsyncIterator[Federation]:
    """Run a SuperNode and answer what it is asked, inside the block.

    Raises:
        ConfigError: the federation's folder is none, or the host's has too long a name for a socket.
    """
    socket = host_folder.absolute() / SOCKET
    if (length := len(os.fsencode(socket))) > MAX_SOCKET_PATH:
        raise ConfigError(f"{socket}: expected a path of at most {MAX_SOCKET_PATH} bytes, found {length}: move the host's folder")
    supernode = Supernode(config.folder, socket, host_folder / "supernode.log")
    training = TrainingService(
        TrainerProcess(host_folder.absolute(), host_folder / "trainer.log"),
        lambda: _why_not(config.rules, store),
        _copies(host_folder, turn),
        host_folder.absolute() / FOLDER,
        clock,
    )
    server = grpc.aio.server(options=OPTIONS)
    training_pb2_grpc.add_TrainingServicer_to_server(training, server)
    socket.unlink(missing_ok=True)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    running = asyncio.create_task(supernode.run())
    try:
        yield Federation(supernode, training)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await training.forget()
        await server.stop(None)


async def _why_not(rules: TrainingRules, store: Store) -> str:
    conditions = await asyncio.to_thread(conditions_now, is_paused=store.is_paused, now=datetime.now().astimezone())
    return why_not(rules, conditions)


def _copies(host_folder: Path, turn: Turn) -> Callable[[], Awaitable[Path]]:
    """Return what copies the store over a connection of its own, in turn with deletions and exports."""
    numbers = itertools.count()

    async def copied() -> Path:
        async with turn.taken():
            return await asyncio.to_thread(copy_for_training, host_folder, next(numbers))

    return copied
