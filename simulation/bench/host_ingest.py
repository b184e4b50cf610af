"""How much a host takes in (H1), and how much memory it needs while nothing happens (H5)."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc

from client.host.tokens import Role
from client.host.v1 import ingest_pb2 as pb
from clmm_core.errors import ClmmError
from simulation.bench.host_process import host_process, metadata_of
from simulation.bench.host_samples import SAMPLES, STREAM, header, is_whole, num_lost, request, stored

NUM_CHUNKS = 20_000
IDLE_S = 3.0
TIMEOUT_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Ingest:
    """One run."""

    num_samples: int
    host_cpu_s: float
    """Of all threads of the daemon's process: gRPC, checks, SQLite, waiting for the disk not among it."""
    sensor_cpu_s: float
    wall_s: float
    stored_bytes: int
    peak_bytes: int
    """The most memory that the daemon held."""


@dataclass(frozen=True, kw_only=True)
class Idle:
    """A daemon that nobody talks to."""

    resident_bytes: int
    peak_bytes: int


def ingest(num_chunks: int = NUM_CHUNKS) -> Ingest:
    """Send chunks as quickly as a host takes them, with its store on, until it has acknowledged all.

    Raises:
        ClmmError: not all of them are in its store afterwards.
    """
    requests = [request(sequence).SerializeToString() for sequence in range(num_chunks)]
    with TemporaryDirectory(prefix="clmm-bench-") as place:
        folder = Path(place) / "host"
        metadata = metadata_of(folder, Role.SENSOR)
        with host_process(folder) as host:
            before_s, own_s, begun_s = host.cpu_s(), time.process_time(), time.monotonic()
            asyncio.run(_send(host.target, metadata, requests))
            wall_s, own_s = time.monotonic() - begun_s, time.process_time() - own_s
            cpu_s, peak = host.cpu_s() - before_s, host.memory_bytes()[1]
        if num_lost(stored(folder), range(num_chunks)) != (0, 0) or not is_whole(folder):
            raise ClmmError(f"expected {num_chunks} chunks in the store, each once, found others")
        size = sum(file.stat().st_size for file in folder.iterdir())
    return Ingest(num_samples=num_chunks * SAMPLES, host_cpu_s=cpu_s, sensor_cpu_s=own_s, wall_s=wall_s, stored_bytes=size, peak_bytes=peak)


async def _send(target: str, metadata: tuple[tuple[str, str], ...], requests: list[bytes]) -> None:
    async def all_of_them() -> AsyncIterator[bytes]:
        yield pb.StreamRequest(header=header()).SerializeToString()
        for each in requests:
            yield each

    async with grpc.aio.insecure_channel(target) as channel:
        call = channel.stream_stream("/clmm.host.v1.Ingest/Stream", response_deserializer=pb.StreamReply.FromString)
        acknowledged = 0
        async for reply in call(all_of_them(), metadata=metadata, timeout=TIMEOUT_S):
            acknowledged = max([acknowledged, *(ack.next_sequence for ack in reply.acks if ack.stream == STREAM)])
    if acknowledged != len(requests):
        raise ClmmError(f"expected {len(requests)} chunks acknowledged, found {acknowledged}")


def idle() -> Idle:
    """Start a host, and look at its memory after a moment."""
    with TemporaryDirectory(prefix="clmm-bench-") as place, host_process(Path(place) / "host") as host:
        time.sleep(IDLE_S)
        now, peak = host.memory_bytes()
    return Idle(resident_bytes=now, peak_bytes=peak)
