import stat
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from clmm_core.errors import ConfigError, DataError
from deploy.certificates import is_signed_by, names_in, read_certificate, read_private_key
from deploy.check import check_folder
from deploy.federation_folder import FederationFolder, add, certify, create, renew, revoke, rotate
from deploy.federation_record import described

SECRETS = {"ca/ca.key", "server/server.key", "server/flwr/config.toml", "hosts/ward-1/host.key", "hosts/ward-2/host.key"}


def content(folder: FederationFolder) -> dict[str, bytes]:
    return {path.relative_to(folder.root).as_posix(): path.read_bytes() for path in folder.root.rglob("*") if path.is_file()}


def fatal(folder: FederationFolder, now: datetime) -> list[str]:
    return [found.text for found in check_folder(folder.root, now) if found.is_fatal]


def test_secrets_are_for_their_owner_alone(federation: FederationFolder):
    modes = {name: stat.S_IMODE((federation.root / name).stat().st_mode) for name in content(federation)}
    assert {name for name, mode in modes.items() if mode == 0o600} == SECRETS
    for path in (federation.root, federation.authority, federation.server, federation.host("ward-1")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    programs = {name for name, mode in modes.items() if mode == 0o755}
    assert {Path(name).name for name in programs} == {"start-superlink", "start-superexec", "start-supernode"}
    for name in programs:
        subprocess.run(["sh", "-n", federation.root / name], check=True, timeout=10)


def test_a_host_gets_its_own_key_and_nothing_of_anybody_else(federation: FederationFolder):
    files = content(federation)
    secrets = {name: files[name] for name in SECRETS if name.endswith(".key")}
    assert len(set(secrets.values())) == len(secrets)
    for name, secret in secrets.items():
        assert [other for other, text in files.items() if secret in text] == [name]
    assert sorted(path.name for path in federation.host("ward-1").iterdir()) == [
        *("ca.crt", "host.json", "host.key", "node.toml", "recordings", "start-supernode"),
    ]


def test_again_nothing_changes(federation: FederationFolder, now: datetime):
    before = content(federation)
    later = now + timedelta(days=3)
    asked = described("127.0.0.1:8443", "127.0.0.1", ("superlink.test",))
    assert create(federation, asked, ("ward-1", "ward-2"), later) == []
    assert add(federation, ("ward-2",), later) == []
    assert content(federation) == before
    assert fatal(federation, later) == []


@pytest.mark.parametrize("lost", ["server/federation.json", "hosts/ward-2/host.json", "server/keys/ward-2.pub", "server/server.crt"])
def test_what_an_interruption_left_out_is_made_again_and_no_key_replaced(federation: FederationFolder, lost: str, now: datetime):
    keys = {name: text for name, text in content(federation).items() if name.endswith(("host.key", "ca.key"))}
    record = federation.read()
    (federation.root / lost).unlink()
    federation.server.joinpath("federation.json").unlink(missing_ok=True)  # it is written last
    create(federation, record.model_copy(update={"hosts": ()}), ("ward-1", "ward-2"), now)
    assert {name: text for name, text in content(federation).items() if name in keys} == keys
    assert federation.read() == record
    assert fatal(federation, now) == []


def test_another_federation_in_the_same_folder_is_refused(federation: FederationFolder, now: datetime):
    before = content(federation)
    with pytest.raises(ConfigError, match=r"expected a new folder or the same federation, found one at 127\.0\.0\.1:8443"):
        create(federation, described("hub.example", "0.0.0.0", ()), ("ward-1",), now)
    assert content(federation) == before


def test_a_lost_authority_is_not_made_anew(federation: FederationFolder, now: datetime):
    (federation.authority / "ca.key").unlink()
    asked = described("127.0.0.1:8443", "127.0.0.1", ("superlink.test",))
    with pytest.raises(DataError, match=r"ca: expected ca\.key and ca\.crt, found not both: bring them back"):
        create(federation, asked, ("ward-3",), now)
    with pytest.raises(DataError, match=r"ca\.key: expected a private key"):
        renew(federation, asked, now)


def test_a_further_host_changes_no_other(federation: FederationFolder, now: datetime):
    before = content(federation)
    add(federation, ("ward-3",), now)
    after = content(federation)
    assert {name for name in after if before.get(name) != after[name]} == {
        *("server/federation.json", "server/keys/ward-3.pub"),
        *(f"hosts/ward-3/{name}" for name in ("ca.crt", "host.json", "host.key", "node.toml", "start-supernode")),
    }
    (federation.host("ward-3") / "recordings").mkdir()
    assert fatal(federation, now) == []


def test_a_rotated_host_has_another_key_and_the_old_one_is_revoked(federation: FederationFolder, now: datetime):
    old, settings = federation.read().host("ward-1"), federation.host("ward-1") / "node.toml"
    settings.write_text('recordings = "/srv/recordings"\n')
    rotate(federation, "ward-1", now)
    record = federation.read()
    assert old is not None
    assert record.host("ward-1") not in (None, old)
    assert [(key.name, key.fingerprint, key.revoked) for key in record.revoked] == [("ward-1", old.fingerprint, now)]
    assert settings.read_text() == 'recordings = "/srv/recordings"\n', "what an operator wrote stays"
    assert fatal(federation, now) == []


def test_a_revoked_hosts_key_is_gone_and_only_add_gives_it_another(federation: FederationFolder, now: datetime):
    old = federation.read().host("ward-1")
    assert old is not None
    revoke(federation, "ward-1", now)
    assert not (federation.host("ward-1") / "host.key").exists()
    assert not federation.public_key("ward-1").exists()
    assert [host.name for host in federation.read().hosts] == ["ward-2"]
    assert fatal(federation, now) == []
    with pytest.raises(ConfigError, match=r"host 'ward-1' was revoked on .*clmm provision add"):
        create(federation, described("127.0.0.1:8443", "127.0.0.1", ("superlink.test",)), ("ward-1",), now)
    add(federation, ("ward-1",), now)
    new = federation.read().host("ward-1")
    assert new is not None
    assert new.fingerprint != old.fingerprint


def test_a_revoked_key_that_an_interruption_left_does_not_come_back(federation: FederationFolder, now: datetime):
    path = federation.host("ward-1") / "host.key"
    left = path.read_bytes()
    revoke(federation, "ward-1", now)
    path.write_bytes(left)
    add(federation, ("ward-1",), now)
    assert path.read_bytes() != left
    record = federation.read()
    assert record.host("ward-1").fingerprint not in {key.fingerprint for key in record.revoked}


@pytest.mark.parametrize("change", [rotate, revoke])
def test_a_host_that_is_not_there_is_named(federation: FederationFolder, change, now: datetime):
    with pytest.raises(ConfigError, match="expected the name of a host, found 'ward-9'; hosts are: ward-1, ward-2"):
        change(federation, "ward-9", now)


def test_a_renewed_certificate_is_of_the_same_authority(federation: FederationFolder, now: datetime):
    before, old = content(federation), read_certificate(federation.server / "server.crt")
    later = now + timedelta(days=400)
    renew(federation, described("127.0.0.1:8443", "127.0.0.1", (*federation.read().names, "new.test")), later)
    new = read_certificate(federation.server / "server.crt")
    assert new.not_valid_after_utc > later
    assert new.public_key() != old.public_key()
    assert set(names_in(new)) == {*names_in(old), "new.test"}
    changed = {name for name, text in content(federation).items() if before[name] != text}
    assert changed == {"server/server.crt", "server/server.key", "server/federation.json"}, "hosts need nothing new"
    assert fatal(federation, later) == []


def test_a_new_address_reaches_every_hosts_folder(federation: FederationFolder, now: datetime):
    done = renew(federation, described("hub.example:9000", "0.0.0.0", ()), now)
    assert "copy host.json and start-supernode to every host again" in done[-1]
    for name in ("ward-1", "ward-2"):
        assert "--superlink 'hub.example:9000'" in (federation.host(name) / "start-supernode").read_text()
    assert 'address = "127.0.0.1:9000"' in (federation.server / "flwr" / "config.toml").read_text()
    assert fatal(federation, now) == []


def test_a_key_that_was_moved_to_its_host_is_not_missed(federation: FederationFolder, now: datetime):
    (federation.host("ward-1") / "host.key").unlink()
    assert fatal(federation, now) == []


def test_a_host_gets_a_certificate_that_its_sensors_know_it_by(federation: FederationFolder, now: datetime):
    before = content(federation)
    (said,) = certify(federation, "ward-1", ["hub.local", "10.0.0.7"], now)
    assert said.startswith("host ward-1: a certificate for hub.local, 10.0.0.7, localhost, ")
    path = federation.host("ward-1") / "ingest.crt"
    certificate = read_certificate(path)
    assert {"hub.local", "10.0.0.7", "127.0.0.1"} <= set(names_in(certificate))
    assert is_signed_by(certificate, read_certificate(federation.authority / "ca.crt"))
    key = federation.host("ward-1") / "ingest.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert read_private_key(key).public_key() == certificate.public_key()
    after = content(federation)
    assert {name: after[name] for name in before} == before, "nothing else changed"
    assert fatal(federation, now) == []


@pytest.mark.parametrize(("host", "names"), [("nobody", ["hub.local"]), ("ward-1", ["https://hub"]), ("ward-1", ["hub", "a b"])])
def test_a_host_or_name_that_cannot_be_gets_none(federation: FederationFolder, now: datetime, host: str, names: list[str]):
    before = content(federation)
    with pytest.raises(ConfigError):
        certify(federation, host, names, now)
    assert content(federation) == before
