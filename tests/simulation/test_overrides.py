from pathlib import Path

import pytest

from clmm_core.errors import ConfigError
from simulation.overrides import apply_overrides, find_app, flatten, parse_overrides, read_app_config, with_absolute_path

PROJECT = """
[tool.flwr.app]
publisher = "x"
[tool.flwr.app.config]
seed = 1
[tool.flwr.app.config.data]
name = "spar"
path = ""
[tool.flwr.app.config.pretrain]
rounds = 20
client-lr = 0.001
"""
CONFIG = {"seed": 1, "data.name": "spar", "data.path": "", "pretrain.rounds": 20, "pretrain.client-lr": 0.001}


def project(folder: Path, text: str = PROJECT) -> Path:
    (folder / "pyproject.toml").write_text(text)
    return folder


def test_the_app_config_is_flattened(tmp_path: Path):
    assert read_app_config(project(tmp_path)) == CONFIG


@pytest.mark.parametrize(
    ("text", "message"),
    [("x = ", "expected TOML"), ("[tool.flwr]\n", "no.*|Flower app"), (PROJECT + "sizes = [1]\n", "sizes: expected a bool")],
)
def test_a_project_that_is_no_flower_app(tmp_path: Path, text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        read_app_config(project(tmp_path, text))


def test_the_app_is_the_one_given_or_our_own(tmp_path: Path):
    assert find_app(project(tmp_path)) == tmp_path.resolve()
    assert (find_app(None) / "simulation").is_dir()
    with pytest.raises(ConfigError, match=r"no.*pyproject|expected a pyproject"):
        find_app(tmp_path / "nowhere")


def test_overrides_are_toml_and_the_last_wins():
    texts = ["pretrain.rounds=3", 'data.name = "a b=c"', "flag=true", "lr=1e-3", "pretrain.rounds=4"]
    assert parse_overrides(texts) == {"pretrain.rounds": 4, "data.name": "a b=c", "flag": True, "lr": 0.001}


@pytest.mark.parametrize("text", ["data.name=spar", "rounds", "=3", "a=", "a=1 b=2"])
def test_a_bad_override_says_what_was_expected(text: str):
    with pytest.raises(ConfigError, match="expected KEY=VALUE"):
        parse_overrides([text])


def test_a_string_without_quotes_gets_a_hint():
    with pytest.raises(ConfigError, match=r"""--set 'data\.name="spar"'"""):
        parse_overrides(["data.name=spar"])


def test_an_unknown_key_ends_at_once_with_the_nearest():
    assert apply_overrides(CONFIG, {"seed": 2})["seed"] == 2
    with pytest.raises(ConfigError, match=r"no key 'pretrain.round'; did you mean 'pretrain.rounds'"):
        apply_overrides(CONFIG, {"pretrain.round": 2})
    with pytest.raises(ConfigError, match="It has seed, "):
        apply_overrides(CONFIG, {"zzz": 2})


def test_a_list_is_refused():
    with pytest.raises(ConfigError, match=r"a\.b: expected a bool"):
        flatten({"a": {"b": [1]}}, where="here")


def test_a_data_path_means_the_same_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert with_absolute_path({"data.path": "rec"}) == {"data.path": str(tmp_path / "rec")}
    assert with_absolute_path({"data.path": "", "seed": 1}) == {"data.path": "", "seed": 1}
