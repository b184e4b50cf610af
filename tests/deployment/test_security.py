"""Who may not join, is told so and logged: no key, an unknown key, a revoked one, another federation's, a wrong clock, no TLS."""

import http.client
import shutil
import ssl
import sys
import urllib.request
from pathlib import Path

import pytest

from deploy.federation_folder import FederationFolder
from simulation.local_superlink import free_port
from tests.deployment.conftest import BIN, LEAVER, LIMIT_S, Deployment

pytestmark = pytest.mark.flower
REASONS = {
    "no-key": "All SuperNodes must be registered via the CLI",
    "unknown-key": "Exit Code: 305",
    "revoked-key": "Exit Code: 305",
    "other-authority": "certificate verify failed",
    "plain-http": "Server disconnected without sending a response",
    "clock": "SuperNode terminated gracefully",  # and not a word why: `clmm provision check`, which comes first, has it
    "start-program": "expected a certificate signed by the authority in ca.crt",
}
"""What each says that may not join."""
CLOCK_AN_HOUR_AHEAD = """
import datetime, sys
import flwr.supernode.node_auth_http_interceptor as interceptor
right = interceptor.now
interceptor.now = lambda: right() + datetime.timedelta(hours=1)
from flwr.supernode.cli.flower_supernode import flower_supernode
flower_supernode()
"""


def post(deployment: Deployment, path: str, source: str) -> int:
    """Return the status that the SuperLink answers an address of this machine with."""
    context = ssl.create_default_context(cafile=str(deployment.folder.server / "ca.crt"))
    connection = http.client.HTTPSConnection("127.0.0.1", deployment.port, timeout=60, context=context, source_address=(source, 0))
    try:
        connection.request("POST", path, body=b"", headers={"content-type": "application/protobuf"})
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_network_may_train_and_not_control(deployment: Deployment):
    for path in ("/v1/control/list-runs", "/v1/control/start-run", "/v1/control/register-node", "/v1/runtime/acquire-task", "/docs"):
        assert post(deployment, path, "127.0.0.2") == 403, path
        assert post(deployment, path, "127.0.0.1") != 403, path
    assert post(deployment, "/v1/fleet/activate-node", "127.0.0.2") == 401, "Flower asks who it is"
    assert "clmm: refused /v1/control/start-run from 127.0.0.2" in deployment.log_text("superlink")


def test_plain_http_is_not_answered(deployment: Deployment):
    with pytest.raises(OSError, match=r"reset|without response"):
        urllib.request.urlopen(f"http://127.0.0.1:{deployment.port}/health", timeout=60)


def command(deployment: Deployment, authority: Path, key: Path | None) -> list[str]:
    """Return the words after `flower-supernode` of a host that gives up soon."""
    words = ["--superlink", f"127.0.0.1:{deployment.port}", "--port", str(free_port()), "--max-retries", "1"]
    return [*words, "--root-certificates", str(authority), *(("--auth-supernode-private-key", str(key)) if key else ())]


@pytest.fixture
def stranger(deployment: Deployment, tmp_path: Path) -> Path:
    """Return the folder of a host of another federation at the same address."""
    other = FederationFolder(tmp_path / "other")
    where = ("--address", f"127.0.0.1:{deployment.port}", "--listen", "127.0.0.1")
    deployment.clmm("provision", "create", other.root, *where, "stranger")
    (other.host("stranger") / "recordings").mkdir()
    return other.host("stranger")


def revoke_while_connected(deployment: Deployment, keep_key_in: Path) -> Path:
    """Let a host join, revoke it, and return the copy of its key that it kept."""
    host = deployment.folder.read().host(LEAVER)
    assert host is not None
    deployment.supervise(LEAVER)
    node_id = deployment.node_id(LEAVER)
    key = shutil.copy(deployment.folder.host(LEAVER) / "host.key", keep_key_in / "revoked.key")
    deployment.clmm("provision", "revoke", deployment.folder.root, LEAVER)
    said = deployment.clmm("provision", "register", deployment.folder.root)
    assert said == f"host {LEAVER}: node {node_id} with key {host.fingerprint} unregistered\n"
    deployment.processes.pop(LEAVER).wait(timeout=LIMIT_S)  # it is cut off
    return Path(key)


def test_who_may_not_join_is_refused_and_it_is_logged(deployment: Deployment, stranger: Path, tmp_path: Path):
    """All tries at once: each SuperNode takes seconds to load."""
    supernode, authority = str(BIN / "flower-supernode"), deployment.folder.server / "ca.crt"
    own_key = deployment.folder.host("ward-1") / "host.key"
    revoked_key = revoke_while_connected(deployment, tmp_path)
    insecure = ["--insecure", "--superlink", f"127.0.0.1:{deployment.port}", "--port", str(free_port()), "--max-retries", "1"]
    tries = {
        "no-key": [supernode, *command(deployment, authority, None)],
        "unknown-key": [supernode, *command(deployment, authority, stranger / "host.key")],
        "revoked-key": [supernode, *command(deployment, authority, revoked_key)],
        "other-authority": [supernode, *command(deployment, stranger / "ca.crt", own_key)],
        "plain-http": [supernode, *insecure],
        "clock": [sys.executable, "-c", CLOCK_AN_HOUR_AHEAD, *command(deployment, authority, own_key)],
        "start-program": [str(stranger / "start-supernode")],
    }
    started = {name: deployment.start_command(words, name, FLWR_HOME=str(deployment.folder.root / name)) for name, words in tries.items()}
    for process in started.values():
        process.wait(timeout=LIMIT_S)
    said = {name: deployment.log_text(name) for name in tries}
    for name, reason in REASONS.items():
        assert reason in said[name], (name, said[name])
        assert "SuperNode ID" not in said[name], name
    log = deployment.log_text("superlink")
    assert log.count("No SuperNode found with the given public key") == 2, "the unknown and the revoked key"
    assert '"POST /v1/fleet/register-node HTTP/1.1" 412' in log, "no key"
    assert log.count('"POST /v1/fleet/activate-node HTTP/1.1" 401') >= 1, "the clock"
