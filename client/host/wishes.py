"""The commands of `clmm host` that call a running host: look at it, pause and resume, delete, export, replay."""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client.host.told import EXIT_FAILED, errors_told
from clmm_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from client.host.v1.status_pb2 import HostStatus

NS = 1_000_000_000
Target = Annotated[str, typer.Option(metavar="ADDRESS:PORT", help="Where the host listens.")]
Token = Annotated[str, typer.Option(envvar="CLMM_HOST_TOKEN", help="Better given by this variable: a command line is no secret.")]
Authority = Annotated[Path | None, typer.Option(help="Certificate of the authority that signed the host's, where it has TLS.")]
LISTEN = "127.0.0.1:50061"


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (status, watch, pause, resume, delete, export, replay):
        app.command()(command)


def status(
    *,
    target: Target = LISTEN,
    token: Token,
    authority: Authority = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show whether a host records, what it keeps, and what needs attention; exit code 1 where there is an alarm."""
    from google.protobuf.json_format import MessageToDict  # noqa: PLC0415  these load gRPC

    from client.host.calls import TIMEOUT_S, bearer, calling  # noqa: PLC0415
    from client.host.v1 import status_pb2, status_pb2_grpc  # noqa: PLC0415

    with errors_told(), calling(target, authority) as channel:
        request = status_pb2.GetStatusRequest()
        found = status_pb2_grpc.StatusStub(channel).GetStatus(request, timeout=TIMEOUT_S, metadata=bearer(token)).status
    if as_json:
        typer.echo(json.dumps(MessageToDict(found, always_print_fields_with_no_presence=True), indent=1))
    else:
        _show(found)
    if found.alarms:
        raise typer.Exit(EXIT_FAILED)


def watch(
    *,
    target: Target = LISTEN,
    token: Token,
    authority: Authority = None,
    subject: Annotated[str, typer.Option(help="Whose; else everybody's.")] = "",
) -> None:
    """Show what the host recognises, as it happens, until ended (Ctrl-C)."""
    from client.host.calls import bearer, calling  # noqa: PLC0415
    from client.host.v1 import recognition_pb2, recognition_pb2_grpc  # noqa: PLC0415

    with errors_told(), calling(target, authority) as channel:
        stub = recognition_pb2_grpc.RecognitionStub(channel)
        for each in stub.WatchActivities(recognition_pb2.WatchActivitiesRequest(subject=subject), metadata=bearer(token)):
            time = datetime.fromtimestamp(each.end_ns / NS)
            lacks = "".join(f"  without {name}: {why}" for name, why in each.left_out.items())
            typer.echo(f"{time:%H:%M:%S}  {each.subject}  {each.activity or 'not sure'}  {each.confidence:.0%}{lacks}")


def pause(*, target: Target = LISTEN, token: Token, authority: Authority = None) -> None:
    """Keep nothing from now on, until `resume`."""
    from client.host.calls import TIMEOUT_S, bearer, calling  # noqa: PLC0415
    from client.host.v1 import consent_pb2, consent_pb2_grpc  # noqa: PLC0415

    with errors_told(), calling(target, authority) as channel:
        consent_pb2_grpc.ConsentStub(channel).Pause(consent_pb2.PauseRequest(), timeout=TIMEOUT_S, metadata=bearer(token))
        typer.echo("paused: nothing is kept")


def resume(*, target: Target = LISTEN, token: Token, authority: Authority = None) -> None:
    """Keep what is measured from now on."""
    from client.host.calls import TIMEOUT_S, bearer, calling  # noqa: PLC0415
    from client.host.v1 import consent_pb2, consent_pb2_grpc  # noqa: PLC0415

    with errors_told(), calling(target, authority) as channel:
        consent_pb2_grpc.ConsentStub(channel).Resume(consent_pb2.ResumeRequest(), timeout=TIMEOUT_S, metadata=bearer(token))
        typer.echo("recording")


def delete(
    *,
    target: Target = LISTEN,
    token: Token,
    authority: Authority = None,
    everything: Annotated[bool, typer.Option("--all", help="All samples and labels of this host.")] = False,
    start: Annotated[datetime | None, typer.Option("--from", help="In this machine's time zone.")] = None,
    end: Annotated[datetime | None, typer.Option("--to", help="In this machine's time zone.")] = None,
    subject: Annotated[str, typer.Option(help="Whose, with --from and --to; else everybody's.")] = "",
) -> None:
    """Delete a time, or all: samples, labels and exports, without a copy left in the host's files."""
    from client.host.calls import bearer, calling  # noqa: PLC0415
    from client.host.consent_service import CONFIRMATION  # noqa: PLC0415
    from client.host.v1 import consent_pb2 as pb  # noqa: PLC0415
    from client.host.v1 import consent_pb2_grpc  # noqa: PLC0415

    with errors_told(), calling(target, authority) as channel:
        stub = consent_pb2_grpc.ConsentStub(channel)
        if everything and start is None and end is None and not subject:
            request = pb.DeleteAllRequest(confirmation=CONFIRMATION)
            gone = stub.DeleteAll(request, timeout=DELETE_S, metadata=bearer(token))
        elif not everything and start is not None and end is not None:
            span = {"start_ns": round(start.timestamp() * NS), "end_ns": round(end.timestamp() * NS)}
            gone = stub.DeleteRange(pb.DeleteRangeRequest(**span, subject=subject), timeout=DELETE_S, metadata=bearer(token))
        else:
            raise ConfigError("expected either --all, or --from and --to: say what to delete")
        typer.echo(f"deleted {gone.num_samples:,} samples and {gone.num_labels:,} labels")


DELETE_S = 600.0
"""Gigabytes are written anew, on an SD card."""


def export(
    *,
    to: Annotated[Path, typer.Option(help="A folder that is not there yet; `clmm data inspect` reads it then.")],
    target: Target = LISTEN,
    token: Token,
    authority: Authority = None,
    subject: Annotated[str, typer.Option(help="Whose; else everybody's.")] = "",
) -> None:
    """Get all recordings of a host, as Parquet in the folder format of docs/data.md."""
    from client.host.calls import bearer, calling  # noqa: PLC0415
    from client.host.v1 import consent_pb2, consent_pb2_grpc  # noqa: PLC0415

    with errors_told(), calling(target, authority) as channel:
        if to.exists():
            raise ConfigError(f"--to {to}: expected a new folder, found one that is there: choose another")
        request = consent_pb2.ExportRequest(subject=subject)
        files = set()
        for piece in consent_pb2_grpc.ConsentStub(channel).Export(request, timeout=DELETE_S, metadata=bearer(token)):
            for reason in piece.left_out:
                typer.echo(f"left out: {reason}", err=True)
            if piece.path:
                files.add(piece.path)
                with _file_below(to, piece.path).open("ab") as file:
                    file.write(piece.content)
        typer.echo(f"wrote {len(files)} files; look at them: clmm data inspect {to}")


def replay(
    path: Annotated[Path, typer.Argument(help="What `clmm data inspect` reads, or `spar`, which needs no files.")],
    *,
    subject: Annotated[str, typer.Option(help="Whose of them.")],
    target: Target = LISTEN,
    token: Token,
    authority: Authority = None,
    speed: Annotated[float, typer.Option(min=0, help="1 is as it was measured, 0 as quickly as it can be.")] = 0.0,
    labels: Annotated[bool, typer.Option(help="Give the recordings' labels too.")] = True,
) -> None:
    """Send recordings to a host as if their sensors were worn now."""
    import asyncio  # noqa: PLC0415
    import time  # noqa: PLC0415

    from client.cli import detect  # noqa: PLC0415  it loads the data sets
    from client.host.replay import replay_recordings  # noqa: PLC0415
    from clmm_core.data.fleet import DataConfig, open_dataset  # noqa: PLC0415

    with errors_told():
        dataset = open_dataset(DataConfig(name=str(path))) if str(path) == "spar" else detect(path)[1]
        if subject not in dataset.subjects():
            raise DataError(f"--subject: expected one of {', '.join(dataset.subjects())}, found '{subject}'")
        recordings = dataset.recordings(subject)
        replayed = replay_recordings(recordings, target, token, authority, time.time_ns(), speed=speed, with_labels=labels)
        typer.echo(f"{asyncio.run(replayed):,} samples of {len(recordings)} recordings are on the host's disk")


def _file_below(folder: Path, path: str) -> Path:
    """Return where a file of an export goes; a host does not write elsewhere.

    Raises:
        DataError: the path leads out of the folder.
    """
    file = (folder / path).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise DataError(f"expected files below {folder}, found '{path}': this is no host of ours")
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _show(found: "HostStatus") -> None:
    console = Console() if sys.stdout.isatty() else Console(width=200)
    table = Table(title=f"clmm {found.version}, {'PAUSED' if found.is_paused else 'recording'}")
    for name in ("subject, recording", "device", "modalities", "state", "Hz", "jitter", "gaps", "last seen"):
        table.add_column(name, overflow="fold")
    for each in found.streams:
        state = "finished" if each.is_finished else "connected" if each.is_connected else "not connected"
        hertz = f"{each.measured_hz:.1f}" + (f" of {each.nominal_hz:g}" if each.nominal_hz else "")
        seen = f"{(found.time_ns - each.last_seen_ns) / NS:.0f} s ago"
        names = (f"{each.subject}, {each.recording}", f"{each.device} {each.placement}".strip(), ", ".join(each.modalities))
        table.add_row(*map(escape, names), state, hertz, f"{each.jitter_ms:.1f} ms", f"{each.gap_share:.1%}", seen)
    console.print(table)
    store = found.store
    size = f"{store.stored_bytes / 1e6:,.1f} of {store.max_bytes / 1e6:,.0f} MB"
    console.print(
        f"store: {size}, {store.num_chunks:,} chunks, {store.num_labels:,} labels, {store.num_evicted:,} let go of", highlight=False
    )
    if found.HasField("federation"):
        console.print(f"federation: {_part_in_words(found)}", highlight=False, markup=False, soft_wrap=True)
    for alarm in found.alarms:
        console.print(f"alarm: {escape(alarm.text)}", style="yellow", soft_wrap=True)


def _part_in_words(found: "HostStatus") -> str:
    part = found.federation
    said = ["its SuperNode runs" if part.is_supernode_running else "its SuperNode does not run, and is started again"]
    if part.last_answered:
        ago_s = (found.time_ns - part.last_answered_ns) / NS
        said.append(f"answered {part.last_answered} {ago_s:.0f} s ago, {part.bytes_sent / 1e6:,.1f} MB sent since the host started")
    said.append(f"would not train now: {part.why_not}" if part.why_not else "would train now")
    return "; ".join(said)
