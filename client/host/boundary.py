"""Where calls enter: who may make them, and how what goes wrong is told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from client.host.erasure import StoreBusyError
from client.host.ingest_service import ReplacedError
from client.host.labels import LabelNotFoundError
from client.host.schema import StoreFullError
from client.host.store import ModalityTakenError
from client.host.tokens import Role, Tokens
from clmm_core.errors import ClmmError, DataError

OURS = "/clmm.host.v1."
SENSOR, VIEWER, ADMIN = Role.SENSOR, Role.VIEWER, Role.ADMIN
MAY_CALL = {
    "Ingest/Stream": (SENSOR, ADMIN),
    "Labels/PutLabel": (SENSOR, ADMIN),
    "Labels/ListLabels": (VIEWER, ADMIN),
    "Recognition/WatchActivities": (VIEWER, ADMIN),
    "Status/GetStatus": (VIEWER, ADMIN),
    "Status/WatchStatus": (VIEWER, ADMIN),
}
"""Whose token opens a method; what is not here is the admin's. Health and reflection, which say nothing of anybody, are open."""
CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (ReplacedError, grpc.StatusCode.ABORTED),
    (LabelNotFoundError, grpc.StatusCode.NOT_FOUND),
    (ModalityTakenError, grpc.StatusCode.ALREADY_EXISTS),
    (StoreFullError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (StoreBusyError, grpc.StatusCode.UNAVAILABLE),
    (DataError, grpc.StatusCode.INVALID_ARGUMENT),
    (ClmmError, grpc.StatusCode.FAILED_PRECONDITION),
)
"""The first that an error is one of."""
BEARER = "Bearer "
REFUSAL_S, LONGEST_READ = 0.5, 2
"""So long, and so many messages, somebody who is refused is listened to: the request, and that it was all."""
Handler = Any
Context = Any


class Boundary(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # gRPC has no types
    """Lets calls through that a token allows, and turns our errors into gRPC's."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Handler]], details: Any) -> Handler:
        """Return what answers a call."""
        handler = await continuation(details)
        if handler is None or not details.method.startswith(OURS):
            return handler
        refusal = self._refusal(details.method.removeprefix(OURS), dict(details.invocation_metadata))
        return _refusing(*refusal) if refusal else _telling(handler)

    def _refusal(self, method: str, metadata: dict[str, str | bytes]) -> tuple[grpc.StatusCode, str] | None:
        given = metadata.get("authorization", "")
        if not isinstance(given, str) or not given.startswith(BEARER):
            return grpc.StatusCode.UNAUTHENTICATED, "expected metadata 'authorization: Bearer TOKEN', found none: see `clmm host token`"
        try:
            role = self._tokens.role_of(given.removeprefix(BEARER))
        except DataError as error:
            return grpc.StatusCode.UNAVAILABLE, str(error)
        allowed = MAY_CALL.get(method, (ADMIN,))
        if role is None:
            return grpc.StatusCode.UNAUTHENTICATED, "expected a token of this host, found another: see `clmm host token`"
        if role not in allowed:
            return grpc.StatusCode.PERMISSION_DENIED, f"{method}: expected a token of {' or '.join(allowed)}, found one of {role}"
        return None


def _refusing(code: grpc.StatusCode, reason: str) -> Handler:
    """Return what ends a call of any kind.

    It waits a moment for the caller to have said what it wanted: a call that is ended while its request is under way is now and then told
    INTERNAL by gRPC instead of the reason.
    """

    async def refuse(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        with suppress(TimeoutError):
            async with asyncio.timeout(REFUSAL_S):
                for _ in range(LONGEST_READ):
                    if await anext(requests, None) is None:
                        break
        await context.abort(code, reason)
        yield b""

    return grpc.stream_stream_rpc_method_handler(refuse)


def _telling(handler: Handler) -> Handler:
    """Return the handler with errors told; unary requests are read here, because gRPC would not say that they cannot be."""
    if handler.request_streaming:
        return handler._replace(stream_stream=_streaming(handler.stream_stream))
    read = handler.request_deserializer
    if handler.response_streaming:
        return handler._replace(unary_stream=_streaming(handler.unary_stream, read), request_deserializer=None)

    async def answer(request: bytes, context: Context) -> object:
        try:
            return await handler.unary_unary(read(request), context)
        except (ClmmError, DecodeError) as error:
            return await context.abort(*_told(error))

    return handler._replace(unary_unary=answer, request_deserializer=None)


def _streaming(behaviour: Callable[..., AsyncIterator[Any]], read: Callable[[Any], Any] = lambda request: request) -> Callable[..., Any]:
    async def answers(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            async for reply in behaviour(read(request), context):
                yield reply
        except (ClmmError, DecodeError) as error:
            await context.abort(*_told(error))

    return answers


def _told(error: Exception) -> tuple[grpc.StatusCode, str]:
    if isinstance(error, DecodeError):
        return grpc.StatusCode.INVALID_ARGUMENT, f"expected a message of clmm.host.v1, cannot read it: {error}"
    return next(code for kind, code in CODES if isinstance(error, kind)), str(error)
