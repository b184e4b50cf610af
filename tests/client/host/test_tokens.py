import json
import stat

import pytest

from client.host.tokens import FILE, Role, Tokens, add_token, read_tokens, revoke_token
from clmm_core.errors import ConfigError, DataError


def test_a_token_opens_what_its_role_says_and_is_nowhere_on_the_disk(tmp_path):
    made = {role: add_token(tmp_path, f"a {role}", role) for role in Role}
    tokens = Tokens(tmp_path)
    assert {tokens.role_of(token): role for role, token in made.items()} == {role: role for role in Role}
    content = (tmp_path / FILE).read_text()
    assert not any(token in content for token in made.values())
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert len(set(made.values())) == 3
    assert min(map(len, made.values())) >= 43, "256 bits"


@pytest.mark.parametrize("given", ["", "x", "ü" * 43, "\udcff"])
def test_another_opens_nothing(tmp_path, given):
    add_token(tmp_path, "watch", Role.SENSOR)
    assert Tokens(tmp_path).role_of(given) is None


def test_a_running_host_hears_of_new_and_revoked_tokens(tmp_path):
    tokens = Tokens(tmp_path)
    assert tokens.role_of("x") is None
    token = add_token(tmp_path, "watch", Role.SENSOR)
    assert tokens.role_of(token) is Role.SENSOR
    other = add_token(tmp_path, "anna", Role.ADMIN)
    revoke_token(tmp_path, "watch")
    assert tokens.role_of(token) is None
    assert tokens.role_of(other) is Role.ADMIN
    assert [entry.name for entry in read_tokens(tmp_path)] == ["anna"]


def test_a_name_is_given_once(tmp_path):
    add_token(tmp_path, "watch", Role.SENSOR)
    with pytest.raises(ConfigError, match="token 'watch': expected a new name"):
        add_token(tmp_path, "watch", Role.ADMIN)
    with pytest.raises(ConfigError, match="token 'phone': expected one of watch"):
        revoke_token(tmp_path, "phone")
    with pytest.raises(DataError, match="token: expected 1 to 64 letters"):
        add_token(tmp_path, "../x", Role.SENSOR)


@pytest.mark.parametrize("content", ["", "{}x", "[1]", json.dumps([{"name": "a", "role": "king", "sha256": ""}]), "[{}]"])
def test_a_damaged_file_opens_nothing_and_is_said(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(DataError, match=r"tokens.json: expected a host's tokens"):
        Tokens(tmp_path).role_of("x")
