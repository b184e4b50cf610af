"""The trainer of a host: a process that keeps PyTorch and windows from question to question. Its daemon starts and ends it.

`python -m client.training.trainer SOCKET`: it answers `clmm.host.v1.Training` on a unix socket, one question at a time, from the folder of
recordings (docs/data.md) that its daemon names, and ends when its standard input does, so that it never outlives its daemon.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from flwr.app import RecordDict

from client.answers import answer
from client.devices import NodeConfig
from client.host.trainer_process import OPTIONS
from client.host.v1 import training_pb2 as pb
from client.host.v1.training_pb2_grpc import TrainingServicer, add_TrainingServicer_to_server
from client.refusal import refusal
from client.training.records import as_records, from_records
from clmm_core.errors import CodeMismatchError
from clmm_core.federated.source import client_source


@dataclass(frozen=True)
class Kept:
    """What a ClientApp had of its run; see `client.answers.HostContext`."""

    node_config: NodeConfig
    state: RecordDict


class Trainer(TrainingServicer):  # type: ignore[misc]  # gRPC has no types
    """Answers what a ClientApp would, in one process for all questions."""

    def Query(self, request: pb.QueryRequest, context: Any) -> pb.QueryReply:  # noqa: N802  the API's name
        """Answer a question that trains nothing."""
        return pb.QueryReply(answered=self._answered("query", request.question))

    def Train(self, request: pb.TrainRequest, context: Any) -> pb.TrainReply:  # noqa: N802
        """Train a round."""
        return pb.TrainReply(answered=self._answered("train", request.question))

    def Evaluate(self, request: pb.EvaluateRequest, context: Any) -> pb.EvaluateReply:  # noqa: N802
        """Evaluate."""
        return pb.EvaluateReply(answered=self._answered("evaluate", request.question))

    def _answered(self, kind: str, question: pb.Question) -> pb.Answered:
        if question.source != client_source():
            error = CodeMismatchError(
                f"expected the code that this host's daemon runs ({client_source()}), found other code in the run ({question.source}): "
                "install the run's version on the host and start its daemon again"
            )
            return pb.Answered(content=as_records(refusal(error)))
        kept = Kept(json.loads(question.node_config), from_records(question.state))
        content = answer(f"{kind}.{question.action}", from_records(question.content), kept)
        return pb.Answered(content=as_records(content), state=as_records(kept.state))


def serve(socket: Path) -> grpc.Server:
    """Return a server that answers on a unix socket."""
    server = grpc.server(ThreadPoolExecutor(max_workers=1), options=OPTIONS)
    add_TrainingServicer_to_server(Trainer(), server)
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    return server


if __name__ == "__main__":
    _server = serve(Path(sys.argv[1]))
    sys.stdin.read()
    os._exit(0)  # at once: the interpreter would wait for the question that is being answered
