"""What a host has recorded, as training takes it: sessions of at most an hour, and `Recording`s of them."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from client.host.chunk import Chunk
from client.host.labels import Label, list_labels
from client.host.spans import Span
from client.host.store import channels_of
from clmm_core.data.datasets.stream_file import at_constant_rate
from clmm_core.data.recording import LabelledInterval, Recording, Stream
from clmm_core.errors import DataError

NS = 1_000_000_000
MAX_PAUSE_NS = 60 * NS
"""After a longer pause of all sensors another session begins."""
MAX_LENGTH_NS = 3600 * NS
"""A session is no longer: what is in memory at once is bounded, and no stream of a session can have a pause that the format refuses."""
PART = "~"
"""Before the number of a recording's further sessions; no recording has it in its name."""


@dataclass(frozen=True, kw_only=True)
class MeasuredStream:
    """One modality's samples at the times at which they were measured."""

    times_ns: NDArray[np.int64]
    """`[samples]`, ascending, no two equal."""
    samples: NDArray[np.float32]
    """`[samples, channels]`, SI."""
    axes: tuple[str, ...]
    unit: str


@dataclass(frozen=True, kw_only=True)
class Session:
    """A stretch of a recording without a long pause."""

    subject: str
    name: str
    streams: Mapping[str, MeasuredStream]
    """By modality."""
    labels: tuple[Label, ...]
    """Those of its recording, by start."""


def subjects_of(connection: sqlite3.Connection) -> list[str]:
    """Return everybody of whom there is at least a chunk, sorted."""
    rows = connection.execute(
        "SELECT DISTINCT subject FROM streams WHERE EXISTS (SELECT 1 FROM chunks WHERE chunks.stream = streams.id) ORDER BY subject"
    )
    return [subject for (subject,) in rows]


def sessions_of(connection: sqlite3.Connection, subject: str) -> Iterator[Session]:
    """Yield a subject's sessions, by recording and time, one in memory at a time."""
    rows = connection.execute("SELECT DISTINCT recording FROM streams WHERE subject = ? ORDER BY recording", (subject,)).fetchall()
    for (recording,) in rows:
        number = 0
        for span in _stretches(_chunk_spans(connection, subject, recording)):
            measured = _measured(connection, subject, recording, span)
            for streams in _overlapping(measured):
                number += 1
                name = recording if number == 1 else f"{recording}{PART}{number}"
                labels = tuple(list_labels(connection, subject, recording))
                yield Session(subject=subject, name=name, streams=streams, labels=labels)


def recordings_of(connection: sqlite3.Connection, subject: str) -> Iterator[Recording]:
    """Yield what a subject recorded as the loaders give it; a session without a stream that can be used is left out."""
    for session in sessions_of(connection, subject):
        recording, _ = recording_of(session)
        if recording is not None:
            yield recording


def recording_of(session: Session) -> tuple[Recording | None, Mapping[str, str]]:
    """Return a session with its streams at constant rates, and by modality why one is left out; None where all are.

    Times count from the first sample of the streams that are left, as in `clmm_core/data/datasets/folder.py`.
    """
    streams: dict[str, Stream] = {}
    left_out: dict[str, str] = {}
    for modality, measured in session.streams.items():
        try:
            streams[modality] = _at_constant_rate(session, modality, measured)
        except DataError as error:
            left_out[modality] = str(error)
    if not streams:
        return None, left_out
    origin_ns = min(int(session.streams[modality].times_ns[0]) for modality in streams)
    for modality, stream in streams.items():
        streams[modality] = replace(stream, start_s=(int(session.streams[modality].times_ns[0]) - origin_ns) / NS)
    end_s = max(stream.end_s for stream in streams.values())
    intervals = tuple(
        LabelledInterval(label=label.activity, start_s=(label.start_ns - origin_ns) / NS, end_s=(label.end_ns - origin_ns) / NS)
        for label in session.labels
        if label.end_ns > origin_ns and (label.start_ns - origin_ns) / NS < end_s
    )
    recording = Recording(subject=session.subject, session=session.name, streams=streams, intervals=intervals, left_out=left_out)
    return recording, left_out


def _at_constant_rate(session: Session, modality: str, measured: MeasuredStream) -> Stream:
    times_s = (measured.times_ns - measured.times_ns[0]) / NS
    where = f"subject '{session.subject}', session '{session.name}', '{modality}'"
    samples, rate_hz = at_constant_rate(where, "t_ns", times_s, measured.samples.astype(np.float64))
    return Stream(samples=samples.astype(np.float32), rate_hz=rate_hz, unit=measured.unit)


def _chunk_spans(connection: sqlite3.Connection, subject: str, recording: str) -> list[Span]:
    query = "SELECT t0_ns, end_ns FROM chunks JOIN streams ON streams.id = chunks.stream WHERE subject = ? AND recording = ? ORDER BY t0_ns"
    return connection.execute(query, (subject, recording)).fetchall()


def _stretches(spans: Sequence[Span]) -> list[Span]:
    """Return from when to before when each session lies; `spans` are chunks' first and last times, by the first."""
    runs: list[list[int]] = []
    for first, last in spans:
        if runs and first - runs[-1][1] <= MAX_PAUSE_NS:
            runs[-1][1] = max(runs[-1][1], last)
        else:
            runs.append([first, last])
    return [(start, min(start + MAX_LENGTH_NS, last + 1)) for first, last in runs for start in range(first, last + 1, MAX_LENGTH_NS)]


def _measured(connection: sqlite3.Connection, subject: str, recording: str, span: Span) -> dict[str, MeasuredStream]:
    """Return what each modality measured in a stretch."""
    measured: dict[str, MeasuredStream] = {}
    streams = connection.execute("SELECT id, channels FROM streams WHERE subject = ? AND recording = ?", (subject, recording)).fetchall()
    for number, text in streams:
        rows = connection.execute(
            "SELECT stream, sequence, t0_ns, end_ns, offsets, samples FROM chunks WHERE stream = ? AND t0_ns < ? AND end_ns >= ? "
            "ORDER BY t0_ns, sequence",
            (number, span[1], span[0]),
        )
        chunks = [Chunk(*row) for row in rows]
        if not chunks:
            continue
        times, samples = _in_order(chunks, span)
        channels = channels_of(text)
        for modality in dict.fromkeys(channel.modality for channel in channels):
            own = [i for i, channel in enumerate(channels) if channel.modality == modality]
            if len(times):
                measured[modality] = MeasuredStream(
                    times_ns=times, samples=samples[:, own], axes=tuple(channels[i].axis for i in own), unit=channels[own[0]].unit
                )
    return measured


def _in_order(chunks: Sequence[Chunk], span: Span) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return times `[samples]`, ascending, each once, and samples `[samples, channels]`; of equal times the first chunk's counts."""
    times = np.concatenate([chunk.times_ns() for chunk in chunks])
    samples = np.concatenate([chunk.samples() for chunk in chunks])
    times, first = np.unique(times, return_index=True)
    inside = (times >= span[0]) & (times < span[1])
    return times[inside], samples[first[inside]]


def _overlapping(measured: Mapping[str, MeasuredStream]) -> list[dict[str, MeasuredStream]]:
    """Return the streams in groups of which each stream begins while another one runs: the format refuses others as of two clocks."""
    groups: list[dict[str, MeasuredStream]] = []
    last = -1
    for modality, stream in sorted(measured.items(), key=lambda item: int(item[1].times_ns[0])):
        if stream.times_ns[0] > last:
            groups.append({})
        groups[-1][modality] = stream
        last = max(last, int(stream.times_ns[-1]))
    return groups
