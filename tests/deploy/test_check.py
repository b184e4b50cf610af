import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from clmm_core.errors import DataError
from deploy.check import check_folder, require_public_key
from deploy.federation_folder import FederationFolder, create, renew
from deploy.federation_record import described

LISTENS_NOWHERE = "nothing answers"


def texts(folder: Path, now: datetime) -> list[str]:
    return [found.text for found in check_folder(folder, now) if found.is_fatal]


def test_a_new_federation_its_server_and_its_hosts_are_ready(federation: FederationFolder, now: datetime):
    assert check_folder(federation.root, now) == []
    assert check_folder(federation.server, now) == []
    (alone,) = check_folder(federation.host("ward-1"), now)
    assert LISTENS_NOWHERE in alone.text
    assert not alone.is_fatal, "a SuperNode keeps trying"


def test_an_expired_certificate_says_until_when_what_time_it_is_and_what_to_do(federation: FederationFolder, now: datetime):
    later = now + timedelta(days=398)
    (text,) = texts(federation.server, later)
    assert f"server.crt: ended at {now + timedelta(days=397):%Y-%m-%d %H:%M} UTC" in text
    assert f"this machine's clock says {later:%Y-%m-%d %H:%M} UTC. If that is right: `clmm provision renew`" in text
    assert "If not: set the clock" in text


def test_a_certificate_from_the_future_is_a_clock_that_is_wrong(federation: FederationFolder, now: datetime):
    for text in texts(federation.server, now - timedelta(days=30)):
        assert "counts from" in text
        assert "set the clock (`timedatectl set-ntp true`)" in text


def test_the_end_of_a_certificate_is_told_a_month_ahead(federation: FederationFolder, now: datetime):
    (found,) = check_folder(federation.server, now + timedelta(days=380))
    assert "in 17 day(s): `clmm provision renew`" in found.text
    assert not found.is_fatal


def test_another_hosts_key_is_told(federation: FederationFolder, now: datetime):
    shutil.copy(federation.host("ward-2") / "host.key", federation.host("ward-1") / "host.key")
    for folder in (federation.root, federation.host("ward-1")):
        (text,) = texts(folder, now)
        assert "host.key: expected the key SHA256:" in text
        assert "of host 'ward-1', found SHA256:" in text


def test_another_hosts_public_key_is_told_and_not_registered(federation: FederationFolder, now: datetime):
    shutil.copy(federation.public_key("ward-2"), federation.public_key("ward-1"))
    (text,) = texts(federation.server, now)
    assert "ward-1.pub: expected the key SHA256:" in text
    host = federation.read().host("ward-1")
    assert host is not None
    with pytest.raises(DataError, match=r"ward-1\.pub: expected the key"):
        require_public_key(federation.server, host)


def edit_address(federation: FederationFolder) -> None:
    federation.write(federation.read().model_copy(update={"address": "hub.example:8443"}))


def other_authority(federation: FederationFolder) -> None:
    other = FederationFolder(federation.root.parent / "other")
    create(other, described("127.0.0.1:8443", "127.0.0.1", ()), (), datetime.now().astimezone())
    shutil.copy(other.authority / "ca.crt", federation.server / "ca.crt")


def old_key(federation: FederationFolder) -> None:
    old = (federation.server / "server.key").read_bytes()
    renew(federation, federation.read(), datetime.now().astimezone())
    (federation.server / "server.key").write_bytes(old)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (edit_address, "server.crt: expected a certificate for hub.example, found one for superlink.test, localhost, 127.0.0.1, ::1"),
        (other_authority, "server.crt: expected a signature of ca.crt, found one of 'CN=CLMM federation federation'"),
        (old_key, "server.key: expected the key of server.crt, found another"),
        (lambda folder: (folder.server / "server.key").unlink(), "server.key: expected a private key"),
        (lambda folder: (folder.server / "server.crt").write_text("?"), "server.crt: expected a certificate (PEM), cannot read it"),
        (lambda folder: (folder.server / "server.key").chmod(0o640), "expected a file for its owner alone (0600), found 0640: chmod 600"),
        (lambda folder: (folder.authority / "ca.key").chmod(0o644), "expected a file for its owner alone (0600), found 0644: chmod 600"),
        (lambda folder: folder.public_key("ward-2").unlink(), "ward-2.pub: expected a public key"),
    ],
)
def test_what_is_wrong_with_a_server_is_said(
    federation: FederationFolder, spoil: Callable[[FederationFolder], None], expected: str, now: datetime
):
    spoil(federation)
    found = texts(federation.root, now)
    assert [text for text in found if expected in text], found


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda host: (host / "host.key").unlink(), "host.key: expected this host's private key, found none"),
        (lambda host: (host / "host.key").chmod(0o644), "found 0644: chmod 600"),
        (lambda host: (host / "ca.crt").unlink(), "ca.crt: expected a certificate"),
        (lambda host: (host / "recordings").rmdir(), "recordings: expected a folder as in docs/data.md, found none at"),
        (lambda host: (host / "node.toml").write_text("recordings = nowhere"), "node.toml: expected this host's settings (TOML)"),
    ],
)
def test_what_is_wrong_with_a_host_is_said(federation: FederationFolder, spoil: Callable[[Path], None], expected: str, now: datetime):
    host = federation.host("ward-1")
    spoil(host)
    found = texts(host, now)
    assert [text for text in found if expected in text], found


def test_a_folder_that_is_none_of_ours_is_named(tmp_path: Path, now: datetime):
    with pytest.raises(DataError, match="expected the folder of a federation, of its server or of a host, found none of"):
        check_folder(tmp_path, now)
