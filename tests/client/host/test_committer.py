"""Arrivals of a moment are one transaction, and whoever is quicker than the disk waits."""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from client.host import committer as module
from client.host.committer import Committer, StoreThread
from client.host.schema import StoreFullError
from client.host.store import Added, Store
from clmm_core.errors import ClmmError

NOW = 1_800_000_000_000_000_000


class Sensor:
    """Hears what became of its arrivals."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.errors: list[ClmmError] = []

    def committed(self, added: Added, num_arrivals: int) -> None:
        self.counts.append(num_arrivals)

    def failed(self, error: ClmmError) -> None:
        self.errors.append(error)


@pytest.fixture
def committing(store: Store) -> Callable[..., Any]:
    """Run a scenario with a committer that writes."""

    def run(scenario: Callable[[Committer], Any]) -> Any:
        async def main() -> Any:
            thread = StoreThread()
            committer = Committer(store, thread, lambda: NOW, gather_s=0.05)
            writing = asyncio.create_task(committer.run())
            try:
                return await asyncio.wait_for(scenario(committer), 20)
            finally:
                writing.cancel()
                await asyncio.wait({writing})
                thread.close()

        return asyncio.run(main())

    return run


def test_what_comes_in_a_moment_is_one_transaction_and_each_hears_of_its_own(committing, store, header, chunk, monkeypatch):
    watch, phone = store.register(header(), NOW)[1], store.register(header("gyroscope", device="phone"), NOW)[1]
    batches: list[int] = []
    whole = Store.add
    monkeypatch.setattr(Store, "add", lambda self, arrivals, now: batches.append(len(arrivals)) or whole(self, arrivals, now))
    first, second = Sensor(), Sensor()

    async def scenario(committer: Committer) -> None:
        for number in range(4):
            await committer.put([chunk(watch, number)], first)
        await committer.put([chunk(phone, 0)], second)
        await committer.flushed()

    committing(scenario)
    assert batches == [5]
    assert (first.counts, second.counts) == ([4], [1])
    assert store.next_sequence(watch) == 4


def test_whoever_is_quicker_than_the_disk_waits(committing, store, header, chunk, monkeypatch):
    monkeypatch.setattr(module, "MAX_PENDING_BYTES", 2_000)
    stream, sensor = store.register(header(), NOW)[1], Sensor()

    async def scenario(committer: Committer) -> list[bool]:
        waited = []
        for number in range(9):
            putting = asyncio.create_task(committer.put([chunk(stream, number)], sensor))
            await asyncio.sleep(0)
            waited.append(not putting.done())
            await putting
        await committer.flushed()
        return waited

    waited = committing(scenario)
    assert waited == [number % 7 == 6 for number in range(9)], "300 bytes each: the seventh is one too many"
    assert sum(sensor.counts) == 9


def test_flushed_waits_for_what_was_put_before_and_not_for_what_comes_after(committing, store, header, chunk):
    stream, busy, other = store.register(header(), NOW)[1], Sensor(), Sensor()

    async def scenario(committer: Committer) -> None:
        async def send_on() -> None:
            number = 1
            while True:
                await committer.put([chunk(stream, number % 40 + 1)], busy)
                number += 1
                await asyncio.sleep(0.001)

        await committer.flushed()
        sending = asyncio.create_task(send_on())
        await committer.put([chunk(stream, 0)], other)
        await committer.flushed()
        assert other.counts == [1]
        sending.cancel()

    committing(scenario)


@pytest.mark.parametrize("error", [StoreFullError("full"), sqlite3.OperationalError("broken")])
def test_a_store_that_refuses_is_told_to_all_and_tried_again(committing, store, header, chunk, monkeypatch, error):
    stream, sensor = store.register(header(), NOW)[1], Sensor()
    whole = Store.add

    def refuse(*_: object) -> None:
        raise error

    async def scenario(committer: Committer) -> tuple[int | None, int | None]:
        monkeypatch.setattr(Store, "add", refuse)
        await committer.put([chunk(stream, 0)], sensor)
        await committer.flushed()
        full_since_ns = committer.full_since_ns
        monkeypatch.setattr(Store, "add", whole)
        await committer.put([chunk(stream, 0)], sensor)
        await committer.flushed()
        return full_since_ns, committer.full_since_ns

    during, after = committing(scenario)
    assert (during, after) == (NOW, None)
    assert [isinstance(each, StoreFullError) for each in sensor.errors] == [True]
    assert sensor.counts == [1]
