"""Many devices trained as one program: their models stacked, every step of all of them one call.

On a GPU a single small model is bound by the launches of its kernels; a stack of hundreds takes hardly longer than one. Stacks of few leave
room there as well: several train at once, each in a lane. What a device learns is what it learns alone (to rounding) with the same draws,
whoever shares the stack or trains beside it.

J = devices trained together, B = batch, N = numbers that learn, U = different sets of windows.
"""

import math
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle, groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from clmm_core.errors import DeviceSkippedError
from clmm_core.federated.arrays import Arrays, part_of
from clmm_core.federated.clipping import factor_within
from clmm_core.federated.weighted_sum import Weights
from clmm_core.models.clmm import Clmm
from clmm_core.training.descent import Descent, MaskedDescent, RowDescent, Span
from clmm_core.training.device_tensors import DeviceTensors
from clmm_core.training.draws import Draws
from clmm_core.training.finetune import finetune_loss, finetuned_parameters, no_labels
from clmm_core.training.job import Job, Losses, Mean, StageConfig
from clmm_core.training.pretrain import (
    SMALLEST_BATCH,
    nothing_to_compare,
    pretrain_loss,
    pretrained_parameters,
    too_few_windows,
)
from clmm_core.training.settings import PretrainConfig
from clmm_core.training.stack_size import LANES, bytes_kept, devices_at_once
from clmm_core.training.stackable import stackable
from clmm_core.training.stacked_jobs import batches_of_jobs, brought_back, starts_of
from clmm_core.training.stacked_windows import distinct, forget_windows, upload

MAX_KEPT = {"cuda": 64, "cpu": 1}
"""Programs that are kept for the next round: a captured one is worth much, another one a few milliseconds."""


def train_together(jobs: Sequence[Job], device: torch.device) -> tuple[Losses, dict[int, list[Mean]]]:
    """Train those that are alike as one stack.

    Returns:
        For each job in order its mean loss, NaN where training diverged, or why it was left out; and by host the means of its jobs
        that count, one a stack they were in.
    """
    done: dict[int, float | DeviceSkippedError] = {}
    means: dict[int, list[Mean]] = {}
    begun: deque[tuple[_Stack, list[int]]] = deque()

    def end_the_first() -> None:
        stack, some = begun.popleft()
        together = [jobs[i] for i in some]
        losses = stack.losses(together)
        done.update(zip(some, losses, strict=True))
        for host, mean in stack.folded(together, losses).items():
            means.setdefault(host, []).append(mean)

    try:
        for some in _stacks(jobs, device):
            stack = _stack_for([jobs[i] for i in some], device)
            while len(begun) >= LANES[device.type] or any(stack is busy for busy, _ in begun):
                end_the_first()
            stack.begin([jobs[i] for i in some])
            begun.append((stack, some))
        while begun:
            end_the_first()
    except torch.OutOfMemoryError:
        torch.cuda.synchronize(device)  # other lanes still write where the caller may make room
        raise
    return [done[i] for i in range(len(jobs))], means


def _stacks(jobs: Sequence[Job], device: torch.device) -> Iterator[list[int]]:
    """Yield which jobs train as one stack: those that are alike, as many at once as there is room for."""
    alike: dict[tuple[object, ...], list[int]] = {}
    for i, job in enumerate(jobs):
        alike.setdefault(job.alike, []).append(i)
    for members in alike.values():
        at_once = devices_at_once(jobs[members[0]], device)
        for first in range(0, len(members), at_once):
            yield members[first : first + at_once]


def _untrained(job: Job) -> DeviceSkippedError:
    """Return why a job took no step."""
    if not isinstance(job.config, PretrainConfig):
        return no_labels()
    return too_few_windows(len(job.rows)) if len(job.rows) < SMALLEST_BATCH else nothing_to_compare(job.config, len(job.rows))


class _Objective(nn.Module):
    """The loss of one device's batch as a module, so that its parameters can be a stack."""

    def __init__(self, model: Clmm, config: StageConfig, held: list[Draws]) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.held = held

    def forward(self, batch: DeviceTensors, counts: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return the loss, and `[groups]` whether each group of `descent.Span` learns from it."""
        self.held[:] = [draws]
        if isinstance(self.config, PretrainConfig):
            loss, is_compared = pretrain_loss(self.model, batch, self.config, draws, counts)
            return loss, torch.stack([is_compared[name] for name in batch.streams])
        return finetune_loss(self.model, batch, self.config, draws, counts), counts.any()[None]


@dataclass(frozen=True)
class _Lane:
    """What stacks that train one after the other on a GPU share; those of different lanes train at once."""

    stream: torch.cuda.Stream
    pool: Any
    """Memory of the captured steps: a step leaves nothing in it that the next one, of whichever stack, may not overwrite."""


@dataclass(frozen=True)
class _Part:
    """A part of the model in a stack."""

    columns: Tensor
    """Of what learns, those that are this part's."""
    arrays: tuple[tuple[str, slice, torch.Size], ...]
    """Each array's name, and its place and shape where the columns of all parts lie one after the other."""


class _Stack:
    """The program of one stack: buffers of fixed shape, one step over them, captured as a CUDA graph where there is a GPU."""

    def __init__(self, jobs: Sequence[Job], device: torch.device) -> None:
        like = jobs[0]
        self.device = device
        self.config = like.config
        self.modalities = tuple(like.windows.streams)
        self.windows = tuple(distinct([job.windows for job in jobs])[0])
        """Kept alive: `_stack_for` knows them by identity."""
        model, held = stackable(like.model)
        self.objective = _Objective(model.to(device).train(), like.config, held)
        names = {id(p): f"model.{name}" for name, p in model.named_parameters()}
        slow, quick = self._learning(model)
        factors = [getattr(like.config, "encoder_rate", 1.0)] * len(slow) + [1.0] * len(quick)
        self.learning = [names[id(p)] for p in (*slow, *quick)]
        shapes = dict(self.objective.named_parameters())
        self.shapes = [shapes[name].shape for name in self.learning]
        self.sizes = [shape.numel() for shape in self.shapes]
        self.parts = self._parts()
        count, total = len(jobs), sum(self.sizes)
        self.start, self.now = (torch.zeros(count, total, device=device) for _ in range(2))
        learning = set(self.learning)
        everything = {**shapes, **dict(self.objective.named_buffers())}
        self.fixed = {name: torch.zeros(count, *v.shape, device=device) for name, v in everything.items() if name not in learning}
        # What learns or rests together: in stage one each modality, which may have nothing to compare, in stage two everything.
        owners = [0] * len(self.learning)
        if isinstance(like.config, PretrainConfig):
            owners = [self.modalities.index(part_of(_own(name))) for name in self.learning]
        spans = _spans(self.sizes, owners, factors)
        self.masked = MaskedDescent(self.now, self.start, spans, like.config.local) if device.type == "cuda" else None
        self.descent: Descent = self.masked or RowDescent(self.now, self.start, spans, like.config.local)
        per_job = {"steps": torch.float32, "loss": torch.float32, "keys": torch.int64, "windows": torch.int64}
        self.per_job = {name: torch.zeros(count, dtype=dtype, device=device) for name, dtype in per_job.items()}
        self.number = torch.zeros((), dtype=torch.int64, device=device)
        self.data = upload(self.windows, device)
        # All batches of a round; as many steps as any job could take.
        most = max(len(job.windows) for job in jobs)
        num_steps = like.config.local.epochs * math.ceil(most / like.config.local.batch_size)
        shape = (num_steps, count, like.config.local.batch_size)
        self.rows = torch.zeros(shape, dtype=torch.int64, device=device)
        self.classes = torch.zeros(shape, dtype=torch.int64, device=device)
        self.counts = torch.zeros(shape, dtype=torch.bool, device=device)
        self.lane = next(_lanes(LANES["cuda"])) if device.type == "cuda" else None
        self.graph: torch.cuda.CUDAGraph | None = None

    @property
    def num_bytes(self) -> int:
        """Of what it keeps from round to round, but for the windows and the batches."""
        num_rows = 2 + (len(self.masked.state) if self.masked else 0)
        return num_rows * self.now.nbytes + sum(buffer.nbytes for buffer in self.fixed.values())

    def _learning(self, model: Clmm) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        if isinstance(self.config, PretrainConfig):
            return [], pretrained_parameters(model, self.modalities)
        return finetuned_parameters(model, self.modalities)

    def begin(self, jobs: Sequence[Job]) -> None:
        """Train a round of each job. A GPU is only told to: it does this beside what is done in other lanes."""
        if self.lane is not None:
            self.lane.stream.wait_stream(torch.cuda.current_stream())  # which made the buffers
        with self._in_its_lane():
            for _ in range(self._load(jobs)):
                self._run()
            if isinstance(self.config, PretrainConfig) and self.config.aggregation == "l-dawa":
                self._scale_by_agreement()

    def losses(self, jobs: Sequence[Job]) -> Losses:
        """Return what became of the round that was begun, once it has ended; see `train_together`."""
        with self._in_its_lane():
            is_finite = self.now.isfinite().all(dim=1)
            losses = torch.where(is_finite, self.per_job["loss"] / self.per_job["steps"], torch.nan)
            each = zip(jobs, torch.stack([losses, self.per_job["steps"]], dim=1).tolist(), strict=True)
            return [float(loss) if steps else _untrained(job) for job, (loss, steps) in each]

    def _in_its_lane(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.lane is None else torch.cuda.stream(self.lane.stream)

    def folded(self, jobs: Sequence[Job], losses: Sequence[float | DeviceSkippedError]) -> dict[int, Mean]:
        """Return by host the weighted mean of its jobs' updates, over those that count; see `federated.weighted_sum`."""
        counting = [j for j, loss in enumerate(losses) if isinstance(loss, float) and math.isfinite(loss)]
        place = {host: row for row, host in enumerate(sorted({jobs[j].host for j in counting}))}
        weights: dict[int, dict[str, float]] = {host: {} for host in place}
        for j in counting:
            for part, weight in jobs[j].weights.items():
                weights[jobs[j].host][part] = weights[jobs[j].host].get(part, 0.0) + weight
        updates = (self.now - self.start)[counting].double()  # [counting, N]
        factors = self._factors_within([jobs[j] for j in counting], updates)
        shares = np.zeros((len(self.parts), len(place), len(counting)))
        for column, j in enumerate(counting):
            host = jobs[j].host
            for number, part in enumerate(self.parts):
                if part in jobs[j].weights:
                    shares[number, place[host], column] = factors[column] * jobs[j].weights[part] / weights[host][part]
        each = zip(torch.from_numpy(shares).to(self.device), self.parts.values(), strict=True)
        mean = brought_back(torch.cat([(share @ updates[:, part.columns]).float() for share, part in each], dim=1))  # [hosts, N]
        within = Counter(jobs[j].host for j, factor in zip(counting, factors, strict=True) if jobs[j].clip and factor == 1)
        return {host: Mean(self._arrays(mean[row], weights[host]), weights[host], within[host]) for host, row in place.items()}

    def _factors_within(self, jobs: Sequence[Job], updates: Tensor) -> list[float]:
        """Return for each job what its update, `[jobs, N]` float64, is multiplied by to keep to its clip; see `federated.clipping`."""
        if not any(job.clip for job in jobs):
            return [1.0] * len(jobs)
        squares = {name: updates[:, part.columns].square().sum(dim=1).tolist() for name, part in self.parts.items()}
        lengths = [math.sqrt(sum(of_each[row] for part, of_each in squares.items() if part in job.weights)) for row, job in enumerate(jobs)]
        return [factor_within(length, job.clip) if job.clip else 1.0 for length, job in zip(lengths, jobs, strict=True)]

    def _arrays(self, mean: NDArray[np.float32], weights: Weights) -> Arrays:
        """Return the arrays of those parts of a mean `[N]`, in the order of the parts, that have a weight."""
        there = (array for name, part in self.parts.items() if name in weights for array in part.arrays)
        return {name: mean[columns].reshape(shape) for name, columns, shape in there}

    def _parts(self) -> dict[str, _Part]:
        """Return by name the parts of the model, in the order of their first arrays."""
        named: dict[str, list[int]] = {}
        for number, name in enumerate(self.learning):
            named.setdefault(part_of(_own(name)), []).append(number)
        firsts = np.cumsum([0, *self.sizes])
        parts, first = {}, 0
        for part, numbers in named.items():
            columns = torch.cat([torch.arange(firsts[i], firsts[i + 1]) for i in numbers]).to(self.device)
            arrays = []
            for i in numbers:
                arrays.append((_own(self.learning[i]), slice(first, first + self.sizes[i]), self.shapes[i]))
                first += self.sizes[i]
            parts[part] = _Part(columns, tuple(arrays))
        return parts

    def _scale_by_agreement(self) -> None:
        """Scale each array by its cosine with the one it started from; see `federated.l_dawa`."""
        for now, start in zip(torch.split(self.now, self.sizes, dim=1), torch.split(self.start, self.sizes, dim=1), strict=True):
            one, other = now.double(), start.double()
            lengths = one.norm(dim=1) * other.norm(dim=1)
            cosine = torch.where(lengths > 0, (one * other).sum(dim=1) / lengths, 1.0).clamp(max=1.0)
            now.mul_(cosine.float()[:, None])

    def _load(self, jobs: Sequence[Job]) -> int:
        """Put the jobs into the buffers; return how many steps the longest takes.

        What did not travel, because the stage does not use it, stays zeros.
        """
        there = [name for name in self.fixed if _own(name) in jobs[0].arrays]
        which, starts = starts_of([job.arrays for job in jobs], [_own(name) for name in (*self.learning, *there)], self.device)
        learning, *fixed = torch.split(starts, [sum(self.sizes), *(self.fixed[name][0].numel() for name in there)], dim=1)
        torch.index_select(learning, 0, which, out=self.start)
        self.now.copy_(self.start)
        for name, values in zip(there, fixed, strict=True):
            self.fixed[name].copy_(values[which].view_as(self.fixed[name]))
        for buffer in (self.per_job["steps"], self.per_job["loss"], self.number):
            buffer.zero_()
        self.descent.begin([job.config.local.learning_rate for job in jobs])
        self.per_job["keys"].copy_(torch.tensor([job.key for job in jobs]))
        self.per_job["windows"].copy_(torch.tensor(distinct([job.windows for job in jobs])[1]))
        rows, classes, counts, num_steps = batches_of_jobs(jobs, self.rows.shape)
        self.rows[:num_steps].copy_(torch.from_numpy(rows[:num_steps]))
        self.classes[:num_steps].copy_(torch.from_numpy(classes[:num_steps]))
        self.counts[:num_steps].copy_(torch.from_numpy(counts[:num_steps]))
        return num_steps

    def _run(self) -> None:
        """Take one step, by replaying it where it is captured."""
        if self.lane is None:
            self._step()
            return
        if self.graph is None:
            self.graph = self._captured(self.lane.pool)
        self.graph.replay()

    def _captured(self, pool: Any) -> torch.cuda.CUDAGraph:
        """Return the captured step; the buffers are as before."""
        assert self.masked is not None
        state = [self.now, *self.masked.state, self.number, self.per_job["steps"], self.per_job["loss"]]
        before = [buffer.clone() for buffer in state]
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            self._step()
        for buffer, values in zip(state, before, strict=True):
            buffer.copy_(values)
        return graph

    def _step(self) -> None:
        # The one way of attention that torch.vmap can stack.
        with sdpa_kernel(SDPBackend.MATH):
            self._step_of_each()

    def _step_of_each(self) -> None:
        rows, classes, counts = (buffer.index_select(0, self.number.view(1))[0] for buffer in (self.rows, self.classes, self.counts))
        where = self.per_job["windows"][:, None], rows
        batch = DeviceTensors(
            {name: values[where] for name, values in self.data.streams.items()},
            {name: mask[where] for name, mask in self.data.present.items()},
            classes,
        )
        learning = self._named(self.now)
        (gradients, (losses, is_usable)) = self._gradients(learning, batch, counts)
        flat = torch.cat([gradients[name].flatten(1) for name in self.learning], dim=1)  # [J, N]
        is_active = counts.any(dim=1) & is_usable.any(dim=1)
        self.descent.step(flat, is_active[:, None] & (is_usable | (self.config.local.proximal > 0)))  # the proximal term moves all
        self.per_job["steps"] += is_active
        self.per_job["loss"] += torch.where(is_active, losses, 0.0)
        self.number += 1

    def _named(self, flat: Tensor) -> dict[str, Tensor]:
        parts = torch.split(flat, self.sizes, dim=1)
        return {name: part.view(-1, *shape) for name, shape, part in zip(self.learning, self.shapes, parts, strict=True)}

    def _gradients(
        self, learning: dict[str, Tensor], batch: DeviceTensors, counts: Tensor
    ) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
        def loss_of(
            own: dict[str, Tensor], fixed: dict[str, Tensor], streams: Any, present: Any, classes: Tensor, counts: Tensor, key: Tensor
        ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            draws = Draws(key).step(self.number)
            loss, is_usable = functional_call(self.objective, (own, fixed), (DeviceTensors(streams, present, classes), counts, draws))
            return loss, (loss.detach(), is_usable)

        # grad_and_value under vmap: each device's gradient of its own loss
        of_each = vmap(grad_and_value(loss_of, has_aux=True))
        gradients, (_, aux) = of_each(learning, self.fixed, batch.streams, batch.present, batch.classes, counts, self.per_job["keys"])
        return gradients, aux


def _own(name: str) -> str:
    """Return what the model itself calls an array of the objective."""
    return name.removeprefix("model.")


def _spans(sizes: Sequence[int], owners: Sequence[int], factors: Sequence[float]) -> list[Span]:
    """Return neighbouring arrays that learn alike as one span."""
    alike = groupby(zip(sizes, owners, factors, strict=True), key=lambda each: each[1:])
    return [Span(size=sum(size for size, _, _ in arrays), group=group, factor=factor) for (group, factor), arrays in alike]


def _stack_for(jobs: Sequence[Job], device: torch.device) -> _Stack:
    """Return the program for these jobs, made once for as many of the same kind over the same windows, while it is used."""
    different, _ = distinct([job.windows for job in jobs])
    key = (str(device), jobs[0].alike, len(jobs), tuple(id(windows) for windows in different))
    stack = _STACKS.pop(key, None) or _Stack(jobs, device)
    _STACKS[key] = stack  # the last one used is the last in order
    room = bytes_kept(device)
    while len(_STACKS) > MAX_KEPT[device.type] or (len(_STACKS) > 1 and sum(each.num_bytes for each in _STACKS.values()) > room):
        del _STACKS[next(iter(_STACKS))]
    return stack


@lru_cache(maxsize=1)
def _lanes(count: int) -> Iterator[_Lane]:
    """Yield one lane after the other, for ever."""
    return cycle([_Lane(torch.cuda.Stream(), torch.cuda.graph_pool_handle()) for _ in range(count)])  # type: ignore[no-untyped-call]


_STACKS: dict[tuple[object, ...], _Stack] = {}


def forget() -> None:
    """Let go of all that trains and of all windows; the next round makes again what it needs."""
    _STACKS.clear()
    forget_windows()
    _lanes.cache_clear()  # a pool ends with the last graph in it
