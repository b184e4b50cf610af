"""The embedding picture: where windows lie before and after stage one, without an embedding leaving its device."""

from clmm_core.errors import RoundFailedError
from clmm_core.federated.messages import HostMoments, HostPlane
from clmm_core.federated.principal_plane import SECOND, SUM, principal_plane
from clmm_core.report.records import EmbeddedWindow
from clmm_core.training.array_names import is_stage_one
from clmm_core.training.tasks import MomentsTask, PlaneTask
from server.evaluation import group_of
from server.run import Run

MOST_DEVICES = 12
"""More could not be told apart in a picture."""


def embedded_windows(run: Run) -> tuple[EmbeddedWindow, ...]:
    """Return some windows of some devices in the plane where their shared embeddings vary most; none if none are asked for.

    What is not in the picture goes to the notes; without an answer the run goes on without a picture.
    """
    points = run.config.points_per_device
    if not points:
        return ()
    split = run.split
    ordered = dict.fromkeys((*split.test, *split.validation, *split.labelled, *split.training))
    devices = tuple(ordered)[:MOST_DEVICES]
    sent = {name: values for name, values in run.arrays.items() if is_stage_one(name)}

    def moments_task(here: tuple[str, ...]) -> MomentsTask:
        return MomentsTask(**run.task_settings(), devices=here, points_per_device=points)

    def plane_task(here: tuple[str, ...]) -> PlaneTask:
        return PlaneTask(**run.task_settings(), devices=here, points_per_device=points)

    try:
        answers, absent = run.directory.ask("query.moments", devices, moments_task, sent, HostMoments)
        num_windows = sum(answer.reply.num_windows for answer in answers)
        plane = principal_plane(num_windows, {name: sum(answer.arrays[name] for answer in answers) for name in (SUM, SECOND)})  # type: ignore[misc]
        answers, also_absent = run.directory.ask("query.plane", devices, plane_task, sent | plane, HostPlane)
    except RoundFailedError as error:
        run.note([f"embedding picture: {error}"])
        return ()
    finally:
        run.directory.take_traffic()  # the report's, not the training's: no step of the run has it
    run.note(absent + also_absent)
    return tuple(
        EmbeddedWindow(subject=point.device, group=group_of(point.device, split), label=point.label, x=point.x, y=point.y)
        for answer in answers
        for point in answer.reply.points
    )
