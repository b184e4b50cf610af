import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploy.certificates import new_server_certificate, read_certificate, read_private_key
from deploy.connection import check_connection
from deploy.federation_folder import FederationFolder, create, renew
from deploy.federation_record import described


@pytest.fixture
def authority(federation: FederationFolder) -> Path:
    return federation.host("ward-1") / "ca.crt"


def test_the_right_superlink_is_fine(federation: FederationFolder, authority: Path, serve):
    port = serve(federation.server / "server.crt")
    assert check_connection(f"127.0.0.1:{port}", authority) == []
    assert check_connection(f"localhost:{port}", authority) == []


@pytest.mark.parametrize(
    ("off_s", "words"), [(3600, "3600 s ahead of"), (-3600, "3600 s behind"), (10, "10 s ahead of"), (-400, "400 s behind")]
)
def test_a_clock_that_is_off_says_by_how_much_and_what_to_do(federation: FederationFolder, authority: Path, serve, off_s: int, words: str):
    start = datetime.now(UTC).replace(microsecond=0)
    port = serve(federation.server / "server.crt", clock=lambda: start)
    (found,) = check_connection(f"127.0.0.1:{port}", authority, clock=lambda: start + timedelta(seconds=off_s))
    assert found.is_fatal
    assert f"this machine's clock is {words} the SuperLink's" in found.text
    assert f"there {start:%Y-%m-%d %H:%M:%S} UTC" in found.text
    assert "set the clock (`timedatectl set-ntp true`)" in found.text


@pytest.mark.parametrize("off_s", [4, -300])
def test_a_clock_that_flower_takes_is_fine(federation: FederationFolder, authority: Path, serve, off_s: int):
    start = datetime.now(UTC).replace(microsecond=0)
    port = serve(federation.server / "server.crt", clock=lambda: start)
    assert check_connection(f"127.0.0.1:{port}", authority, clock=lambda: start + timedelta(seconds=off_s)) == []


def test_an_expired_certificate_is_told_from_a_wrong_clock(federation: FederationFolder, authority: Path, serve, now: datetime):
    renew(federation, federation.read(), now - timedelta(days=400))
    (found,) = check_connection(f"127.0.0.1:{serve(federation.server / 'server.crt')}", authority)
    assert "ended at" in found.text
    assert "If that is right: `clmm provision renew`, and start the SuperLink again" in found.text


def test_a_certificate_of_another_federation_is_told(federation: FederationFolder, authority: Path, serve, now: datetime):
    other = FederationFolder(federation.root.parent / "other")
    create(other, described("127.0.0.1:8443", "127.0.0.1", ()), (), now)
    (found,) = check_connection(f"127.0.0.1:{serve(other.server / 'server.crt')}", authority)
    assert "expected a certificate signed by the authority in" in found.text
    assert "found one of 'CN=CLMM federation other': another SuperLink answers" in found.text


def test_a_certificate_for_other_names_is_told(federation: FederationFolder, authority: Path, serve, tmp_path: Path, now: datetime):
    signer = read_private_key(federation.authority / "ca.key"), read_certificate(authority)
    key, certificate = new_server_certificate(*signer, ("hub.example", "10.0.0.5"), now)
    (tmp_path / "hub.key").write_bytes(key)
    (tmp_path / "hub.crt").write_bytes(certificate)
    (found,) = check_connection(f"127.0.0.1:{serve(tmp_path / 'hub.crt')}", authority)
    assert found.is_fatal
    assert (
        "expected a certificate for 127.0.0.1, found one for hub.example, 10.0.0.5: `clmm provision renew --also 127.0.0.1`" in found.text
    )


def test_plain_http_is_told(authority: Path, serve):
    (found,) = check_connection(f"127.0.0.1:{serve(None)}", authority)
    assert found.is_fatal
    assert "expected TLS, found something else" in found.text


def test_nobody_there_is_a_warning(authority: Path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    (found,) = check_connection(address, authority)
    assert not found.is_fatal
    assert "nothing answers" in found.text
