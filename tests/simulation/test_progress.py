import io
import json
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console

from clmm_core.report.records import RoundRecord, Stage
from simulation.progress import LiveProgress, PlainProgress, RunProgress, read_progress, render, sparkline


def step(stage: Stage, server_round: int | None = None, *, round_s: float = 2.0, loss: float | None = None, **more) -> RoundRecord:
    return RoundRecord(
        stage=stage, server_round=server_round, num_hosts=2, num_devices=8, loss=loss, round_s=round_s, elapsed_s=0.0, **more
    )


def write(folder: Path, *records: RoundRecord, half: str = "", planned: tuple[int, int] | None = (3, 2)) -> None:
    folder.mkdir(exist_ok=True)
    if planned is not None:
        run_config = {"pretrain.rounds": planned[0], "finetune.rounds": planned[1], "selftrain.rounds": 0}
        (folder / "config.json").write_text(json.dumps({"run_config": run_config}))
    lines = "".join(json.dumps(asdict(record)) + "\n" for record in records)
    (folder / "rounds.jsonl").write_text(lines + half)


def text_of(renderable: object) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(renderable)
    return console.file.getvalue()


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    return tmp_path / "a.b.partial"


def test_no_folder_yet_is_no_progress(partial: Path):
    assert read_progress(partial) == RunProgress(planned={})


def test_a_half_written_line_does_not_count(partial: Path):
    write(partial, step("profile"), half='{"stage": "pretr')
    assert [record.stage for record in read_progress(partial).rounds] == ["profile"]
    write(partial, step("profile"), step("pretrain", 1))
    assert [record.stage for record in read_progress(partial).rounds] == ["profile", "pretrain"]


def test_the_folder_is_followed_to_its_final_name(partial: Path):
    write(partial, step("profile"))
    partial.rename(partial.with_name("a.b"))
    assert read_progress(partial).rounds_done == 0
    assert len(read_progress(partial).rounds) == 1


@pytest.mark.parametrize("config", ["", "{", "[]", '{"run_config": {}}', '{"run_config": {"pretrain.rounds": "x", "finetune.rounds": 1}}'])
def test_an_unreadable_config_means_the_plan_is_unknown(partial: Path, config: str):
    write(partial, step("pretrain", 1), planned=None)
    (partial / "config.json").write_text(config)
    progress = read_progress(partial)
    assert progress.rounds_total is None
    assert progress.rounds_done == 1


def test_a_broken_line_never_ends_the_run(partial: Path):
    write(partial, half="nonsense\n")
    assert read_progress(partial) == RunProgress(planned={})


PLAN: dict[Stage, int] = {"pretrain": 3, "finetune": 2}


@pytest.mark.parametrize(
    ("seen", "running"),
    [
        ([], "profile"),
        ([step("profile")], "normalise"),
        ([step("normalise")], "pretrain"),
        ([step("pretrain", 1)], "pretrain"),
        ([step("pretrain", n) for n in (1, 2, 3)], "quality"),
        ([step("quality")], "finetune"),
        ([step("evaluate")], None),
    ],
)
def test_running_stage(seen: list[RoundRecord], running: Stage | None):
    assert RunProgress(planned=PLAN, rounds=tuple(seen)).running_stage == running


def test_a_stage_without_rounds_is_passed_over():
    assert RunProgress(planned={"pretrain": 0, "finetune": 2}, rounds=(step("normalise"),)).running_stage == "quality"


def test_time_left_by_hand():
    begun = RunProgress(planned=PLAN, rounds=(step("profile"), step("pretrain", 1, round_s=4.0)))
    assert RunProgress(planned=PLAN, rounds=(step("profile"),)).left_s() is None
    assert begun.left_s() == 2 * 4.0 + 2 * 4.0  # two pretraining rounds, and two of fine-tuning at the same pace
    assert begun.left_s(since_last_step_s=1.0) == 15.0
    assert begun.left_s(since_last_step_s=100.0) == 12.0  # a slow round is about to end, not overdue
    pretrained = (*(step("pretrain", n, round_s=4.0) for n in (1, 2, 3)), step("quality"))
    tuned = RunProgress(planned=PLAN, rounds=(*pretrained, step("finetune", 4, round_s=1.0)))
    assert tuned.left_s() == 1.0
    done = RunProgress(planned=PLAN, rounds=(*tuned.rounds, step("finetune", 5, round_s=1.0)))
    assert done.left_s() == 0.0


def test_pace_follows_the_last_rounds():
    times = [100.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    rounds = tuple(step("pretrain", number, round_s=time) for number, time in enumerate(times, start=1))
    assert RunProgress(planned=PLAN, rounds=rounds).pace_s("pretrain") == 1.0


def test_sparkline():
    assert sparkline([]) == ""
    assert sparkline([1.0]) == ""
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([0.0, 7.0, 3.0]) == "▁█▄"
    assert sparkline([float(n) for n in range(100)], width=3) == "▁▅█"


def test_picture_shows_stage_round_loss_and_time():
    rounds = (step("profile"), step("pretrain", 1, loss=3.0), step("pretrain", 2, loss=2.5, left_out=("S07: no reply",)))
    text = text_of(render(RunProgress(planned=PLAN, rounds=rounds), elapsed_s=65.0, since_last_step_s=0.0))
    for expected in (
        "✓ profile",
        "pretrain 2/3",
        "round 2/5",
        "loss 2.500  █▁",
        "8 devices on 2 hosts",
        "S07: no reply",
        "1 min 05 s",
        "6.0 s",
    ):
        assert expected in text


def test_picture_of_a_simulated_fleet():
    absent = {"num_windows": 480, "num_dropped_out": 12, "num_stragglers": 3, "simulated_s": 31.0}
    rounds = (step("pretrain", 1, loss=3.0, round_s=4.0, **absent),)
    text = text_of(render(RunProgress(planned=PLAN, rounds=rounds), elapsed_s=0.0, since_last_step_s=0.0))
    assert "8 devices on 2 hosts, 12 dropped out, 3 too slow, 31.0 s simulated, 480 windows, 2.0 devices a second" in text


def test_picture_of_a_private_run_says_what_was_spent():
    progress = RunProgress(planned={"pretrain": 3}, rounds=(step("profile"), step("pretrain", 1, epsilon=1.25, clip=0.5)))
    assert "epsilon 1.25, clip 0.5" in text_of(render(progress, elapsed_s=3.0, since_last_step_s=0.0))


def test_picture_before_and_after():
    assert "starting Flower and Ray" in text_of(render(RunProgress(planned={}), elapsed_s=1.0, since_last_step_s=1.0))
    last = RunProgress(planned=PLAN, rounds=(step("evaluate"),))
    assert "writing the report" in text_of(render(last, elapsed_s=1.0, since_last_step_s=0.0))


def test_losses_of_two_stages_are_not_one_curve():
    rounds = (step("pretrain", 1, loss=9.0), step("finetune", 2, loss=1.0), step("finetune", 3, loss=2.0))
    assert "loss 2.000  ▁█" in text_of(render(RunProgress(planned=PLAN, rounds=rounds), elapsed_s=0.0, since_last_step_s=0.0))


def test_plain_progress_tells_each_step_once(partial: Path):
    console = Console(file=io.StringIO(), width=40)
    with PlainProgress(partial=partial, console=console, clock=lambda: 0.0) as progress:
        progress.tick()
        write(partial, step("profile"), half="{")
        progress.tick()
        progress.tick()
        write(partial, step("profile"), step("pretrain", 1, loss=3.0))
        progress.tick()
        partial.rename(partial.with_suffix(""))
        write(partial.with_suffix(""), step("profile"), step("pretrain", 1, loss=3.0), step("pretrain", 2, loss=2.0))
    lines = console.file.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["profile", "pretrain", "pretrain"]
    assert "round 1/5" in lines[1]
    assert lines[1].endswith("about 8.0 s left")


def test_live_progress_draws_with_the_clock_given(partial: Path):
    now_s = 100.0
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None, legacy_windows=False)
    with LiveProgress(partial=partial, console=console, clock=lambda: now_s) as progress:
        write(partial, step("pretrain", 1, loss=3.0))
        now_s = 110.0
        progress.tick()
        now_s = 111.0
        progress.tick()
    text = console.file.getvalue()
    assert "10.0 s so far, about 8.0 s of rounds left" in text
    assert "11.0 s so far, about 7.0 s of rounds left" in text


def test_a_stage_without_rounds_is_not_shown(partial: Path):
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None, legacy_windows=False)
    write(partial, step("pretrain", 1, loss=3.0))
    with LiveProgress(partial=partial, console=console, clock=lambda: 0.0):
        pass
    assert "selftrain" not in console.file.getvalue()
    assert "evaluate" in console.file.getvalue()
