"""A broker that is closed leaves nothing held in its name, whatever state its things are in.

What it leaves would be ended only when its lease runs out: a dialog's other end would wait, and
its registrations would count as listeners, for that long.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker import BIDIRECTIONAL, UNIDIRECTIONAL, Broker
from broker.errors import RegistrationEnded, TympanError
from tests.farm import PATIENCE, PRINTER, SERVER, TYPE, Farm
from tests.proxy import Proxy
from tests.redis.scenes import QUIET, BehindProxy, bells_of
from tests.servers import RedisServer
from workers.embedded import HOST

IMPATIENT: dict[str, Any] = QUIET | {
    "reply_timeout": 1.0, "connect_timeout": 1.0, "operation_timeout": 1.0,
}  # fmt: skip


async def test_dialogs_end_also_where_one_of_them_was_over_before(real_farm: Farm) -> None:
    """The first one's source closed it, and its owner closes before it hears of that."""
    owner, source = await real_farm.broker("alice"), await real_farm.broker("spooler")
    registration = await owner.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channels = [await real_farm.question(source) for _ in range(2)]
    for channel in channels:
        await (await real_farm.offered(registration)).respond(b"mine")
        assert (await channel.response(PATIENCE)).data == b"mine"
    deaf(owner)
    await channels[0].close()

    await owner.close()

    assert await channels[1].wait_closed(PATIENCE) is not None, "its source waits for nobody"
    leases = (await source.server(PRINTER)).keys.leases
    assert await real_farm.client.zcard(leases) == 1, "only the source's session is left"


async def test_a_dialog_ends_whose_acquisition_its_owner_has_not_heard_of(real_farm: Farm) -> None:
    owner, source = await real_farm.broker("alice"), await real_farm.broker("spooler")
    registration = await owner.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await real_farm.question(source)
    offer = await real_farm.offered(registration)
    deaf(owner)
    await offer.respond(b"mine")

    await owner.close()

    assert await channel.wait_closed(PATIENCE) is not None, "its source waits for nobody"
    leases = (await source.server(PRINTER)).keys.leases
    assert await real_farm.client.zcard(leases) == 1, "only the source's session is left"


def deaf(broker: Broker) -> None:
    """No bell reaches this process any more."""
    bells_of(broker)._on_ring = lambda *_: None


async def test_a_session_ends_also_in_an_epoch_that_it_did_not_know(real_farm: Farm) -> None:
    leaving, staying = await real_farm.broker("alice"), await real_farm.broker("bob")
    await leaving.register(PRINTER, TYPE)
    server = await staying.server(PRINTER)
    await real_farm.client.hset(server.keys.meta, "run", "another")
    await staying.revoke(SERVER, "nobody", "enumerate")

    await leaving.close()

    assert await real_farm.client.zcard(server.keys.leases) == 1, "one session is left"
    assert await staying.registrations() == []


async def test_an_idle_session_ends_also_in_an_epoch_that_it_did_not_know(real_farm: Farm) -> None:
    leaving, staying = await real_farm.broker("alice"), await real_farm.broker("bob")
    await leaving.server(PRINTER)
    server = await staying.server(PRINTER)
    await real_farm.client.hset(server.keys.meta, "run", "another")
    await staying.revoke(SERVER, "nobody", "enumerate")

    await leaving.close()

    assert await real_farm.client.zcard(server.keys.leases) == 1, "one session is left"


async def of_a_farm(redis: RedisServer) -> Broker:
    """A process that listens on so many servers that nobody could wait for each."""
    leaving = Broker.connect(redis.url, user="alice", **IMPATIENT)
    await leaving.start()
    for number in range(2 * round(PATIENCE)):
        await leaving.register(rf"\\print{number}\laser", TYPE)
    return leaving


@pytest.mark.parametrize("is_known", [False, True], ids=["unheard-of", "known"])
async def test_a_redis_that_froze_is_waited_for_once_whatever_the_number_of_servers(
    is_known: bool,
) -> None:
    """Not once for each: whoever stops a process of a whole farm does not wait for minutes."""
    with RedisServer() as redis:
        leaving = await of_a_farm(redis)
        redis.pause()
        try:
            if is_known:  # nothing is connected any more
                with pytest.raises(TympanError):
                    await leaving.open_channel(PRINTER, TYPE)
            async with asyncio.timeout(PATIENCE):
                await leaving.close()
        finally:
            redis.resume()


async def test_all_is_ended_however_long_it_takes_while_redis_answers(
    redis_server: RedisServer,
) -> None:
    """A line so slow that there is no time for two answers in one reply timeout."""
    async with (
        Proxy(HOST, redis_server.port) as proxy,
        Farm(BehindProxy(redis_server, proxy)) as farm,
    ):
        leaving = await farm.broker("alice", **QUIET, reply_timeout=1.5)
        for style in (BIDIRECTIONAL, UNIDIRECTIONAL):
            await leaving.register(PRINTER, TYPE, style=style)
            await leaving.open_channel(PRINTER, TYPE, style=style)
        keys = (await leaving.server(PRINTER)).keys
        proxy.delay(0.5)
        await leaving.close()
        assert not await farm.client.exists(keys.leases, keys.registrations, keys.channels)


async def test_who_waits_at_a_registration_that_is_being_renewed_is_told() -> None:
    with RedisServer() as redis:
        broker = Broker.connect(redis.url, user="alice", **IMPATIENT)
        await broker.start()
        registration = await broker.register(PRINTER, TYPE)
        waiting = asyncio.create_task(registration.fetch())
        redis.kill()
        with pytest.raises(TympanError):
            await (await broker.server(PRINTER)).lose()
        await broker.close()
        with pytest.raises(RegistrationEnded):
            async with asyncio.timeout(PATIENCE):
                await waiting
