from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LabelSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LABEL_SOURCE_UNSPECIFIED: _ClassVar[LabelSource]
    LABEL_SOURCE_WEARER: _ClassVar[LabelSource]
    LABEL_SOURCE_SCHEDULE: _ClassVar[LabelSource]
    LABEL_SOURCE_MODEL: _ClassVar[LabelSource]
    LABEL_SOURCE_IMPORT: _ClassVar[LabelSource]
LABEL_SOURCE_UNSPECIFIED: LabelSource
LABEL_SOURCE_WEARER: LabelSource
LABEL_SOURCE_SCHEDULE: LabelSource
LABEL_SOURCE_MODEL: LabelSource
LABEL_SOURCE_IMPORT: LabelSource

class Label(_message.Message):
    __slots__ = ("id", "subject", "recording", "activity", "start_ns", "end_ns", "source", "corrects", "corrected_by")
    ID_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    RECORDING_FIELD_NUMBER: _ClassVar[int]
    ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    START_NS_FIELD_NUMBER: _ClassVar[int]
    END_NS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CORRECTS_FIELD_NUMBER: _ClassVar[int]
    CORRECTED_BY_FIELD_NUMBER: _ClassVar[int]
    id: str
    subject: str
    recording: str
    activity: str
    start_ns: int
    end_ns: int
    source: LabelSource
    corrects: str
    corrected_by: str
    def __init__(self, id: _Optional[str] = ..., subject: _Optional[str] = ..., recording: _Optional[str] = ..., activity: _Optional[str] = ..., start_ns: _Optional[int] = ..., end_ns: _Optional[int] = ..., source: _Optional[_Union[LabelSource, str]] = ..., corrects: _Optional[str] = ..., corrected_by: _Optional[str] = ...) -> None: ...

class PutLabelRequest(_message.Message):
    __slots__ = ("label",)
    LABEL_FIELD_NUMBER: _ClassVar[int]
    label: Label
    def __init__(self, label: _Optional[_Union[Label, _Mapping]] = ...) -> None: ...

class PutLabelReply(_message.Message):
    __slots__ = ("label",)
    LABEL_FIELD_NUMBER: _ClassVar[int]
    label: Label
    def __init__(self, label: _Optional[_Union[Label, _Mapping]] = ...) -> None: ...

class ListLabelsRequest(_message.Message):
    __slots__ = ("subject", "recording", "with_corrected")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    RECORDING_FIELD_NUMBER: _ClassVar[int]
    WITH_CORRECTED_FIELD_NUMBER: _ClassVar[int]
    subject: str
    recording: str
    with_corrected: bool
    def __init__(self, subject: _Optional[str] = ..., recording: _Optional[str] = ..., with_corrected: _Optional[bool] = ...) -> None: ...

class ListLabelsReply(_message.Message):
    __slots__ = ("labels",)
    LABELS_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedCompositeFieldContainer[Label]
    def __init__(self, labels: _Optional[_Iterable[_Union[Label, _Mapping]]] = ...) -> None: ...

class CorrectLabelRequest(_message.Message):
    __slots__ = ("id", "label")
    ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    id: str
    label: Label
    def __init__(self, id: _Optional[str] = ..., label: _Optional[_Union[Label, _Mapping]] = ...) -> None: ...

class CorrectLabelReply(_message.Message):
    __slots__ = ("label",)
    LABEL_FIELD_NUMBER: _ClassVar[int]
    label: Label
    def __init__(self, label: _Optional[_Union[Label, _Mapping]] = ...) -> None: ...

class DeleteLabelRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class DeleteLabelReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
