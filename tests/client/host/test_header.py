import pytest

from client.host.header import MAX_CHANNELS, header_of
from client.host.v1 import ingest_pb2 as pb
from clmm_core.errors import DataError


def test_it_says_what_the_sensor_said_in_our_words(header_message):
    header = header_of(header_message("accelerometer", "gyroscope"))
    assert (header.subject, header.recording, header.device, header.placement) == ("anna", "monday", "watch", "left wrist")
    (stream,) = header.streams
    assert stream.modalities == ("accelerometer", "gyroscope")
    assert [channel.unit for channel in stream.channels] == ["m/s^2"] * 3 + ["rad/s"] * 3
    assert stream.nominal_hz == 50


@pytest.mark.parametrize(
    ("unit", "si", "factor"), [(pb.UNIT_STANDARD_GRAVITY, "m/s^2", 9.80665), (pb.UNIT_DEGREES_PER_SECOND, "rad/s", 0.0174533)]
)
def test_units_that_are_not_si_have_a_factor(header_message, unit, si, factor):
    message = header_message("own")
    for channel in message.streams[0].channels:
        channel.unit = unit
    channel = header_of(message).streams[0].channels[0]
    assert channel.unit == si
    assert channel.factor == pytest.approx(factor, rel=1e-5)


def change(message: pb.Header, what: str) -> None:  # noqa: C901  a case a mistake
    stream = message.streams[0]
    match what:
        case "no streams":
            del message.streams[:]
        case "an id twice" | "a modality twice":
            other = message.streams.add()
            other.CopyFrom(stream)
            other.id += what == "a modality twice"
        case "no channels":
            del stream.channels[:]
        case "too many channels":
            stream.channels.extend(pb.Channel(modality="a", axis=f"x{i}", unit=pb.UNIT_ONE) for i in range(MAX_CHANNELS))
        case "an axis twice":
            stream.channels[1].axis = "x"
        case "two units":
            stream.channels[0].modality = stream.channels[1].modality = "own"
            stream.channels[0].unit = pb.UNIT_ONE
        case "another unit than the modality's":
            stream.channels[0].unit = pb.UNIT_ONE
        case "an unknown unit":
            stream.channels[0].unit = 99
        case "a time for an axis":
            stream.channels[0].axis = "t_ns"
        case "a plus in a modality":
            stream.channels[0].modality = "a+b"
        case "a negative rate":
            stream.nominal_hz = -1
        case "no clock":
            message.clock = pb.CLOCK_UNSPECIFIED
        case "a line break in the placement":
            message.placement = "left\nwrist"
        case _:
            message.subject = what


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("no streams", "expected 1 to 64 streams, found 0"),
        ("an id twice", r"expected each stream's id once, found \[1, 1\]"),
        ("a modality twice", "expected each modality in one stream"),
        ("no channels", "stream 1: expected 1 to 256 channels, found 0"),
        ("too many channels", "expected 1 to 256 channels"),
        ("an axis twice", "expected each axis of a modality once"),
        ("two units", "expected one unit for 'own'"),
        ("another unit than the modality's", "unit: expected one that becomes m/s"),
        ("an unknown unit", "unit: expected one of UNIT_METRES"),
        ("a time for an axis", "axis: expected letters"),
        ("a plus in a modality", r"modality: expected letters.*'a\+b'"),
        ("a negative rate", "expected a nominal rate"),
        ("no clock", "clock: expected CLOCK_UNIX"),
        ("a line break in the placement", "placement: expected at most 64 printable"),
        ("../up", "subject: expected 1 to 64 letters"),
        ("", "subject: expected 1 to 64 letters"),
        ("a,b", "subject: expected 1 to 64 letters"),
        ("trailing ", "subject: expected 1 to 64 letters"),
        ("x" * 65, "subject: expected 1 to 64 letters"),
    ],
)
def test_what_cannot_be_is_refused_by_name(header_message, what, expected):
    message = header_message()
    change(message, what)
    with pytest.raises(DataError, match=expected):
        header_of(message)


def test_names_of_any_script_are_kept(header_message):
    assert header_of(header_message(subject="Ånna-Łucja 2")).subject == "Ånna-Łucja 2"
