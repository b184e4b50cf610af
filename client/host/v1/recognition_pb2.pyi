from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WatchActivitiesRequest(_message.Message):
    __slots__ = ("subject", "recording")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    RECORDING_FIELD_NUMBER: _ClassVar[int]
    subject: str
    recording: str
    def __init__(self, subject: _Optional[str] = ..., recording: _Optional[str] = ...) -> None: ...

class WatchActivitiesReply(_message.Message):
    __slots__ = ("subject", "recording", "start_ns", "end_ns", "activity", "confidence", "scores", "left_out", "model", "latency_ms")
    class LeftOutEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    RECORDING_FIELD_NUMBER: _ClassVar[int]
    START_NS_FIELD_NUMBER: _ClassVar[int]
    END_NS_FIELD_NUMBER: _ClassVar[int]
    ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    subject: str
    recording: str
    start_ns: int
    end_ns: int
    activity: str
    confidence: float
    scores: _containers.RepeatedCompositeFieldContainer[ActivityScore]
    left_out: _containers.ScalarMap[str, str]
    model: str
    latency_ms: float
    def __init__(self, subject: _Optional[str] = ..., recording: _Optional[str] = ..., start_ns: _Optional[int] = ..., end_ns: _Optional[int] = ..., activity: _Optional[str] = ..., confidence: _Optional[float] = ..., scores: _Optional[_Iterable[_Union[ActivityScore, _Mapping]]] = ..., left_out: _Optional[_Mapping[str, str]] = ..., model: _Optional[str] = ..., latency_ms: _Optional[float] = ...) -> None: ...

class ActivityScore(_message.Message):
    __slots__ = ("activity", "probability")
    ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    activity: str
    probability: float
    def __init__(self, activity: _Optional[str] = ..., probability: _Optional[float] = ...) -> None: ...
