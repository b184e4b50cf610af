"""Messages to JSON and back, types checked: what crosses the wire beside the arrays."""

from typing import TypeVar

import pydantic_core
from pydantic import TypeAdapter, ValidationError

from clmm_core.errors import CodeMismatchError

Message = TypeVar("Message")

ARRAYS, TASK, REPLY, ERROR = "arrays", "task", "reply", "error"
"""How the records of a message are called, on both sides."""


def to_json(message: object) -> str:
    """Return a frozen dataclass as JSON; NaN and infinity keep their names, where pydantic's default would make them null."""
    return pydantic_core.to_json(message, inf_nan_mode="constants").decode()


def from_json(kind: type[Message], text: str) -> Message:
    """Return the message of this kind.

    Raises:
        CodeMismatchError: the other side speaks of other fields or types.
    """
    try:
        return TypeAdapter(kind).validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        raise CodeMismatchError(
            f"expected a {kind.__name__}, found something else: server and hosts run different versions; reinstall both. {error}"
        ) from error
