from pathlib import Path

import pytest

from clmm_core.errors import ConfigError, DataError
from deploy.federation_record import check_host_name, described, local_address, read_federation, split_address


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("hub.ward.example", ("hub.ward.example", 8443)),
        ("Hub.Ward.Example:9000", ("hub.ward.example", 9000)),
        ("10.0.0.5:443", ("10.0.0.5", 443)),
        ("[fd00::0:5]:443", ("fd00::5", 443)),
        ("[::1]", ("::1", 8443)),
    ],
)
def test_an_address_has_one_spelling(address: str, expected: tuple[str, int]):
    assert split_address(address) == expected


@pytest.mark.parametrize("address", ["", "https://hub:1", "hub:0", "hub:65536", "hub:port", "fd00::5", "hub/path", "hub:1:2"])
def test_what_is_no_address_is_refused(address: str):
    with pytest.raises(ConfigError, match="expected HOST or HOST:PORT"):
        split_address(address)


@pytest.mark.parametrize(
    ("listen", "expected"), [("0.0.0.0", "127.0.0.1:9"), ("::", "[::1]:9"), ("127.0.0.1", "127.0.0.1:9"), ("10.0.0.5", "10.0.0.5:9")]
)
def test_the_own_machine_reaches_it_by_an_address_in_the_certificate(listen: str, expected: str):
    record = described("hub.example:9", listen, ())
    assert local_address(record) == expected
    assert split_address(expected)[0] in record.names


@pytest.mark.parametrize("name", ["*.example", "hub_1", "a b", "hub."])
def test_a_name_that_no_certificate_holds_is_refused(name: str):
    with pytest.raises(ConfigError, match="expected a DNS name or an IP address"):
        described("hub.example", "0.0.0.0", (name,))


def test_to_listen_takes_an_ip_address():
    with pytest.raises(ConfigError, match="--listen: expected an IP address"):
        described("hub.example", "eth0", ())


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", "a b", "x" * 64])
def test_a_host_name_is_a_plain_folder_name(name: str):
    with pytest.raises(ConfigError, match="host name: expected"):
        check_host_name(name)


def test_a_record_that_cannot_be_read_says_where_and_what_to_do(tmp_path: Path):
    with pytest.raises(DataError, match=r"federation\.json: expected a Federation, found none .*clmm provision create"):
        read_federation(tmp_path)
    (tmp_path / "federation.json").write_text('{"address": "hub:1", "listen": "0.0.0.0"}')
    with pytest.raises(DataError, match=r"federation\.json: expected a Federation, found: names: Field required"):
        read_federation(tmp_path)
