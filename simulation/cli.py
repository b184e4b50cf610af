"""The `clmm` command. It imports what a subcommand needs when that subcommand runs: a host without Ray or torch can use its part."""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from clmm_core.errors import ClmmError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from clmm_core.report.records import RunRecord
    from simulation.flwr_run import FlowerRun
    from simulation.overrides import Value

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130
MAX_ROWS = 50
"""People in the table at the end of a run: unseen ones first, the worst first."""
app = typer.Typer(help="Federated activity recognition from wearables: train, look at data, report.", no_args_is_help=True)
bench = typer.Typer(help="Measure how quick it is on this machine.", no_args_is_help=True)
app.add_typer(bench, name="bench")

# What `run` and `simulate` have in common.
Settings = Annotated[
    list[str] | None, typer.Option("--set", "-c", metavar="KEY=VALUE", help="A run-config value in TOML; can be repeated.")
]
Results = Annotated[Path, typer.Option(help="Folder that gets a folder a run.")]
Name = Annotated[str | None, typer.Option(help="Name of the run; else UTC time and data set.")]
Project = Annotated[Path | None, typer.Option("--app", help="The project to run; else the one this command is installed from.")]
RayAddress = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="A Ray cluster to join; this machine must be one of its nodes.")]
WorkersPerGpu = Annotated[int | None, typer.Option(min=0, help="Workers that share a GPU; 0 keeps GPUs from them.")]


@app.command()
def run(  # noqa: PLR0913  a parameter an option
    *,
    data: Annotated[str | None, typer.Option(help="Data set, as `clmm data list` names it: data.name.")] = None,
    path: Annotated[Path | None, typer.Option(help="Where its files are: data.path.")] = None,
    hosts: Annotated[int | None, typer.Option(min=1, help="Simulated hosts (SuperNodes): 2, or of a resumed run its own.")] = None,
    workers_per_gpu: WorkersPerGpu = None,
    results: Results = Path("results"),
    name: Name = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="A killed run to go on with, by name or folder.")] = None,
    settings: Settings = None,
    project: Project = None,
) -> None:
    """Train and evaluate once, on this machine, with Flower's simulation."""
    from simulation.overrides import find_app, parse_overrides  # noqa: PLC0415

    with _errors_told():
        overrides = parse_overrides(settings or ())
        overrides |= {"data.name": data} if data is not None else {}
        overrides |= {"data.path": str(path)} if path is not None else {}
        if resume is not None and name is not None:
            raise ConfigError("--name: a run that is gone on with has its name already: leave this option out")
        begun = _begun(resume, results) if resume is not None else None
        own_hosts, results, name = begun[1:] if begun else (2, results, name)
        place = _Place(find_app(project), results, name, hosts or own_hosts, "", workers_per_gpu or 0, resume is not None)
        _start({**(begun[0] if begun else {}), **overrides}, place)


@app.command()
def simulate(
    file: Annotated[Path, typer.Argument(metavar="SCENARIO", help="A scenario file (docs/simulation.md).")],
    *,
    hosts: Annotated[int | None, typer.Option(min=1, help="Simulated hosts (SuperNodes), else the scenario's.")] = None,
    ray_address: RayAddress = None,
    workers_per_gpu: WorkersPerGpu = None,
    results: Results = Path("results"),
    name: Name = None,
    settings: Settings = None,
    project: Project = None,
) -> None:
    """Train and evaluate once on a simulated fleet: its size, sensors, labels, speeds, drop-out, hosts. Options stand over the scenario."""
    from simulation.overrides import find_app, parse_overrides, read_app_config  # noqa: PLC0415
    from simulation.scenario import overrides_of, read_scenario  # noqa: PLC0415

    with _errors_told():
        scenario, folder = read_scenario(file), find_app(project)
        overrides = overrides_of(scenario, read_app_config(folder), parse_overrides(settings or ()))
        place = _Place(
            folder,
            results,
            name,
            scenario.hosts if hosts is None else hosts,
            scenario.ray_address if ray_address is None else ray_address,
            scenario.workers_per_gpu if workers_per_gpu is None else workers_per_gpu,
        )
        _console().print(scenario.title, markup=False, highlight=False, soft_wrap=True)
        _start(overrides, place)


@app.command()
def study(
    file: Annotated[Path, typer.Argument(help="A study file (docs/studies.md).")],
    *,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", "-c", metavar="KEY=VALUE", help="A run-config value of every run in TOML; can be repeated."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at once: one core each, or with --device trained together on it.")] = 2,
    device: Annotated[str, typer.Option(help="Train all runs together on this: cuda.")] = "",
    results: Annotated[Path, typer.Option(help="Folder of runs and pages; finished runs are not run again.")] = Path("results"),
    page: Annotated[Path | None, typer.Option(help="A Markdown page that gets the tables, between its marks.")] = None,
    run: Annotated[bool, typer.Option(help="Run what is missing, or only show what is there.")] = True,
) -> None:
    """Run a grid of splits, seeds, settings and methods, and compare them; goes on where it was when killed."""
    from simulation.overrides import parse_overrides, with_absolute_path  # noqa: PLC0415
    from simulation.study.command import Running, run_study  # noqa: PLC0415

    with _errors_told():
        overrides = with_absolute_path(parse_overrides(settings or ()))
        running = Running(jobs=jobs, device=device, is_wanted=run)
        measured_by = [argument for argument in sys.argv[1:] if argument != "--no-run"]
        num_failed = run_study(file, overrides, results, running, page, ["clmm", *measured_by])
    if num_failed:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="The results folder of a finished run.")]) -> None:
    """Write report.html of a finished run again, and show its table."""
    with _errors_told():
        from clmm_core.files import replace_file  # noqa: PLC0415
        from clmm_core.report.page import render  # noqa: PLC0415
        from clmm_core.report.run_folder import REPORT, read_run  # noqa: PLC0415

        record = read_run(folder)
        replace_file(folder / REPORT, render(record))
        _tell_results(_console(), record, folder)


class ExportFormat(StrEnum):
    """What `clmm export` can make."""

    ONNX = "onnx"


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The results folder of a finished run.")],
    *,
    to: Annotated[ExportFormat, typer.Option(help="onnx runs on phones, boards and in browsers, with onnxruntime.")],
    int8: Annotated[bool, typer.Option("--int8", help="Weights of 8 bits: a smaller file, no quicker one.")] = False,
    file: Annotated[Path | None, typer.Option("-o", metavar="FILE", help="The model file; else model.onnx in RUN.")] = None,
) -> None:
    """Write the model of a finished run as one file that recognises without PyTorch, with golden vectors beside it."""
    del to  # there is one so far
    with _errors_told():
        try:
            from simulation.export import export_onnx  # noqa: PLC0415  it loads PyTorch and onnxruntime
        except ImportError as error:
            raise ConfigError(f"exporting needs {error.name}: pip install 'clmm[export]'") from error
        export_onnx(folder, file or folder / ("model-int8.onnx" if int8 else "model.onnx"), int8=int8, say=typer.echo)


@app.command()
def verify(
    model: Annotated[Path, typer.Argument(help="A model that `clmm export` made.")],
    *,
    golden: Annotated[Path | None, typer.Option(help="Its golden vectors, else MODEL.golden.json beside it.")] = None,
) -> None:
    """Check a model file on this machine: its checksum, what it says of itself, and that it answers as it should."""
    with _errors_told():
        try:
            from clmm_core.recognise.golden import differences, golden_file, read_golden  # noqa: PLC0415
        except ImportError as error:
            raise ConfigError(f"checking a model needs {error.name}: pip install 'clmm[recognise]'") from error
        expected = read_golden(golden or golden_file(model))
        found = differences(model, expected)
        for difference in found:
            typer.echo(f"{_shown(model)}: {difference}", err=True)
        if found:
            raise typer.Exit(EXIT_FAILED)
        typer.echo(f"{_shown(model)} is as exported: checksum, metadata and {len(expected.vectors)} vectors to {expected.tolerance:g}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def data(context: typer.Context) -> None:
    """Look at data sets and recordings."""
    from client.cli import app as data_app  # noqa: PLC0415  it loads numpy and the data sets

    typer.main.get_command(data_app)(args=context.args, prog_name=f"{context.find_root().info_name} data", standalone_mode=True)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def provision(context: typer.Context) -> None:
    """Make the keys and certificates of a federation on real machines."""
    from deploy.provision import app as provision_app  # noqa: PLC0415  it loads the certificates' library

    typer.main.get_command(provision_app)(args=context.args, prog_name=f"{context.find_root().info_name} provision", standalone_mode=True)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def host(context: typer.Context) -> None:
    """Keep a wearer's recordings on this machine, and take part with them."""
    from client.host.cli import app as host_app  # noqa: PLC0415  a board has this part alone

    typer.main.get_command(host_app)(args=context.args, prog_name=f"{context.find_root().info_name} host", standalone_mode=True)


@app.command()
def superlink(folder: Annotated[Path, typer.Argument(help="The server folder that `clmm provision` made.")]) -> None:
    """Start the SuperLink of a federation on real machines: TLS, known hosts, control from this machine alone."""
    from deploy.superlink import start_superlink  # noqa: PLC0415  it loads Flower

    with _errors_told():
        start_superlink(folder)


@bench.command()
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

    with _errors_told():
        benchmark = benchmark_of(device, devices, batch_sizes, fleet_sizes, rounds, turns)
        run_benchmark(benchmark, results, page, ["clmm", *sys.argv[1:]])


@bench.command()
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

    with _errors_told():
        asked = Reliability(rows=tuple(row.strip() for row in rows.split(",")), hapt=hapt and hapt.absolute(), seeds=tuple(range(seeds)))
        run_reliability(asked, results, page, ["clmm", *sys.argv[1:]], typer.echo)


@bench.command("host")
def bench_host(
    *,
    rows: Annotated[str, typer.Option(help="Rows of docs/results/host.md, with commas between.")] = "H1,H2,H3,H5,H7,H8",
    results: Annotated[Path, typer.Option(help="Folder whose `bench` keeps what is measured.")] = Path("results"),
    page: Annotated[Path | None, typer.Option(help="A Markdown page that gets the rows, between its marks.")] = None,
) -> None:
    """Load, cut off, kill, fuzz and empty a wearer's host: what it takes, loses and keeps; goes on where it was."""
    with _errors_told():
        try:
            from simulation.bench.host import HostBench, run_host_bench  # noqa: PLC0415  it loads gRPC
        except ImportError as error:
            raise ConfigError(f"measuring a host needs {error.name}: pip install 'clmm[host]'") from error
        run_host_bench(HostBench(rows=tuple(each.strip() for each in rows.split(","))), results, page, ["clmm", *sys.argv[1:]], typer.echo)


@bench.command()
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

    with _errors_told():
        own = {"data.name": data, **({} if path is None else {"data.path": str(path)}), **parse_overrides(settings or ())}
        values = apply_overrides(read_app_config(find_app(None)), with_absolute_path(own))
        found = measure_leakage(values, noise, splits, windows, typer.echo)
        kept = results / KEPT / f"leakage-{data}.json"
        kept.parent.mkdir(parents=True, exist_ok=True)
        replace_file(kept, readable_json(found, kept))
        typer.echo(found.markdown())
        typer.echo(f"wrote {_shown(kept)}")


@bench.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def engine(context: typer.Context) -> None:
    """Measure how many devices train in a second, one by one and as a stack; needs PyTorch and NumPy alone."""
    from simulation.bench.engine import main  # noqa: PLC0415

    main(context.args)


def _default_name(results: Path, data_name: str) -> str:
    """Return the time and the data set, with a number behind if such a run exists."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{data_name}").strip("-")
    candidates = (name, *(f"{name}-{number}" for number in range(2, 1000)))
    return next(each for each in candidates if not (results / each).exists() and not (results / f"{each}.partial").exists())


class _Place(NamedTuple):
    """Where a run goes on, and where its results go: none of it changes what is computed."""

    app: Path
    results: Path
    name: str | None
    hosts: int
    ray_address: str
    workers_per_gpu: int
    resume: bool = False


def _begun(asked: Path, results: Path) -> "tuple[dict[str, Value], int, Path, str]":
    """Return what a killed run was begun with: its run config, its hosts, its results and its name.

    Args:
        asked: its name, or its folder with or without `.partial`.
        results: where a name is looked for.
    """
    from clmm_core.report.records import RunInfo  # noqa: PLC0415
    from clmm_core.report.run_folder import INFO, PARTIAL_SUFFIX  # noqa: PLC0415
    from clmm_core.report.run_json import read_json  # noqa: PLC0415

    folder = results / asked if len(asked.parts) == 1 else asked
    final = folder.with_name(folder.name.removesuffix(PARTIAL_SUFFIX))
    info = final.with_name(f"{final.name}{PARTIAL_SUFFIX}") / INFO
    if not info.is_file():
        found = f"that run is finished: {_shown(final)}" if final.is_dir() else "found none"
        raise ConfigError(f"--resume: expected the folder of a killed run, {_shown(info.parent)}, {found}")
    config = dict(read_json(info, RunInfo).run_config)
    hosts = config.pop("min-hosts")
    for key in ("results-dir", "run-name", "resume"):
        del config[key]
    return config, int(hosts), final.parent, final.name


def _start(overrides: "Mapping[str, Value]", place: _Place) -> None:
    """Check a run before Flower and Ray start, then do it."""
    from simulation.flwr_run import FlowerRun, check_cluster, new_home  # noqa: PLC0415
    from simulation.overrides import apply_overrides, check_run_config, read_app_config, with_absolute_path  # noqa: PLC0415

    overrides = with_absolute_path(overrides)
    config = apply_overrides(read_app_config(place.app), overrides)
    if "min-hosts" in config and "min-hosts" not in overrides:  # all of them register within a moment of the start
        overrides["min-hosts"] = place.hosts
    asked_name = place.name or _default_name(place.results, str(config.get("data.name", "")))
    check_run_config(place.app, apply_overrides(config, {"results-dir": str(place.results.absolute()), "run-name": asked_name}))
    job = FlowerRun(
        app=place.app,
        results_dir=place.results,
        name=asked_name,
        overrides=overrides,
        hosts=place.hosts,
        ray_address=place.ray_address,
        workers_per_gpu=place.workers_per_gpu,
        resume=place.resume,
    )
    check_cluster(job.ray_address)
    home = new_home(place.app, job.name)
    if place.name is None:  # two runs may start in the same second
        job = replace(job, name=home.name)
    _run_and_tell(job, home)


def _run_and_tell(job: "FlowerRun", home: Path) -> None:
    from clmm_core.report.run_folder import read_run  # noqa: PLC0415
    from simulation.flwr_run import run_flower  # noqa: PLC0415
    from simulation.progress import LiveProgress, PlainProgress  # noqa: PLC0415

    console = _console()
    console.print(f"run {job.name}: {job.hosts} hosts; log {_shown(home / 'run.log')}", markup=False, highlight=False, soft_wrap=True)
    watch = LiveProgress if console.is_terminal else PlainProgress
    try:
        with watch(partial=job.partial, console=console, clock=time.monotonic) as progress:
            folder = run_flower(job, home, on_tick=progress.tick)
    except (KeyboardInterrupt, ClmmError):
        _tell_what_is_left(job, home)
        raise
    _tell_results(console, read_run(folder), folder)


def _tell_results(console: "Console", record: "RunRecord", folder: Path) -> None:
    """Print the result in a sentence, a row a subject with the worst first, and where the page is."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from clmm_core.report.lines import headline, subject_table  # noqa: PLC0415
    from clmm_core.report.privacy import privacy_in_words, privacy_of  # noqa: PLC0415
    from clmm_core.report.run_folder import REPORT, SUBJECTS  # noqa: PLC0415

    header, *rows = subject_table(record)
    shown = [
        i for i, name in enumerate(header) if name != "sensors" or len({row[i] for row in rows}) > 1
    ]  # the same for all: said by the page
    table = Table()
    for i in shown:
        is_word = header[i] in ("subject", "group", "sensors")
        table.add_column(header[i], justify="left" if is_word else "right", no_wrap=not is_word)
    for row in rows[:MAX_ROWS]:
        table.add_row(*(Text(row[i]) for i in shown))
    console.print(table)
    if (more := len(rows) - MAX_ROWS) > 0:
        console.print(f"and {more:,} more in {_shown(folder / SUBJECTS)}", markup=False, highlight=False, soft_wrap=True)
    console.print(headline(record), markup=False, highlight=False)
    if (spent := privacy_of(record)) is not None:
        console.print(f"Privacy: {privacy_in_words(spent)}", markup=False, highlight=False)
    console.print(f"Report: {_shown(folder / REPORT)}", markup=False, highlight=False, soft_wrap=True)


def _tell_what_is_left(job: "FlowerRun", home: Path) -> None:
    from server.checkpoint import FOLDER  # noqa: PLC0415

    if job.partial.exists():
        typer.echo(f"Left: {_shown(job.partial)} (unfinished results)", err=True)
    if (job.partial / FOLDER).exists():
        typer.echo(f"To go on with it: clmm run --resume {_shown(job.partial)}", err=True)
    if home.exists():
        typer.echo(f"Left: {_shown(home)} (logs)", err=True)


@contextmanager
def _errors_told() -> Iterator[None]:
    """Turn our errors into their message and exit code 1, Ctrl-C into 130."""
    try:
        yield
    except ClmmError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_FAILED) from error
    except KeyboardInterrupt as error:
        typer.echo("Stopped. No process of the run is left.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from error


def _console() -> "Console":
    from rich.console import Console  # noqa: PLC0415

    # A pipe has no width to respect: a table cut to 80 columns would lose figures.
    return Console() if sys.stdout.isatty() else Console(width=200)


def _shown(path: Path) -> str:
    """Return a path as short as it can be said from here."""
    with suppress(ValueError):
        return str(path.absolute().relative_to(Path.cwd()))
    return str(path.absolute())
