"""The benchmark's section of a Markdown page: its tables, from whatever was measured so far."""

from collections.abc import Iterable, Sequence
from statistics import median

from clmm_core.report.lines import duration, plural, size
from simulation.bench.engine import Engine
from simulation.bench.fleet import Way
from simulation.bench.measure import WAYS, Benchmark, Measurements
from simulation.bench.processes import Kind
from simulation.bench.targets import ratio, start_s, targets
from simulation.bench.turn import Turn
from simulation.study.page import how_made

KIND_IN_WORDS: dict[Kind, str] = {
    "worker": "workers",
    "server": "server: messages, sums, new model",
    "apart": "process in which the server calls PyTorch",
    "ray": "Ray's own processes",
    "flower": "SuperLink, SuperExec, `flwr run`",
    "command": "`clmm run`",
}


def markdown(benchmark: Benchmark, found: Measurements, command: str, figure: str | None) -> str:
    """Return the section.

    Args:
        benchmark: what was asked for.
        found: all that there is.
        command: what measures it.
        figure: where the figure of the fleets lies, as seen from the page; None where there is none.
    """
    infos = [turn.info for turn in (*found.compared, *found.scaled) if turn.info is not None]
    parts = [how_made(infos), f"    {command}", *_missing(benchmark, found)]
    for title, lines in (
        ("What was to be reached", _targets(found)),
        (f"Whole rounds of {plural(benchmark.num_devices, 'device')}, ours and the stock way in turn", _compared(benchmark, found)),
        ("Where a round's time goes", _shares(benchmark, found)),
        ("Fleets of growing size", _scaled(found, figure)),
        ("Start", _start(found)),
        ("The engine alone", _engine(found.engine)),
    ):
        parts += [f"### {title}", *lines] if lines else []
    return "\n\n".join(parts)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _missing(benchmark: Benchmark, found: Measurements) -> list[str]:
    wanted, there = len(benchmark.compared()) + len(benchmark.scaled()), len(found.compared) + len(found.scaled)
    return [f"**{there} of {wanted} runs are done; the tables have these.**"] if there < wanted else []


def _targets(found: Measurements) -> list[str]:
    rows = [(each.what, each.wanted, each.found, "reached" if each.is_reached else "**not reached**") for each in targets(found)]
    return [table(("", "to reach", "measured", ""), rows)] if rows else []


def _compared(benchmark: Benchmark, found: Measurements) -> list[str]:
    rows = [
        _compared_row(found, batch_size, way, turns)
        for batch_size in benchmark.batch_sizes
        for way in WAYS
        if (turns := found.turns_of(way, batch_size))
    ]
    if not rows:
        return []
    peaks = ("server, peak", "largest worker, peak")
    header = ("batch", "way", "hosts", "device-updates/s (each turn)", "ours / stock", "a round", *peaks)
    says = (
        f"Runs of {plural(benchmark.rounds, 'round')} each, on {benchmark.device}, {plural(found.compared[0].setting.workers, 'worker')}."
    )
    return [table(header, rows), says]


def _compared_row(found: Measurements, batch_size: int, way: Way, turns: Sequence[Turn]) -> tuple[str, ...]:
    reached = ratio(found, batch_size) if way == "ours" else None
    rates = ", ".join(f"{turn.updates_per_s:.2f}" for turn in turns)
    return (
        *(str(batch_size), way, f"{turns[0].setting.hosts:,}"),
        f"{median(turn.updates_per_s for turn in turns):.2f} ({rates})",
        f"{reached:.2f}" if reached else "",
        duration(median(each for turn in turns for each in turn.round_s)),
        *(size(max(turn.peak_bytes[kind] for turn in turns)) for kind in ("server", "worker")),
    )


def _shares(benchmark: Benchmark, found: Measurements) -> list[str]:
    """Return where the processors' time of the rounds went, in the turns that compare both ways."""
    settings = [(batch_size, way) for batch_size in benchmark.batch_sizes for way in WAYS if found.turns_of(way, batch_size)]
    if not settings:
        return []
    columns = [_cpu_column(found.turns_of(way, batch_size)) for batch_size, way in settings]
    header = ("ms of a core a device-update", *(f"batch {batch_size}, {way}" for batch_size, way in settings))
    names = [*KIND_IN_WORDS.values(), "idle, or taken by others"]
    parts = [table(header, [(name, *(f"{column[i]:.1f}" for column in columns)) for i, name in enumerate(names)])]
    if found.shares:
        rows = [(str(each.batch_size), f"{each.training_ms:.1f}", f"{each.windows_ms:.1f}") for each in found.shares]
        parts.append(table(("batch, ours", "training, ms of a core a device", "making its windows, ms"), rows))
        parts.append(f"The second table: with a cohort of {plural(found.shares[0].num_devices, 'device')} in each process.")
    return parts


def _cpu_column(turns: Sequence[Turn]) -> list[float]:
    """Return the milliseconds a device-update of each kind of process, and what is left of as many cores as there are workers."""
    updates = sum(turn.setting.num_devices * len(turn.round_s) for turn in turns)
    by_kind = [sum(turn.cpu_s[kind] for turn in turns) for kind in KIND_IN_WORDS]
    cores_s = sum(turn.setting.workers * turn.watched_s for turn in turns)
    return [1000 * each / updates for each in (*by_kind, cores_s - sum(by_kind))]


def _scaled(found: Measurements, figure: str | None) -> list[str]:
    if not found.scaled:
        return []
    header = ("devices", "a round", "a device", "profile and normalise", "server, peak", "largest worker, peak")
    rows = [
        (
            f"{turn.setting.num_devices:,}",
            *(duration(turn.round_s[0]), f"{1000 / turn.updates_per_s:.1f} ms", duration(turn.prepared_s)),
            *(size(turn.peak_bytes[kind]) for kind in ("server", "worker")),
        )
        for turn in found.scaled
    ]
    apart = max(turn.peak_bytes["apart"] for turn in found.scaled)
    says = [f"The process in which the server makes the new model, before the first round, held at most {size(apart)}."] if apart else []
    return [table(header, rows), *says, *([f"![Time a device and peak memory over the number of devices]({figure})"] if figure else [])]


def _start(found: Measurements) -> list[str]:
    beyond = start_s(found)
    if beyond is None or found.ray_start_s is None:
        return []
    first = found.scaled[0]
    rows = [
        ("from the command to the first training step", f"{first.first_step_s:.1f} s"),
        ("Ray alone, with as many workers", f"{found.ray_start_s:.1f} s"),
        ("the difference", f"{beyond:.1f} s"),
        (f"of which profile and normalise {plural(first.setting.num_devices, 'device')}", f"{first.prepared_s:.1f} s"),
    ]
    return [table(("", ""), rows)]


def _engine(engine: Engine | None) -> list[str]:
    if engine is None:
        return []
    header = ("stage", "batch", "one by one, devices/s", "as a stack, devices/s", "stack / one", "hosts take", "share of the limit")
    rows = [
        (
            *(each.stage, str(each.batch_size), f"{each.alone_per_s:.2f}", f"{each.stacked_per_s:.2f}", f"{each.ratio:.2f}"),
            *("the stack" if each.is_chosen else "one by one", f"{each.share_of_limit:.0%}"),
        )
        for each in engine.results
    ]
    matmul, copy = f"{engine.matmul_flops_per_s / 1e9:,.0f} GFLOP/s", f"{engine.copy_bytes_per_s / 1e9:,.1f} GB/s"
    says = (
        f"{plural(engine.results[0].num_devices, 'device')}, `{engine.preset}` preset, PyTorch {engine.torch}, {engine.machine}; measured "
        f"at most {matmul} in matrix products of precision '{engine.matmul_precision}', {copy} in copies."
    )
    return [table(header, rows), says]
