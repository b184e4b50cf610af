"""What the parts promise one another, and what a newcomer is told about them."""

import ast
import importlib
import io
import pkgutil
import re
import tomllib
import warnings
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk

from clmm_core.federated.source import CLIENT_PACKAGES, client_source, fingerprint

PROJECT = Path(__file__).parents[1]
PACKAGES = ("clmm_core", "client", "server", "deploy", "simulation")
APP_PACKAGES = ("clmm_core", "client", "server")


def modules() -> list[str]:
    found = list(PACKAGES)
    for package in PACKAGES:
        found += [module.name for module in pkgutil.walk_packages([str(PROJECT / package)], f"{package}.")]
    return found


def defined_in(file: Path) -> set[str]:
    return {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def main_path() -> list[tuple[str, Path]]:
    """Return the calls from the server's main to a term of the loss as the README lists them."""
    rows = re.findall(r"^\| (\d) \| `(\w+)`.*\| `([\w/]+\.py)` \|$", (PROJECT / "README.md").read_text(), re.M)
    assert [number for number, _, _ in rows] == list("12345678")
    return [(name, PROJECT / file) for _, name, file in rows]


@pytest.mark.parametrize("module", modules())
def test_every_module_imports_by_itself(module: str):
    if module == "clmm_core.training.keyed_kernel":
        pytest.importorskip("triton", reason="comes with PyTorch's builds for GPUs")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"'click\.", category=DeprecationWarning)  # typer's own, see client/conftest.py
        found = importlib.import_module(module)
    assert found.__doc__, "says what it is for"


def test_the_main_path_is_where_the_readme_says():
    path = main_path()
    for name, file in path:
        assert name in defined_in(file), file
    assert "run_federation" in (PROJECT / "server" / "results.py").read_text()
    for (_, file), (called, called_in) in pairwise(path):
        # Between the server's round and the host lies a message.
        expected = "train.{stage.name}" if called_in.name == "answers.py" else called
        assert expected in file.read_text(), f"{file} calls {called}"


def test_the_app_is_where_flower_looks_for_it():
    components = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["components"]
    for component, kind in (("serverapp", "ServerApp"), ("clientapp", "ClientApp")):
        module, _, name = components[component].partition(":")
        assert type(getattr(importlib.import_module(module), name)).__name__ == kind


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the unpacked bundle that `flwr run` sends to hosts."""
    folder = tmp_path_factory.mktemp("bundle")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="GitWildMatchPattern", category=DeprecationWarning)  # Flower's own
        content = build_fab_from_disk(PROJECT)
    assert len(content) < 1_500_000  # Flower takes 10 MB; every host gets it with every run
    zipfile.ZipFile(io.BytesIO(content)).extractall(folder)
    return folder


def test_the_bundle_holds_the_app_and_nothing_else(bundle: Path):
    files = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    code = {path.relative_to(PROJECT).as_posix() for package in APP_PACKAGES for path in (PROJECT / package).rglob("*.py")}
    others = {file for file in files - code if not file.startswith(".info/")}
    assert code <= files
    assert others <= {"pyproject.toml", "README.md", "LICENSE"}
    assert "pyproject.toml" in others


def test_a_host_that_runs_the_bundle_has_the_fingerprint_of_this_checkout(bundle: Path):
    assert fingerprint([bundle / package for package in CLIENT_PACKAGES]) == client_source()


def test_another_client_has_another_fingerprint(bundle: Path):
    changed = bundle / "client" / "devices.py"
    original = changed.read_bytes()
    try:
        changed.write_bytes(original + b"# changed\n")
        assert fingerprint([bundle / package for package in CLIENT_PACKAGES]) != client_source()
        changed.write_bytes(original.replace(b"\n", b"\r\n"))
        assert fingerprint([bundle / package for package in CLIENT_PACKAGES]) == client_source(), "line ends do not count"
    finally:
        changed.write_bytes(original)


def test_every_error_class_is_in_the_tree_at_the_top_of_its_module():
    from clmm_core import errors  # noqa: PLC0415

    tree = (errors.__doc__ or "").partition("Each message")[0]
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert set(re.findall(r"\b(\w+Error)\b", tree)) == classes
