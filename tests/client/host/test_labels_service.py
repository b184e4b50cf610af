import re

import grpc
import pytest

from client.host.tokens import Role
from client.host.v1 import ingest_pb2, ingest_pb2_grpc, labels_pb2_grpc
from client.host.v1 import labels_pb2 as pb

WALK = pb.Label(id="a", subject="anna", recording="monday", activity="walk", start_ns=10, end_ns=20, source=pb.LABEL_SOURCE_WEARER)


@pytest.fixture
def labelled(on_host, header_message):
    """Run a scenario with a host that knows a recording, and the calls of its labels."""

    def run(scenario):
        async def with_recording(host, channel):
            requests = iter([ingest_pb2.StreamRequest(header=header_message())])
            async for _ in ingest_pb2_grpc.IngestStub(channel).Stream(requests, metadata=host.as_(Role.SENSOR), timeout=5):
                pass
            stub = labels_pb2_grpc.LabelsStub(channel)

            async def call(method: str, request):
                return await getattr(stub, method)(request, metadata=host.as_(Role.ADMIN), timeout=5)

            return await scenario(call)

        return on_host(with_recording)

    return run


def changed(**changes: object) -> pb.Label:
    label = pb.Label()
    label.CopyFrom(WALK)
    for name, value in changes.items():
        setattr(label, name, value)
    return label


def test_a_label_is_put_listed_corrected_and_deleted(labelled):
    async def scenario(call):
        put = await call("PutLabel", pb.PutLabelRequest(label=WALK))
        assert put.label == WALK
        correction = pb.Label(id="b", activity="run", end_ns=30, source=pb.LABEL_SOURCE_WEARER)
        run = await call("CorrectLabel", pb.CorrectLabelRequest(id="a", label=correction))
        assert run.label == changed(id="b", activity="run", end_ns=30, corrects="a")
        current = await call("ListLabels", pb.ListLabelsRequest())
        assert [(label.id, label.activity) for label in current.labels] == [("b", "run")]
        every = await call("ListLabels", pb.ListLabelsRequest(with_corrected=True, subject="anna", recording="monday"))
        assert [(label.id, label.corrected_by) for label in every.labels] == [("a", "b"), ("b", "")]
        await call("DeleteLabel", pb.DeleteLabelRequest(id="b"))
        return await call("ListLabels", pb.ListLabelsRequest(with_corrected=True))

    assert not labelled(scenario).labels


@pytest.mark.parametrize(
    ("method", "request_message", "expected"),
    [
        (
            "PutLabel",
            pb.PutLabelRequest(label=changed(source=0)),
            "INVALID_ARGUMENT: label 'a': source: expected one of LABEL_SOURCE_WEARER",
        ),
        ("PutLabel", pb.PutLabelRequest(label=changed(activity="")), "INVALID_ARGUMENT: label 'a': expected an activity"),
        ("PutLabel", pb.PutLabelRequest(label=changed(recording="x")), "NOT_FOUND: .*start its sensor first"),
        ("CorrectLabel", pb.CorrectLabelRequest(id="x", label=WALK), "NOT_FOUND: label 'x'"),
        ("DeleteLabel", pb.DeleteLabelRequest(id="x"), "NOT_FOUND: label 'x'"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(labelled, method, request_message, expected):
    async def scenario(call):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(method, request_message)
        return f"{caught.value.code().name}: {caught.value.details()}"

    found = labelled(scenario)
    assert re.match(expected, found), found
