import asyncio
import logging
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clmm_core.errors import DataError
from deploy.federation_folder import FederationFolder, renew
from deploy.superlink import NetworkGate, arguments, start_superlink
from simulation import local_superlink

PROJECT = Path(__file__).parents[2]
PACKAGES = ("clmm_core", "client", "server", "deploy", "simulation")

PASSED = {"type": "http.response.start", "status": 200}


def ask(path: str, client: str | None, server: str | None = "10.0.0.5", kind: str = "http") -> list[dict[str, Any]]:
    """Return what the gate answers, or what the application behind it does."""
    sent: list[dict[str, Any]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(PASSED)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("a refusal reads nothing")

    scope = {"type": kind, "path": path, "client": client and (client, 1234), "server": server and (server, 8443)}
    asyncio.run(NetworkGate(application)(scope, receive, send))
    return sent


@pytest.mark.parametrize("path", ["/v1/fleet/activate-node", "/v1/fleet/pull-messages", "/health"])
@pytest.mark.parametrize("client", ["10.0.0.9", "127.0.0.1"])
def test_hosts_reach_what_they_need_from_anywhere(path: str, client: str):
    assert ask(path, client) == [PASSED]


@pytest.mark.parametrize(
    "path", ["/v1/control/start-run", "/v1/control/register-node", "/v1/runtime/acquire-task", "/docs", "/", "/v1/fleet"]
)
@pytest.mark.parametrize("client", ["10.0.0.9", "127.0.0.2", "fd00::9", "::ffff:10.0.0.9", None])
def test_all_else_is_refused_to_the_network_and_logged(path: str, client: str | None, caplog: pytest.LogCaptureFixture):
    flower = logging.getLogger("flwr")
    flower.addHandler(caplog.handler)
    try:
        answer = ask(path, client)
    finally:
        flower.removeHandler(caplog.handler)
    assert answer[0]["status"] == 403
    assert PASSED not in answer
    assert f"clmm: refused {path} from {client or '?'}" in caplog.text


@pytest.mark.parametrize(
    ("client", "server"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1"),
        ("10.0.0.5", "10.0.0.5"),
        ("fd00::5", "fd00::5"),
    ],
)
def test_its_own_machine_may_control_it(client: str, server: str):
    assert ask("/v1/control/start-run", client, server) == [PASSED]


def test_a_websocket_from_the_network_is_closed():
    assert ask("/v1/fleet/x", "10.0.0.9", kind="websocket") == [{"type": "websocket.close", "code": 1008}]


def test_the_application_may_start_and_stop():
    assert ask("", None, kind="lifespan") == [PASSED]


def test_it_is_never_started_without_tls_and_authentication(federation: FederationFolder):
    words = arguments(federation.read())
    assert "--insecure" not in words
    assert {"--enable-supernode-auth", "--ssl-certfile", "--ssl-keyfile", "--ssl-ca-certfile", "--isolation", "--database"} <= set(words)
    assert words[:4] == ["--host", "127.0.0.1", "--port", "8443"]


def test_it_does_not_start_with_an_expired_certificate(federation: FederationFolder, now: datetime):
    renew(federation, federation.read(), now - timedelta(days=500))
    with pytest.raises(DataError, match=r"server\.crt: ended at .*clmm provision renew"):
        start_superlink(federation.server)


def test_only_a_simulation_goes_without_tls_and_it_listens_on_loopback():
    insecure = [path for package in PACKAGES for path in (PROJECT / package).rglob("*.py") if '"--insecure"' in path.read_text()]
    assert insecure == [PROJECT / "simulation" / "local_superlink.py"]
    assert local_superlink.HOST == "127.0.0.1"
    for _, words in local_superlink._commands(1234):
        assert words[words.index("--host") + 1] == local_superlink.HOST if "--host" in words else f"{local_superlink.HOST}:1234" in words
