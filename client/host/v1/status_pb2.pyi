from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AlarmKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ALARM_KIND_UNSPECIFIED: _ClassVar[AlarmKind]
    ALARM_KIND_SILENT: _ClassVar[AlarmKind]
    ALARM_KIND_FULL: _ClassVar[AlarmKind]
    ALARM_KIND_CLOCK: _ClassVar[AlarmKind]
ALARM_KIND_UNSPECIFIED: AlarmKind
ALARM_KIND_SILENT: AlarmKind
ALARM_KIND_FULL: AlarmKind
ALARM_KIND_CLOCK: AlarmKind

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusReply(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: HostStatus
    def __init__(self, status: _Optional[_Union[HostStatus, _Mapping]] = ...) -> None: ...

class WatchStatusRequest(_message.Message):
    __slots__ = ("interval_s",)
    INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    interval_s: float
    def __init__(self, interval_s: _Optional[float] = ...) -> None: ...

class WatchStatusReply(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: HostStatus
    def __init__(self, status: _Optional[_Union[HostStatus, _Mapping]] = ...) -> None: ...

class HostStatus(_message.Message):
    __slots__ = ("time_ns", "version", "is_paused", "store", "streams", "alarms", "federation")
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IS_PAUSED_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    time_ns: int
    version: str
    is_paused: bool
    store: StoreStatus
    streams: _containers.RepeatedCompositeFieldContainer[StreamStatus]
    alarms: _containers.RepeatedCompositeFieldContainer[Alarm]
    federation: FederationStatus
    def __init__(self, time_ns: _Optional[int] = ..., version: _Optional[str] = ..., is_paused: _Optional[bool] = ..., store: _Optional[_Union[StoreStatus, _Mapping]] = ..., streams: _Optional[_Iterable[_Union[StreamStatus, _Mapping]]] = ..., alarms: _Optional[_Iterable[_Union[Alarm, _Mapping]]] = ..., federation: _Optional[_Union[FederationStatus, _Mapping]] = ...) -> None: ...

class FederationStatus(_message.Message):
    __slots__ = ("is_supernode_running", "why_not", "last_answered", "last_answered_ns", "bytes_received", "bytes_sent")
    IS_SUPERNODE_RUNNING_FIELD_NUMBER: _ClassVar[int]
    WHY_NOT_FIELD_NUMBER: _ClassVar[int]
    LAST_ANSWERED_FIELD_NUMBER: _ClassVar[int]
    LAST_ANSWERED_NS_FIELD_NUMBER: _ClassVar[int]
    BYTES_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    BYTES_SENT_FIELD_NUMBER: _ClassVar[int]
    is_supernode_running: bool
    why_not: str
    last_answered: str
    last_answered_ns: int
    bytes_received: int
    bytes_sent: int
    def __init__(self, is_supernode_running: _Optional[bool] = ..., why_not: _Optional[str] = ..., last_answered: _Optional[str] = ..., last_answered_ns: _Optional[int] = ..., bytes_received: _Optional[int] = ..., bytes_sent: _Optional[int] = ...) -> None: ...

class StoreStatus(_message.Message):
    __slots__ = ("stored_bytes", "max_bytes", "max_days", "num_chunks", "num_labels", "num_evicted")
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_DAYS_FIELD_NUMBER: _ClassVar[int]
    NUM_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    NUM_LABELS_FIELD_NUMBER: _ClassVar[int]
    NUM_EVICTED_FIELD_NUMBER: _ClassVar[int]
    stored_bytes: int
    max_bytes: int
    max_days: float
    num_chunks: int
    num_labels: int
    num_evicted: int
    def __init__(self, stored_bytes: _Optional[int] = ..., max_bytes: _Optional[int] = ..., max_days: _Optional[float] = ..., num_chunks: _Optional[int] = ..., num_labels: _Optional[int] = ..., num_evicted: _Optional[int] = ...) -> None: ...

class StreamStatus(_message.Message):
    __slots__ = ("subject", "recording", "device", "placement", "modalities", "is_connected", "is_finished", "last_seen_ns", "last_sample_ns", "nominal_hz", "measured_hz", "jitter_ms", "gap_share", "num_samples", "num_duplicates", "num_refused")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    RECORDING_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    MODALITIES_FIELD_NUMBER: _ClassVar[int]
    IS_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    IS_FINISHED_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_NS_FIELD_NUMBER: _ClassVar[int]
    LAST_SAMPLE_NS_FIELD_NUMBER: _ClassVar[int]
    NOMINAL_HZ_FIELD_NUMBER: _ClassVar[int]
    MEASURED_HZ_FIELD_NUMBER: _ClassVar[int]
    JITTER_MS_FIELD_NUMBER: _ClassVar[int]
    GAP_SHARE_FIELD_NUMBER: _ClassVar[int]
    NUM_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    NUM_DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    NUM_REFUSED_FIELD_NUMBER: _ClassVar[int]
    subject: str
    recording: str
    device: str
    placement: str
    modalities: _containers.RepeatedScalarFieldContainer[str]
    is_connected: bool
    is_finished: bool
    last_seen_ns: int
    last_sample_ns: int
    nominal_hz: float
    measured_hz: float
    jitter_ms: float
    gap_share: float
    num_samples: int
    num_duplicates: int
    num_refused: int
    def __init__(self, subject: _Optional[str] = ..., recording: _Optional[str] = ..., device: _Optional[str] = ..., placement: _Optional[str] = ..., modalities: _Optional[_Iterable[str]] = ..., is_connected: _Optional[bool] = ..., is_finished: _Optional[bool] = ..., last_seen_ns: _Optional[int] = ..., last_sample_ns: _Optional[int] = ..., nominal_hz: _Optional[float] = ..., measured_hz: _Optional[float] = ..., jitter_ms: _Optional[float] = ..., gap_share: _Optional[float] = ..., num_samples: _Optional[int] = ..., num_duplicates: _Optional[int] = ..., num_refused: _Optional[int] = ...) -> None: ...

class Alarm(_message.Message):
    __slots__ = ("kind", "text", "device", "since_ns")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    SINCE_NS_FIELD_NUMBER: _ClassVar[int]
    kind: AlarmKind
    text: str
    device: str
    since_ns: int
    def __init__(self, kind: _Optional[_Union[AlarmKind, str]] = ..., text: _Optional[str] = ..., device: _Optional[str] = ..., since_ns: _Optional[int] = ...) -> None: ...
