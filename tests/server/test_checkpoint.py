import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clmm_core.errors import DataError
from clmm_core.models.config import ModalityShape, ModelChoice, sized
from clmm_core.report.records import EmbeddedWindow, Embedding, Refusal, RoundRecord, RunInfo, Split
from server import checkpoint as module
from server.checkpoint import KEPT, Checkpoint, CheckpointRecord, read_checkpoint, read_newest, write_checkpoint


def checkpoint(server_round: int) -> Checkpoint:
    rounds = (
        RoundRecord(stage="profile", num_hosts=2, num_devices=3, round_s=0.1, elapsed_s=0.1),
        RoundRecord(
            stage="pretrain",
            server_round=1,
            num_hosts=2,
            num_devices=3,
            loss=1.5,
            round_s=0.3,
            elapsed_s=0.4,
            refused=(Refusal(devices=("c",), reason="too long"),),
        ),
    )
    record = CheckpointRecord(
        info=RunInfo(name="r", run_config={"seed": 1, "data.name": "spar"}, versions={"code": "abc"}, machine="m", started_at="now"),
        split=Split(
            seed=1,
            training=("a", "c"),
            validation=(),
            test=("b",),
            labelled=("a",),
            labels_per_class=1,
            label_unit="trial",
            classes=("sit", "walk"),
        ),
        model=sized(ModelChoice(), (ModalityShape(name="acc", channels=3, time_steps=64),), 2),
        units={"acc": "m/s^2"},
        window_s=2.56,
        server_round=server_round,
        rounds=rounds,
        notes=("something",),
        embedding=Embedding(before=(EmbeddedWindow(subject="a", group="seen", label="walk", x=0.1, y=-3.0),)),
        quality={"acc": 1.0},
        strikes={"c": 1},
        quarantined_until={"c": 4},
    )
    random = np.random.default_rng(server_round)
    arrays = {"modalities.acc.w": random.normal(size=(4, 3)).astype(np.float32).T, "fusion.b": np.float32(random.normal())[None]}
    moments = {"fusion.b": np.full(1, 0.25, np.float32)}
    return Checkpoint(record=record, arrays=arrays, first=moments, second={})


def same(one: Checkpoint, other: Checkpoint) -> bool:
    groups = ((one.arrays, other.arrays), (one.first, other.first), (one.second, other.second))
    return one.record == other.record and all(
        a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a) for a, b in groups
    )


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "checkpoints", checkpoint(7))
    assert same(read_checkpoint(path), checkpoint(7))


def test_the_newest_few_are_kept(tmp_path: Path) -> None:
    for number in range(1, 6):
        write_checkpoint(tmp_path, checkpoint(number))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"round-{n:06d}.safetensors" for n in range(6 - KEPT, 6)]
    assert read_newest(tmp_path)[0].record.server_round == 5


def test_round_a_million_is_newer_than_the_one_before(tmp_path: Path) -> None:
    for number in (999_999, 1_000_000):
        write_checkpoint(tmp_path, checkpoint(number))
    assert read_newest(tmp_path)[0].record.server_round == 1_000_000


@pytest.mark.parametrize("where", [0.02, 0.5, 0.98])
def test_a_flipped_bit_is_found_and_the_one_before_is_used(tmp_path: Path, where: float) -> None:
    write_checkpoint(tmp_path, checkpoint(1))
    path = write_checkpoint(tmp_path, checkpoint(2))
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 4
    path.write_bytes(data)
    found, wrong = read_newest(tmp_path)
    assert same(found, checkpoint(1))
    assert len(wrong) == 1
    assert path.name in wrong[0]


def test_a_cut_off_file_is_found(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, checkpoint(2))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"round-000002.*cannot use it"):
        read_newest(tmp_path)


def test_without_any_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found none: the run ended before its first; start it again"):
        read_newest(tmp_path / "checkpoints")


def test_a_full_disk_leaves_the_older_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path, checkpoint(1))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(tmp_path, checkpoint(2))
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["round-000001.safetensors"]
    assert same(read_newest(tmp_path)[0], checkpoint(1))


def test_killed_while_it_writes_leaves_only_whole_ones(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import sys
        from dataclasses import replace
        from pathlib import Path
        import numpy as np
        from server.checkpoint import read_checkpoint, write_checkpoint
        folder = Path(sys.argv[1])
        first = read_checkpoint(folder / "round-000001.safetensors")
        arrays = {"modalities.acc.w": np.zeros((1000, 1000), np.float32)}
        print("ready", flush=True)
        for number in range(2, 10_000):
            write_checkpoint(folder, replace(first, arrays=arrays, record=replace(first.record, server_round=number)))
    """)
    for delay_s in (0.01, 0.05, 0.11):
        for old in tmp_path.iterdir():
            old.unlink()
        write_checkpoint(tmp_path, checkpoint(1))
        writer = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(delay_s)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        assert read_newest(tmp_path)[1] == []  # nothing half-written has a checkpoint's name


def test_the_checksum_is_of_the_record_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = checkpoint(3)
    other = replace(one, record=replace(one.record, server_round=4))
    digest = module._digest
    text = module.to_json(one.record)
    monkeypatch.setattr(module, "_digest", lambda record, arrays: digest(text, arrays))
    path = write_checkpoint(tmp_path, other)
    monkeypatch.undo()
    with pytest.raises(DataError, match="its content is not that of its checksum"):
        read_checkpoint(path)
