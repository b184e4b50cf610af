"""The samples of a host in one SQLite file: a row a chunk, each counted once, on the disk before it is acknowledged.

The streams' numbers in here are the store's own. A store is used by one thread at a time.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from client.host.chunk import Chunk
from client.host.header import Channel, Header, SensorStream
from client.host.retention import Limits, make_room
from client.host.schema import FILE, StoreFullError, full_disk_told, open_store, transaction, used_bytes
from client.host.spans import Spans
from clmm_core.errors import ClmmError

MAX_AHEAD = 10_000
"""So many chunks beyond a missing one are waited for; then it counts as let go of."""
OVERHEAD_BYTES = 160
"""Of a chunk in the file, beside its samples."""


class ModalityTakenError(ClmmError):
    """Another sensor gives the same modality of the same recording; name one of the two apart."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """A chunk that was refused on arrival: it is not waited for."""

    stream: int
    sequence: int


@dataclass(frozen=True, slots=True)
class LetGo:
    """Chunks below this number that the sensor does not have any more."""

    stream: int
    below: int


Arrival = Chunk | Unusable | LetGo


@dataclass(kw_only=True)
class Added:
    """What became of a batch of arrivals, by stream."""

    next_sequence: dict[int, int] = field(default_factory=dict)
    num_duplicates: Counter[int] = field(default_factory=Counter)
    withheld: list[tuple[int, int]] = field(default_factory=list)
    """Stream and sequence of chunks of a time that the wearer does not want kept."""
    kept: list[Chunk] = field(default_factory=list)


@dataclass
class _Progress:
    """How far a stream is."""

    subject: str
    next_sequence: int
    ahead: set[int]
    """Sequences from `next_sequence` on that are done."""

    def is_done(self, sequence: int) -> bool:
        return sequence < self.next_sequence or sequence in self.ahead

    def copy(self) -> "_Progress":
        return _Progress(self.subject, self.next_sequence, set(self.ahead))

    def note(self, sequence: int) -> None:
        if sequence >= self.next_sequence:
            self.ahead.add(sequence)
            self.move_to(self.next_sequence if len(self.ahead) <= MAX_AHEAD else min(self.ahead))

    def move_to(self, sequence: int) -> None:
        """Stop waiting for those below."""
        if sequence > self.next_sequence:
            self.next_sequence = sequence
            self.ahead = {each for each in self.ahead if each >= sequence}
        while self.next_sequence in self.ahead:
            self.ahead.discard(self.next_sequence)
            self.next_sequence += 1


class Store:
    """A host's samples.

    Raises:
        DataError: what is in the folder is no store.
        StoreFullError: there is no room for one.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.path = folder / FILE
        self.limits = limits
        self.connection = open_store(folder)
        self.num_evicted = 0
        self._live: Counter[int] = Counter()
        self._progress: dict[int, _Progress] = {}
        self.reload()

    def reload(self) -> None:
        """Read again what times are withheld and how many chunks there are, after either was changed."""
        self.num_chunks = int(self.connection.execute("SELECT COUNT(*) FROM chunks").fetchone()[0])
        rows = self.connection.execute("SELECT subject, start_ns, end_ns FROM withheld").fetchall()
        self.is_paused = any(end is None for _, _, end in rows)
        self._withheld: dict[str, Spans] = {}
        self._withheld_rows = [(subject, (start, end)) for subject, start, end in rows if end is not None]

    def register(self, header: Header, now_ns: int) -> Mapping[int, int]:
        """Return the store's number of each of the header's streams, new or known; they are live until `leave`.

        Raises:
            ModalityTakenError: another sensor has one of the modalities in this recording.
            StoreFullError: there is no room.
        """
        with full_disk_told(self.path), transaction(self.connection):
            numbers = {stream.number: self._register(header, stream, now_ns) for stream in header.streams}
        self._live.update(numbers.values())
        return numbers

    def _register(self, header: Header, stream: SensorStream, now_ns: int) -> int:
        names = (header.subject, header.recording)
        channels = json.dumps([asdict(channel) for channel in stream.channels])
        others = self.connection.execute(
            "SELECT id, device, number, channels FROM streams WHERE subject = ? AND recording = ?", names
        ).fetchall()
        for number, device, own, kept in others:
            if (device, own) == (header.device, stream.number):
                if kept != channels:
                    raise ModalityTakenError(
                        f"{header.where}, stream {own}: expected the channels as before, {kept}, found {channels}: begin another recording"
                    )
                change = "UPDATE streams SET placement = ?, nominal_hz = ?, is_finished = 0, last_seen_ns = ? WHERE id = ?"
                self.connection.execute(change, (header.placement, stream.nominal_hz, now_ns, number))
                return int(number)
            if taken := {channel["modality"] for channel in json.loads(kept)} & set(stream.modalities):
                raise ModalityTakenError(
                    f"{header.where}: expected modalities that no other sensor gives, found '{taken.pop()}', which stream {own} of device "
                    f"'{device}' gives: rename one, as in accelerometer_wrist, or begin another recording"
                )
        insert = (
            "INSERT INTO streams (subject, recording, device, number, placement, channels, nominal_hz, last_seen_ns) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        )
        values = (*names, header.device, stream.number, header.placement, channels, stream.nominal_hz, now_ns)
        return int(self.connection.execute(insert, values).lastrowid or 0)

    def next_sequence(self, stream: int) -> int:
        """Return where a stream goes on: all below is done."""
        return self._of(stream).next_sequence

    def _of(self, stream: int) -> _Progress:
        if stream not in self._progress:
            subject, sequence = self.connection.execute("SELECT subject, next_sequence FROM streams WHERE id = ?", (stream,)).fetchone()
            later = self.connection.execute("SELECT sequence FROM chunks WHERE stream = ? AND sequence >= ?", (stream, sequence))
            self._progress[stream] = _Progress(subject, sequence, {row[0] for row in later})
            self._progress[stream].move_to(sequence)
        return self._progress[stream]

    def add(self, arrivals: Sequence[Arrival], now_ns: int) -> Added:
        """Put arrivals on the disk, all or nothing; what is here already counts as duplicate, what is withheld is not kept.

        Raises:
            StoreFullError: there is no room; nothing changed.
        """
        added = Added()
        progress = {stream: self._of(stream).copy() for stream in {each.stream for each in arrivals}}
        for arrival in arrivals:
            self._take(arrival, progress[arrival.stream], added)
        try:
            self._write(added.kept, progress, now_ns)
        except StoreFullError:
            self.reload()  # some may have been let go of before there was no room
            raise
        self.num_chunks += len(added.kept)
        self._progress.update(progress)
        added.next_sequence = {stream: each.next_sequence for stream, each in progress.items()}
        return added

    def _write(self, kept: Sequence[Chunk], progress: Mapping[int, _Progress], now_ns: int) -> None:
        needed = sum(len(chunk.values) + len(chunk.offsets) + OVERHEAD_BYTES for chunk in kept)
        with full_disk_told(self.path):
            num_gone = make_room(self.connection, self.limits, needed, now_ns)
            self.num_evicted += num_gone
            self.num_chunks -= num_gone
            with transaction(self.connection):
                self.connection.executemany(
                    "INSERT OR IGNORE INTO chunks (stream, sequence, t0_ns, end_ns, received_ns, offsets, samples) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [(c.stream, c.sequence, c.t0_ns, c.end_ns, now_ns, c.offsets, c.values) for c in kept],
                )
                self.connection.executemany(
                    "UPDATE streams SET next_sequence = ?, last_seen_ns = ? WHERE id = ?",
                    [(each.next_sequence, now_ns, stream) for stream, each in progress.items()],
                )

    def _take(self, arrival: Arrival, progress: _Progress, added: Added) -> None:
        if isinstance(arrival, LetGo):
            progress.move_to(arrival.below)
        elif progress.is_done(arrival.sequence):
            added.num_duplicates[arrival.stream] += 1
        else:
            progress.note(arrival.sequence)
            if isinstance(arrival, Chunk):
                if (wanted := self.wanted(arrival, progress.subject)) is None:
                    added.withheld.append((arrival.stream, arrival.sequence))
                else:
                    added.kept.append(wanted)

    def wanted(self, chunk: Chunk, subject: str) -> Chunk | None:
        """Return what of a chunk may be kept."""
        if self.is_paused:
            return None
        if subject not in self._withheld:
            self._withheld[subject] = Spans.of(span for whose, span in self._withheld_rows if whose in ("", subject))
        withheld = self._withheld[subject]
        return chunk.kept(~withheld.contain(chunk.times_ns())) if withheld.touch(chunk.t0_ns, chunk.end_ns) else chunk

    def leave(self, registered: Iterable[int], gone: Iterable[int], now_ns: int, *, is_finished: bool) -> None:
        """Note that a connection has ended, and of which of its streams no newer one has taken over that they are gone, or finished.

        Raises:
            StoreFullError: there is no room to note it.
        """
        self._live.subtract(registered)
        with full_disk_told(self.path), transaction(self.connection):
            self.connection.executemany(
                "UPDATE streams SET is_finished = ?, last_seen_ns = ? WHERE id = ?", [(is_finished, now_ns, stream) for stream in gone]
            )

    def idle_streams(self) -> list[int]:
        """Return the streams that no sensor is connected to."""
        numbers = [number for (number,) in self.connection.execute("SELECT id FROM streams")]
        return [number for number in numbers if self._live[number] <= 0]

    def counts(self) -> tuple[int, int, int]:
        """Return used bytes, chunks and labels that nobody corrected."""
        labels = self.connection.execute("SELECT COUNT(*) FROM labels WHERE corrected_by IS NULL").fetchone()[0]
        return used_bytes(self.connection), self.num_chunks, int(labels)

    def close(self) -> None:
        """Let go of the file; nothing is lost by not doing so."""
        self.connection.close()


def channels_of(text: str) -> tuple[Channel, ...]:
    """Return the channels of a row of `streams`."""
    return tuple(Channel(**each) for each in json.loads(text))
