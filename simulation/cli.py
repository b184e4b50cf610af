"""The `clmm` command. It imports what a subcommand needs when that subcommand runs: a host without Ray or torch can use its part."""

import re
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from clmm_core.errors import ClmmError, ConfigError
from simulation.bench.cli import app as bench
from simulation.command_line import EXIT_FAILED, Settings, errors_told, short_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from clmm_core.recognise.golden import OpenedModel
    from clmm_core.report.records import RunRecord
    from simulation.flwr_run import FlowerRun
    from simulation.overrides import Value

MAX_ROWS = 50
"""People in the table at the end of a run: unseen ones first, the worst first."""
app = typer.Typer(help="Federated activity recognition from wearables: train, look at data, report.", no_args_is_help=True)
app.add_typer(bench, name="bench")

# What `run` and `simulate` have in common.
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

    with errors_told():
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

    with errors_told():
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

    with errors_told():
        overrides = with_absolute_path(parse_overrides(settings or ()))
        running = Running(jobs=jobs, device=device, is_wanted=run)
        measured_by = [argument for argument in sys.argv[1:] if argument != "--no-run"]
        num_failed = run_study(file, overrides, results, running, page, ["clmm", *measured_by])
    if num_failed:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="The results folder of a finished run.")]) -> None:
    """Write report.html of a finished run again, and show its table."""
    with errors_told():
        from clmm_core.files import replace_file  # noqa: PLC0415
        from clmm_core.report.page import render  # noqa: PLC0415
        from clmm_core.report.run_folder import REPORT, read_run  # noqa: PLC0415

        record = read_run(folder)
        replace_file(folder / REPORT, render(record))
        _tell_results(_console(), record, folder)


class ExportFormat(StrEnum):
    """What `clmm export` can make."""

    ONNX = "onnx"
    EXECUTORCH = "executorch"
    BROWSER = "browser"


PROGRAM = ".pte"
"""How the name of an ExecuTorch program ends."""


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The results folder of a finished run.")],
    *,
    to: Annotated[
        ExportFormat,
        typer.Option(
            help="onnx runs on phones, boards and in browsers, with onnxruntime; executorch in apps that carry ExecuTorch; browser is a "
            "page that recognises."
        ),
    ],
    int8: Annotated[bool, typer.Option("--int8", help="Weights of 8 bits, of ONNX: a smaller file, no quicker one.")] = False,
    file: Annotated[
        Path | None,
        typer.Option(
            "-o", metavar="PATH", help="The model file, else model.onnx or model.pte in RUN; the page's folder, else browser in RUN."
        ),
    ] = None,
    runtime: Annotated[
        Path | None, typer.Option(metavar="TGZ", help="For browser: onnxruntime-web as `npm pack` fetched it, where there is no network.")
    ] = None,
) -> None:
    """Write the model of a finished run as one file that recognises without PyTorch, with golden vectors beside it, or as a page."""
    with errors_told():
        if int8 and to is ExportFormat.EXECUTORCH:
            raise ConfigError(f"--int8: expected --to onnx or browser, found --to {to}: weights of 8 bits are made for ONNX only")
        if runtime is not None and to is not ExportFormat.BROWSER:
            raise ConfigError("--runtime: expected with --to browser alone: leave it out")
        try:
            from simulation.export import as_executorch, as_int8, as_onnx, export_browser, export_model  # noqa: PLC0415  it loads PyTorch
        except ImportError as error:
            raise ConfigError(f"exporting needs {error.name}: pip install 'clmm[export]'") from error
        suffix, make = ("-int8", partial(as_int8, say=typer.echo)) if int8 else ("", as_onnx)
        if to is ExportFormat.BROWSER:
            export_browser(folder, file or folder / f"browser{suffix}", make, runtime, typer.echo)
        elif to is ExportFormat.EXECUTORCH:
            export_model(folder, file or folder / f"model{PROGRAM}", as_executorch, typer.echo)
        else:
            export_model(folder, file or folder / f"model{suffix}.onnx", make, typer.echo)


@app.command()
def verify(
    model: Annotated[Path, typer.Argument(help="A model that `clmm export` made.")],
    *,
    golden: Annotated[Path | None, typer.Option(help="Its golden vectors, else MODEL.golden.json beside it.")] = None,
) -> None:
    """Check a model file on this machine: its checksum, what it says of itself, and that it answers as it should."""
    with errors_told():
        try:
            from clmm_core.recognise.golden import differences, golden_file, read_golden  # noqa: PLC0415

            opened = _opened(model)
        except ImportError as error:
            raise ConfigError(f"checking a model needs {error.name}: pip install 'clmm[recognise]'") from error
        expected = read_golden(golden or golden_file(model))
        found = differences(model.read_bytes(), opened, expected)
        for difference in found:
            typer.echo(f"{short_path(model)}: {difference}", err=True)
        if found:
            raise typer.Exit(EXIT_FAILED)
        typer.echo(f"{short_path(model)} is as exported: checksum, metadata and {len(expected.vectors)} vectors to {expected.tolerance:g}")


def _opened(model: Path) -> "OpenedModel":
    if model.suffix == PROGRAM:
        from clmm_core.export.executorch_file import ExecutorchModel  # noqa: PLC0415  it loads PyTorch, which a board may not have

        return ExecutorchModel.open(model)
    from clmm_core.recognise.onnx_model import OnnxModel  # noqa: PLC0415

    return OnnxModel.open(model)


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
def doctor(context: typer.Context) -> None:
    """Say what of this machine is right, what is not, and what to do."""
    from deploy.doctor import app as doctor_app  # noqa: PLC0415

    typer.main.get_command(doctor_app)(args=context.args, prog_name=f"{context.find_root().info_name} doctor", standalone_mode=True)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def host(context: typer.Context) -> None:
    """Keep a wearer's recordings on this machine, and take part with them."""
    from client.host.cli import app as host_app  # noqa: PLC0415  a board has this part alone

    typer.main.get_command(host_app)(args=context.args, prog_name=f"{context.find_root().info_name} host", standalone_mode=True)


@app.command()
def superlink(folder: Annotated[Path, typer.Argument(help="The server folder that `clmm provision` made.")]) -> None:
    """Start the SuperLink of a federation on real machines: TLS, known hosts, control from this machine alone."""
    from deploy.superlink import start_superlink  # noqa: PLC0415  it loads Flower

    with errors_told():
        start_superlink(folder)


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
        found = f"that run is finished: {short_path(final)}" if final.is_dir() else "found none"
        raise ConfigError(f"--resume: expected the folder of a killed run, {short_path(info.parent)}, {found}")
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
    console.print(f"run {job.name}: {job.hosts} hosts; log {short_path(home / 'run.log')}", markup=False, highlight=False, soft_wrap=True)
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
        console.print(f"and {more:,} more in {short_path(folder / SUBJECTS)}", markup=False, highlight=False, soft_wrap=True)
    console.print(headline(record), markup=False, highlight=False)
    if (spent := privacy_of(record)) is not None:
        console.print(f"Privacy: {privacy_in_words(spent)}", markup=False, highlight=False)
    console.print(f"Report: {short_path(folder / REPORT)}", markup=False, highlight=False, soft_wrap=True)


def _tell_what_is_left(job: "FlowerRun", home: Path) -> None:
    from server.checkpoint import FOLDER  # noqa: PLC0415

    if job.partial.exists():
        typer.echo(f"Left: {short_path(job.partial)} (unfinished results)", err=True)
    if (job.partial / FOLDER).exists():
        typer.echo(f"To go on with it: clmm run --resume {short_path(job.partial)}", err=True)
    if home.exists():
        typer.echo(f"Left: {short_path(home)} (logs)", err=True)


def _console() -> "Console":
    from rich.console import Console  # noqa: PLC0415

    # A pipe has no width to respect: a table cut to 80 columns would lose figures.
    return Console() if sys.stdout.isatty() else Console(width=200)
