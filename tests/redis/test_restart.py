"""Redis restarts, forgets, fails over; processes freeze: nothing is resurrected silently.

What survived goes on, in order and once. What did not ends at both ends with NOTIFICATION_RELEASE.
Listeners are registered again by themselves, and hear again. No dialog ever has two owners.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio

from broker import BIDIRECTIONAL, Broker, Channel, Offer
from broker._keys import Keys
from broker.errors import (
    ChannelAcquired,
    ChannelAlreadyClosed,
    NotYours,
    OutcomeUnknown,
    RedisUnreachable,
    SessionLapsed,
    TympanError,
)
from broker.results import NO_LISTENERS, S_OK
from tests.farm import PATIENCE, PRINTER, TYPE, Farm, RedisBackend
from tests.proxy import Proxy
from tests.redis.scenes import BehindProxy, Scene, heard, leases_pass, until
from tests.servers import RedisServer
from workers.embedded import HOST

BRISK: dict[str, Any] = {"lease": 2.0, "resync": 0.2, "retry_least": 0.05, "retry_most": 0.5}


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


async def anew(farm: Farm) -> None:
    """The plain client connects again."""
    await farm.client.connection_pool.disconnect()


async def is_released(end: Channel | Offer[Any]) -> None:
    """The end is told that the channel is over, without a word of the other end's."""
    closing = await end.wait_closed(PATIENCE)
    assert closing is not None, "nobody told it"
    assert closing.reason.is_release
    assert closing.reason.data is None


async def stand(farm: Farm, many: int) -> None:
    """Return when so many registrations stand on the tests' print server."""
    key = Keys(farm.namespace, "print01").registrations

    async def do_they() -> bool:
        return int(await farm.client.hlen(key)) == many

    await until(do_they)


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
    scene = await Scene.set(farm, **BRISK | {"lease": 0.3})
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(0.6)  # two leases; there is no Redis to ask for the time
    await asyncio.to_thread(server.restart)
    await anew(farm)
    assert await scene.answered.send(b"sure?") == S_OK
    assert (await scene.owned.follow_up(PATIENCE)).data == b"sure?"
    await leases_pass(farm.client, 3, 0.3)
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
        with pytest.raises(ChannelAlreadyClosed):
            await send(b"late")


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


# Failover ---------------------------------------------------------------------------------------


class Pair(BehindProxy):
    """A primary, its replica, and a proxy that follows whoever is the primary."""

    def __init__(self, primary: RedisServer, replica: RedisServer, proxy: Proxy) -> None:
        super().__init__(primary, proxy)
        self.replica = replica
        self.proxies = [proxy]

    def client(self) -> redis.asyncio.Redis:
        return redis.asyncio.Redis.from_url(self.proxy.url, protocol=2)

    async def split(self) -> None:
        """From here on the replica misses what the primary acknowledges."""
        assert await asyncio.to_thread(self.server.cli, "WAIT", 1, 5000) == 1
        await asyncio.to_thread(self.replica.promote)

    async def fail_over(self) -> None:
        """The primary is gone, and the replica is the primary."""
        for proxy in self.proxies:
            proxy.target = (HOST, self.replica.port)
            proxy.stall(False)
            proxy.cut()
        await asyncio.to_thread(self.server.kill)


@asynccontextmanager
async def paired() -> AsyncIterator[tuple[Pair, Farm]]:
    with RedisServer() as primary, primary.replica() as replica:
        async with Proxy(HOST, primary.port) as proxy:
            pair = Pair(primary, replica, proxy)
            async with Farm(pair) as farm:
                yield pair, farm
                await anew(farm)


async def two_offers(farm: Farm) -> list[Offer[Any]]:
    """One question, offered to two listeners in processes of their own."""
    return [
        await farm.offered(
            await (await farm.broker(**BRISK)).register(PRINTER, TYPE, style=BIDIRECTIONAL)
        )
        for _ in range(2)
    ]


async def answer(offer: Offer[Any], body: bytes) -> bool:
    """Whether the answer was accepted; it may be refused by name, and in no other way."""
    try:
        await offer.respond(body)
    except (ChannelAcquired, ChannelAlreadyClosed, NotYours, SessionLapsed):
        return False
    return True


async def test_a_failover_that_lost_nothing_goes_on() -> None:
    async with paired() as (pair, farm):
        scene = await Scene.set(farm, **BRISK)
        await scene.used.send(b"before")
        await pair.split()
        await pair.fail_over()
        assert await scene.used.send(b"after") == S_OK
        assert [await heard(scene.one_way) for _ in range(2)] == [b"before", b"after"]
        assert await scene.answered.send(b"sure?") == S_OK
        assert (await scene.owned.follow_up(PATIENCE)).data == b"sure?"
        assert await scene.question.respond(b"yes") == S_OK
        assert (await scene.asked.response(PATIENCE)).data == b"yes"


async def test_an_acquisition_that_its_source_saw_is_never_given_to_another() -> None:
    """The token that the source saw first is pinned: after the loss the dialog ends."""
    async with paired() as (pair, farm):
        source = await farm.broker(**BRISK)
        channel = await farm.question(source)
        first, second = await two_offers(farm)
        await pair.split()
        await first.respond(b"first")
        heard_first = await channel.response(PATIENCE)
        await pair.fail_over()
        await answer(second, b"second")
        await is_released(channel)
        heard_later = [response async for response in channel.responses()]
        assert [heard_first.data, *(each.data for each in heard_later)] == [b"first"]
        assert channel.owner == heard_first.registration == first.registration.id
        assert not await answer(first, b"again"), "the owner of a lost dialog is refused"
        await is_released(first)
        closing = await second.wait_closed(PATIENCE)
        assert closing is not None, "whoever took it up after the loss is told as well"


@pytest.mark.parametrize("was_told", [False, True], ids=["unaware", "told that it lost"])
async def test_an_acquisition_that_its_source_never_saw_is_free_again(
    was_told: bool,
) -> None:
    """Whoever answers then owns the dialog, also if it was told before that another was first."""
    async with paired() as (pair, farm), Proxy(HOST, pair.server.port) as apart:
        pair.proxies.append(apart)
        there = {"namespace": farm.namespace, "user": "alice"} | BRISK
        async with (
            Broker.connect(apart.url, **there) as source,
            Broker.connect(pair.proxy.url if was_told else apart.url, **there) as other,
        ):
            channel = await farm.question(source)
            listeners = [await farm.broker(**BRISK), other]
            first, second = [
                await farm.offered(await each.register(PRINTER, TYPE, style=BIDIRECTIONAL))
                for each in listeners
            ]
            await pair.split()
            apart.stall(True)
            await first.respond(b"first")
            if was_told:
                await second.wait_closed(PATIENCE)
            assert second.is_lost == was_told
            await pair.fail_over()
            assert await answer(second, b"second"), "nobody owns it there"
            response = await channel.response(PATIENCE)
            assert (response.data, channel.owner) == (b"second", second.registration.id)
            assert not await answer(first, b"again"), "the forgotten owner is refused"
            assert await channel.send(b"sure?") == S_OK
            assert (await second.follow_up(PATIENCE)).data == b"sure?"
            await channel.close()
            assert [each async for each in channel.responses()] == []


async def test_sends_that_a_failover_lost_end_their_channel() -> None:
    """The source must not go on as if its listeners had heard everything."""
    async with paired() as (pair, farm):
        source, listener = await farm.broker(**BRISK), await farm.broker(**BRISK)
        registration = await listener.register(PRINTER, TYPE)
        channel = await source.open_channel(PRINTER, TYPE)
        await channel.send(b"kept")
        await pair.split()
        await channel.send(b"lost")
        await pair.fail_over()
        with pytest.raises((ChannelAlreadyClosed, OutcomeUnknown, SessionLapsed)):
            await channel.send(b"next")
        await is_released(channel)
        successor = await source.open_channel(PRINTER, TYPE)
        assert await successor.send(b"after") == S_OK
        found = [await heard(registration)]
        while found[-1] != b"after":
            found.append(await heard(registration))
        assert found in ([b"kept", b"lost", b"after"], [b"kept", b"after"])


async def test_a_registration_that_a_failover_lost_hears_again() -> None:
    async with paired() as (pair, farm):
        source, listener = await farm.broker(**BRISK), await farm.broker(**BRISK)
        await listener.server(PRINTER)
        channel = await source.open_channel(PRINTER, TYPE)
        await pair.split()
        registration = await listener.register(PRINTER, TYPE)
        await pair.fail_over()

        await anew(farm)
        await stand(farm, 1)
        assert await channel.send(b"page") == S_OK
        assert await heard(registration) == b"page"


async def test_a_process_that_a_failover_forgot_begins_anew() -> None:
    """Its session is not known there: everything it held is over, and it registers again."""
    async with paired() as (pair, farm):
        await pair.split()
        scene = await Scene.set(farm, **BRISK)
        await pair.fail_over()
        await anew(farm)
        for end in (scene.asked, scene.answered, scene.owned):
            await is_released(end)

        await stand(farm, 2)
        channel = await scene.source.open_channel(PRINTER, TYPE)
        assert await channel.send(b"page") == S_OK
        assert await heard(scene.one_way) == b"page"


# Frozen processes -------------------------------------------------------------------------------


class Child:
    """A listener in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def said(self, event: str) -> dict[str, Any]:
        """The next thing that it says, which must be this."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        said: dict[str, Any] = json.loads(line)
        assert said["event"] == event, said
        return said

    def told(self, channel: str, body: str) -> None:
        """Have it answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{channel} {body}\n".encode())

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def child(farm: Farm, url: str, lease: float) -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.redis.paused_listener",
        url,
        farm.namespace,
        str(lease),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Child(process)
        assert process.stdin is not None
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


LEASE = 0.5


async def test_a_process_that_slept_past_its_lease_finds_its_dialog_over(
    real_farm: Farm, redis_server: RedisServer
) -> None:
    source = await real_farm.broker(**BRISK | {"lease": LEASE})
    async with child(real_farm, redis_server.url, LEASE) as listener:
        registered = await listener.said("registered")
        channel = await real_farm.question(source)
        assert (await listener.said("offered"))["channel"] == channel.id
        listener.told(channel.id, "yes")
        await listener.said("answered")
        assert (await channel.response(PATIENCE)).data == b"yes"
        await channel.send(b"sure?")

        listener.freeze()
        await leases_pass(real_farm.client, 2, LEASE)
        await source.run_down(PRINTER)
        await is_released(channel)
        listener.told(channel.id, "late")
        listener.thaw()

        refused = await listener.said("refused")
        assert refused["error"] in ("SessionLapsed", "ChannelAlreadyClosed")
        assert refused["lapses"] == 1
        assert [each async for each in channel.responses()] == [], "the late answer came nowhere"

        again = await real_farm.question(source)
        offered = await listener.said("offered")
        assert offered["channel"] == again.id, "it registered again by itself"
        assert offered["registration"] != registered["registration"]
        listener.told(again.id, "here")
        await listener.said("answered")
        assert (await again.response(PATIENCE)).data == b"here"


async def test_a_process_that_slept_past_its_lease_does_not_win_a_race(
    real_farm: Farm, redis_server: RedisServer
) -> None:
    """Nobody swept it yet: its lease alone refuses it."""
    source = await real_farm.broker(**BRISK | {"lease": LEASE, "resync": 60.0})
    async with child(real_farm, redis_server.url, LEASE) as listener:
        await listener.said("registered")
        channel = await real_farm.question(source)
        await listener.said("offered")
        listener.freeze()
        await leases_pass(real_farm.client, 2, LEASE)
        listener.told(channel.id, "late")
        listener.thaw()
        refused = await listener.said("refused")
        assert refused["error"] in ("SessionLapsed", "ChannelAlreadyClosed")
        assert refused["lapses"] == 1
        assert (await listener.said("offered"))["channel"] == channel.id, "it is still open"
        listener.told(channel.id, "now")
        await listener.said("answered")
        response = await channel.response(PATIENCE)
        assert response.data == b"now"
        await source.run_down(PRINTER)


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
