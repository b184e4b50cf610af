from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Records(_message.Message):
    __slots__ = ("record_dict",)
    RECORD_DICT_FIELD_NUMBER: _ClassVar[int]
    record_dict: bytes
    def __init__(self, record_dict: _Optional[bytes] = ...) -> None: ...

class Question(_message.Message):
    __slots__ = ("action", "content", "state", "node_config", "run_id", "source")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NODE_CONFIG_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    action: str
    content: Records
    state: Records
    node_config: str
    run_id: int
    source: str
    def __init__(self, action: _Optional[str] = ..., content: _Optional[_Union[Records, _Mapping]] = ..., state: _Optional[_Union[Records, _Mapping]] = ..., node_config: _Optional[str] = ..., run_id: _Optional[int] = ..., source: _Optional[str] = ...) -> None: ...

class Answered(_message.Message):
    __slots__ = ("content", "state")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    content: Records
    state: Records
    def __init__(self, content: _Optional[_Union[Records, _Mapping]] = ..., state: _Optional[_Union[Records, _Mapping]] = ...) -> None: ...

class QueryRequest(_message.Message):
    __slots__ = ("question",)
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    question: Question
    def __init__(self, question: _Optional[_Union[Question, _Mapping]] = ...) -> None: ...

class QueryReply(_message.Message):
    __slots__ = ("answered",)
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    answered: Answered
    def __init__(self, answered: _Optional[_Union[Answered, _Mapping]] = ...) -> None: ...

class TrainRequest(_message.Message):
    __slots__ = ("question",)
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    question: Question
    def __init__(self, question: _Optional[_Union[Question, _Mapping]] = ...) -> None: ...

class TrainReply(_message.Message):
    __slots__ = ("answered",)
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    answered: Answered
    def __init__(self, answered: _Optional[_Union[Answered, _Mapping]] = ...) -> None: ...

class EvaluateRequest(_message.Message):
    __slots__ = ("question",)
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    question: Question
    def __init__(self, question: _Optional[_Union[Question, _Mapping]] = ...) -> None: ...

class EvaluateReply(_message.Message):
    __slots__ = ("answered",)
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    answered: Answered
    def __init__(self, answered: _Optional[_Union[Answered, _Mapping]] = ...) -> None: ...
