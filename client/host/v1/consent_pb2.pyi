from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class PauseRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PauseReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeleteRangeRequest(_message.Message):
    __slots__ = ("start_ns", "end_ns", "subject")
    START_NS_FIELD_NUMBER: _ClassVar[int]
    END_NS_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    start_ns: int
    end_ns: int
    subject: str
    def __init__(self, start_ns: _Optional[int] = ..., end_ns: _Optional[int] = ..., subject: _Optional[str] = ...) -> None: ...

class DeleteRangeReply(_message.Message):
    __slots__ = ("num_samples", "num_labels")
    NUM_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    NUM_LABELS_FIELD_NUMBER: _ClassVar[int]
    num_samples: int
    num_labels: int
    def __init__(self, num_samples: _Optional[int] = ..., num_labels: _Optional[int] = ...) -> None: ...

class DeleteAllRequest(_message.Message):
    __slots__ = ("confirmation",)
    CONFIRMATION_FIELD_NUMBER: _ClassVar[int]
    confirmation: str
    def __init__(self, confirmation: _Optional[str] = ...) -> None: ...

class DeleteAllReply(_message.Message):
    __slots__ = ("num_samples", "num_labels")
    NUM_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    NUM_LABELS_FIELD_NUMBER: _ClassVar[int]
    num_samples: int
    num_labels: int
    def __init__(self, num_samples: _Optional[int] = ..., num_labels: _Optional[int] = ...) -> None: ...

class ExportRequest(_message.Message):
    __slots__ = ("subject",)
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    subject: str
    def __init__(self, subject: _Optional[str] = ...) -> None: ...

class ExportReply(_message.Message):
    __slots__ = ("path", "content", "left_out")
    PATH_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    path: str
    content: bytes
    left_out: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, path: _Optional[str] = ..., content: _Optional[bytes] = ..., left_out: _Optional[_Iterable[str]] = ...) -> None: ...
