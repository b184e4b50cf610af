"""The thin ClientApp, a daemon's training service and the process that trains, with real processes and sockets."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
import yaml
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from client.answers import answer
from client.host.trainer_process import OPTIONS, TrainerProcess
from client.host.training_service import TrainingService
from client.host.v1 import training_pb2_grpc
from client.training import forward as forward_module
from client.training.forward import forward
from clmm_core.data.fleet import DataConfig
from clmm_core.errors import DataError
from clmm_core.federated.codec import ARRAYS, ERROR, REPLY, TASK, join_arrays, to_json
from clmm_core.models.config import ModalityShape, ModelChoice, sized
from clmm_core.training.array_names import is_stage_one
from clmm_core.training.model_arrays import new_arrays
from clmm_core.training.settings import LocalConfig, PretrainConfig
from clmm_core.training.tasks import PretrainTask, ProfileTask

DATA = DataConfig(name="folder", path="on the hosts", window_s=1.28, overlap=0.0)
MODEL = sized(ModelChoice(), (ModalityShape(name="accelerometer", channels=3, time_steps=64),), 6)
SENT = {name: values for name, values in new_arrays(MODEL, 0).items() if is_stage_one(name)}


@dataclass
class Daemon:
    """A training service on a unix socket, in a thread of its own, and what it is told of the machine."""

    socket: Path
    recordings: Path
    trainer: TrainerProcess
    why_not: str = ""
    num_copies: int = 0
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    service: TrainingService | None = None

    async def reason(self) -> str:
        return self.why_not

    async def copied(self) -> Path:
        self.num_copies += 1
        if not self.recordings.exists():
            raise DataError("expected recordings, found none")
        return self.recordings

    def forget(self) -> None:
        assert self.service is not None
        asyncio.run_coroutine_threadsafe(self.service.forget(), self.loop).result(30)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for session in ("monday", "tuesday"):
        folder = tmp_path / "mine" / "anna" / session
        folder.mkdir(parents=True)
        rows = "\n".join(",".join(f"{value:.4f}" for value in row) for row in random.normal(0, 3, (640, 3)))
        (folder / "a.csv").write_text(f"x,y,z\n{rows}\n")
        stream = {"file": "a.csv", "unit": "m/s^2", "columns": ["x", "y", "z"], "rate_hz": 50}
        (folder / "recording.yaml").write_text(yaml.safe_dump({"streams": {"accelerometer": stream}}))
    return tmp_path / "mine"


@contextmanager
def serving(recordings: Path, idle_s: float = 60.0) -> Iterator[Daemon]:
    folder = Path(mkdtemp(prefix="clmm"))  # a socket's path has at most 107 characters
    daemon = Daemon(folder / "host.sock", recordings, TrainerProcess(folder, folder / "trainer.log"))

    async def start() -> Any:
        daemon.service = TrainingService(
            daemon.trainer, daemon.reason, daemon.copied, daemon.socket.parent / "models", time.time_ns, idle_s
        )
        server = grpc.aio.server(options=OPTIONS)
        training_pb2_grpc.add_TrainingServicer_to_server(daemon.service, server)
        server.add_insecure_port(f"unix:{daemon.socket}")
        await server.start()
        return server

    thread = threading.Thread(target=daemon.loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(start(), daemon.loop).result(30)
    try:
        yield daemon
    finally:
        daemon.forget()
        asyncio.run_coroutine_threadsafe(server.stop(0), daemon.loop).result(30)
        daemon.loop.call_soon_threadsafe(daemon.loop.stop)
        thread.join(10)
        daemon.loop.close()
        shutil.rmtree(folder)


@pytest.fixture
def daemon(recordings: Path) -> Iterator[Daemon]:
    with serving(recordings) as running:
        yield running


def context() -> Any:
    return SimpleNamespace(run_id=7, node_config={}, state=RecordDict())


def content(task: object, arrays: dict[str, np.ndarray] | None = None) -> RecordDict:
    record = RecordDict({TASK: ConfigRecord({"json": to_json(task)})})
    record[ARRAYS] = ArrayRecord({name: Array(values) for name, values in join_arrays(arrays or {}).items()})
    return record


def pretrain(bits: int = 32) -> RecordDict:
    config = PretrainConfig(local=LocalConfig(epochs=1, batch_size=8, learning_rate=0.001), num_views=3)
    task = PretrainTask(
        data=DATA, model=MODEL, classes=tuple("abcdef"), seed=0, server_round=1, devices=("anna",), config=config, update_bits=bits
    )
    return content(task, SENT)


PROFILE = content(ProfileTask(data=DATA))


def said(record: RecordDict) -> str:
    return str(record[ERROR]["message"]) if ERROR in record else ""


def test_it_answers_as_a_client_app_of_its_own_does(daemon: Daemon):
    here = {"recordings": str(daemon.recordings), "models": str(daemon.socket.parent / "models")}
    directly = SimpleNamespace(node_config=here, state=RecordDict())
    through = context()
    for message_type, question in (("query.profile", PROFILE), ("train.pretrain", pretrain(bits=8))):
        expected, found = answer(message_type, question, directly), forward(message_type, question, through, daemon.socket)
        assert said(expected) == said(found) == ""
        assert without_times(found) == without_times(expected)
        assert {name: array.numpy().tobytes() for name, array in found[ARRAYS].items()} == {
            name: array.numpy().tobytes() for name, array in expected[ARRAYS].items()
        }
    assert through.state.keys() == directly.state.keys()
    assert through.state, "what packed updates left out came back, for Flower to keep"


def without_times(record: RecordDict) -> str:
    return re.sub(r'"(\w*_s|\w*seconds)":[0-9.e-]+', "", str(record[REPLY]["json"]))


def test_one_process_answers_all_questions_and_ends_when_nothing_is_asked(recordings: Path):
    with serving(recordings, idle_s=0.5) as daemon:
        assert daemon.trainer.pid is None, "before the first question there is none"
        assert said(forward("query.profile", PROFILE, context(), daemon.socket)) == ""
        first = daemon.trainer.pid
        assert said(forward("train.pretrain", pretrain(), context(), daemon.socket)) == ""
        assert daemon.trainer.pid == first
        assert daemon.num_copies == 1, "a run learns from what was there when it began"
        wait_until(lambda: daemon.trainer.pid is None)
        assert said(forward("train.pretrain", pretrain(), context(), daemon.socket)) == ""
        assert daemon.trainer.pid not in (None, first)
        assert daemon.num_copies == 1


def test_a_host_that_may_not_train_says_why_and_starts_nothing(daemon: Daemon):
    daemon.why_not = "it runs on its battery: put it on its charger"
    text = said(forward("train.pretrain", pretrain(), context(), daemon.socket))
    assert "does not train now: it runs on its battery" in text
    assert daemon.trainer.pid is None


def test_a_process_that_was_killed_over_a_question_is_told_and_the_next_question_starts_another(daemon: Daemon):
    assert said(forward("query.profile", PROFILE, context(), daemon.socket)) == ""
    killed = daemon.trainer.pid
    assert killed is not None
    os.kill(killed, signal.SIGSTOP)  # so that the question is there when it dies
    killer = threading.Timer(1.0, os.kill, (killed, signal.SIGKILL))
    killer.start()
    text = said(forward("train.pretrain", pretrain(), context(), daemon.socket))
    assert "failed over 'train.pretrain'" in text
    assert said(forward("train.pretrain", pretrain(), context(), daemon.socket)) == ""
    assert daemon.trainer.pid != killed


def test_a_deletion_in_the_middle_of_a_question_ends_it_at_once_and_says_so(daemon: Daemon):
    assert said(forward("query.profile", PROFILE, context(), daemon.socket)) == ""
    pid = daemon.trainer.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    answers: list[RecordDict] = []
    waiting = threading.Thread(target=lambda: answers.append(forward("train.pretrain", pretrain(), context(), daemon.socket)))
    waiting.start()
    time.sleep(0.5)
    daemon.forget()
    waiting.join(20)
    assert answers, "it would wait for an hour"
    assert "failed over 'train.pretrain'" in said(answers[0])
    assert said(forward("train.pretrain", pretrain(), context(), daemon.socket)) == ""
    assert daemon.num_copies == 2, "what was copied before is deleted"


def test_a_trainer_ends_when_its_standard_input_does(recordings: Path):
    with serving(recordings) as daemon:
        assert said(forward("query.profile", PROFILE, context(), daemon.socket)) == ""
        process = daemon.trainer._process
        assert process is not None
        assert process.stdin is not None
        daemon.loop.call_soon_threadsafe(process.stdin.close)
        wait_until(lambda: process.returncode is not None)


def test_a_second_run_takes_the_host_over_and_the_first_is_told(daemon: Daemon):
    first, second = context(), context()
    second.run_id = 8
    assert said(forward("query.profile", PROFILE, first, daemon.socket)) == ""
    assert said(forward("query.profile", PROFILE, second, daemon.socket)) == ""
    assert "takes part in run 8" in said(forward("train.pretrain", pretrain(), first, daemon.socket))
    assert said(forward("train.pretrain", pretrain(), second, daemon.socket)) == ""


def test_a_copy_that_fails_leaves_no_process_and_nothing_old(recordings: Path):
    with serving(recordings, idle_s=0.5) as daemon:
        assert said(forward("query.profile", PROFILE, context(), daemon.socket)) == ""
        moved = recordings.rename(recordings.parent / "moved")
        assert "expected recordings, found none" in said(forward("query.profile", PROFILE, context(), daemon.socket))
        wait_until(lambda: daemon.trainer.pid is None)
        moved.rename(recordings)
        assert said(forward("train.pretrain", pretrain(), context(), daemon.socket)) == ""
        assert daemon.num_copies == 3


def test_a_second_question_at_once_is_refused(daemon: Daemon):
    assert said(forward("query.profile", PROFILE, context(), daemon.socket)) == ""
    assert daemon.trainer.pid is not None
    os.kill(daemon.trainer.pid, signal.SIGSTOP)
    answers: list[RecordDict] = []
    waiting = threading.Thread(target=lambda: answers.append(forward("query.profile", PROFILE, context(), daemon.socket)))
    waiting.start()
    wait_until(lambda: daemon.num_copies == 2)
    assert "still answers the question before" in said(forward("query.profile", PROFILE, context(), daemon.socket))
    os.kill(daemon.trainer.pid, signal.SIGCONT)
    waiting.join(60)
    assert said(answers[0]) == ""


def test_recordings_that_are_gone_are_told_in_the_words_of_whoever_looked(daemon: Daemon):
    shutil.rmtree(daemon.recordings)
    assert "expected recordings, found none" in said(forward("query.profile", PROFILE, context(), daemon.socket))
    assert daemon.trainer.pid is None


def test_other_code_is_refused(daemon: Daemon, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forward_module, "client_source", lambda: "0123456789abcdef")
    text = said(forward("query.profile", PROFILE, context(), daemon.socket))
    assert "found other code in the run (0123456789abcdef)" in text


def test_without_a_daemon_the_host_says_so(tmp_path: Path):
    text = said(forward("query.profile", PROFILE, context(), tmp_path / "none.sock"))
    assert "the host's daemon does not answer 'query.profile'" in text


def test_it_ends_with_its_daemon(daemon: Daemon):
    assert said(forward("query.profile", PROFILE, context(), daemon.socket)) == ""
    pid = daemon.trainer.pid
    assert pid is not None
    daemon.forget()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_thin_client_app_loads_no_pytorch():
    code = "import sys, client.client_app, client.training.forward; assert not {'torch', 'ray'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def wait_until(is_so: Callable[[], bool]) -> None:
    for _ in range(600):
        if is_so():
            return
        time.sleep(0.05)
    raise AssertionError("waited for 30 s")
