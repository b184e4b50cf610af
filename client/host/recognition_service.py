"""`Recognition`: what the host's model says of its wearers, as it happens."""

from collections.abc import AsyncIterator
from typing import Any

from client.host.live import Live, Recognised
from client.host.v1 import recognition_pb2 as pb
from client.host.v1 import recognition_pb2_grpc
from clmm_core.errors import ConfigError


class RecognitionService(recognition_pb2_grpc.RecognitionServicer):
    """Sends answers to whoever watches."""

    def __init__(self, live: Live) -> None:
        self._live = live

    async def WatchActivities(  # noqa: N802  the API's name
        self, request: pb.WatchActivitiesRequest, _: Any
    ) -> AsyncIterator[pb.WatchActivitiesReply]:
        """Yield each answer from now on."""
        self._live.look()
        if self._live.problem:
            raise ConfigError(f"nothing is recognised: {self._live.problem}")
        with self._live.watching() as answers:
            async for each in answers:
                if request.subject in ("", each.subject) and request.recording in ("", each.recording):
                    yield _reply(each)


def _reply(recognised: Recognised) -> pb.WatchActivitiesReply:
    answer = recognised.answer
    scores = zip(recognised.classes, answer.probabilities, strict=True)
    return pb.WatchActivitiesReply(
        subject=recognised.subject,
        recording=recognised.recording,
        start_ns=answer.start_ns,
        end_ns=answer.end_ns,
        activity=answer.activity or "",
        confidence=answer.confidence,
        scores=[pb.ActivityScore(activity=name, probability=float(score)) for name, score in scores],
        left_out=dict(answer.left_out),
        model=recognised.model,
        latency_ms=recognised.latency_ms,
    )
