"""Redis restarts, is emptied, loses connections or scripts: nothing is resurrected silently.

What survived goes on, in order and once. What did not ends at both ends with NOTIFICATION_RELEASE.
Listeners are registered again by themselves, and hear again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from broker import BIDIRECTIONAL
from broker.errors import (
    ChannelAlreadyClosed,
    OutcomeUnknown,
    RedisUnreachable,
    SessionLapsed,
    TympanError,
)
from broker.results import NO_LISTENERS, S_OK
from tests.conformance.actors import pass_away
from tests.farm import PATIENCE, PRINTER, TYPE, Farm, RedisBackend
from tests.redis.scenes import BRISK, Scene, anew, heard, is_released, leases_pass, stand, until
from tests.servers import RedisServer


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of the test's own, whose acknowledged writes survive a kill."""
    with RedisServer(appendonly=True, config={"appendfsync": "always"}) as running:
        yield running


@pytest.fixture
async def farm(server: RedisServer) -> AsyncIterator[Farm]:
    async with Farm(RedisBackend(server)) as made:
        yield made


async def in_order(server: RedisServer) -> None:
    await asyncio.to_thread(server.restart)


async def by_force(server: RedisServer) -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.restart)


Restart = Callable[[RedisServer], Awaitable[None]]
however_it_restarts = pytest.mark.parametrize("restart", [in_order, by_force])


# Restarts with the data -------------------------------------------------------------------------


@however_it_restarts
async def test_what_survives_a_restart_goes_on(
    farm: Farm, server: RedisServer, restart: Restart
) -> None:
    scene = await Scene.set(farm, **BRISK)
    epoch = (await scene.source.server(PRINTER)).epoch
    registered = {facts.id for facts in await scene.source.registrations()}
    await scene.used.send(b"before")
    await restart(server)
    await anew(farm)

    assert await scene.used.send(b"after") == S_OK
    assert [await heard(scene.one_way) for _ in range(2)] == [b"before", b"after"]

    assert await scene.question.respond(b"yes") == S_OK
    assert (await scene.asked.response(PATIENCE)).data == b"yes"

    assert await scene.answered.send(b"sure?") == S_OK
    assert (await scene.owned.follow_up(PATIENCE)).data == b"sure?"
    assert await scene.owned.close(b"quite") == S_OK
    assert (await scene.answered.response(PATIENCE)).data == b"quite"

    assert {facts.id for facts in await scene.source.registrations()} == registered
    session = await scene.source.server(PRINTER)
    assert int(session.epoch) > int(epoch), "the restart was noticed"
    assert session.lapses == 0


@however_it_restarts
async def test_a_question_that_was_open_finds_late_listeners_after_a_restart(
    farm: Farm, server: RedisServer, restart: Restart
) -> None:
    source = await farm.broker(**BRISK)
    channel = await source.open_channel(PRINTER, TYPE, style=BIDIRECTIONAL)
    assert await channel.send(b"continue?") == NO_LISTENERS
    await restart(server)
    await anew(farm)
    listener = await farm.broker(**BRISK)
    offer = await farm.offered(await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL))
    await offer.respond(b"yes")
    assert (await channel.response(PATIENCE)).data == b"yes"


async def test_deliveries_stay_in_order_and_exactly_once_across_restarts(
    farm: Farm, server: RedisServer
) -> None:
    source, listener = await farm.broker(**BRISK), await farm.broker(**BRISK)
    registration = await listener.register(PRINTER, TYPE, buffer=10_000)
    channel = await source.open_channel(PRINTER, TYPE)
    pages = [b"%d" % n for n in range(400)]

    async def send_all() -> None:
        for page in pages:
            assert await channel.send(page) == S_OK

    sending = asyncio.create_task(send_all())
    found: list[bytes | None] = []
    for many in (50, 150):
        while len(found) < many:
            found.append(await heard(registration))
        await by_force(server)
    while len(found) < len(pages):
        found.append(await heard(registration))
    await sending
    assert found == pages
    assert registration.unread == 0
    await anew(farm)


async def test_an_outage_longer_than_a_lease_kills_nobody(farm: Farm, server: RedisServer) -> None:
    """The time in which nobody could renew does not count."""
    scene = await Scene.set(farm, **BRISK)
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(1.25 * BRISK["lease"])  # there is no Redis to ask for the time
    await asyncio.to_thread(server.restart)
    await anew(farm)
    assert await scene.answered.send(b"sure?") == S_OK
    assert (await scene.owned.follow_up(PATIENCE)).data == b"sure?"
    await leases_pass(farm.client, 1.5, BRISK["lease"])
    assert await scene.question.respond(b"yes") == S_OK
    for broker in (scene.source, scene.listener):
        assert (await broker.server(PRINTER)).lapses == 0


async def test_calls_wait_for_a_server_that_comes_back(farm: Farm, server: RedisServer) -> None:
    scene = await Scene.set(farm, **BRISK)
    await asyncio.to_thread(server.kill)
    calls = [
        asyncio.create_task(call)
        for call in (scene.used.send(b"page"), scene.question.respond(b"yes"))
    ]
    done, _ = await asyncio.wait(calls, timeout=0.2)
    assert not done
    await asyncio.to_thread(server.restart)
    assert await asyncio.gather(*calls) == [S_OK, S_OK]
    assert await heard(scene.one_way) == b"page"
    await anew(farm)


# Faults that take no data -----------------------------------------------------------------------


async def test_scripts_that_were_flushed_are_loaded_again(farm: Farm, server: RedisServer) -> None:
    scene = await Scene.set(farm, **BRISK)
    server.cli("SCRIPT", "FLUSH")
    assert await scene.used.send(b"page") == S_OK
    assert await heard(scene.one_way) == b"page"
    server.cli("SCRIPT", "FLUSH")
    assert await scene.question.respond(b"yes") == S_OK
    assert (await scene.asked.response(PATIENCE)).data == b"yes"


@pytest.mark.parametrize("kinds", [("normal",), ("pubsub",), ("normal", "pubsub")])
async def test_connections_that_were_killed_are_made_again(
    farm: Farm, server: RedisServer, kinds: tuple[str, ...]
) -> None:
    scene = await Scene.set(farm, **BRISK)
    for n in range(3):
        for kind in kinds:
            server.cli("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        assert await scene.used.send(b"%d" % n) == S_OK
    assert [await heard(scene.one_way) for _ in range(3)] == [b"0", b"1", b"2"]
    assert await scene.answered.send(b"sure?") == S_OK
    assert (await scene.owned.follow_up(PATIENCE)).data == b"sure?"
    await anew(farm)


async def test_looking_asks_again_when_its_connection_was_killed(
    farm: Farm, server: RedisServer
) -> None:
    source = await farm.broker(**BRISK | {"lease": 60.0, "resync": 60.0})
    channel = await source.open_channel(PRINTER, TYPE)
    for look in (source.servers, source.channels, source.registrations, source.grants):
        server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await look()
    server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert await source.show(channel.id) is not None
    await anew(farm)


async def test_a_bell_is_missed_and_nothing_else(farm: Farm, server: RedisServer) -> None:
    """Sent while the listener's process heard no bells: it looks for itself."""
    scene = await Scene.set(farm, **BRISK)
    server.cli("CLIENT", "KILL", "TYPE", "pubsub")
    sends = [scene.used.send(b"%d" % n) for n in range(20)]
    assert set(await asyncio.gather(*sends)) == {S_OK}
    assert [await heard(scene.one_way) for _ in range(20)] == [b"%d" % n for n in range(20)]
    assert scene.one_way.unread == 0


async def test_a_consumer_group_that_somebody_destroyed_silences_nobody(farm: Farm) -> None:
    source, listener = await farm.broker(**BRISK), await farm.broker(**BRISK)
    registration = await listener.register(PRINTER, TYPE, buffer=4)
    channel = await source.open_channel(PRINTER, TYPE)
    assert await channel.send(b"first") == S_OK
    assert await heard(registration) == b"first"
    for key in await farm.keys():
        if ":stream:" in key:
            for group in await farm.client.xinfo_groups(key):
                await farm.client.xgroup_destroy(key, group["name"])
    for n in range(20):
        assert (await channel.send(b"%d" % n, timeout=PATIENCE, lossless=True)) == S_OK
        assert await heard(registration) == b"%d" % n


# All data gone ----------------------------------------------------------------------------------


@pytest.mark.parametrize("notices", ["by its lease", "by a call"])
async def test_a_redis_that_was_emptied_ends_everything(
    farm: Farm, server: RedisServer, notices: str
) -> None:
    scene = await Scene.set(farm, **BRISK)
    server.cli("FLUSHALL")
    if notices == "by a call":
        for call in (scene.used.send(b"page"), scene.question.respond(b"yes")):
            with pytest.raises((SessionLapsed, ChannelAlreadyClosed)):
                await call
    for end in (scene.used, scene.fresh, scene.asked, scene.answered, scene.question, scene.owned):
        await is_released(end)
    for send in (scene.used.send, scene.answered.send, scene.owned.respond):
        with pytest.raises(ChannelAlreadyClosed, match="Redis forgot"):
            await send(b"late")


async def test_what_ended_with_its_other_end_says_so(farm: Farm) -> None:
    scene = await Scene.set(farm, **BRISK)
    await pass_away(farm, scene.source)
    await is_released(scene.owned)
    with pytest.raises(ChannelAlreadyClosed, match="its other end is gone"):
        await scene.owned.follow_up(0)


async def test_after_redis_was_emptied_listeners_hear_again(
    farm: Farm, server: RedisServer
) -> None:
    """They did nothing for it: the same objects, the same waiting fetch."""
    scene = await Scene.set(farm, **BRISK)
    waiting = asyncio.create_task(scene.one_way.fetch())
    server.cli("FLUSHALL")

    await stand(farm, 2)
    channel = await scene.source.open_channel(PRINTER, TYPE)
    assert await channel.send(b"page") == S_OK
    found: Any = await asyncio.wait_for(waiting, PATIENCE)
    assert found.data == b"page"
    question = await farm.question(scene.source)
    offer = await farm.offered(scene.two_way)
    await offer.respond(b"yes")
    assert (await question.response(PATIENCE)).data == b"yes"


async def test_after_redis_was_emptied_its_servers_are_known_again(
    farm: Farm, server: RedisServer
) -> None:
    """Whoever looks at the whole farm must find those who are still there."""
    scene = await Scene.set(farm, **BRISK)
    server.cli("FLUSHALL")
    await stand(farm, 2)
    assert await scene.source.servers() == ["print01"]
    assert len(await scene.source.registrations()) == 2


async def test_what_had_arrived_before_redis_was_emptied_is_still_handed_out(
    farm: Farm, server: RedisServer
) -> None:
    scene = await Scene.set(farm, **BRISK)
    await scene.used.send(b"page")

    async def has_arrived() -> bool:
        return scene.one_way.unread == 1

    await until(has_arrived)
    server.cli("FLUSHALL")
    await is_released(scene.owned)
    assert await heard(scene.one_way) == b"page"


async def test_a_server_without_persistence_that_restarts_ends_everything() -> None:
    with RedisServer() as forgetful:
        async with Farm(RedisBackend(forgetful)) as farm:
            scene = await Scene.set(farm, **BRISK)
            await by_force(forgetful)
            await anew(farm)
            for end in (scene.asked, scene.answered, scene.question, scene.owned):
                await is_released(end)

            await stand(farm, 2)
            channel = await scene.source.open_channel(PRINTER, TYPE)
            assert await channel.send(b"page") == S_OK
            assert await heard(scene.one_way) == b"page"


async def test_errors_of_an_outage_are_ours(farm: Farm, server: RedisServer) -> None:
    """Whatever is asked while Redis is down, no error of a library below comes through."""
    scene = await Scene.set(farm, **BRISK | {"operation_timeout": 0.2})
    await asyncio.to_thread(server.kill)
    calls: list[Awaitable[object]] = [
        scene.used.send(b"page"),
        scene.question.respond(b"yes"),
        scene.answered.close(),
        scene.source.open_channel(PRINTER, TYPE),
        scene.listener.register(PRINTER, TYPE),
        scene.source.grant(PRINTER, "carol", "use"),
        scene.source.channels(),
        scene.source.servers(),
        scene.source.show(scene.asked.id),
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(each, OutcomeUnknown | RedisUnreachable) for each in results), results
    assert all(each.retryable for each in results if isinstance(each, TympanError))
    await asyncio.to_thread(server.restart)
    await anew(farm)


async def test_a_registration_that_ends_while_it_is_asked_for_again_stays_ended(
    real_farm: Farm,
) -> None:
    """Each of the two calls waits for Redis in its own time, so either may come first."""
    listener = await real_farm.broker()
    registration = await listener.register(PRINTER, TYPE)
    server = await listener.server(PRINTER)
    ask, asks, ended = server.ask, asyncio.Event(), asyncio.Event()

    async def ask_late(*call: Any, **how: Any) -> list[Any]:
        asks.set()
        await ended.wait()
        return await ask(*call, **how)

    server.ask = ask_late  # type: ignore[method-assign]
    resuming = asyncio.create_task(server.listening.resume())
    await asks.wait()
    server.ask = ask  # type: ignore[method-assign]
    assert await registration.unregister() == S_OK
    ended.set()
    await resuming
    assert await listener.registrations() == []
