"""What a sensor says of itself before its samples: checked, and in our units."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from client.host.v1 import ingest_pb2 as pb
from clmm_core.data.datasets.recording_file import UNIT_OF, UNITS
from clmm_core.errors import DataError

NAME = re.compile(r"\w([\w .-]{0,62}[\w.-])?")
"""Of subjects, recordings and devices: they become names of folders, and `split.test` lists subjects with commas."""
WORD = re.compile(r"[^\W\d][\w-]{0,63}")
"""Of modalities and axes: names of files and columns, and parts of the names of a model's arrays."""
MAX_PLACEMENT, MAX_STREAMS, MAX_CHANNELS = 64, 64, 256
MAX_RATE_HZ = 2000.0
"""As in `clmm_core/data/datasets/stream_file.py`."""
TIME = "t_ns"
"""Column of an exported file, so no axis has this name."""
_UNITS = {
    pb.UNIT_METRES_PER_SECOND_SQUARED: "m/s^2",
    pb.UNIT_RADIANS_PER_SECOND: "rad/s",
    pb.UNIT_MICROTESLA: "uT",
    pb.UNIT_METRES: "m",
    pb.UNIT_ONE: "1",
    pb.UNIT_STANDARD_GRAVITY: "g",
    pb.UNIT_DEGREES_PER_SECOND: "deg/s",
}
UNIT_NUMBERS = {name: number for number, name in _UNITS.items()}
"""The number on the wire of each unit's name."""


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One column of a stream's samples."""

    modality: str
    axis: str
    unit: str
    """The SI unit that the host keeps."""
    factor: float
    """What a value that arrives is multiplied with to be in `unit`."""


@dataclass(frozen=True, kw_only=True)
class SensorStream:
    """Channels that are sampled together.

    Raises:
        DataError: channels or a rate that cannot be.
    """

    number: int
    """The sensor's own for it."""
    channels: tuple[Channel, ...]
    nominal_hz: float
    """0 where the sensor does not know."""

    def __post_init__(self) -> None:
        where = f"stream {self.number}"
        if not 1 <= len(self.channels) <= MAX_CHANNELS:
            raise DataError(f"{where}: expected 1 to {MAX_CHANNELS} channels, found {len(self.channels)}")
        names = [(channel.modality, channel.axis) for channel in self.channels]
        if len(set(names)) < len(names):
            raise DataError(f"{where}: expected each axis of a modality once, found {', '.join('.'.join(name) for name in names)}")
        for modality in self.modalities:
            units = {channel.unit for channel in self.channels if channel.modality == modality}
            if len(units) > 1:
                raise DataError(
                    f"{where}: expected one unit for '{modality}', found {', '.join(sorted(units))}: split it into two modalities"
                )
        if not (math.isfinite(self.nominal_hz) and 0 <= self.nominal_hz <= MAX_RATE_HZ):
            raise DataError(f"{where}: expected a nominal rate of 0 (unknown) to {MAX_RATE_HZ:g} Hz, found {self.nominal_hz:g}")

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that its channels belong to, in their order."""
        return tuple(dict.fromkeys(channel.modality for channel in self.channels))


@dataclass(frozen=True, kw_only=True)
class Header:
    """One sensor's part in one recording.

    Raises:
        DataError: a name that cannot be kept, or streams that contradict each other.
    """

    subject: str
    recording: str
    device: str
    placement: str
    streams: tuple[SensorStream, ...]

    def __post_init__(self) -> None:
        for what in ("subject", "recording", "device"):
            check_name(what, getattr(self, what))
        if len(self.placement) > MAX_PLACEMENT or not self.placement.isprintable():
            raise DataError(
                f"{self.where}: placement: expected at most {MAX_PLACEMENT} printable characters, found {self.placement[:80]!r}"
            )
        if not 1 <= len(self.streams) <= MAX_STREAMS:
            raise DataError(f"{self.where}: expected 1 to {MAX_STREAMS} streams, found {len(self.streams)}")
        numbers = [stream.number for stream in self.streams]
        if len(set(numbers)) < len(numbers):
            raise DataError(f"{self.where}: expected each stream's id once, found {numbers}")
        modalities = [modality for stream in self.streams for modality in stream.modalities]
        if len(set(modalities)) < len(modalities):
            raise DataError(f"{self.where}: expected each modality in one stream, found {', '.join(modalities)}: name them apart")

    @property
    def where(self) -> str:
        """Of which sensor and recording messages are."""
        return f"device '{self.device}', subject '{self.subject}', recording '{self.recording}'"


def check_name(what: str, name: str) -> None:
    """Refuse a subject, recording or device that cannot be a folder's name.

    Raises:
        DataError: it cannot.
    """
    if not NAME.fullmatch(name):
        raise DataError(
            f"{what}: expected 1 to 64 letters, digits, blanks, '_', '-', '.', the first a letter or digit, found {name[:70]!r}: rename it"
        )


def header_of(message: pb.Header) -> Header:
    """Return what a sensor said, checked.

    Raises:
        DataError: it cannot be; names the field.
    """
    if message.clock != pb.CLOCK_UNIX:
        raise DataError(f"clock: expected CLOCK_UNIX, the only one that this host knows, found {message.clock}: send times since 1970")
    return Header(
        subject=message.subject,
        recording=message.recording,
        device=message.device,
        placement=message.placement,
        streams=tuple(
            SensorStream(number=each.id, channels=_channels(each.id, each.channels), nominal_hz=each.nominal_hz) for each in message.streams
        ),
    )


def _channels(number: int, messages: Sequence[pb.Channel]) -> tuple[Channel, ...]:
    channels = []
    for i, message in enumerate(messages):
        where = f"stream {number}, channel {i}"
        for what, word in (("modality", message.modality), ("axis", message.axis)):
            if not WORD.fullmatch(word) or word == TIME:
                raise DataError(f"{where}: {what}: expected letters, digits, '_' or '-' after a first letter, found {word[:80]!r}")
        if message.unit not in _UNITS:
            raise DataError(f"{where}: unit: expected one of {', '.join(pb.Unit.keys()[1:])}, found {message.unit}: say what it is in")
        unit, factor = UNITS[_UNITS[message.unit]]
        expected = UNIT_OF.get(message.modality, unit)
        if unit != expected:
            raise DataError(f"{where}: unit: expected one that becomes {expected} for '{message.modality}', found {unit}")
        channels.append(Channel(modality=message.modality, axis=message.axis, unit=unit, factor=factor))
    return tuple(channels)
