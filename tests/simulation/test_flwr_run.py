import json
import os
import struct
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from clmm_core.errors import ConfigError
from simulation import flwr_run as module
from simulation.flwr_run import FlowerRun, cause_of, gpu_share, new_home, run_flower, to_toml
from simulation.local_superlink import FlowerRunError, LocalSuperLink

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "tiny"
version = "0.1.0"
description = "x"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "clmm"
[tool.flwr.app.components]
serverapp = "server.server_app:app"
clientapp = "client.client_app:app"
[tool.flwr.app.config]
results-dir = "results"
run-name = ""
fail = false
"""
SERVER = """
import time
from logging import ERROR
from pathlib import Path
from flwr.app import Context, Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

app = ServerApp()

@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    if config["fail"]:
        log(ERROR, "clmm: split.num-test: expected at most 8, found 9")
        raise ValueError("boom")
    partial = Path(config["results-dir"]) / f"{config['run-name']}.partial"
    partial.mkdir(parents=True)
    while not (nodes := list(grid.get_node_ids())):
        time.sleep(0.05)
    replies = list(grid.send_and_receive([Message(RecordDict(), nodes[0], "query.profile")], timeout=60))
    (partial / "client.txt").write_text(replies[0].content["c"]["file"] + "|" + replies[0].content["c"]["threads"])
    (partial / "server.txt").write_text(__file__)
    (partial / "report.html").write_text("x")
    (partial / "subjects.csv").write_text("x")
    partial.rename(partial.with_suffix(""))
"""
CLIENT = """
import os
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.query("profile")
def profile(message: Message, context: Context) -> Message:
    record = ConfigRecord({"file": __file__, "threads": os.environ["OMP_NUM_THREADS"]})
    return Message(RecordDict({"c": record}), reply_to=message)
"""


def make_app(folder: Path, *, server: str = SERVER, client: str = CLIENT) -> Path:
    for package, module_name, text in (("server", "server_app", server), ("client", "client_app", client)):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").touch()
        (folder / package / f"{module_name}.py").write_text(text)
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / ".gitignore").write_text(".flwr-home/\n")
    return folder


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., FlowerRun]:
    def make(**more) -> FlowerRun:
        return FlowerRun(**{"app": tmp_path, "results_dir": tmp_path / "my results", "name": "one", "hosts": 1, **more})

    return make


def processes_of(home: Path) -> list[str]:
    """Return the command lines of the processes that were started for a run, Ray's included."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"FLWR_HOME={home}\0".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def test_a_run_checks_itself(job, tmp_path: Path):
    names = ("../x", "", ".x", "a.partial")
    addresses = ("auto", "ray://10.0.0.1:10001", "10.0.0.1", "x y:1")
    others = ({"hosts": 0}, {"overrides": {"run-name": "b"}}, {"workers_per_gpu": -1}, {"workers_per_gpu": 101})
    for wrong in (*others, *({"name": name} for name in names), *({"ray_address": address} for address in addresses)):
        with pytest.raises(ConfigError, match=r"expected"):
            job(**wrong)
    (tmp_path / "my results" / "one.partial").mkdir(parents=True)
    with pytest.raises(ConfigError, match="a run of that name exists"):
        job()


def test_results_are_named_absolutely(job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run = job(results_dir=Path("out"), overrides={"seed": 3})
    assert run.final == tmp_path / "out" / "one"
    assert run.partial == tmp_path / "out" / "one.partial"
    assert run.run_config == {"seed": 3, "results-dir": str(tmp_path / "out"), "run-name": "one"}


@pytest.mark.parametrize(("hosts", "num_workers"), [(1, 1), (2, 2), (50, 4)])
def test_as_many_workers_as_hosts_and_cpus_allow(job, monkeypatch: pytest.MonkeyPatch, hosts: int, num_workers: int):
    monkeypatch.setattr(module, "num_cpus", lambda: 4)
    text = job(hosts=hosts).federation_config
    assert text == f"num-supernodes={hosts} client-resources-num-cpus=1 init-args-num-cpus={num_workers}"


def test_a_cluster_says_itself_how_many_cpus_it_has(job):
    assert job(hosts=8, ray_address="10.0.0.1:6379").federation_config == "num-supernodes=8 client-resources-num-cpus=1"


@pytest.mark.parametrize("num_workers", [*range(1, 33), 100])
def test_as_many_workers_share_a_gpu_as_asked_for(job, num_workers: int):
    share = gpu_share(num_workers)
    over_the_wire = struct.unpack("f", struct.pack("f", share))[0]
    assert int(1 / over_the_wire) == num_workers, "as Flower counts them"
    assert share * 10_000 == pytest.approx(round(share * 10_000), abs=1e-9), "as Ray counts"
    assert f"client-resources-num-gpus={share}" in job(workers_per_gpu=num_workers).federation_config


def test_overrides_survive_as_toml():
    values = {"a.b": 'x "y" \\ é 😀', "a.path": "/tmp/my results", "lr": 1e-05, "n": 3, "on": True, "off": False}
    nested = tomllib.loads(to_toml(values))
    assert {**{f"a.{key}": value for key, value in nested.pop("a").items()}, **nested} == values


def test_two_runs_never_share_a_home(tmp_path: Path):
    homes = [new_home(tmp_path, "one") for _ in range(3)]
    assert [home.name for home in homes] == ["one", "one-2", "one-3"]


def test_only_what_flower_may_bundle_is_staged(tmp_path: Path):
    app = make_app(tmp_path / "app")
    for name in (
        ".venv/a.py",
        "myenv/pyvenv.cfg",
        "myenv/a.py",
        "results/one/config.json",
        "tests/a.py",
        "data/big.npz",
        "client/__pycache__/a.py",
    ):
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text("")
    (app / "client" / "results").mkdir()
    (app / "client" / "results" / "a.py").write_text("")
    os.symlink(app / "client", app / "link")
    bundle = module._stage(app, tmp_path / "bundle")
    files = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    assert files == {
        *(".gitignore", "pyproject.toml", "client/__init__.py", "client/client_app.py", "client/results/a.py"),
        *("server/__init__.py", "server/server_app.py"),
    }


def test_the_cause_is_our_own_last_message():
    log = "INFO :  clmm: not this\n\x1b[91mERROR \x1b[0m:     clmm: S07: expected m/s^2, found g\nTraceback\nValueError: boom\n"
    assert cause_of(log, "Simulation failed with exception: boom") == "S07: expected m/s^2, found g"
    assert cause_of("clmm: plain\n", "") == "plain"


def test_the_cause_without_our_message_is_the_end_of_the_log():
    text = cause_of("".join(f"line {n}\n\n" for n in range(40)) + "the word clmm: inside\n", "Simulation failed with exception: boom")
    assert text.startswith("The run failed: boom\n")
    assert "line 39\n" in text
    assert "line 20\n" not in text
    assert "Flower gives no reason" in cause_of("", "")


class FakeLink(LocalSuperLink):
    """A SuperLink whose `flwr ls` answers what it is told, one answer a question."""

    def __init__(self, home: Path, answers: list[str]) -> None:
        object.__setattr__(self, "home", home)
        object.__setattr__(self, "answers", answers)
        object.__setattr__(self, "asked", [])

    def flwr(self, *arguments: str, timeout_s: float = 60.0) -> str:
        self.asked.append(arguments)
        return self.answers.pop(0)

    def check(self) -> None: ...


def listed(status: str) -> str:
    return json.dumps({"success": True, "runs": [{"run-id": "7", "status": status, "status-details": "why"}]})


def test_a_log_that_ends_early_does_not_end_the_run(tmp_path: Path):
    slept: list[float] = []
    link = FakeLink(tmp_path, [listed("running"), listed("running"), listed("finished:failed")])
    assert module._final_status(link, on_tick=lambda: None, sleep=slept.append) == ("finished:failed", "why")
    assert sum(slept) == pytest.approx(2 * module.STATUS_INTERVAL_S)


@pytest.mark.parametrize("answer", ['{"success": true, "runs": []}', "Oops", '{"success": false}'])
def test_an_answer_of_no_use_is_an_error(tmp_path: Path, answer: str):
    with pytest.raises(FlowerRunError, match=r"knows of no run|expected a list of runs"):
        module._final_status(FakeLink(tmp_path, [answer]), on_tick=lambda: None, sleep=lambda _: None)


def test_ctrl_c_stops_the_run_that_goes_on(tmp_path: Path):
    link = FakeLink(tmp_path, [listed("running"), ""])
    module._stop_run(link)
    assert link.asked == [("ls", "--format", "json"), ("stop", "7")]
    ended = FakeLink(tmp_path, [listed("finished:completed")])
    module._stop_run(ended)
    assert len(ended.asked) == 1


@pytest.mark.flower
def test_a_real_run_from_a_folder_with_other_code_of_the_same_name(job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_app(tmp_path / "decoy", client="raise SystemExit('wrong code')", server="raise SystemExit('wrong code')")
    monkeypatch.chdir(tmp_path / "decoy")
    app = make_app(tmp_path / "app")
    home, ticks = new_home(app, "one"), []
    folder = run_flower(job(app=app), home, on_tick=lambda: ticks.append(1))
    assert folder == tmp_path / "my results" / "one"
    client_file, threads = (folder / "client.txt").read_text().split("|")
    assert client_file.startswith(str(home))
    assert (folder / "server.txt").read_text().startswith(str(home))
    assert threads == "1"
    assert len(ticks) > 5
    assert processes_of(home) == []
    assert list((app / ".flwr-home").iterdir()) == []


@pytest.mark.flower
def test_a_real_run_that_fails_says_why_and_leaves_its_log(job, tmp_path: Path):
    app = make_app(tmp_path / "app")
    home = new_home(app, "one")
    with pytest.raises(FlowerRunError) as caught:
        run_flower(job(app=app, overrides={"fail": True}), home, on_tick=lambda: None)
    assert str(caught.value) == f"split.num-test: expected at most 8, found 9\nFull log: {home / 'run.log'}"
    assert "ValueError: boom" in (home / "run.log").read_text()
    assert {path.name for path in home.iterdir()} <= {"run.log", "superlink.log", "superexec.log", "ray-logs"}
    assert processes_of(home) == []
