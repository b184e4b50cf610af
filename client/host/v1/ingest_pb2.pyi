from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Unit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNIT_UNSPECIFIED: _ClassVar[Unit]
    UNIT_METRES_PER_SECOND_SQUARED: _ClassVar[Unit]
    UNIT_RADIANS_PER_SECOND: _ClassVar[Unit]
    UNIT_MICROTESLA: _ClassVar[Unit]
    UNIT_METRES: _ClassVar[Unit]
    UNIT_ONE: _ClassVar[Unit]
    UNIT_STANDARD_GRAVITY: _ClassVar[Unit]
    UNIT_DEGREES_PER_SECOND: _ClassVar[Unit]

class Frame(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FRAME_UNSPECIFIED: _ClassVar[Frame]
    FRAME_DEVICE: _ClassVar[Frame]

class Clock(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CLOCK_UNSPECIFIED: _ClassVar[Clock]
    CLOCK_UNIX: _ClassVar[Clock]

class RefusalCause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REFUSAL_CAUSE_UNSPECIFIED: _ClassVar[RefusalCause]
    REFUSAL_CAUSE_MALFORMED: _ClassVar[RefusalCause]
    REFUSAL_CAUSE_NO_CONSENT: _ClassVar[RefusalCause]
UNIT_UNSPECIFIED: Unit
UNIT_METRES_PER_SECOND_SQUARED: Unit
UNIT_RADIANS_PER_SECOND: Unit
UNIT_MICROTESLA: Unit
UNIT_METRES: Unit
UNIT_ONE: Unit
UNIT_STANDARD_GRAVITY: Unit
UNIT_DEGREES_PER_SECOND: Unit
FRAME_UNSPECIFIED: Frame
FRAME_DEVICE: Frame
CLOCK_UNSPECIFIED: Clock
CLOCK_UNIX: Clock
REFUSAL_CAUSE_UNSPECIFIED: RefusalCause
REFUSAL_CAUSE_MALFORMED: RefusalCause
REFUSAL_CAUSE_NO_CONSENT: RefusalCause

class StreamRequest(_message.Message):
    __slots__ = ("header", "chunk", "end")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    header: Header
    chunk: Chunk
    end: End
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., end: _Optional[_Union[End, _Mapping]] = ...) -> None: ...

class End(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Header(_message.Message):
    __slots__ = ("recording", "subject", "device", "placement", "streams", "frame", "clock")
    RECORDING_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    recording: str
    subject: str
    device: str
    placement: str
    streams: _containers.RepeatedCompositeFieldContainer[SensorStream]
    frame: Frame
    clock: Clock
    def __init__(self, recording: _Optional[str] = ..., subject: _Optional[str] = ..., device: _Optional[str] = ..., placement: _Optional[str] = ..., streams: _Optional[_Iterable[_Union[SensorStream, _Mapping]]] = ..., frame: _Optional[_Union[Frame, str]] = ..., clock: _Optional[_Union[Clock, str]] = ...) -> None: ...

class SensorStream(_message.Message):
    __slots__ = ("id", "channels", "nominal_hz")
    ID_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    NOMINAL_HZ_FIELD_NUMBER: _ClassVar[int]
    id: int
    channels: _containers.RepeatedCompositeFieldContainer[Channel]
    nominal_hz: float
    def __init__(self, id: _Optional[int] = ..., channels: _Optional[_Iterable[_Union[Channel, _Mapping]]] = ..., nominal_hz: _Optional[float] = ...) -> None: ...

class Channel(_message.Message):
    __slots__ = ("modality", "axis", "unit")
    MODALITY_FIELD_NUMBER: _ClassVar[int]
    AXIS_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    modality: str
    axis: str
    unit: Unit
    def __init__(self, modality: _Optional[str] = ..., axis: _Optional[str] = ..., unit: _Optional[_Union[Unit, str]] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("stream", "sequence", "t0_ns", "offsets_us", "values", "oldest_sequence", "sent_ns")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    T0_NS_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_US_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    OLDEST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SENT_NS_FIELD_NUMBER: _ClassVar[int]
    stream: int
    sequence: int
    t0_ns: int
    offsets_us: _containers.RepeatedScalarFieldContainer[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    oldest_sequence: int
    sent_ns: int
    def __init__(self, stream: _Optional[int] = ..., sequence: _Optional[int] = ..., t0_ns: _Optional[int] = ..., offsets_us: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[float]] = ..., oldest_sequence: _Optional[int] = ..., sent_ns: _Optional[int] = ...) -> None: ...

class StreamReply(_message.Message):
    __slots__ = ("acks", "refusals", "warnings", "sent_ns", "received_ns", "replied_ns", "ending")
    ACKS_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    SENT_NS_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_NS_FIELD_NUMBER: _ClassVar[int]
    REPLIED_NS_FIELD_NUMBER: _ClassVar[int]
    ENDING_FIELD_NUMBER: _ClassVar[int]
    acks: _containers.RepeatedCompositeFieldContainer[Ack]
    refusals: _containers.RepeatedCompositeFieldContainer[Refusal]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    sent_ns: int
    received_ns: int
    replied_ns: int
    ending: str
    def __init__(self, acks: _Optional[_Iterable[_Union[Ack, _Mapping]]] = ..., refusals: _Optional[_Iterable[_Union[Refusal, _Mapping]]] = ..., warnings: _Optional[_Iterable[str]] = ..., sent_ns: _Optional[int] = ..., received_ns: _Optional[int] = ..., replied_ns: _Optional[int] = ..., ending: _Optional[str] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("stream", "next_sequence")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    NEXT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    stream: int
    next_sequence: int
    def __init__(self, stream: _Optional[int] = ..., next_sequence: _Optional[int] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("stream", "sequence", "cause", "reason")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    stream: int
    sequence: int
    cause: RefusalCause
    reason: str
    def __init__(self, stream: _Optional[int] = ..., sequence: _Optional[int] = ..., cause: _Optional[_Union[RefusalCause, str]] = ..., reason: _Optional[str] = ...) -> None: ...
