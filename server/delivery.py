"""After a run: the exported model to the hosts that recognise with it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from clmm_core.data.fleet import DataConfig
from clmm_core.federated.messages import HostReceipt
from clmm_core.training.tasks import MODEL, DeliverTask
from server.apart import Apart
from server.directory import Directory
from server.hosts import Question

MAX_SAID = 300
"""Characters of a host's words."""


def deliver_model(directory: Directory, data: DataConfig, folder: Path, say: Callable[[str], None]) -> None:
    """Export a finished run's model, send it to every host that takes one, and say what each did with it.

    The results stand, whatever happens here: a model can be given to a host by hand, too.
    """
    if not directory.takers:
        return
    try:
        content, golden = Apart("torch", "clmm_core.export.delivered:exported")(folder)
        question = Question(DeliverTask(data=data, golden=golden), {MODEL: np.frombuffer(content, np.uint8)})
        answers, failures = directory.hosts.ask("query.model", dict.fromkeys(directory.takers, question), HostReceipt)
    except Exception as error:  # an exporter's are not ours; the results stand
        say(f"no host got the model: {error}")
        return
    for host, answer in answers.items():
        say(f"host {host} {'recognises with' if answer.reply.is_installed else 'does not take'} the model: {_one_line(answer.reply.why)}")
    for host, why in failures.items():
        say(f"host {host} did not get the model: {_one_line(why)}")


def _one_line(text: str) -> str:
    """Return what a host said, as it may stand in a log."""
    return "".join(each if each.isprintable() else " " for each in text)[:MAX_SAID]
