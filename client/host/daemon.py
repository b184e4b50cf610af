"""The host's daemon: opens the store, listens, and ends in order."""

import asyncio
import fcntl
import ipaddress
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from client.host.boundary import Boundary
from client.host.committer import Clock, Committer, StoreThread
from client.host.consent_service import ConsentService
from client.host.federation import Federation, FederationConfig, taking_part
from client.host.ingest_service import IngestService
from client.host.labels_service import LabelsService
from client.host.live import Live
from client.host.models import FOLDER as MODELS
from client.host.models import Models
from client.host.recognition_service import RecognitionService
from client.host.retention import Limits
from client.host.status_service import StatusService
from client.host.store import Store
from client.host.tokens import Tokens
from client.host.turn import Turn
from client.host.v1 import (
    consent_pb2,
    consent_pb2_grpc,
    ingest_pb2,
    ingest_pb2_grpc,
    labels_pb2,
    labels_pb2_grpc,
    recognition_pb2,
    recognition_pb2_grpc,
    status_pb2,
    status_pb2_grpc,
)
from clmm_core.errors import ConfigError

LISTEN = "127.0.0.1:50061"
MAX_MESSAGE_BYTES = 1_000_000
"""A chunk of `MAX_SAMPLES` samples of nine channels takes half of it; gRPC refuses longer ones before it reads them."""
MAX_CALLS = 256
"""At once."""
GRACE_S = 3.0
"""Calls that go on may end in so long, when the daemon is told to stop."""
LOCK = "host.lock"
SERVED = {
    "Ingest": ingest_pb2.DESCRIPTOR,
    "Labels": labels_pb2.DESCRIPTOR,
    "Status": status_pb2.DESCRIPTOR,
    "Consent": consent_pb2.DESCRIPTOR,
    "Recognition": recognition_pb2.DESCRIPTOR,
}
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 16_384),
    ("grpc.so_reuseport", 0),  # a second daemon on the same port is an error, not half of the calls
    ("grpc.keepalive_time_ms", 20_000),  # a sensor out of reach ends its call; one that sleeps for longer comes again
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),  # sensors ask every 10 s whether their host is still there
)


@dataclass(frozen=True, kw_only=True)
class HostConfig:
    """How a host runs.

    Raises:
        ConfigError: an address that others reach, without TLS.
    """

    folder: Path
    """Of its store, tokens and exports."""
    listen: str = LISTEN
    """ADDRESS:PORT; port 0 is any free one."""
    certificate: Path | None = None
    """PEM, of the name that sensors call; with `key`."""
    key: Path | None = None
    limits: Limits = field(default_factory=Limits)
    federation: FederationConfig | None = None
    """None where the host only keeps recordings."""

    def __post_init__(self) -> None:
        address, _, port = self.listen.rpartition(":")
        if not address or not port.isdecimal() or int(port) > 65535:
            raise ConfigError(f"--listen: expected ADDRESS:PORT, as {LISTEN}, found '{self.listen}'")
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("expected --certificate and --key together, found one of them")
        if self.certificate is None and not _is_loopback(address):
            raise ConfigError(
                f"--listen {self.listen}: expected --certificate and --key, because other machines reach this address and tokens and "
                "samples would travel in the clear, found neither: give them, or listen on 127.0.0.1 (docs/host.md)"
            )


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def run_daemon(config: HostConfig, started: Callable[[int], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; `started` is told the port.

    Raises:
        ConfigError: another daemon has this folder, or the address cannot be used.
        DataError: the store cannot be read.
    """
    os.environ["SQLITE_TMPDIR"] = str(config.folder)  # what SQLite writes in passing has a wearer's samples in it too
    asyncio.run(_run(config, started))


async def _run(config: HostConfig, started: Callable[[int], None]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(config, time.time_ns) as (port, failed):
        started(port)
        waiting = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait({waiting, failed}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if failed in done:
            failed.result()  # raises: whoever supervises this starts it again


@asynccontextmanager
async def serving(config: HostConfig, clock: Clock) -> AsyncIterator[tuple[int, asyncio.Task[None]]]:
    """Serve inside the block; yields the port, and a task that ends only with the error that makes going on useless.

    Raises:
        ConfigError: another daemon has this folder, or the address cannot be used.
        DataError: the store cannot be read.
    """
    config.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(config.folder):
        thread = StoreThread()
        try:
            store = await thread.run(Store, config.folder, config.limits)
            try:
                async with AsyncExitStack() as stack:
                    federation, turn = None, Turn()
                    if config.federation is not None:
                        taking = taking_part(config.federation, config.folder, store, turn, clock)
                        federation = await stack.enter_async_context(taking)
                    yield await stack.enter_async_context(_listening(config, store, thread, clock, turn, federation))
            finally:
                await thread.run(store.close)
        finally:
            thread.close()


@asynccontextmanager
async def _listening(
    config: HostConfig, store: Store, thread: StoreThread, clock: Clock, turn: Turn, federation: Federation | None
) -> AsyncIterator[tuple[int, asyncio.Task[None]]]:
    committer = Committer(store, thread, clock)
    live = Live(Models(config.folder / MODELS))
    ingest = IngestService(store, thread, committer, clock, live)

    async def forget() -> None:
        live.forget()
        if federation is not None:
            await federation.forget()

    server = grpc.aio.server(interceptors=[Boundary(Tokens(config.folder))], options=OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
    ingest_pb2_grpc.add_IngestServicer_to_server(ingest, server)
    labels_pb2_grpc.add_LabelsServicer_to_server(LabelsService(store, thread), server)
    status_pb2_grpc.add_StatusServicer_to_server(StatusService(store, thread, committer, ingest.vitals, clock, federation), server)
    consent_pb2_grpc.add_ConsentServicer_to_server(ConsentService(store, thread, clock, turn, forget), server)
    recognition_pb2_grpc.add_RecognitionServicer_to_server(RecognitionService(live), server)
    names = [descriptor.services_by_name[name].full_name for name, descriptor in SERVED.items()]
    healths = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healths, server)
    reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    port = _bind(server, config)
    writing = asyncio.create_task(committer.run())
    await server.start()
    for name in ("", *names):
        await healths.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield port, writing
    finally:
        await healths.enter_graceful_shutdown()
        await server.stop(GRACE_S)
        await ingest.close()
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing


def _bind(server: "grpc.aio.Server", config: HostConfig) -> int:
    try:
        if config.certificate is None or config.key is None:
            return int(server.add_insecure_port(config.listen))
        pair = (config.key.read_bytes(), config.certificate.read_bytes())
        return int(server.add_secure_port(config.listen, grpc.ssl_server_credentials([pair])))
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"--listen {config.listen}: expected to listen there, cannot: {error}: free it, or choose another") from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second daemon from the same store; the lock ends with the process, however it ends."""
    descriptor = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ConfigError(f"{folder}: expected no other daemon of this host, found one: end it, or choose another folder") from error
    finally:
        os.close(descriptor)
