"""Tell a running SuperLink which hosts may join: register those that are new to it, unregister those that were revoked."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from clmm_core.errors import ClmmError
from clmm_core.files import replace_file
from deploy.check import require_public_key
from deploy.federation_folder import SECRET, write_server_files
from deploy.federation_record import HostKey, read_federation, read_record

REGISTERED = "registered.json"
TIMEOUT_S = 60.0
GONE = "unregistered"
"""Flower's status of a node that may not come back."""


class SuperLinkError(ClmmError):
    """The SuperLink did not do what it was asked; the operator looks at it."""


class Registered(BaseModel):
    """What `registered.json` holds: Flower tells hosts apart by numbers of its own, and does not say which key is whose."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    node_ids: dict[str, str] = {}
    """By the fingerprint of a key."""


def register(server: Path) -> list[str]:
    """Make the SuperLink's list of hosts that of a server folder; return what was done.

    Raises:
        DataError: the folder or a key in it cannot be used.
        SuperLinkError: it is not running, or refuses.
    """
    federation = read_federation(server)
    write_server_files(server, federation)
    status = {str(node["node-id"]): str(node["status"]) for node in _flwr(server, "supernode", "list", "--verbose")["nodes"]}
    registered = _read(server)
    done = []
    for key in federation.revoked:
        gone_id = registered.node_ids.get(key.fingerprint, "")
        if status.get(gone_id, GONE) != GONE:
            _flwr(server, "supernode", "unregister", gone_id)
            done.append(f"host {key.name}: node {gone_id} with key {key.fingerprint} unregistered")
    for host in federation.hosts:
        if status.get(registered.node_ids.get(host.fingerprint, ""), GONE) != GONE:
            continue
        node_id = _register(server, host)
        registered = registered.model_copy(update={"node_ids": {**registered.node_ids, host.fingerprint: node_id}})
        replace_file(server / REGISTERED, registered.model_dump_json(indent=2) + "\n", SECRET)
        done.append(f"host {host.name}: registered as node {node_id}")
    strangers = [node for node, said in status.items() if said != GONE and node not in registered.node_ids.values()]
    done += [
        f"node {node}: is registered, but not by this folder: if you do not know it, `flwr supernode unregister {node}`"
        for node in strangers
    ]
    return done


def node_ids(server: Path) -> dict[str, str]:
    """Return Flower's numbers of hosts that were registered from a server folder, by fingerprint."""
    return _read(server).node_ids


def _read(server: Path) -> Registered:
    path = server / REGISTERED
    return read_record(path, Registered, "bring it back from a copy") if path.exists() else Registered()


def _register(server: Path, host: HostKey) -> str:
    path = require_public_key(server, host)
    return str(_flwr(server, "supernode", "register", str(path.absolute()), "--name", host.name)["node-id"])


def _flwr(server: Path, *words: str) -> dict[str, Any]:
    """Return what the official command line answers, as JSON."""
    program = Path(sys.executable).with_name("flwr")
    quiet = {"FLWR_HOME": str(server.absolute() / "flwr"), "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    said = f"`flwr {' '.join(words)}`"
    try:
        done = subprocess.run(
            [str(program), *words, "--format", "json"],
            env={**os.environ, **quiet},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise SuperLinkError(f"{said} could not be done: {error}: is the SuperLink started on this machine?") from error
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = None
    if done.returncode or not isinstance(answer, dict) or not answer.get("success"):
        why = (answer.get("error-message") if isinstance(answer, dict) else None) or done.stderr.strip() or done.stdout.strip()
        raise SuperLinkError(f"{said} failed: {why}. Is the SuperLink started on this machine (`start-superlink`)? Its log says more")
    return answer
