"""What a host does with a chunk of a gigabyte, a full disk and wrong tokens (H7), and what of deleted samples stays in its files (H8)."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc

from client.host.boundary import MAY_CALL
from client.host.calls import bearer
from client.host.consent_service import CONFIRMATION
from client.host.daemon import SERVED
from client.host.erasure import EXPORTS
from client.host.sensor import Sensor
from client.host.tokens import Role
from client.host.v1 import consent_pb2, consent_pb2_grpc, ingest_pb2_grpc, labels_pb2, labels_pb2_grpc
from client.host.v1 import ingest_pb2 as pb
from simulation.bench.host_process import HostProcess, host_process, token_of
from simulation.bench.host_samples import NS, ORIGIN_NS, STEP_NS, STREAM, header, is_whole, num_lost, request, samples, stored, times_ns

GIGABYTE = 1_000_000_000
DISK_BYTES = 6_000_000
NUM_CHUNKS = 18_000
"""More than fit on that disk."""
WRONG = ("", "Bearer ", "Bearer wrong", "Basic wrong", "wrong")
NUM_DELETED = 2_000
NUM_CONTROL = 200
RANGES = ((1_002, 2_103), (1_001, 3_201))
TIMEOUT_S = 300.0
ACTIVITY = "walking the dog"


@dataclass(frozen=True, kw_only=True)
class Gigabyte:
    """A chunk of a gigabyte."""

    code: str
    said: str
    grown_bytes: int
    """How much more memory the daemon held at its most."""
    is_alive: bool
    num_lost: int


@dataclass(frozen=True, kw_only=True)
class FullDisk:
    """A disk that is full while a sensor sends, and has room again later."""

    num_acknowledged_when_full: int
    """Chunks."""
    said: str
    is_whole: bool
    num_lost: int
    """Samples, of all that the sensor gave, when there was room again."""
    num_twice: int
    is_alive: bool


@dataclass(frozen=True, kw_only=True)
class WrongTokens:
    """Calls without a token of the host, or with one of another role."""

    num_calls: int
    num_let_in: int
    answers: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Deleted:
    """A search of all files of a host before and after everything was deleted."""

    num_samples: int
    num_searched_before: int
    num_found_before: int
    num_files_of_export: int
    num_in_range: int
    """Samples of two times that were deleted first, which overlap and begin and end within chunks."""
    num_found_of_range: int
    num_kept_lost: int
    """Samples of other times that are not there after that."""
    num_found_after: int
    """Of all samples, after all were deleted, by the bytes of their nine values."""
    is_label_found_after: bool
    left_bytes: int


def gigabyte() -> Gigabyte:
    """Send a host a chunk of a gigabyte in the middle of a recording."""
    with TemporaryDirectory(prefix="clmm-bench-") as place:
        folder = Path(place) / "host"
        token = token_of(folder, Role.SENSOR)
        with host_process(folder) as host:
            _ingest(host, token, 50)
            before = host.memory_bytes()[1]
            code, said = _send_gigabyte(host.target, token)
            grown, is_alive = host.memory_bytes()[1] - before, host.is_alive()
        lost, _ = num_lost(stored(folder), range(50))
    return Gigabyte(code=code, said=said, grown_bytes=grown, is_alive=is_alive, num_lost=lost)


def _send_gigabyte(target: str, token: str) -> tuple[str, str]:
    first = pb.StreamRequest(header=header()).SerializeToString()
    with grpc.insecure_channel(target, [("grpc.max_send_message_length", -1)]) as channel:
        call = channel.stream_stream("/clmm.host.v1.Ingest/Stream")(
            iter([first, b"\x12" + bytes(GIGABYTE)]), metadata=bearer(token), timeout=TIMEOUT_S
        )
        try:
            for _ in call:
                pass
        except grpc.RpcError as error:
            return error.code().name, error.details()
    return "OK", ""


def _ingest(host: HostProcess, token: str, count: int) -> None:
    requests = [pb.StreamRequest(header=header()), *(request(sequence) for sequence in range(count))]
    with grpc.insecure_channel(host.target) as channel:
        for _ in ingest_pb2_grpc.IngestStub(channel).Stream(iter(requests), metadata=bearer(token), timeout=TIMEOUT_S):
            pass


def full_disk() -> FullDisk:
    """Let a host's files grow to a bound while a sensor sends, look, and let them grow again."""
    with TemporaryDirectory(prefix="clmm-bench-") as place:
        folder = Path(place) / "host"
        token = token_of(folder, Role.ADMIN)
        with host_process(folder, max_file_bytes=DISK_BYTES) as host:
            acknowledged, said = asyncio.run(asyncio.wait_for(_fill(host, token), TIMEOUT_S))
            is_alive = host.is_alive()
        lost, twice = num_lost(stored(folder), range(NUM_CHUNKS))
        return FullDisk(
            num_acknowledged_when_full=acknowledged, said=said, is_whole=is_whole(folder), num_lost=lost, num_twice=twice, is_alive=is_alive
        )


async def _fill(host: HostProcess, token: str) -> tuple[int, str]:
    """Send until the host says that it is full, then give it room and send the rest; return how far it was, and what it said."""
    is_full, has_room = asyncio.Event(), asyncio.Event()

    async def sleep(seconds: float) -> None:
        """Between two tries of the sensor: the first time is when the disk is full."""
        is_full.set()
        await has_room.wait()

    sensor = Sensor(host.target, token, header(), sleep=sleep)
    for sequence in range(NUM_CHUNKS):
        sensor.give(STREAM, times_ns(sequence), samples(sequence))
    sensor.finish()
    sending = asyncio.create_task(sensor.run())
    await is_full.wait()
    acknowledged, said = sensor.acknowledged.get(STREAM, 0), sensor.trouble
    host.allow_files_of_any_size()
    has_room.set()
    await sending
    return acknowledged, said


def wrong_tokens() -> WrongTokens:
    """Call every method without a token of the host, and with one of each role that may not."""
    methods = [f"{name}/{method.name}" for name, file in SERVED.items() for method in file.services_by_name[name].methods]
    answers: Counter[str] = Counter()
    with TemporaryDirectory(prefix="clmm-bench-") as place:
        folder = Path(place) / "host"
        own = {role: f"Bearer {token_of(folder, role)}" for role in (Role.SENSOR, Role.VIEWER)}
        with host_process(folder) as host, grpc.insecure_channel(host.target) as channel:
            tries = [
                *product(methods, WRONG),
                *((m, given) for m in methods for role, given in own.items() if role not in MAY_CALL.get(m, ())),
            ]
            for method, given in tries:
                call = channel.stream_stream(f"/clmm.host.v1.{method}")(iter([b""]), metadata=(("authorization", given),), timeout=10)
                try:
                    answers["OK" if list(call) else "OK, empty"] += 1
                except grpc.RpcError as error:
                    answers[error.code().name] += 1
    refused = answers["UNAUTHENTICATED"] + answers["PERMISSION_DENIED"]
    return WrongTokens(num_calls=len(tries), num_let_in=len(tries) - refused, answers=dict(answers))


def deleted() -> Deleted:
    """Record, label and export, delete all while a sensor is connected, and search every file of the host for the samples."""
    rows = [row.tobytes() for sequence in range(NUM_DELETED) for row in samples(sequence)]
    control = rows[:: len(rows) // NUM_CONTROL]
    in_range = {i for first, last in RANGES for i in range(first, last)}
    with TemporaryDirectory(prefix="clmm-bench-") as place:
        folder = Path(place) / "host"
        token = token_of(folder, Role.ADMIN)
        with host_process(folder) as host, grpc.insecure_channel(host.target) as channel:
            _ingest(host, token, NUM_DELETED)
            label = labels_pb2.Label(subject="anna", recording="bench", activity=ACTIVITY, source=labels_pb2.LABEL_SOURCE_WEARER)
            label.start_ns, label.end_ns = ORIGIN_NS, ORIGIN_NS + 60 * NS
            stub = labels_pb2_grpc.LabelsStub(channel)
            stub.PutLabel(labels_pb2.PutLabelRequest(label=label), metadata=bearer(token), timeout=10)
            consent = consent_pb2_grpc.ConsentStub(channel)
            for _ in consent.Export(consent_pb2.ExportRequest(), metadata=bearer(token), timeout=TIMEOUT_S):
                pass
            num_files = sum(file.is_file() for file in (folder / EXPORTS).rglob("*"))
            before = _content(folder)
            for first, last in RANGES:
                span = {"start_ns": ORIGIN_NS + first * STEP_NS, "end_ns": ORIGIN_NS + last * STEP_NS}
                consent.DeleteRange(consent_pb2.DeleteRangeRequest(**span), metadata=bearer(token), timeout=TIMEOUT_S)
            between = _content(folder)
            consent.DeleteAll(consent_pb2.DeleteAllRequest(confirmation=CONFIRMATION), metadata=bearer(token), timeout=TIMEOUT_S)
            after = _content(folder)  # while the daemon runs, with its write-ahead log
    return Deleted(
        num_samples=len(rows),
        num_searched_before=len(control),
        num_found_before=sum(row in before for row in control),
        num_files_of_export=num_files,
        num_in_range=len(in_range),
        num_found_of_range=sum(rows[i] in between for i in in_range),
        num_kept_lost=sum(rows[i] not in between for i in range(0, len(rows), len(rows) // NUM_CONTROL) if i not in in_range),
        num_found_after=sum(row in after for row in rows),
        is_label_found_after=ACTIVITY.encode() in after,
        left_bytes=len(after),
    )


def _content(folder: Path) -> bytes:
    return b"\n".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())
