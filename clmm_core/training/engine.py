"""Which way devices are trained: as one stack, or one after the other. What each of them learns is the same, to rounding."""

from collections.abc import Sequence

import torch

from clmm_core.errors import DeviceSkippedError
from clmm_core.training.alone import CPU, train_alone
from clmm_core.training.job import Job, Losses, Mean
from clmm_core.training.stack_size import devices_at_once
from clmm_core.training.together import train_together

FEWEST_STACKED = 4
"""Devices that are alike, for a stack of them to be worth its making on a CPU."""


def train_jobs(jobs: Sequence[Job], device: torch.device) -> tuple[Losses, dict[int, list[Mean]]]:
    """Train every job on a device in the quicker way.

    Returns:
        For each job in order its mean loss, NaN where training diverged, or why it was left out; and by host the means of its jobs
        that count, one for each way and stack they were trained in.
    """
    if device.type != "cpu":
        return train_together(jobs, device)
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, job in enumerate(jobs):
        groups.setdefault(job.alike, []).append(i)
    stacked = {i for group in groups.values() if is_worth_a_stack([jobs[i] for i in group]) for i in group}
    done: dict[int, float | DeviceSkippedError] = {}
    means: dict[int, list[Mean]] = {}
    apart = [i for i in range(len(jobs)) if i not in stacked]
    together = sorted(stacked)
    for chosen, (losses, of_hosts) in (
        (apart, train_alone([jobs[i] for i in apart])),
        (together, train_together([jobs[i] for i in together], device)),
    ):
        done |= dict(zip(chosen, losses, strict=True))
        for host, some in of_hosts.items():
            means.setdefault(host, []).extend(some)
    return [done[i] for i in range(len(jobs))], means


def is_worth_a_stack(alike: Sequence[Job]) -> bool:
    """Return whether a CPU is quicker with these jobs as a stack: so many are there, and fit in one."""
    return min(len(alike), devices_at_once(alike[0], CPU)) >= FEWEST_STACKED
