"""The sensor's side: what is lost, counted twice or sent again when connections break."""

import asyncio
import time

import numpy as np
import pytest

from client.host.calls import HostCallError
from client.host.daemon import HostConfig, serving
from client.host.schema import StoreFullError
from client.host.sensor import Patience, Sensor
from client.host.store import Store
from client.host.tokens import Role, add_token
from clmm_core.errors import ConfigError
from simulation.bench.cut_connection import wire_to

NS = 1_000_000_000
QUICK = Patience(first_wait_s=0.02, longest_wait_s=0.05)


def give(sensor: Sensor, first: int, last: int) -> None:
    for number in range(first, last):
        times = 1_700_000_000 * NS + (number * 25 + np.arange(25)) * 20_000_000
        sensor.give(1, times, np.full((25, 3), number, np.float32))


def numbers(kept) -> list[int]:
    """Return which chunks of `give` are on the disk, by their samples."""
    return [int(each.samples()[0, 0]) for each in kept()]


def test_through_twenty_cuts_nothing_is_lost_and_nothing_is_twice(on_host, kept, header_message):
    async def scenario(host, channel):
        async with wire_to(host.port) as wire:
            sensor = Sensor(f"127.0.0.1:{wire.listens_on}", host.tokens[Role.SENSOR], header_message(), patience=QUICK)
            running = asyncio.create_task(sensor.run())
            num_cuts, sent = 0, 0
            while num_cuts < 20:
                give(sensor, sent, sent + 20)
                sent += 20
                await asyncio.sleep(0.03)
                num_cuts += bool(wire.cut())
            sensor.finish()
            await running
            return sent, sensor.num_disconnects, sensor.acknowledged

    sent, num_disconnects, acknowledged = on_host(scenario)
    assert num_disconnects >= 20
    assert acknowledged == {1: sent}
    assert numbers(kept) == list(range(sent))


def test_a_sensor_that_is_started_anew_goes_on_after_what_the_host_has(on_host, kept, header_message):
    async def scenario(host, channel):
        for first in (0, 5):
            sensor = Sensor(host.target, host.tokens[Role.SENSOR], header_message())
            give(sensor, first, first + 5)
            sensor.finish()
            await sensor.run()
        return sensor.acknowledged

    assert on_host(scenario) == {1: 10}
    assert numbers(kept) == list(range(10))


def test_what_does_not_fit_while_there_is_no_connection_is_let_go_of_and_counted(on_host, kept, header_message):
    async def scenario(host, channel):
        sensor = Sensor(host.target, host.tokens[Role.SENSOR], header_message(), patience=Patience(max_chunks=4))
        give(sensor, 0, 10)
        sensor.finish()
        await sensor.run()
        return sensor.num_let_go, sensor.acknowledged

    assert on_host(scenario) == (6, {1: 10})
    assert numbers(kept) == [6, 7, 8, 9]


def test_it_measures_how_far_its_clock_is_off(on_host, header_message):
    async def scenario(host, channel):
        sensor = Sensor(host.target, host.tokens[Role.SENSOR], header_message())
        give(sensor, 0, 3)
        sensor.finish()
        await sensor.run()
        return sensor.clock_ahead_ns

    ahead_ns = on_host(scenario, clock=lambda: time.time_ns() - 7 * NS)
    assert ahead_ns == pytest.approx(7 * NS, abs=0.3 * NS)


def test_a_wrong_token_is_final(on_host, header_message):
    async def scenario(host, channel):
        with pytest.raises(HostCallError, match="UNAUTHENTICATED: expected a token of this host"):
            await Sensor(host.target, "x", header_message()).run()

    on_host(scenario)


def test_why_a_connection_ended_is_what_the_host_said_also_in_the_middle_of_sending(on_host, header_message, monkeypatch):
    """gRPC puts "Internal error from Core" before it, more often than not, where a write meets the end of a call."""
    num_tries = 20

    def refuse(*_: object) -> None:
        raise StoreFullError("expected room")

    async def scenario(host, channel):
        troubles: list[str] = []

        async def sleep(seconds: float) -> None:
            troubles.append(sensor.trouble)
            if len(troubles) == num_tries:
                raise asyncio.CancelledError

        sensor = Sensor(host.target, host.tokens[Role.SENSOR], header_message(), patience=QUICK, sleep=sleep)
        give(sensor, 0, 10_000)
        await asyncio.wait({asyncio.create_task(sensor.run())})
        return host.target, troubles

    monkeypatch.setattr(Store, "add", refuse)
    target, troubles = on_host(scenario)
    assert troubles == [f"host at {target}: RESOURCE_EXHAUSTED: expected room"] * num_tries


def test_without_a_host_it_tries_until_its_patience_ends(header_message):
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    patience = Patience(first_wait_s=1, longest_wait_s=4, give_up_s=0.5)
    with pytest.raises(HostCallError, match="UNAVAILABLE"):
        asyncio.run(Sensor("127.0.0.1:1", "x", header_message(), patience=patience, sleep=sleep).run())
    assert waits[:4] == [1, 2, 4, 4][: len(waits)]


@pytest.mark.parametrize("changes", [{"first_wait_s": 0}, {"first_wait_s": 40}, {"max_chunks": 0}, {"give_up_s": 0}])
def test_patience_that_cannot_be_is_refused(changes):
    with pytest.raises(ConfigError, match="expected waits above 0 s"):
        Patience(**changes)


@pytest.mark.long
def test_a_sensor_that_has_nothing_to_say_stays_connected(tmp_path, header_message):
    """Its pings every 10 s are no attack: gRPC's servers end such connections unless told otherwise, after two minutes."""

    async def scenario():
        folder = tmp_path / "host"
        token = add_token(folder, "watch", Role.SENSOR)
        async with serving(HostConfig(folder=folder, listen="127.0.0.1:0"), time.time_ns) as (port, _):
            sensor = Sensor(f"127.0.0.1:{port}", token, header_message())
            sending = asyncio.create_task(sensor.run())
            await asyncio.sleep(150)
            sensor.finish()
            await asyncio.wait_for(sending, 10)
            return sensor.num_disconnects

    assert asyncio.run(scenario()) == 0
