"""How a host tells the server that it cannot: the error's class and its words in place of a reply."""

from flwr.app import ConfigRecord, RecordDict

from clmm_core.errors import ClmmError
from clmm_core.federated.codec import ERROR


def refusal(error: ClmmError) -> RecordDict:
    """Return the content of a message that says what went wrong."""
    return RecordDict({ERROR: ConfigRecord({"class": type(error).__name__, "message": str(error)})})
