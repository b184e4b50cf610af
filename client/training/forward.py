"""The thin ClientApp: hands a question to the daemon of its host, which keeps model and data warm, and returns what it answers."""

import json
from pathlib import Path

import grpc
from flwr.app import Context, RecordDict

from client.host.trainer_process import LONGEST_S, OPTIONS
from client.host.v1.training_pb2 import (
    EvaluateReply,
    EvaluateRequest,
    QueryReply,
    QueryRequest,
    Question,
    TrainReply,
    TrainRequest,
)
from client.host.v1.training_pb2_grpc import TrainingStub
from client.refusal import refusal
from client.training.records import as_records, from_records
from clmm_core.errors import NotNowError
from clmm_core.federated.source import client_source


def forward(message_type: str, content: RecordDict, context: Context, socket: Path) -> RecordDict:
    """Return the content of the reply; the host's state of this run is replaced by what the daemon returns.

    A daemon that does not train now, or is not there, is a refusal in words, like any other of a host.

    Args:
        message_type: as `query.profile`.
        content: of the question.
        context: of this SuperNode and run.
        socket: where the daemon listens.
    """
    kind, _, action = message_type.partition(".")
    question = Question(
        action=action,
        content=as_records(content),
        state=as_records(context.state),
        node_config=json.dumps(dict(context.node_config)),
        run_id=context.run_id,
        source=client_source(),
    )
    try:
        with grpc.insecure_channel(f"unix:{socket}", options=OPTIONS) as channel:
            answered = _asked(TrainingStub(channel), kind, question).answered
    except grpc.RpcError as error:
        return refusal(NotNowError(f"the host's daemon does not answer '{message_type}': {error.details()} ({error.code().name})"))
    if answered.HasField("state"):
        context.state = from_records(answered.state)
    return from_records(answered.content)


def _asked(stub: TrainingStub, kind: str, question: Question) -> QueryReply | TrainReply | EvaluateReply:
    answered: QueryReply | TrainReply | EvaluateReply
    if kind == "query":
        answered = stub.Query(QueryRequest(question=question), timeout=LONGEST_S)
    elif kind == "train":
        answered = stub.Train(TrainRequest(question=question), timeout=LONGEST_S)
    else:
        answered = stub.Evaluate(EvaluateRequest(question=question), timeout=LONGEST_S)
    return answered
