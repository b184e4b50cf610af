"""Sends recordings to a host as if their sensors were worn now."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.host.calls import TIMEOUT_S, HostCallError, bearer, calling
from client.host.chunk import NS_PER_US
from client.host.header import UNIT_NUMBERS
from client.host.sensor import Sensor
from client.host.v1 import ingest_pb2, labels_pb2, labels_pb2_grpc
from clmm_core.data.recording import Recording, Stream
from clmm_core.errors import DataError

NS = 1_000_000_000
CHUNK_S = 0.5
DEVICE = "replay"
AXES = ("x", "y", "z")


async def replay_recordings(
    recordings: Sequence[Recording],
    target: str,
    token: str,
    authority: Path | None,
    now_ns: int,
    *,
    speed: float,
    with_labels: bool,
) -> int:
    """Send recordings one after the other, and return how many samples the host has of them when it has all.

    At a speed above 0 the first begins now; as quickly as can be, the last has ended by now.

    Raises:
        HostCallError: the host refused some of it, or cannot be reached.
        DataError: a recording has a unit that cannot be sent.
    """
    lengths_ns = [round(max(stream.end_s for stream in recording.streams.values()) * NS) for recording in recordings]
    start_ns = now_ns if speed else now_ns - sum(lengths_ns)
    num_samples = 0
    for recording, length_ns in zip(recordings, lengths_ns, strict=True):
        num_samples += await replay_recording(recording, target, token, authority, start_ns, speed)
        if with_labels:
            await asyncio.to_thread(put_labels, recording, target, token, authority, start_ns)
        start_ns += length_ns
    return num_samples


async def replay_recording(recording: Recording, target: str, token: str, authority: Path | None, start_ns: int, speed: float) -> int:
    """Send one recording whose clock shows 0 at `start_ns`, and return how many samples the host has of it.

    Raises:
        HostCallError: the host refused some of it, or cannot be reached.
        DataError: a stream has a unit that cannot be sent.
    """
    sensor = Sensor(target, token, header_for(recording), authority)
    running = asyncio.create_task(sensor.run())
    begun_s, num_samples = asyncio.get_running_loop().time(), 0
    try:
        for number, times_ns, samples in chunks_of(recording, start_ns):
            if speed:
                due_s = begun_s + (int(times_ns[-1]) - start_ns) / NS / speed
                await asyncio.sleep(max(0.0, due_s - asyncio.get_running_loop().time()))
            sensor.give(number, times_ns, samples)
            num_samples += len(samples)
            if running.done():
                break
        sensor.finish()
        await running
    finally:
        running.cancel()
    if sensor.refusals:
        first = sensor.refusals[0]
        raise HostCallError(f"host at {target}: refused {len(sensor.refusals)} chunks, the first of stream {first.stream}: {first.reason}")
    return num_samples


def header_for(recording: Recording) -> ingest_pb2.Header:
    """Return what a sensor says that measures a recording: a stream a modality.

    Raises:
        DataError: a stream has a unit that cannot be sent.
    """
    streams = []
    for number, (modality, stream) in enumerate(recording.streams.items()):
        if stream.unit not in UNIT_NUMBERS:
            raise DataError(f"'{modality}': expected a unit of {', '.join(UNIT_NUMBERS)}, found {stream.unit}: it cannot be replayed")
        count = stream.samples.shape[1]
        names = AXES if count == len(AXES) else tuple(f"c{i}" for i in range(count))
        channels = [ingest_pb2.Channel(modality=modality, axis=name, unit=UNIT_NUMBERS[stream.unit]) for name in names]
        streams.append(ingest_pb2.SensorStream(id=number, channels=channels, nominal_hz=stream.rate_hz))
    return ingest_pb2.Header(
        recording=_name(recording.session),
        subject=_name(recording.subject),
        device=DEVICE,
        streams=streams,
        clock=ingest_pb2.CLOCK_UNIX,
        frame=ingest_pb2.FRAME_DEVICE,
    )


def chunks_of(recording: Recording, start_ns: int) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.float32]]]:
    """Yield stream, times `[n]` and samples `[n, channels]` of half a second each, in order of time."""
    chunks = []
    for number, stream in enumerate(recording.streams.values()):
        times_ns = _times_ns(stream, start_ns)
        size = max(1, round(CHUNK_S * stream.rate_hz))
        chunks += [(number, times_ns[i : i + size], stream.samples[i : i + size]) for i in range(0, len(times_ns), size)]
    yield from sorted(chunks, key=lambda chunk: int(chunk[1][-1]))


def put_labels(recording: Recording, target: str, token: str, authority: Path | None, start_ns: int) -> None:
    """Give the host a recording's labels.

    Raises:
        HostCallError: it refused.
    """
    with calling(target, authority) as channel:
        stub = labels_pb2_grpc.LabelsStub(channel)
        for i, interval in enumerate(recording.intervals):
            label = labels_pb2.Label(
                id=f"{start_ns}-{i}",
                subject=_name(recording.subject),
                recording=_name(recording.session),
                activity=interval.label,
                start_ns=start_ns + round(interval.start_s * NS),
                end_ns=start_ns + round(interval.end_s * NS),
                source=labels_pb2.LABEL_SOURCE_IMPORT,
            )
            stub.PutLabel(labels_pb2.PutLabelRequest(label=label), timeout=TIMEOUT_S, metadata=bearer(token))


def _times_ns(stream: Stream, start_ns: int) -> NDArray[np.int64]:
    seconds = stream.start_s + np.arange(len(stream.samples)) / stream.rate_hz
    times_ns: NDArray[np.int64] = np.rint(seconds * (NS / NS_PER_US)).astype(np.int64) * NS_PER_US + start_ns
    return times_ns


def _name(text: str) -> str:
    """Return a name that a host takes."""
    return re.sub(r"[^\w .-]", "_", text).strip(" ")[:64] or "_"
