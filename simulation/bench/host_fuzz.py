"""What a host does with what nobody should send it (H7): 20,000 drawn messages, and tables that are none."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from client.host.daemon import SERVED
from client.host.tokens import Role
from client.host.v1 import ingest_pb2 as pb
from clmm_core.data.datasets.folder import Folder
from clmm_core.errors import ConfigError, DataError
from simulation.bench.host_process import host_process, metadata_of
from simulation.bench.host_samples import header, is_whole, num_lost, request, stored

NUM_INPUTS, NUM_TABLES = 20_000, 2_000
CALL_S = 10.0
NUM_WITNESSES = 50
SEED = 0
UNEXPECTED = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
"""How a crash, a bug or a hang reads: no refusal of ours."""
WISHES = ("Pause", "DeleteRange", "DeleteAll")
"""What these are asked for they may do: they get bytes that are no message alone."""


@dataclass(frozen=True, kw_only=True)
class Fuzzed:
    """What became of drawn inputs."""

    num_inputs: int
    num_crashes: int
    """Inputs after which the daemon was gone, did not answer, or answered that something unexpected happened."""
    answers: dict[str, int]
    """How often each status came."""
    num_witnesses_lost: int
    """Samples of before that are not there afterwards with their bytes."""
    is_whole: bool
    peak_bytes: int


@dataclass(frozen=True, kw_only=True)
class FuzzedTables:
    """What became of recordings' folders with drawn tables."""

    num_inputs: int
    num_read: int
    num_refused: int
    num_crashes: int
    """Errors other than ours."""


def fuzz(num_inputs: int = NUM_INPUTS) -> Fuzzed:
    """Send a host drawn messages of all its methods.

    Raises:
        ConfigError: hypothesis is not installed.
    """
    run = _hypothesis()
    from hypothesis import strategies as st  # noqa: PLC0415  for tests and this bench alone

    methods = [method for name, file in SERVED.items() for method in file.services_by_name[name].methods]
    answers: Counter[str] = Counter()
    with TemporaryDirectory(prefix="clmm-bench-") as place:
        folder = Path(place) / "host"
        metadata = metadata_of(folder, Role.ADMIN)
        with host_process(folder) as host, grpc.insecure_channel(host.target) as channel:
            witnesses = [header_bytes(), *(request(sequence).SerializeToString() for sequence in range(NUM_WITNESSES))]
            _call(channel, "clmm.host.v1.Ingest/Stream", witnesses, metadata)

            def send(drawn: tuple[Any, list[bytes]]) -> None:
                method, messages = drawn
                answers[_call(channel, f"{method.containing_service.full_name}/{method.name}", messages, metadata).name] += 1

            run(st.sampled_from(methods).flatmap(lambda method: st.tuples(st.just(method), _messages(method, st))), send, num_inputs)
            is_alive, peak = host.is_alive(), host.memory_bytes()[1]
        lost, _ = num_lost(stored(folder), range(NUM_WITNESSES))
        whole = is_whole(folder)
    num_crashes = sum(answers[code.name] for code in UNEXPECTED) + (not is_alive)
    return Fuzzed(
        num_inputs=answers.total(), num_crashes=num_crashes, answers=dict(answers), num_witnesses_lost=lost, is_whole=whole, peak_bytes=peak
    )


def fuzz_tables(num_inputs: int = NUM_TABLES) -> FuzzedTables:
    """Give the folder loader, which reads what somebody imports, drawn tables.

    Raises:
        ConfigError: hypothesis is not installed.
    """
    run = _hypothesis()
    from hypothesis import strategies as st  # noqa: PLC0415

    found: Counter[str] = Counter()
    description = "streams:\n  accelerometer: {file: a.csv, unit: g, columns: [x, y], time: t_s}\n"
    cell = st.one_of(st.floats().map(str), st.integers().map(str), st.text(max_size=5), st.sampled_from(["", "nan", "1e400", '"', ","]))
    rows = st.lists(st.lists(cell, max_size=4).map(",".join), max_size=20).map("\n".join)
    numbers = st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
    even = st.lists(numbers, min_size=2, max_size=20).map(lambda cells: "\n".join(f"{i / 50},{x},{y}" for i, (x, y) in enumerate(cells)))
    table = st.one_of(rows, even, st.builds("{}\n{}".format, even, rows)).map(
        lambda text: f"t_s,x,y\n{text}".encode("utf-8", "surrogatepass")
    )
    content = st.one_of(st.binary(max_size=100), table)
    with TemporaryDirectory(prefix="clmm-bench-") as place:

        def read(table: bytes) -> None:
            session = Path(place) / str(found.total()) / "anna" / "monday"
            session.mkdir(parents=True)
            (session / "recording.yaml").write_text(description)
            (session / "a.csv").write_bytes(table)
            try:
                Folder(session.parents[1]).recordings("anna")
                found["read"] += 1
            except DataError:
                found["refused"] += 1
            except Exception:
                found["crashed"] += 1

        run(content, read, num_inputs)
    return FuzzedTables(num_inputs=found.total(), num_read=found["read"], num_refused=found["refused"], num_crashes=found["crashed"])


def _hypothesis() -> Callable[[Any, Callable[[Any], None], int], None]:
    """Return what draws so many inputs and does something with each."""
    try:
        from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError("drawn inputs need hypothesis: pip install 'clmm[dev]', or leave H7 out of --rows") from error

    def run(inputs: Any, work: Callable[[Any], None], count: int) -> None:
        quiet = settings(max_examples=count, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        seed(SEED)(quiet(given(inputs)(work)))()

    return run


def _messages(method: Any, st: Any) -> Any:
    """Draw what a call sends: bytes, messages with drawn fields, or real ones with bytes changed."""
    kind = method.input_type
    if method.name in WISHES:
        return st.lists(st.binary(min_size=1, max_size=60).filter(lambda content: not _is_message(kind, content)), min_size=1, max_size=1)
    drawn = st.one_of(st.binary(max_size=200), _drawn(kind, st).map(lambda message: message.SerializeToString()))
    if method.name != "Stream":
        return st.lists(drawn, min_size=1, max_size=1)
    real = [request(sequence).SerializeToString() for sequence in range(3)]
    changed = st.builds(_changed, st.sampled_from(real), st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4))
    begun = st.lists(st.one_of(drawn, changed), min_size=1, max_size=4).map(lambda messages: [header_bytes("ben"), *messages])
    return st.one_of(begun, st.lists(drawn, min_size=1, max_size=3))


def header_bytes(subject: str = "anna") -> bytes:
    """Return a real header as it travels."""
    return pb.StreamRequest(header=header(subject)).SerializeToString()


def _is_message(kind: Descriptor, content: bytes) -> bool:
    try:
        GetMessageClass(kind).FromString(content)
    except Exception:
        return False
    return True


def _changed(content: bytes, changes: list[tuple[int, int]]) -> bytes:
    changed = bytearray(content)
    for place, value in changes:
        changed[place % len(changed)] = value
    return bytes(changed)


def _drawn(kind: Descriptor, st: Any) -> Any:
    """Draw a message of a kind, its fields anything that their type holds."""
    fields = {field.name: _of_field(field, st) for field in kind.fields}
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: _message(kind, values))


def _message(kind: Descriptor, values: dict[str, Any]) -> Message:
    message = GetMessageClass(kind)()
    for name, value in values.items():
        field = kind.fields_by_name[name]
        if field.is_repeated:
            getattr(message, name).extend(value)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            getattr(message, name).CopyFrom(value)
        else:
            setattr(message, name, value)
    return message


def _of_field(field: FieldDescriptor, st: Any) -> Any:
    text = st.one_of(st.sampled_from(["anna", "ben", "bench", "watch", "accelerometer", "x"]), st.text(max_size=70).filter(_is_utf8))
    by_type = {
        FieldDescriptor.TYPE_STRING: text,
        FieldDescriptor.TYPE_BYTES: st.binary(max_size=50),
        FieldDescriptor.TYPE_BOOL: st.booleans(),
        FieldDescriptor.TYPE_FLOAT: st.floats(width=32),
        FieldDescriptor.TYPE_DOUBLE: st.floats(),
        FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1) | st.integers(0, 3),
        FieldDescriptor.TYPE_UINT64: st.integers(0, 2**64 - 1) | st.integers(0, 300),
        FieldDescriptor.TYPE_SINT32: st.integers(-(2**31), 2**31 - 1) | st.integers(0, 1000),
        FieldDescriptor.TYPE_SFIXED64: st.integers(-(2**63), 2**63 - 1) | st.integers(10**18, 2 * 10**18),
        FieldDescriptor.TYPE_ENUM: st.integers(0, 12),
    }
    one = _drawn(field.message_type, st) if field.type == FieldDescriptor.TYPE_MESSAGE else by_type[field.type]
    return st.lists(one, max_size=8) if field.is_repeated else one


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _call(channel: grpc.Channel, method: str, messages: list[bytes], metadata: Any) -> grpc.StatusCode:
    """Call a method of any kind, and return how it ends, its first answer counting as OK where more may follow without end."""
    call = channel.stream_stream(f"/{method}")(iter(messages), metadata=metadata, timeout=CALL_S)
    try:
        for _ in call:
            if not method.endswith("Stream"):
                call.cancel()
                return grpc.StatusCode.OK
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK
