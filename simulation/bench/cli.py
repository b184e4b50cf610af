"""`clmm bench`: what is measured on this machine. It imports what a subcommand needs when that subcommand runs."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from clmm_core.errors import ConfigError
from simulation.command_line import Settings, errors_told, short_path

app = typer.Typer(help="Measure how quick it is on this machine.", no_args_is_help=True)


@app.command()
def simulation(
    *,
    device: Annotated[str, typer.Option(help="cpu, or cuda for the same on a GPU.")] = "cpu",
    devices: Annotated[int, typer.Option(min=2, help="Devices a round, where ours and the stock way are compared.")] = 500,
    batch_sizes: Annotated[str, typer.Option(help="Batches to compare at.")] = "8,32",
    fleet_sizes: Annotated[str, typer.Option(help="Devices of the fleets of growing size.")] = "100,300,1000,3000,10000",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds a turn.")] = 3,
    turns: Annotated[int, typer.Option(min=1, help="Turns of each way.")] = 2,
    results: Annotated[Path, typer.Option(help="Folder whose `bench` keeps what is measured; that is not measured again.")] = Path(
        "results"
    ),
    page: Annotated[Path | None, typer.Option(help="A Markdown page that gets the tables and the figure, between its marks.")] = None,
) -> None:
    """Measure whole rounds against Flower's stock way in turn, fleets of growing size, the start and the engine; goes on where it was."""
    from simulation.bench.command import benchmark_of, run_benchmark  # noqa: PLC0415

    with errors_told():
        benchmark = benchmark_of(device, devices, batch_sizes, fleet_sizes, rounds, turns)
        run_benchmark(benchmark, results, page, ["clmm", *sys.argv[1:]])


@app.command()
def reliability(
    *,
    rows: Annotated[str, typer.Option(help="Rows of docs/results/reliability.md, with commas between.")] = "R1,R2,R4,R6,R7",
    hapt: Annotated[Path | None, typer.Option(help="HAPT's recordings, for R4 and R7.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each kind of R4 and R7.")] = 1,
    results: Annotated[Path, typer.Option(help="Folder whose `bench` keeps what is measured.")] = Path("results"),
    page: Annotated[Path | None, typer.Option(help="A Markdown page that gets the rows, between its marks.")] = None,
) -> None:
    """Kill servers, writers and devices, and attack the federation: what is left of it; goes on where it was."""
    from simulation.bench.reliability import Reliability, run_reliability  # noqa: PLC0415

    with errors_told():
        asked = Reliability(rows=tuple(row.strip() for row in rows.split(",")), hapt=hapt and hapt.absolute(), seeds=tuple(range(seeds)))
        run_reliability(asked, results, page, ["clmm", *sys.argv[1:]], typer.echo)


@app.command("export")
def bench_export(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Results folders; the first one's model is timed, too.")],
    *,
    page: Annotated[Path | None, typer.Option(help="A Markdown page that gets the tables, between its marks.")] = None,
) -> None:
    """Compare exported models with PyTorch on real windows, and measure what each runtime takes on one core."""
    from simulation.bench.exported import run_export_bench  # noqa: PLC0415
    from simulation.study.command import without_folders  # noqa: PLC0415

    with errors_told():
        run_export_bench(runs, page, shlex.join(["clmm", *(without_folders(each) for each in sys.argv[1:])]), typer.echo)


@app.command("host")
def bench_host(
    *,
    rows: Annotated[str, typer.Option(help="Rows of docs/results/host.md, with commas between.")] = "H1,H2,H3,H5,H6,H7,H8",
    results: Annotated[Path, typer.Option(help="Folder whose `bench` keeps what is measured.")] = Path("results"),
    page: Annotated[Path | None, typer.Option(help="A Markdown page that gets the rows, between its marks.")] = None,
) -> None:
    """Load, cut off, kill, fuzz and empty a wearer's host: what it takes, loses and keeps; goes on where it was."""
    with errors_told():
        try:
            from simulation.bench.host import HostBench, run_host_bench  # noqa: PLC0415  it loads gRPC
        except ImportError as error:
            raise ConfigError(f"measuring a host needs {error.name}: pip install 'clmm[host]'") from error
        run_host_bench(HostBench(rows=tuple(each.strip() for each in rows.split(","))), results, page, ["clmm", *sys.argv[1:]], typer.echo)


@app.command()
def leakage(
    *,
    data: Annotated[str, typer.Option(help="Data set, as `clmm data list` names it: data.name.")],
    path: Annotated[Path | None, typer.Option(help="Where its files are: data.path.")] = None,
    noise: Annotated[
        list[float], typer.Option(min=0, help="Noise multiplier of a private model beside the plain one; can be repeated.")
    ] = [1.0],  # noqa: B006  typer's way
    splits: Annotated[int, typer.Option(min=1, help="Models of each kind, trained on one half of the people, another each.")] = 4,
    windows: Annotated[int, typer.Option(min=1, help="Windows to find again from their gradients.")] = 4,
    settings: Settings = None,
    results: Annotated[Path, typer.Option(help="Folder whose `bench` gets the figures as JSON.")] = Path("results"),
) -> None:
    """Attack a model: tell who it was trained on, with and without differential privacy, and turn a gradient back into its window."""
    from clmm_core.files import replace_file  # noqa: PLC0415
    from clmm_core.report.run_json import readable_json  # noqa: PLC0415
    from simulation.bench.command import KEPT  # noqa: PLC0415
    from simulation.bench.leakage import measure_leakage  # noqa: PLC0415
    from simulation.overrides import apply_overrides, find_app, parse_overrides, read_app_config, with_absolute_path  # noqa: PLC0415

    with errors_told():
        own = {"data.name": data, **({} if path is None else {"data.path": str(path)}), **parse_overrides(settings or ())}
        values = apply_overrides(read_app_config(find_app(None)), with_absolute_path(own))
        found = measure_leakage(values, noise, splits, windows, typer.echo)
        kept = results / KEPT / f"leakage-{data}.json"
        kept.parent.mkdir(parents=True, exist_ok=True)
        replace_file(kept, readable_json(found, kept))
        typer.echo(found.markdown())
        typer.echo(f"wrote {short_path(kept)}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def engine(context: typer.Context) -> None:
    """Measure how many devices train in a second, one by one and as a stack; needs PyTorch and NumPy alone."""
    from simulation.bench.engine import main  # noqa: PLC0415

    main(context.args)
