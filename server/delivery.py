"""After a run: the exported model to the hosts that recognise with it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from clmm_core.data.fleet import DataConfig
from clmm_core.errors import ClmmError
from clmm_core.federated.messages import HostReceipt
from clmm_core.training.tasks import MODEL, DeliverTask
from server.apart import Apart
from server.directory import Directory
from server.hosts import Question


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
    except ClmmError as error:
        say(f"no host got the model: {error}")
        return
    for host, answer in answers.items():
        say(f"host {host} {'recognises with' if answer.reply.is_installed else 'does not take'} the model: {answer.reply.why}")
    for host, why in failures.items():
        say(f"host {host} did not get the model: {why}")
