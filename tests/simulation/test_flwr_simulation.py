"""A Ray worker that dies costs its host's devices for that round and nothing else."""

import os
import signal
from pathlib import Path

import pytest
from flwr.server.superlink.fleet.vce.backend import raybackend
from ray.exceptions import ActorDiedError, GetTimeoutError, RayTaskError

from clmm_core.report.run_folder import read_rounds, read_run
from simulation import flwr_simulation as module
from simulation.flwr_run import FlowerRun, new_home, run_flower
from simulation.flwr_simulation import RepairedPool
from simulation.overrides import Value

PROJECT = Path(__file__).parents[2]
FLEET: dict[str, Value] = {
    **{"data.name": "synthetic", "data.num-devices": 12, "data.window-s": 1.28, "data.overlap": 0.0, "min-hosts": 4},
    **{"pretrain.rounds": 4, "pretrain.local-epochs": 3, "finetune.rounds": 1, "finetune.local-epochs": 1},
    **{"split.num-test": 0, "split.num-validation": 0, "personalise.per-class": 0, "report.points-per-device": 0},
}


def busy_workers(home: Path) -> list[int]:
    """Return the processes of a run's Ray workers that are at work on a message."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_busy = (process / "cmdline").read_bytes().startswith(b"ray::ClientAppActor.run")
            if is_busy and f"FLWR_HOME={home}\0".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return sorted(found)


class FakeActor:
    """An actor whose jobs end as told; `is_up` says whether it starts."""

    def __init__(self, name: str, *, is_up: bool = True) -> None:
        self.name, self.is_up = name, is_up
        self.__ray_ready__ = self

    def remote(self) -> str:
        return "up" if self.is_up else "never"


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put results that are errors, or not, in Ray's place; list the actors that were ended."""
    ended: list[str] = []

    def get(future: object, *, timeout: float | None = None) -> object:
        del timeout
        if future == "never":
            raise GetTimeoutError("no CPU is free")
        if isinstance(future, Exception):
            raise future
        return future

    monkeypatch.setattr(module.ray, "get", get)
    monkeypatch.setattr(module.ray, "kill", lambda actor: ended.append(actor.name))
    return ended


def pool_of(*names: str, fresh: FakeActor) -> RepairedPool:
    pool = object.__new__(RepairedPool)
    pool.pool, pool._future_to_actor, pool.create_actor_fn = [FakeActor(name) for name in names], {}, lambda: fresh
    return pool


def answer(pool: RepairedPool, future: object) -> object:
    """Give the idle actor on top a job that ends with `future`, as Flower's backend does."""
    pool.submit(lambda actor, *_: future, (None, None, "0", None))
    try:
        return pool.fetch_result_and_return_actor_to_pool(future)
    except Exception as error:
        pool.add_actor_back_to_pool(future)
        return error


def test_a_dead_actor_is_replaced_by_a_new_one(ended: list[str]):
    pool = pool_of("a", "b", fresh=FakeActor("c"))
    assert answer(pool, ("0", "reply", "context")) == ("reply", "context")
    assert isinstance(answer(pool, ActorDiedError()), ActorDiedError)
    assert [actor.name for actor in pool.pool] == ["a", "c"]
    assert ended == ["b"]


def test_an_error_of_the_app_replaces_nothing(ended: list[str]):
    pool = pool_of("a", "b", fresh=FakeActor("c"))
    assert isinstance(answer(pool, RayTaskError("run", "Traceback", ValueError("x"))), RayTaskError)
    assert [actor.name for actor in pool.pool] == ["a", "b"]
    assert ended == []


def test_where_there_is_no_room_for_a_new_one_the_others_are_shared_evenly(ended: list[str]):
    pool = pool_of("a", "b", "c", "d", fresh=FakeActor("e", is_up=False))
    for _ in range(2):
        answer(pool, ActorDiedError())
    assert sorted(actor.name for actor in pool.pool) in (["a", "a", "b", "c"], ["a", "b", "b", "c"])
    assert ended.count("e") == 2
    assert "d" in ended


def test_the_last_one_stays_in_the_pool(ended: list[str]):
    pool = pool_of("a", fresh=FakeActor("b", is_up=False))
    answer(pool, ActorDiedError())
    assert [actor.name for actor in pool.pool] == ["a"]


@pytest.mark.parametrize(("version", "is_repaired"), [("1.41.0", True), ("1.42.3", True), ("1.43.0", False)])
def test_only_a_flower_that_is_known_is_changed(monkeypatch: pytest.MonkeyPatch, version: str, is_repaired: bool):
    original = raybackend.BasicActorPool
    seen = []
    monkeypatch.setattr(raybackend, "BasicActorPool", original)
    monkeypatch.setattr(module, "flwr_version", version)
    monkeypatch.setattr(module, "flwr_simulation", lambda: seen.append(raybackend.BasicActorPool))
    monkeypatch.setattr(module.sys, "argv", ["x"])
    module.main()
    assert seen == [RepairedPool if is_repaired else original]


@pytest.mark.flower
def test_a_worker_killed_in_a_round_costs_that_hosts_devices_in_that_round_alone(tmp_path: Path):
    run = FlowerRun(app=PROJECT, results_dir=tmp_path / "results", name="killed", overrides=FLEET, hosts=4)
    home, killed = new_home(tmp_path, "home"), []

    def kill_one_in_the_second_round() -> None:
        rounds = read_rounds(run.partial) if run.partial.exists() else ()
        if not killed and any(record.server_round == 1 for record in rounds):
            killed.extend(busy_workers(home)[:1])
            for process in killed:
                os.kill(process, signal.SIGKILL)

    folder = run_flower(run, home, on_tick=kill_one_in_the_second_round)
    assert len(killed) == 1
    steps = [(record.stage, record.num_hosts, record.num_devices, len(record.left_out)) for record in read_run(folder).rounds]
    whole, without_one_host = ("pretrain", 4, 12, 0), ("pretrain", 3, 9, 1)
    assert [step for step in steps if step[0] == "pretrain"] == [whole, without_one_host, whole, whole]
    assert [step[2:] for step in steps if step[0] in ("quality", "evaluate")] == [(12, 0), (12, 0)]
    assert "did not answer: its Ray worker died" in read_run(folder).rounds[3].left_out[0]
