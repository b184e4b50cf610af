"""A federation on disk, and a server that shows its certificate."""

import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest

from deploy.federation_folder import FederationFolder, create
from deploy.federation_record import described

MakeServer = Callable[..., int]


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def federation(tmp_path: Path, now: datetime) -> FederationFolder:
    """Make a federation on loopback with the hosts ward-1 and ward-2."""
    folder = FederationFolder(tmp_path / "federation")
    create(folder, described("127.0.0.1:8443", "127.0.0.1", ("superlink.test",)), ("ward-1", "ward-2"), now)
    for name in ("ward-1", "ward-2"):
        (folder.host(name) / "recordings").mkdir()
    return folder


@pytest.fixture
def serve() -> Iterator[MakeServer]:
    """Answer on a free port like a SuperLink's /health, and return the port."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def make(certificate: Path | None, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> int:
        class Health(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()

            def date_time_string(self, timestamp: float | None = None) -> str:
                return format_datetime(clock(), usegmt=True)

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health)
        server.handle_error = lambda request, address: None  # type: ignore[method-assign]  a client that trusts it not hangs up
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return int(server.server_port)

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()
