"""Messages to JSON and back, types checked: what crosses the wire beside the arrays."""

from functools import cache
from typing import Any, TypeVar

import pydantic_core
from pydantic import TypeAdapter, ValidationError

from clmm_core.errors import CodeMismatchError

Message = TypeVar("Message")

ARRAYS, TASK, REPLY, ERROR = "arrays", "task", "reply", "error"
"""How the records of a message are called, on both sides."""


def to_json(message: object) -> str:
    """Return a frozen dataclass as JSON; NaN and infinity keep their names, where pydantic's default would make them null."""
    return pydantic_core.to_json(message, inf_nan_mode="constants").decode()


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def from_json_strict(kind: type[Message], text: str | bytes) -> Message:
    """Return the dataclass that this JSON holds; "3" is no number, 1.5 no count, and a field the class does not have is a mistake.

    Raises:
        ValidationError: it is not JSON, or not of this kind.
    """
    adapter: TypeAdapter[Message] = _adapter(kind)  # type: ignore[arg-type]  # mypy does not see that a generic type is hashable
    return adapter.validate_json(text, strict=True, extra="forbid")


def from_json(kind: type[Message], text: str) -> Message:
    """Return the message of this kind.

    Raises:
        CodeMismatchError: the other side speaks of other fields or types.
    """
    try:
        return from_json_strict(kind, text)
    except ValidationError as error:
        raise CodeMismatchError(
            f"expected a {kind.__name__}, found something else: server and hosts run different versions; reinstall both. {error}"
        ) from error
