"""`clmm host label`: say what was done when, see what was said, correct it, take it back."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from client.host.told import errors_told
from client.host.wishes import LISTEN, NS, Authority, Target, Token
from clmm_core.errors import ConfigError

if TYPE_CHECKING:
    from client.host.v1.labels_pb2 import Label

label = typer.Typer(help="Say what was done when: labels of recordings.", no_args_is_help=True)
Activity = Annotated[str, typer.Argument(help="What was done: walk.")]
Number = Annotated[str, typer.Argument(metavar="ID", help="As `label list` shows it.")]
From = Annotated[datetime | None, typer.Option("--from", help="In this machine's time zone.")]
To = Annotated[datetime | None, typer.Option("--to", help="In this machine's time zone.")]


@label.command()
def add(  # noqa: PLR0913  a parameter an option
    activity: Activity,
    *,
    subject: Annotated[str, typer.Option(help="Who did it.")],
    recording: Annotated[str, typer.Option(help="Of which recording.")],
    last_s: Annotated[float, typer.Option(min=0, help="The last so many seconds; or --from and --to.")] = 0.0,
    start: From = None,
    end: To = None,
    target: Target = LISTEN,
    token: Token,
    authority: Authority = None,
) -> None:
    """Give a stretch of a recording its activity."""
    import time  # noqa: PLC0415

    from client.host.calls import TIMEOUT_S, bearer, calling  # noqa: PLC0415  these load gRPC
    from client.host.v1 import labels_pb2 as pb  # noqa: PLC0415
    from client.host.v1 import labels_pb2_grpc  # noqa: PLC0415

    with errors_told(), calling(target, authority) as channel:
        if (last_s > 0) == (start is not None and end is not None):
            raise ConfigError("expected either --last-s, or --from and --to: say when it was done")
        now_ns = time.time_ns()
        start_ns = now_ns - round(last_s * NS) if start is None else round(start.timestamp() * NS)
        end_ns = now_ns if end is None else round(end.timestamp() * NS)
        asked = pb.Label(subject=subject, recording=recording, activity=activity, start_ns=start_ns, end_ns=end_ns)
        asked.source = pb.LABEL_SOURCE_WEARER
        stub = labels_pb2_grpc.LabelsStub(channel)
        _show(stub.PutLabel(pb.PutLabelRequest(label=asked), timeout=TIMEOUT_S, metadata=bearer(token)).label)


@label.command("list")
def list_labels(
    *,
    subject: Annotated[str, typer.Option(help="Whose; else everybody's.")] = "",
    recording: Annotated[str, typer.Option(help="Of which recording; else of all.")] = "",
    corrected: Annotated[bool, typer.Option("--corrected", help="With those that were corrected.")] = False,
    target: Target = LISTEN,
    token: Token,
    authority: Authority = None,
) -> None:
    """Show labels by start, with their ids."""
    from client.host.calls import TIMEOUT_S, bearer, calling  # noqa: PLC0415
    from client.host.v1 import labels_pb2 as pb  # noqa: PLC0415
    from client.host.v1 import labels_pb2_grpc  # noqa: PLC0415

    with errors_told(), calling(target, authority) as channel:
        request = pb.ListLabelsRequest(subject=subject, recording=recording, with_corrected=corrected)
        for each in labels_pb2_grpc.LabelsStub(channel).ListLabels(request, timeout=TIMEOUT_S, metadata=bearer(token)).labels:
            _show(each)


@label.command()
def correct(number: Number, activity: Activity, *, target: Target = LISTEN, token: Token, authority: Authority = None) -> None:
    """Give a label another activity; the old one stays as history."""
    from client.host.calls import TIMEOUT_S, bearer, calling  # noqa: PLC0415
    from client.host.v1 import labels_pb2 as pb  # noqa: PLC0415
    from client.host.v1 import labels_pb2_grpc  # noqa: PLC0415

    with errors_told(), calling(target, authority) as channel:
        request = pb.CorrectLabelRequest(id=number, label=pb.Label(activity=activity, source=pb.LABEL_SOURCE_WEARER))
        _show(labels_pb2_grpc.LabelsStub(channel).CorrectLabel(request, timeout=TIMEOUT_S, metadata=bearer(token)).label)


@label.command()
def delete(number: Number, *, target: Target = LISTEN, token: Token, authority: Authority = None) -> None:
    """Take a label back, with those that it corrected."""
    from client.host.calls import TIMEOUT_S, bearer, calling  # noqa: PLC0415
    from client.host.v1 import labels_pb2 as pb  # noqa: PLC0415
    from client.host.v1 import labels_pb2_grpc  # noqa: PLC0415

    with errors_told(), calling(target, authority) as channel:
        labels_pb2_grpc.LabelsStub(channel).DeleteLabel(pb.DeleteLabelRequest(id=number), timeout=TIMEOUT_S, metadata=bearer(token))
        typer.echo(f"deleted {number}")


def _show(each: "Label") -> None:
    span = f"{datetime.fromtimestamp(each.start_ns / NS):%Y-%m-%d %H:%M:%S} to {datetime.fromtimestamp(each.end_ns / NS):%H:%M:%S}"
    corrected = f"\tcorrected by {each.corrected_by}" if each.corrected_by else ""
    typer.echo(f"{each.id}\t{each.subject}, {each.recording}\t{span}\t{each.activity}{corrected}")
