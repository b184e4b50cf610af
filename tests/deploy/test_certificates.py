import http.client
import shutil
import ssl
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from clmm_core.errors import DataError
from deploy import certificates
from deploy.federation_folder import FederationFolder


def ask(port: int, authority: Path, host: str = "127.0.0.1") -> int:
    context = ssl.create_default_context(cafile=str(authority))
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    connection = http.client.HTTPSConnection(host, port, timeout=10, context=context)
    connection.request("GET", "/health")
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_who_trusts_the_authority_trusts_the_server_by_its_names(federation: FederationFolder, serve, host: str):
    assert ask(serve(federation.server / "server.crt"), federation.authority / "ca.crt", host) == 200


def test_another_authority_of_the_same_name_is_not_trusted(federation: FederationFolder, serve, tmp_path: Path, now: datetime):
    key, certificate = certificates.new_authority("CLMM federation federation", now)
    (tmp_path / "other.crt").write_bytes(certificate)
    assert b"PRIVATE KEY" in key
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(serve(federation.server / "server.crt"), tmp_path / "other.crt")


def test_the_names_and_the_signature_can_be_read_back(federation: FederationFolder):
    server = certificates.read_certificate(federation.server / "server.crt")
    authority = certificates.read_certificate(federation.authority / "ca.crt")
    assert set(certificates.names_in(server)) == {"127.0.0.1", "::1", "localhost", "superlink.test"}
    assert certificates.is_signed_by(server, authority)
    assert certificates.is_signed_by(authority, authority)
    assert not certificates.is_signed_by(authority, server)


def test_certificates_last_as_long_as_browsers_allow_and_began_yesterday(federation: FederationFolder, now: datetime):
    server = certificates.read_certificate(federation.server / "server.crt")
    assert server.not_valid_before_utc == now - timedelta(days=1)
    assert server.not_valid_after_utc == now + timedelta(days=397)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_ssh_keygen_reads_a_hosts_key_and_sees_the_same_fingerprint(federation: FederationFolder):
    private, public = federation.host("ward-1") / "host.key", federation.public_key("ward-1")
    line = subprocess.run(["ssh-keygen", "-y", "-f", private], capture_output=True, text=True, check=True, timeout=30).stdout
    assert line.split()[:2] == public.read_text().split()[:2]
    listed = subprocess.run(["ssh-keygen", "-l", "-f", public], capture_output=True, text=True, check=True, timeout=30).stdout
    assert listed.split() == ["384", certificates.fingerprint_of(public.read_text(), public), "ward-1", "(ECDSA)"]


@pytest.mark.parametrize("content", [b"", b"not a key", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"])
def test_what_is_no_private_key_is_named(content: bytes, tmp_path: Path):
    with pytest.raises(DataError, match=r"host\.key: expected a host's private key"):
        certificates.public_line(content, tmp_path / "host.key")


def test_a_servers_key_is_no_hosts_key(federation: FederationFolder):
    path = federation.server / "server.key"
    with pytest.raises(DataError, match=r"server\.key: expected a host's private key"):
        certificates.public_line(path.read_bytes(), path)


def test_what_is_no_certificate_or_public_key_is_named(tmp_path: Path):
    path = tmp_path / "it"
    with pytest.raises(DataError, match="it: expected a certificate"):
        certificates.read_certificate(path)
    path.write_text("nothing")
    for read, kind in ((certificates.read_certificate, "a certificate"), (certificates.read_private_key, "a private key")):
        with pytest.raises(DataError, match=f"it: expected {kind}"):
            read(path)
    with pytest.raises(DataError, match="it: expected a public key"):
        certificates.fingerprint_of("ecdsa-sha2-nistp384", path)
