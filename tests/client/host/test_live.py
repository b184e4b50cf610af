"""Recognition of samples as they arrive, with a model written by hand: `up` where acceleration is positive."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from typer.testing import CliRunner

from client.host import live as live_module
from client.host.chunk import packed
from client.host.cli import app
from client.host.header import Header
from client.host.live import MAX_WAITING, MAX_WEARERS, Live, Recognised
from client.host.models import PERSONAL, Models
from client.host.tokens import Role
from client.host.v1 import ingest_pb2, ingest_pb2_grpc, recognition_pb2, recognition_pb2_grpc
from clmm_core.recognise.personal import FORMAT, PersonalHead, head_json

NS = 1_000_000_000
T0_NS = 1_700_000_000 * NS
G = 9.8
"""What an accelerometer at rest shows; less would be taken for another unit."""


@pytest.fixture(autouse=True)
def _always_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "LOOK_S", 0.0)


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models(tmp_path / "host" / "models")


def give(live: Live, header: Header, seconds: float, value: float, start_s: float = 0.0) -> None:
    """Let half-seconds of constant samples arrive."""
    for i in range(round(seconds * 2)):
        times = T0_NS + round(start_s * NS) + (i * 25 + np.arange(25)) * NS // 50
        live.took(header, header.streams[0], packed(1, i, times, np.full((25, 3), value, np.float32)))


def watched(live: Live, work: Callable[[], None]) -> list[Recognised]:
    """Return what a watcher is told while `work` is done."""

    async def main() -> list[Recognised]:
        with live.watching() as answers:
            work()
            found = []
            try:
                while True:
                    async with asyncio.timeout(0.05):
                        found.append(await anext(answers))
            except TimeoutError:
                return found

    return asyncio.run(main())


def test_windows_are_answered_as_they_are_complete(models: Models, header, sign_model):
    models.install(*sign_model(1.0))
    live = Live(models)
    found = watched(live, lambda: (give(live, header(), 3, G), give(live, header(), 3, -G, start_s=3.0)))
    assert [each.answer.activity for each in found[:4]] == ["up"] * 4
    assert found[-1].answer.activity == "down"
    assert {(each.subject, each.recording, each.classes) for each in found} == {("anna", "monday", ("up", "down"))}
    assert all(0 <= each.latency_ms < 1000 for each in found)
    assert [each.answer.start_ns for each in found] == [T0_NS + i * NS // 2 for i in range(len(found))]


def test_without_a_model_nothing_is_recognised_and_a_new_one_counts_at_once(models: Models, header, sign_model):
    live = Live(models)
    assert watched(live, lambda: give(live, header(), 2, G)) == []
    assert "no model yet" in live.problem
    models.install(*sign_model(1.0))
    assert {each.answer.activity for each in watched(live, lambda: give(live, header(), 2, G, 2.0))} == {"up"}
    assert live.problem == ""
    models.install(*sign_model(-1.0))
    found = watched(live, lambda: give(live, header(), 2, G, 4.0))
    assert {each.answer.activity for each in found} == {"down"}
    assert {each.model for each in found} == {live.name}
    models.roll_back()
    assert {each.answer.activity for each in watched(live, lambda: give(live, header(), 2, G, 6.0))} == {"up"}


def test_the_wearer_s_own_head_counts_as_soon_as_it_is_there(models: Models, header, sign_model):
    place = models.install(*sign_model(1.0)).parent
    live = Live(models)
    assert {each.answer.activity for each in watched(live, lambda: give(live, header(), 2, G))} == {"up"}
    exchanged = PersonalHead(format=FORMAT, weights=((0.0, 1.0), (1.0, 0.0)), bias=(0.0, 0.0), num_windows=9)
    (place / PERSONAL).write_text(head_json(exchanged))
    assert {each.answer.activity for each in watched(live, lambda: give(live, header(), 2, G, 2.0))} == {"down"}
    (place / PERSONAL).unlink()
    assert {each.answer.activity for each in watched(live, lambda: give(live, header(), 2, G, 4.0))} == {"up"}
    (place / PERSONAL).write_text("damaged")
    assert watched(live, lambda: give(live, header(), 2, G, 6.0)) == []
    assert "remove the file" in live.problem


def test_what_comes_late_or_twice_is_not_recognised_again(models: Models, header, sign_model):
    models.install(*sign_model(1.0))
    live = Live(models)
    first = watched(live, lambda: give(live, header(), 4, G))
    assert watched(live, lambda: give(live, header(), 4, G)) == []
    assert len(watched(live, lambda: give(live, header(), 4, G, start_s=4.0))) >= len(first)


def test_a_sensor_whose_clock_was_set_back_is_recognised_anew(models: Models, header, sign_model):
    models.install(*sign_model(1.0))
    live = Live(models)
    give(live, header(), 4, G, start_s=2 * 86_400.0)
    assert {each.answer.activity for each in watched(live, lambda: give(live, header(), 4, G))} == {"up"}


def test_what_is_deleted_is_forgotten_here_too(models: Models, header, sign_model):
    models.install(*sign_model(1.0))
    live = Live(models)
    give(live, header(), 0.5, G)
    live.forget()
    found = watched(live, lambda: give(live, header(), 1.5, G, start_s=0.5))
    assert found[0].answer.start_ns == T0_NS + NS // 2, "windows begin anew"


def test_whatever_fails_here_recording_goes_on(models: Models, header, sign_model, monkeypatch: pytest.MonkeyPatch):
    models.install(*sign_model(1.0))
    live = Live(models)

    def refused() -> None:
        raise PermissionError("models/current")

    monkeypatch.setattr(models, "current", refused)
    assert watched(live, lambda: give(live, header(), 2, G)) == []


def test_sensors_that_the_model_does_not_know_do_no_harm(models: Models, header, sign_model):
    models.install(*sign_model(1.0))
    live = Live(models)
    assert watched(live, lambda: give(live, header("magnetometer", recording="other"), 2, G)) == []
    assert watched(live, lambda: give(live, header(), 2, G))


def test_people_are_recognised_apart_and_only_so_many_at_once(models: Models, header, sign_model):
    models.install(*sign_model(1.0))
    live = Live(models)

    def all_of_them() -> None:
        for i in range(MAX_WEARERS + 2):
            give(live, header(subject=f"person {i}"), 1.5, G if i % 2 else -G)

    found = watched(live, all_of_them)
    assert {each.answer.activity for each in found if each.subject == "person 3"} == {"up"}
    assert {each.answer.activity for each in found if each.subject == "person 4"} == {"down"}
    assert len(live._worn) == MAX_WEARERS


def test_a_slow_watcher_loses_the_oldest(models: Models, header, sign_model):
    models.install(*sign_model(1.0))
    live = Live(models)
    found = watched(live, lambda: give(live, header(), MAX_WAITING, G))
    assert len(found) == MAX_WAITING
    assert found[-1].answer.end_ns >= T0_NS + (MAX_WAITING - 2) * NS


def test_a_damaged_model_is_told_and_the_host_goes_on(models: Models, header):
    models.install(b"nothing of onnx", "")
    live = Live(models)
    assert watched(live, lambda: give(live, header(), 2, G)) == []
    assert "expected an ONNX model" in live.problem


def test_whoever_watches_a_host_is_told(on_host, header_message, models: Models, sign_model):
    """From a sensor's stream to a viewer's, through the daemon."""

    async def scenario(host: Any, channel: grpc.aio.Channel) -> list[recognition_pb2.WatchActivitiesReply]:
        stub = recognition_pb2_grpc.RecognitionStub(channel)
        request = recognition_pb2.WatchActivitiesRequest(subject="anna")
        with pytest.raises(grpc.aio.AioRpcError, match="no model yet"):
            async for _ in stub.WatchActivities(request, metadata=host.as_(Role.VIEWER)):
                pass
        models.install(*sign_model(1.0))
        watching = stub.WatchActivities(request, metadata=host.as_(Role.VIEWER))
        ingest = ingest_pb2_grpc.IngestStub(channel).Stream(metadata=host.as_(Role.SENSOR))
        await ingest.write(ingest_pb2.StreamRequest(header=header_message()))
        found = []
        for sequence in range(8):
            chunk = ingest_pb2.Chunk(stream=1, sequence=sequence, t0_ns=T0_NS + sequence * NS // 2)
            chunk.offsets_us.extend(range(0, 500_000, 20_000))
            chunk.values.extend([G] * 75)
            await ingest.write(ingest_pb2.StreamRequest(chunk=chunk))
            if sequence > 3:
                found.append(await watching.read())
            else:
                await asyncio.sleep(0.05)
        ingest.cancel()
        return found

    found = on_host(scenario)
    assert {each.activity for each in found} == {"up"}
    assert {each.subject for each in found} == {"anna"}
    assert found[0].scores[0].activity == "up"
    assert found[0].scores[0].probability == pytest.approx(found[0].confidence)


def test_the_owner_installs_a_model_by_hand_and_goes_back(tmp_path: Path, sign_model):
    def clmm(*words: object) -> str:
        done = CliRunner().invoke(app, ["model", *map(str, words), "--folder", str(tmp_path / "host")])
        return f"{done.exit_code} {done.output}"

    assert "no model yet" in clmm()
    for name, sign in (("one", 1.0), ("two", -1.0)):
        content, golden = sign_model(sign)
        (tmp_path / f"{name}.onnx").write_bytes(content)
        (tmp_path / f"{name}.golden.json").write_text(golden)
        assert clmm(tmp_path / f"{name}.onnx").startswith("0 recognises with")
    first, second = (Models(tmp_path / "host" / "models").current() for _ in (0, 1))
    assert first == second
    assert clmm("--back").startswith("0 recognises with")
    assert Models(tmp_path / "host" / "models").current() != first
    (tmp_path / "one.golden.json").write_text(sign_model(-1.0)[1])
    assert "1 " in clmm(tmp_path / "one.onnx")
    assert "checksum" in clmm(tmp_path / "one.onnx")
    assert "found both" in clmm(tmp_path / "one.onnx", "--back")
