"""The Flower ClientApp of a host: one function a question, all of them answered in `answers`."""

import os
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

HOST_SOCKET = "CLMM_HOST_SOCKET"
"""Environment variable: the unix socket of the daemon that started this SuperNode, and that trains in its place."""
app = ClientApp()


@app.query("profile")
def profile(message: Message, context: Context) -> Message:
    """Say which devices this host has, in counts."""
    return _answer(message, context)


@app.query("sums")
def sums(message: Message, context: Context) -> Message:
    """Add up what normalisation needs."""
    return _answer(message, context)


@app.train("pretrain")
def pretrain(message: Message, context: Context) -> Message:
    """Train a round of stage one."""
    return _answer(message, context)


@app.query("quality")
def quality(message: Message, context: Context) -> Message:
    """Measure each modality's quality."""
    return _answer(message, context)


@app.train("finetune")
def finetune(message: Message, context: Context) -> Message:
    """Train a round of stage two."""
    return _answer(message, context)


@app.train("selftrain")
def selftrain(message: Message, context: Context) -> Message:
    """Train a round of self-training."""
    return _answer(message, context)


@app.evaluate("subjects")
def subjects(message: Message, context: Context) -> Message:
    """Evaluate each subject."""
    return _answer(message, context)


@app.query("moments")
def moments(message: Message, context: Context) -> Message:
    """Add up what the plane of the embedding picture needs."""
    return _answer(message, context)


@app.query("plane")
def plane(message: Message, context: Context) -> Message:
    """Project embeddings on the plane of the picture."""
    return _answer(message, context)


@app.query("model")
def model(message: Message, context: Context) -> Message:
    """Take the run's exported model to recognise with."""
    return _answer(message, context)


def _answer(message: Message, context: Context) -> Message:
    message_type = message.metadata.message_type
    if socket := os.environ.get(HOST_SOCKET):
        from client.training.forward import forward  # noqa: PLC0415  it loads gRPC

        return Message(forward(message_type, message.content, context, Path(socket)), reply_to=message)
    from client.answers import answer  # noqa: PLC0415  it loads PyTorch, where there is something to do; Flower loads this app elsewhere too

    return Message(answer(message_type, message.content, context), reply_to=message)
