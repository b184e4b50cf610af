"""Flower's records as bytes, in Flower's own encoding."""

from flwr.app import RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict

from client.host.v1.training_pb2 import Records


def as_records(content: RecordDict) -> Records:
    """Return records to be sent."""
    return Records(record_dict=recorddict_to_proto(content).SerializeToString())


def from_records(records: Records) -> RecordDict:
    """Return records that came.

    Raises:
        google.protobuf.message.DecodeError: they are none.
    """
    return recorddict_from_proto(ProtoRecordDict.FromString(records.record_dict))
