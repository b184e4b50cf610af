"""Live recognition: samples as they arrive, answers as windows are complete, for whoever watches."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from client.host.chunk import Chunk
from client.host.header import Header, SensorStream
from client.host.models import Models
from clmm_core.errors import ClmmError

if TYPE_CHECKING:
    from clmm_core.recognise.onnx_model import OnnxModel
    from clmm_core.recognise.personal import PersonalHead
    from clmm_core.recognise.recogniser import Answer, Recogniser

LOOK_S = 1.0
"""So often it is looked whether the model is another one."""
CLOCK_SET_NS = 60_000_000_000
"""A sensor whose samples are older than those before by more than this had its clock set: it is recognised anew. Less is late, or twice."""
MAX_WEARERS = 64
"""Recordings that are recognised at once; the one that was silent longest is forgotten first."""
MAX_WAITING = 256
"""Answers that a watcher may be behind; then its oldest are let go of."""
Wearer = tuple[str, str]
"""Subject and recording."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recognised:
    """One answer, and whose it is."""

    subject: str
    recording: str
    answer: "Answer"
    classes: tuple[str, ...]
    model: str
    """Name of the model's folder: the first digits of its SHA-256."""
    latency_ms: float
    """From the arrival of the samples that completed the window."""


@dataclass
class _Worn:
    """What is known of one wearer's recording."""

    recogniser: "Recogniser"
    last_ns: dict[str, int] = field(default_factory=dict)
    """By stream, the time of the newest sample: what comes late is kept, but not recognised."""


class Live:
    """Recognises with the current model. Nothing of onnxruntime is loaded before there is one."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._path: Path | None = None
        self._made_ns = 0
        """When the wearer's own head was made; 0 without one."""
        self._model: OnnxModel | None = None
        self._personal: PersonalHead | None = None
        self._looked_s = -LOOK_S
        self._worn: dict[Wearer, _Worn] = {}
        self._watchers: set[asyncio.Queue[Recognised]] = set()
        self.problem = "there is no model yet: it comes at the end of a federation's run, or by `clmm host model`"
        """Why nothing is recognised; empty where it is."""
        self._told = ""
        """The last problem with samples that went into the log."""

    @property
    def name(self) -> str:
        """Of the current model; empty without one."""
        return self._path.parent.name if self._path is not None else ""

    def forget(self) -> None:
        """Let go of all samples: they are being deleted."""
        self._worn = {}

    def took(self, header: Header, stream: SensorStream, chunk: Chunk) -> None:
        """Look at samples that arrived, in SI units; tells watchers what they complete. Whatever goes wrong here, recording goes on."""
        wearer = (header.subject, header.recording)
        try:
            self._took(wearer, stream, chunk)
        except Exception as error:  # ours: other channels; onnxruntime's, which derive from Exception alone; a file that is not to be read
            self._worn.pop(wearer, None)  # begin anew with what comes next
            if str(error) != self._told:
                self._told = str(error)
                _LOG.warning("not recognised: %s", error)

    def _took(self, wearer: Wearer, stream: SensorStream, chunk: Chunk) -> None:
        arrived_s = time.perf_counter()
        self.look()
        if self._model is None:
            return
        worn = self._of(wearer)
        if any(chunk.end_ns < worn.last_ns.get(name, 0) - CLOCK_SET_NS for name in stream.modalities):
            del self._worn[wearer]
            worn = self._of(wearer)
        answers = [answer for name, columns in _columns(stream).items() for answer in _added(worn, name, chunk, columns)]
        for answer in answers:
            latency_ms = (time.perf_counter() - arrived_s) * 1000
            self._tell(Recognised(*wearer, answer, self._model.metadata.classes, self.name, latency_ms))

    @contextmanager
    def watching(self) -> Iterator[AsyncIterator[Recognised]]:
        """Give the answers from now on."""
        queue: asyncio.Queue[Recognised] = asyncio.Queue(MAX_WAITING)
        self._watchers.add(queue)
        try:
            yield _all_of(queue)
        finally:
            self._watchers.discard(queue)

    def look(self) -> None:
        """Take another model if the current one is another one."""
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        path, personal = self._models.current(), self._models.personal()
        made_ns = personal.stat().st_mtime_ns if personal is not None else 0
        if (path, made_ns) == (self._path, self._made_ns):
            return
        from clmm_core.recognise.onnx_model import OnnxModel  # noqa: PLC0415  40 MB, that a host without a model need not have
        from clmm_core.recognise.personal import read_head  # noqa: PLC0415
        from clmm_core.recognise.recogniser import Recogniser  # noqa: PLC0415

        self._path, self._made_ns, self._model, self._personal, self._worn = path, made_ns, None, None, {}
        if path is None:
            return
        try:
            model = OnnxModel.open(path)
            Recogniser(model)  # refuses models that no stream can feed
            if personal is not None:
                self._personal = read_head(personal.read_text(encoding="utf-8"), len(model.metadata.classes), str(personal))
        except ClmmError as error:
            self.problem = f"{path}: {error}"
            _LOG.warning("%s", self.problem)
            return
        self._model, self.problem = model, ""
        _LOG.info("recognises with %s: %s", path.parent.name, ", ".join(model.metadata.classes))

    def _of(self, wearer: Wearer) -> _Worn:
        from clmm_core.recognise.recogniser import Recogniser  # noqa: PLC0415

        assert self._model is not None
        worn = self._worn.pop(wearer, None) or _Worn(Recogniser(self._model, personal=self._personal))
        self._worn[wearer] = worn  # the newest is the last
        while len(self._worn) > MAX_WEARERS:
            del self._worn[next(iter(self._worn))]
        return worn

    def _tell(self, recognised: Recognised) -> None:
        for queue in self._watchers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(recognised)


def _added(worn: _Worn, name: str, chunk: Chunk, columns: NDArray[np.int64]) -> "list[Answer]":
    """Give one modality's samples that are newer than those before to its recogniser."""
    if name not in worn.recogniser.stream_names:
        return []
    times = chunk.times_ns()
    is_new = times > worn.last_ns.get(name, -1)
    if not is_new.any():
        return []
    worn.last_ns[name] = int(times[-1])
    return worn.recogniser.add(name, times[is_new], chunk.samples()[is_new][:, columns])


def _columns(stream: SensorStream) -> dict[str, NDArray[np.int64]]:
    """Return by modality which columns of a stream's samples are its own."""
    return {name: np.array([i for i, channel in enumerate(stream.channels) if channel.modality == name]) for name in stream.modalities}


async def _all_of(queue: "asyncio.Queue[Recognised]") -> AsyncIterator[Recognised]:
    while True:
        yield await queue.get()
