"""Who gets in, and how a refusal reads."""

import asyncio
from itertools import product

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from client.host.boundary import MAY_CALL
from client.host.daemon import SERVED
from client.host.tokens import FILE, Role

METHODS = [method for name, file in SERVED.items() for method in file.services_by_name[name].methods]
ALLOWED = {
    **dict.fromkeys(("Stream", "PutLabel"), (Role.SENSOR, Role.ADMIN)),
    **dict.fromkeys(("ListLabels", "GetStatus", "WatchStatus", "WatchActivities"), (Role.VIEWER, Role.ADMIN)),
    **dict.fromkeys(("CorrectLabel", "DeleteLabel", "Pause", "Resume", "DeleteRange", "DeleteAll", "Export"), (Role.ADMIN,)),
}
REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


async def call(channel: grpc.aio.Channel, method, content: bytes = b"", metadata: tuple = (), wait_s: float = 5) -> grpc.StatusCode:
    """Call a method of any kind with one message of these bytes, and return how it ends; OK if its first answer comes first."""
    service = method.containing_service.full_name
    answers = channel.stream_stream(f"/{service}/{method.name}")(iter([content]), metadata=metadata, timeout=wait_s)
    try:
        async for _ in answers:
            return grpc.StatusCode.OK
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_each_role_opens_what_it_should_and_nothing_else(on_host):
    assert {method.name for method in METHODS} == ALLOWED.keys()

    async def scenario(host, channel):
        return {(method.name, role): await call(channel, method, metadata=host.as_(role)) for method, role in product(METHODS, Role)}

    for (name, role), code in on_host(scenario).items():
        assert (code not in REFUSED) == (role in ALLOWED[name]), (name, role, code)
        assert code in (grpc.StatusCode.PERMISSION_DENIED,) or role in ALLOWED[name]


def test_what_is_open_to_others_than_the_admin_exists():
    names = {f"{method.containing_service.name}/{method.name}" for method in METHODS}
    assert MAY_CALL.keys() <= names


@pytest.mark.parametrize(
    "metadata", [(), (("authorization", "Bearer x"),), (("authorization", "Basic x"),), (("authorization-bin", b"\xff"),)]
)
def test_without_a_token_of_this_host_nothing_opens(on_host, metadata):
    async def scenario(host, channel):
        return [await call(channel, method, metadata=metadata) for method in METHODS]

    assert set(on_host(scenario)) == {grpc.StatusCode.UNAUTHENTICATED}


def test_a_damaged_file_of_tokens_opens_nothing(on_host):
    async def scenario(host, channel):
        (host.folder / FILE).write_text("{")
        return [await call(channel, method, metadata=host.as_(Role.ADMIN)) for method in METHODS]

    assert set(on_host(scenario)) == {grpc.StatusCode.UNAVAILABLE}


def test_bytes_that_are_no_message_are_refused_by_every_method(on_host):
    async def scenario(host, channel):
        return [await call(channel, method, b"\xff\xff\xff", host.as_(Role.ADMIN)) for method in METHODS]

    assert set(on_host(scenario)) == {grpc.StatusCode.INVALID_ARGUMENT}


def test_health_and_reflection_are_open_and_say_what_is_served(on_host):
    async def scenario(host, channel):
        health = health_pb2_grpc.HealthStub(channel)
        names = [*(file.services_by_name[name].full_name for name, file in SERVED.items()), ""]
        states = [(await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)).status for name in names]
        assert states == [health_pb2.HealthCheckResponse.SERVING] * len(names)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]), timeout=5)
        async for answer in answers:
            return {service.name for service in answer.list_services_response.service}

    assert {f"clmm.host.v1.{name}" for name in SERVED} < on_host(scenario)


def test_a_token_that_was_revoked_opens_nothing_from_the_next_call_on(on_host):
    from client.host.tokens import revoke_token  # noqa: PLC0415

    get_status = next(method for method in METHODS if method.name == "GetStatus")

    async def scenario(host, channel):
        before = await call(channel, get_status, metadata=host.as_(Role.VIEWER))
        await asyncio.to_thread(revoke_token, host.folder, "a viewer")
        return before, await call(channel, get_status, metadata=host.as_(Role.VIEWER))

    assert on_host(scenario) == (grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED)
