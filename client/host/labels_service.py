"""`Labels`: what the wearer says about stretches of recordings."""

from typing import Any

from client.host.committer import StoreThread
from client.host.labels import Label, correct_label, delete_label, find_label, list_labels, put_label
from client.host.schema import full_disk_told
from client.host.store import Store
from client.host.v1 import labels_pb2 as pb
from client.host.v1 import labels_pb2_grpc
from clmm_core.errors import DataError


class LabelsService(labels_pb2_grpc.LabelsServicer):
    """Keeps labels in the store."""

    def __init__(self, store: Store, thread: StoreThread) -> None:
        self._store, self._thread = store, thread

    async def PutLabel(self, request: pb.PutLabelRequest, _: Any) -> pb.PutLabelReply:  # noqa: N802  the API's name
        """Keep a label."""
        label = await self._on_store(put_label, _label_of(request.label))
        return pb.PutLabelReply(label=_message_of(label))

    async def ListLabels(self, request: pb.ListLabelsRequest, _: Any) -> pb.ListLabelsReply:  # noqa: N802
        """Return those of a subject or recording, or all."""
        labels = await self._thread.run(
            lambda: list_labels(self._store.connection, request.subject, request.recording, with_corrected=request.with_corrected)
        )
        return pb.ListLabelsReply(labels=[_message_of(label) for label in labels])

    async def CorrectLabel(self, request: pb.CorrectLabelRequest, _: Any) -> pb.CorrectLabelReply:  # noqa: N802
        """Put another label in the place of one."""
        before = await self._on_store(find_label, request.id)
        message = pb.Label()
        message.CopyFrom(request.label)
        message.subject, message.recording = before.subject, before.recording
        message.start_ns, message.end_ns = message.start_ns or before.start_ns, message.end_ns or before.end_ns
        label = await self._on_store(correct_label, request.id, _label_of(message))
        return pb.CorrectLabelReply(label=_message_of(label, corrects=request.id))

    async def DeleteLabel(self, request: pb.DeleteLabelRequest, _: Any) -> pb.DeleteLabelReply:  # noqa: N802
        """Remove a label and its history."""
        await self._on_store(delete_label, request.id)
        return pb.DeleteLabelReply()

    async def _on_store(self, work: Any, *arguments: object) -> Any:
        def guarded() -> Any:
            with full_disk_told(self._store.path):
                return work(self._store.connection, *arguments)

        return await self._thread.run(guarded)


def _label_of(message: pb.Label) -> Label:
    if message.source not in pb.LabelSource.values()[1:]:
        names = ", ".join(pb.LabelSource.keys()[1:])
        raise DataError(f"label '{message.id[:80]}': source: expected one of {names}, found {message.source}")
    return Label(
        id=message.id,
        subject=message.subject,
        recording=message.recording,
        activity=message.activity,
        start_ns=message.start_ns,
        end_ns=message.end_ns,
        source=message.source,
    )


def _message_of(label: Label, corrects: str = "") -> pb.Label:
    return pb.Label(
        id=label.id,
        subject=label.subject,
        recording=label.recording,
        activity=label.activity,
        start_ns=label.start_ns,
        end_ns=label.end_ns,
        source=label.source,  # type: ignore[arg-type]  # an enum's number
        corrects=corrects,
        corrected_by=label.corrected_by or "",
    )
