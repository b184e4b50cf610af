"""`Status`: whether the host records, what it keeps, and what needs attention."""

import asyncio
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

from client.host.committer import Clock, Committer, StoreThread
from client.host.federation import Federation
from client.host.retention import DAY_NS
from client.host.store import Store, channels_of
from client.host.v1 import status_pb2 as pb
from client.host.v1 import status_pb2_grpc
from client.host.vitals import NS, Vitals
from clmm_core.errors import DataError

INTERVAL_S, SHORTEST_S, LONGEST_S = 1.0, 0.2, 60.0
_RECENT = (
    "SELECT id, subject, recording, device, placement, channels, nominal_hz, is_finished, last_seen_ns FROM streams "
    "WHERE last_seen_ns > ? ORDER BY last_seen_ns DESC"
)


class StatusService(status_pb2_grpc.StatusServicer):
    """Says how the host is."""

    def __init__(
        self,
        store: Store,
        thread: StoreThread,
        committer: Committer,
        vitals: dict[int, Vitals],
        clock: Clock,
        federation: Federation | None = None,
    ) -> None:
        self._store, self._thread, self._committer, self._vitals, self._clock = store, thread, committer, vitals, clock
        self._federation = federation
        self._version = version("clmm")

    async def GetStatus(self, _: pb.GetStatusRequest, __: Any) -> pb.GetStatusReply:  # noqa: N802  the API's name
        """Return the status now."""
        return pb.GetStatusReply(status=await self._now())

    async def WatchStatus(self, request: pb.WatchStatusRequest, _: Any) -> AsyncIterator[pb.WatchStatusReply]:  # noqa: N802
        """Yield the status again and again."""
        interval_s = request.interval_s or INTERVAL_S
        if not SHORTEST_S <= interval_s <= LONGEST_S:
            raise DataError(f"interval_s: expected {SHORTEST_S:g} to {LONGEST_S:g} seconds, found {interval_s:g}")
        while True:
            yield pb.WatchStatusReply(status=await self._now())
            await asyncio.sleep(interval_s)

    async def _now(self) -> pb.HostStatus:
        status = await self._thread.run(self._status)
        if self._federation is not None:
            status.federation.CopyFrom(await self._federation.status())
        return status

    def _status(self) -> pb.HostStatus:
        now_ns = self._clock()
        used, num_chunks, num_labels = self._store.counts()
        limits = self._store.limits
        status = pb.HostStatus(
            time_ns=now_ns,
            version=self._version,
            is_paused=self._store.is_paused,
            store=pb.StoreStatus(
                stored_bytes=used,
                max_bytes=limits.max_bytes,
                max_days=limits.max_days,
                num_chunks=num_chunks,
                num_labels=num_labels,
                num_evicted=self._store.num_evicted,
            ),
        )
        if (since_ns := self._committer.full_since_ns) is not None:
            status.alarms.append(pb.Alarm(kind=pb.ALARM_KIND_FULL, text=self._committer.full_reason, since_ns=since_ns))
        for number, *row in self._store.connection.execute(_RECENT, (now_ns - DAY_NS,)).fetchall():
            vitals = self._vitals.get(number) or Vitals(last_seen_ns=row[-1])
            stream = _stream_status(row, vitals)
            status.streams.append(stream)
            status.alarms.extend(_alarms(stream, vitals, now_ns))
        return status


def _stream_status(row: list[Any], vitals: Vitals) -> pb.StreamStatus:
    subject, recording, device, placement, channels, nominal_hz, is_finished, _ = row
    figures = vitals.figures()
    return pb.StreamStatus(
        subject=subject,
        recording=recording,
        device=device,
        placement=placement,
        modalities=dict.fromkeys(channel.modality for channel in channels_of(channels)),
        is_connected=vitals.is_connected,
        is_finished=bool(is_finished),
        last_seen_ns=vitals.last_seen_ns,
        last_sample_ns=vitals.last_sample_ns,
        nominal_hz=nominal_hz,
        measured_hz=figures.measured_hz,
        jitter_ms=figures.jitter_ms,
        gap_share=figures.gap_share,
        num_samples=vitals.num_samples,
        num_duplicates=vitals.num_duplicates,
        num_refused=vitals.num_refused,
    )


def _alarms(stream: pb.StreamStatus, vitals: Vitals, now_ns: int) -> list[pb.Alarm]:
    alarms = []
    where = f"device '{stream.device}', {', '.join(stream.modalities)}"
    if vitals.is_silent(now_ns) and not stream.is_finished:
        silent_s = (now_ns - vitals.last_seen_ns) / NS
        state = "it is connected: is it worn, and awake?" if stream.is_connected else "it is not connected: is it on, and in reach?"
        text = f"{where}: expected samples, found none for {silent_s:.0f} s; {state}"
        alarms.append(pb.Alarm(kind=pb.ALARM_KIND_SILENT, text=text, device=stream.device, since_ns=vitals.last_seen_ns))
    if vitals.clock_is_off():
        text = f"{where}: {vitals.clock_in_words()}"
        alarms.append(pb.Alarm(kind=pb.ALARM_KIND_CLOCK, text=text, device=stream.device, since_ns=vitals.last_seen_ns))
    return alarms
