"""The host API's stubs are those of its files, and bytes of the past can still be read."""

import importlib
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, text_format
from google.protobuf.message import Message

PROJECT = Path(__file__).parents[2]
STUBS = PROJECT / "client" / "host" / "v1"
GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.binpb"))
NAMES = [file.stem for file in sorted((PROJECT / "proto" / "clmm" / "host" / "v1").glob("*.proto"))]


MODULES = [importlib.import_module(f"client.host.v1.{name}_pb2") for name in NAMES]


def kind_of(golden: str) -> type[Message]:
    """Return the class of a golden message, by its file's name."""
    name = golden.partition("-")[0]
    return next(getattr(module, name) for module in MODULES if hasattr(module, name))


def files() -> list[descriptor_pb2.FileDescriptorProto]:
    found = []
    for module in MODULES:
        proto = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(proto)
        found.append(proto)
    return found


def test_the_committed_stubs_are_those_of_the_proto_files(tmp_path: Path):
    subprocess.run([sys.executable, str(PROJECT / "proto" / "generate.py"), str(tmp_path)], check=True, timeout=60)
    made = {file.name: file.read_text() for file in (tmp_path / "client" / "host" / "v1").iterdir()}
    there = {file.name: file.read_text() for file in STUBS.glob("*_pb2*.py*")}
    assert made == there, "make proto"


def test_the_generator_says_so_where_it_fails(tmp_path: Path):
    generate = runpy.run_path(str(PROJECT / "proto" / "generate.py"))
    (tmp_path / "broken.proto").write_text("no proto")
    generate["generate"].__globals__["FILES"] = tmp_path
    assert generate["generate"](tmp_path) != 0


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_bytes_of_the_past_still_decode(file: Path):
    kind = kind_of(file.stem)
    expected = text_format.Parse(file.with_suffix(".txtpb").read_text(), kind())
    found = kind.FromString(file.read_bytes())
    assert text_format.MessageToString(found) == text_format.MessageToString(expected)  # NaN is not equal to itself
    assert found.SerializeToString(deterministic=True) == file.read_bytes()


def test_golden_messages_set_every_field_of_what_sensors_and_wearers_send():
    expected = {"StreamRequest", "StreamReply", "PutLabelRequest", "HostStatus", "DeleteRangeRequest", "ExportReply", "TrainRequest"}
    assert {file.stem.partition("-")[0] for file in GOLDEN} >= expected
    for name in ("StreamRequest-chunk", "HostStatus-federation", "DeleteRangeRequest"):
        file = next(file for file in GOLDEN if file.stem == name)
        message = kind_of(name).FromString(file.read_bytes())
        message = message.chunk if name.endswith("chunk") else message
        assert {field.name for field, _ in message.ListFields()} == {field.name for field in message.DESCRIPTOR.fields}


def test_every_enum_begins_with_unspecified_and_has_its_name_before_its_values():
    enums = [enum for file in files() for enum in file.enum_type]
    assert len(enums) >= 5
    for enum in enums:
        prefix = "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in enum.name).lstrip("_")
        assert enum.value[0].name == f"{prefix}_UNSPECIFIED"
        assert enum.value[0].number == 0
        assert all(value.name.startswith(f"{prefix}_") for value in enum.value)


def test_every_file_is_in_the_package_of_its_version_and_imports_no_other():
    """So that the stubs can live in `client/host/v1` without being rewritten."""
    for file in files():
        assert file.package == "clmm.host.v1"
        assert not file.dependency, file.name


def test_every_method_has_its_own_request_and_reply():
    methods = [method for file in files() for service in file.service for method in service.method]
    for kind in ("input_type", "output_type"):
        names = [getattr(method, kind) for method in methods]
        assert len(set(names)) == len(names)
