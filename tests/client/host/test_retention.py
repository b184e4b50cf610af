from collections.abc import Callable

import pytest

from client.host.chunk import Chunk
from client.host.labels import Label, put_label
from client.host.retention import AT_ONCE, DAY_NS, Limits
from client.host.schema import used_bytes
from client.host.store import Store
from clmm_core.errors import ConfigError

NOW = 1_800_000_000_000_000_000
COUNT = 1000
"""Samples a chunk: 16 kB."""


@pytest.fixture
def small(tmp_path):
    opened = Store(tmp_path / "small", Limits(max_bytes=3 * AT_ONCE * 16_400, max_days=2))
    yield opened
    opened.close()


def sequences(store: Store) -> list[int]:
    return [number for (number,) in store.connection.execute("SELECT sequence FROM chunks ORDER BY id")]


def fill(store: Store, chunk: Callable[..., Chunk], stream: int, numbers: range) -> None:
    """Add chunks, and look at each step whether the bound holds."""
    for first in range(numbers.start, numbers.stop, 64):
        store.add([chunk(stream, number, COUNT) for number in range(first, min(first + 64, numbers.stop))], NOW)
        assert used_bytes(store.connection) <= store.limits.max_bytes
    assert store.counts()[1] == len(sequences(store))


def test_the_oldest_go_first_and_the_bound_holds(small, header, chunk):
    stream = small.register(header(), NOW)[1]
    fill(small, chunk, stream, range(5 * AT_ONCE))
    left = sequences(small)
    assert left == list(range(left[0], 5 * AT_ONCE))
    assert small.num_evicted == left[0] >= 2 * AT_ONCE
    assert small.next_sequence(stream) == 5 * AT_ONCE, "what was let go of is not asked for again"


def test_what_is_labelled_is_kept_longest(small, header, chunk):
    stream = small.register(header(), NOW)[1]
    first, last = chunk(stream, 3, COUNT), chunk(stream, 5, COUNT)
    small.add([chunk(stream, 0, COUNT)], NOW)
    label = Label(subject="anna", recording="monday", activity="walk", start_ns=first.end_ns, end_ns=last.t0_ns + 1, source=1)
    put_label(small.connection, label)
    fill(small, chunk, stream, range(1, 5 * AT_ONCE))
    assert sequences(small)[:3] == [3, 4, 5]
    small.connection.execute("UPDATE labels SET corrected_by = id")
    fill(small, chunk, stream, range(5 * AT_ONCE, 9 * AT_ONCE))
    assert sequences(small)[0] > 5, "a label that was corrected to another time keeps nothing"


def test_where_all_is_labelled_the_oldest_go(small, header, chunk):
    stream = small.register(header(), NOW)[1]
    small.add([chunk(stream, 0, COUNT)], NOW)
    put_label(small.connection, Label(subject="anna", recording="monday", activity="walk", start_ns=0, end_ns=2 * NOW, source=1))
    fill(small, chunk, stream, range(1, 4 * AT_ONCE))
    assert sequences(small)[-1] == 4 * AT_ONCE - 1


def test_what_came_too_long_ago_goes_labelled_or_not(small, header, chunk):
    stream = small.register(header(), NOW)[1]
    small.add([chunk(stream, number) for number in range(AT_ONCE + 10)], NOW)
    put_label(small.connection, Label(subject="anna", recording="monday", activity="walk", start_ns=0, end_ns=2 * NOW, source=1))
    small.add([chunk(stream, AT_ONCE + 10)], NOW + DAY_NS)
    assert len(sequences(small)) == AT_ONCE + 11
    small.add([chunk(stream, AT_ONCE + 11)], NOW + 2 * DAY_NS + 1)
    assert sequences(small) == [AT_ONCE + 10, AT_ONCE + 11]


@pytest.mark.parametrize(("change", "expected"), [({"max_bytes": 10}, "--max-bytes: expected at least"), ({"max_days": 0}, "--max-days")])
def test_limits_that_cannot_be_are_refused(change, expected):
    with pytest.raises(ConfigError, match=expected):
        Limits(**change)
