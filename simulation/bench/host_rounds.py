"""What a deployed round takes with three hosts that have daemons, and with three whose ClientApps load PyTorch (H6); memory (H5)."""

import re
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import yaml

from clmm_core.errors import ClmmError
from deploy.federation_folder import FederationFolder
from simulation.bench.loopback_federation import BIN, LoopbackFederation, bundle, wait_for
from simulation.bench.processes import family, resident_bytes
from simulation.local_superlink import free_port
from simulation.overrides import Value

HOSTS = ("kitchen", "bedroom", "hall")
ROUNDS = 6
"""The first of a run is left out: a daemon loads PyTorch for it."""
MINUTES, RATE_HZ = 4, 50
SETTINGS: Mapping[str, Value] = {
    **{"data.name": "folder", "data.path": "on the hosts", "data.window-s": 2.56, "split.num-test": 1, "split.num-validation": 0},
    **{"labels.num-devices": 1, "pretrain.rounds": ROUNDS, "finetune.rounds": 0, "personalise.per-class": 0, "report.points-per-device": 0},
    **{"min-hosts": len(HOSTS), "round-timeout-s": 600.0},
}
ANSWERED = re.compile(r"answered train pretrain after ([0-9.]+) s")


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """A run of one kind of host."""

    round_s: tuple[float, ...]
    """Of stage one, without the first."""
    training_s: float
    """Median of what the slower of the hosts' trainers took of a round; 0 where nobody told."""
    largest: Mapping[str, int]
    """By program, the memory that one host's processes held at once at most, in bytes; empty where it was not looked at."""


@dataclass(frozen=True, kw_only=True)
class RoundsInTurn:
    """Runs of both kinds, in turn."""

    daemons: tuple[Rounds, ...]
    plain: tuple[Rounds, ...]


@contextmanager
def federation() -> Iterator[tuple[LoopbackFederation, Path]]:
    """Run a SuperLink with three registered hosts, none started, and give it with the app; each host has a person's recordings."""
    with TemporaryDirectory(prefix="clmm-bench-") as place:
        root, port = Path(place), free_port()
        here = LoopbackFederation(FederationFolder(root / "home"), port, root / "results")
        here.clmm("provision", "create", here.folder.root, "--address", f"127.0.0.1:{port}", "--listen", "127.0.0.1", *HOSTS)
        for number, name in enumerate(HOSTS):
            record(here.folder.host(name) / "recordings", f"person-{number}", number)
        (root / "app").mkdir()
        try:
            here.start_superlink()
            here.start_superexec()
            here.clmm("provision", "register", here.folder.root)
            yield here, bundle(root / "app")
        finally:
            here.power_cut()


def record(folder: Path, subject: str, seed: int) -> None:
    """Write minutes of two made-up activities of two sensors in the folder format."""
    random = np.random.default_rng(seed)
    length = MINUTES * 60 * RATE_HZ // 2
    for number, label in enumerate(("walk", "sit")):
        session = folder / subject / label
        session.mkdir(parents=True)
        streams = {}
        for name, unit, at_rest in (("accelerometer", "m/s^2", 9.8), ("gyroscope", "rad/s", 0.0)):
            swing = (2 - 2 * number) * np.sin(2 * np.pi * np.arange(length) / RATE_HZ)
            rows = np.stack([swing, 0 * swing, at_rest + 0 * swing], axis=1) + random.normal(0, 0.1, (length, 3))
            np.savetxt(session / f"{name}.csv", rows, "%.3f", ",", header="x,y,z", comments="")
            streams[name] = {"file": f"{name}.csv", "unit": unit, "columns": ["x", "y", "z"], "rate_hz": RATE_HZ}
        intervals = [{"label": label, "start_s": 0.0, "end_s": length / RATE_HZ}]
        (session / "recording.yaml").write_text(yaml.safe_dump({"streams": streams, "intervals": intervals}))


def plain_rounds(here: LoopbackFederation, app: Path, turn: int) -> Rounds:
    """Run with SuperNodes alone: each message starts a process that loads PyTorch."""
    here.supervise(*HOSTS)
    rounds = _run(here, app, f"plain-{turn}", lambda: None)
    here.stop(*HOSTS, number=signal.SIGTERM)
    return Rounds(round_s=rounds, training_s=0.0, largest={})


def daemon_rounds(here: LoopbackFederation, app: Path, turn: int) -> Rounds:
    """Run with daemons, which got the same recordings as their sensors' samples."""
    folders = {name: here.results.parent / f"d{turn}" / name for name in HOSTS}
    for number, name in enumerate(HOSTS):
        _start_daemon(here, name, folders[name], f"person-{number}")
    seen: list[dict[str, int]] = []
    pid = here.processes[HOSTS[0]].pid
    rounds = _run(here, app, f"daemons-{turn}", lambda: seen.append(_by_program(pid)))
    told = [list(map(float, ANSWERED.findall(here.log_text(name)))) for name in HOSTS]
    training_s = median(max(each) for each in zip(*(times[1:] for times in told if times), strict=False))
    here.stop(*HOSTS, number=signal.SIGTERM)
    return Rounds(round_s=rounds, training_s=training_s, largest=max(seen, key=lambda each: sum(each.values())))


def _start_daemon(here: LoopbackFederation, name: str, folder: Path, subject: str) -> None:
    here.log(name).unlink(missing_ok=True)
    port = free_port()
    token = here.clmm("host", "token", "add", "owner", "--role", "admin", "--folder", folder).strip()
    command = [str(BIN / "clmm"), "host", "run", "--folder", str(folder), "--listen", f"127.0.0.1:{port}"]
    command += ["--federation", str(here.folder.host(name)), "--train-load", "0", "--train-on-battery"]
    here.start_command(command, name, SUPERNODE_PORT=str(free_port()))
    wait_for(lambda: "listening on" in here.log_text(name), f"{name} listens")
    here.clmm(
        "host", "replay", here.folder.host(name) / "recordings", "--subject", subject, "--target", f"127.0.0.1:{port}", "--token", token
    )
    log = folder / "supernode.log"
    wait_for(
        lambda: log.exists() and f"SuperNode ID: {here.node_id(name)}" in log.read_text(errors="replace"), f"{name} has joined", every_s=2.0
    )


def _run(here: LoopbackFederation, app: Path, name: str, look: Callable[[], None]) -> tuple[float, ...]:
    run_id = here.hand_over(app, name, SETTINGS)

    def has_ended() -> bool:
        look()
        return (here.results / name).exists()

    wait_for(has_ended, f"run {name} ends: {run_id}", every_s=0.5)
    rounds = [step for step in here.steps(name) if step["stage"] == "pretrain"]
    if any(step["num_hosts"] < 2 for step in rounds):
        raise ClmmError(f"run {name}: expected two hosts to train in every round, found fewer: {here.flwr_log(run_id)[-500:]}")
    return tuple(float(step["round_s"]) for step in rounds[1:])


def _by_program(pid: int) -> dict[str, int]:
    """Return the memory that the processes of one host hold now, by what they are."""
    held: dict[str, int] = {}
    for process, command_line in family(pid):
        kind = "daemon" if process == pid else "trainer" if "client.training.trainer" in command_line else "Flower"
        held[kind] = held.get(kind, 0) + resident_bytes(process)
    return held
