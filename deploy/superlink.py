"""Start Flower's SuperLink so that the network can train with it, and do nothing else.

Flower serves three APIs on one port. With TLS and SuperNode authentication its Fleet API (`/v1/fleet/`) answers registered hosts only. Its
Control API, which starts runs (that is: any program, on this machine and on every host) and registers hosts, and its Runtime API, which
hands out tasks, ask nobody who they are: account login is not part of the open-source SuperLink. So here they answer this machine alone;
from elsewhere, operators come through SSH (`ssh -L`).

`uvicorn.run`, by which flwr 1.41 and 1.42 serve, is replaced to put that in front of Flower's application; `tests/deployment` asks a real
SuperLink from another address whether it holds.
"""

import ipaddress
import logging
import os
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clmm_core.errors import DataError
from deploy.check import check_server
from deploy.federation_folder import write_server_files
from deploy.federation_record import Federation, read_federation, split_address

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

FOR_EVERYBODY = ("/v1/fleet/", "/health")
"""Paths that the network may ask for: what SuperNodes need, behind Flower's own authentication, and whether it is up."""
LOCAL = ("127.0.0.1", "::1")
DATABASE = "sqlite:///state.db?timeout=60"
"""In the server's folder, and the seconds that a request waits for another's write.

With the usual 5 s a busy machine answers some requests with "database is locked", which loses a host's update and ends SuperExec (seen on
two cores under load).
"""
_LOG = logging.getLogger("flwr")


class NetworkGate:
    """An ASGI application that lets the network reach another one's `FOR_EVERYBODY`, and this machine all of it."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 403 and a line in the log."""
        if scope["type"] == "lifespan" or _is_local(scope) or (scope["type"] == "http" and scope["path"].startswith(FOR_EVERYBODY)):
            await self._application(scope, receive, send)
            return
        _LOG.warning(
            "clmm: refused %s from %s: this SuperLink is controlled from its own machine only",
            scope["path"],
            (scope.get("client") or "?")[0],
        )
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
        await send(
            {"type": "http.response.body", "body": b"Only from the SuperLink's own machine: log in there, or come through ssh -L.\n"}
        )


def start_superlink(server: Path) -> None:
    """Serve a federation until asked to end. There is no way to do it without TLS and without authentication.

    Raises:
        DataError: the folder, its certificate or its keys cannot be used; says what to do.
    """
    problems = [found.text for found in check_server(server, datetime.now(UTC)) if found.is_fatal]
    if problems:
        raise DataError("\n".join(problems))
    federation = read_federation(server)
    write_server_files(server, federation)
    os.umask(0o077)  # the database holds updates
    os.chdir(server)
    _serve(arguments(federation))


def arguments(federation: Federation) -> list[str]:
    """Return what `flower-superlink` is started with, in the server's folder."""
    _, port = split_address(federation.address)
    return [
        *("--host", federation.listen, "--port", str(port), "--enable-supernode-auth"),
        *("--ssl-ca-certfile", "ca.crt", "--ssl-certfile", "server.crt", "--ssl-keyfile", "server.key"),
        *("--isolation", "process", "--database", DATABASE, "--disable-runtime-dependency-installation"),
    ]


def _serve(superlink_arguments: list[str]) -> None:
    import uvicorn  # noqa: PLC0415  Flower takes seconds to load: not before the folder is found to be right
    from flwr.superlink.cli.flower_superlink import flower_superlink  # noqa: PLC0415

    run = uvicorn.run

    def run_gated(app: Application, **settings: Any) -> None:
        # Who asks is read off the connection: no header of a proxy can say that it is somebody else.
        run(NetworkGate(app), **settings, proxy_headers=False)

    uvicorn.run = run_gated  # type: ignore[assignment]
    sys.argv = ["flower-superlink", *superlink_arguments]
    flower_superlink()


def _is_local(scope: Scope) -> bool:
    """Return whether both ends of the connection are this machine."""
    client, server = scope.get("client"), scope.get("server")
    if client is None:
        return False
    return _plain(client[0]) in LOCAL or (server is not None and _plain(client[0]) == _plain(server[0]))


def _plain(address: str) -> str:
    """Return an IPv4 address that came as IPv6 as what it is."""
    parsed = ipaddress.ip_address(address)
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
