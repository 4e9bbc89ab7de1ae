"""A full Redis refuses whole what would add to it, and does everything that makes room.

So nothing is half done while it is full, and it can always be emptied.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from broker import BIDIRECTIONAL, Broker, Channel, Subscription
from broker.errors import RedisFull, SessionLapsed
from broker.results import NO_LISTENERS, S_OK
from tests.dump import unchanged
from tests.farm import PATIENCE, PERMANENT, PRINTER, TYPE, Farm, RedisBackend
from tests.proxy import Proxy
from tests.redis.pooling import (
    ALERTS,
    POOL,
    QUESTIONS,
    SPRY,
    Member,
    counted,
    end_pools,
    facts,
    pool,
    send,
)
from tests.redis.scenes import (
    QUIET,
    BehindProxy,
    Scene,
    heard,
    is_released,
    leases_pass,
    until,
)
from tests.servers import RedisServer
from workers.embedded import HOST


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture
async def farm(server: RedisServer) -> AsyncIterator[Farm]:
    async with Farm(RedisBackend(server)) as made:
        yield made


LEASE = 1.5
"""Of processes that are to live through it, or to die in it."""


@contextmanager
def full(server: RedisServer) -> Iterator[None]:
    """Not a byte is left inside."""
    server.config("maxmemory", 1)
    try:
        yield
    finally:
        server.config("maxmemory", 0)


Use = Callable[[Scene], Awaitable[object]]


# What adds --------------------------------------------------------------------------------------

ADDING: dict[str, Use] = {
    "open a channel": lambda scene: scene.source.open_channel(PRINTER, TYPE),
    "register": lambda scene: scene.listener.register(PRINTER, TYPE),
    "register for questions": lambda scene: scene.listener.register(
        PRINTER, TYPE, style=BIDIRECTIONAL
    ),
    "send": lambda scene: scene.used.send(b"page"),
    "send, lossless": lambda scene: scene.used.send(b"page", lossless=True),
    "send a large body": lambda scene: scene.used.send(b"x" * 100_000),
    "ask": lambda scene: scene.fresh.send(b"continue?"),
    "ask at length": lambda scene: scene.fresh.send(b"x" * 100_000),
    "answer": lambda scene: scene.question.respond(b"yes"),
    "answer at length": lambda scene: scene.question.respond(b"x" * 100_000),
    "follow up": lambda scene: scene.answered.send(b"sure?"),
    "grant a right": lambda scene: scene.source.grant(PRINTER, "carol", "administer"),
}


@pytest.mark.parametrize("what", ADDING)
async def test_what_adds_is_refused_whole(farm: Farm, server: RedisServer, what: str) -> None:
    scene = await Scene.set(farm)
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with full(server), pytest.raises(RedisFull) as refused:
            await ADDING[what](scene)
    assert str(server.port) in str(refused.value)
    assert "maxmemory" in str(refused.value), "the message says what to do"
    assert refused.value.result.hresult == 0x8007000E
    assert refused.value.retryable
    await ADDING[what](scene)
    assert not any("x" * 100 in key for key in await farm.keys())


async def test_a_session_does_not_begin_on_a_full_redis(farm: Farm, server: RedisServer) -> None:
    broker = await farm.broker(**QUIET)
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with full(server), pytest.raises(RedisFull):
            await broker.open_channel(PRINTER, TYPE)
    await broker.open_channel(PRINTER, TYPE)


async def test_a_send_that_was_refused_is_sent_once_when_there_is_room(
    farm: Farm, server: RedisServer
) -> None:
    scene = await Scene.set(farm)
    with full(server), pytest.raises(RedisFull):
        await scene.used.send(b"page")
    assert await scene.used.send(b"page") == S_OK
    await scene.used.send(b"last")
    assert [await heard(scene.one_way) for _ in range(2)] == [b"page", b"last"]


# What makes room --------------------------------------------------------------------------------


FREEING: dict[str, Use] = {
    "close a unidirectional channel": lambda scene: scene.used.close(),
    "close an open question": lambda scene: scene.asked.close(),
    "close an open question, with a reason": lambda scene: scene.asked.close(b"never mind"),
    "close a dialog as its source": lambda scene: scene.answered.close(b"thanks"),
    "close a dialog as its owner": lambda scene: scene.owned.close(b"bye"),
    "answer and close at once": lambda scene: scene.question.close(b"yes"),
    "decline": lambda scene: scene.question.decline(),
    "let go of an offer": lambda scene: scene.question.release(),
    "let go of a channel on which nothing was sent": lambda scene: scene.fresh.release(),
    "unregister": lambda scene: scene.one_way.unregister(),
    "unregister from questions": lambda scene: scene.two_way.unregister(),
    "revoke a right": lambda scene: scene.source.revoke(PRINTER, "bob", "use"),
    "delete the printer": lambda scene: scene.source.delete_printer(PRINTER),
}


@pytest.mark.parametrize("what", FREEING)
async def test_what_makes_room_is_done(farm: Farm, server: RedisServer, what: str) -> None:
    scene = await Scene.set(farm)
    await scene.used.send(b"page")
    with full(server):
        await FREEING[what](scene)


async def test_a_release_after_ones_own_close_is_harmless_on_a_full_redis(
    farm: Farm, server: RedisServer
) -> None:
    scene = await Scene.set(farm)
    with full(server):
        for end in (scene.asked, scene.owned):
            await end.close()
            assert await end.release() == S_OK


async def test_a_question_without_listeners_is_let_go(farm: Farm, server: RedisServer) -> None:
    source = await farm.broker(**QUIET)
    channel = await source.open_channel(PRINTER, TYPE, style=BIDIRECTIONAL)
    assert await channel.send(b"continue?") == NO_LISTENERS
    with full(server):
        assert await channel.release() == S_OK
    assert await source.channels() == []


async def test_the_other_end_is_told_of_a_close_on_a_full_redis(
    farm: Farm, server: RedisServer
) -> None:
    scene = await Scene.set(farm)
    with full(server):
        await scene.answered.close(b"thanks")
        await scene.question.close(b"final")
        closing = await scene.owned.wait_closed(PATIENCE)
        final = await scene.asked.response(PATIENCE)
    assert closing is not None
    assert closing.reason.data == b"thanks"
    assert (final.data, final.is_final) == (b"final", True)


async def test_everybody_is_told_that_a_printer_is_gone_on_a_full_redis(
    farm: Farm, server: RedisServer
) -> None:
    scene = await Scene.set(farm)
    everyones = await scene.source.register(PRINTER, TYPE)
    with full(server):
        deletion = await scene.listener.delete_printer(PRINTER)
        assert (deletion.channels, deletion.told, deletion.grants) == (4, 2, 1)
        for end in (scene.used, scene.fresh, scene.asked, scene.answered, scene.question):
            await is_released(end)
        for registration in (scene.one_way, everyones):
            found = await registration.fetch(PATIENCE)
            assert getattr(found, "is_release", False)


async def test_a_new_epoch_begins_on_a_full_redis(farm: Farm, server: RedisServer) -> None:
    """As after a restart with its data: what makes room is done there, too."""
    source = await farm.broker(**QUIET)
    channel = await source.open_channel(PRINTER, TYPE, style=BIDIRECTIONAL)
    await channel.send(b"continue?")
    on = await source.server(PRINTER)
    before = on.epoch
    await farm.client.hset(on.keys.meta, "run", "another")
    with full(server):
        assert await channel.close() == S_OK
    assert int(on.epoch) > int(before)
    assert await source.channels() == []


async def test_the_living_stay_alive_on_a_full_redis(farm: Farm, server: RedisServer) -> None:
    scene = await Scene.set(farm, lease=LEASE)
    session = (await scene.source.server(PRINTER)).session
    with full(server):
        await leases_pass(farm.client, 3, LEASE)
    assert await scene.answered.send(b"sure?") == S_OK, "neither end was declared dead"
    assert (await scene.owned.follow_up(PATIENCE)).data == b"sure?"
    assert (await scene.source.server(PRINTER)).session == session


async def test_the_dead_are_run_down_on_a_full_redis(server: RedisServer) -> None:
    """What they held is what fills it."""
    async with (
        Proxy(HOST, server.port) as proxy,
        Farm(BehindProxy(server, proxy)) as farm,
        Broker.connect(
            server.url, user="bob", namespace=farm.namespace, lease=LEASE, resync=60.0
        ) as survivor,
    ):
        await survivor.open_channel(PRINTER, TYPE)
        await Scene.set(farm, lease=LEASE)
        cut_off(proxy)
        with full(server):
            await leases_pass(farm.client, 2, LEASE)
            await survivor.run_down(PRINTER)  # if its own sweep has not been there before
            key = (await survivor.server(PRINTER)).keys.leases
            assert await farm.client.zcard(key) == 1, "the two dead are buried"
            (left,) = await survivor.channels()
            assert await survivor.registrations() == []
        assert left.opened_by == "bob"
        proxy.refuse(False)
        await until(lambda: _is_tidy(survivor))


async def test_a_broker_that_goes_leaves_nothing_on_a_full_redis(
    farm: Farm, server: RedisServer
) -> None:
    scene = await Scene.set(farm)
    with full(server):
        await scene.source.close()
        await scene.listener.close()
    left = [key for key in await farm.keys() if await farm.client.ttl(key) < 0]
    ends = {key.rsplit(":", 1)[-1] for key in left}
    assert ends <= set(PERMANENT)


async def test_listeners_that_take_empty_a_full_redis() -> None:
    """A source outruns the trimming; nobody but its listener makes room again."""
    with RedisServer(maxmemory="6mb") as small:
        async with Farm(RedisBackend(small)) as here:
            options: dict[str, Any] = {"resync": 1.0, "lease": 60.0, "buffer": 100_000}
            source = await here.broker(**options)
            listener = await here.broker(**options)
            registration = await listener.register(PRINTER, TYPE)
            channel = await source.open_channel(PRINTER, TYPE)
            sent = 0
            while await fits(channel, b"x" * 10_000):
                sent += 1
            for _ in range(sent):
                assert await heard(registration) == b"x" * 10_000
            await until(lambda: fits(channel, b"again"))
            assert await heard(registration) == b"again"


async def fits(channel: Channel, body: bytes) -> bool:
    """Whether it could be sent."""
    try:
        return await channel.send(body) == S_OK
    except RedisFull:
        return False


async def test_whoever_was_declared_dead_is_told_so_on_a_full_redis(server: RedisServer) -> None:
    async with (
        Proxy(HOST, server.port) as proxy,
        Farm(BehindProxy(server, proxy)) as farm,
        Broker.connect(
            server.url, user="bob", namespace=farm.namespace, lease=LEASE, resync=60.0
        ) as survivor,
    ):
        scene = await Scene.set(farm, lease=LEASE)
        cut_off(proxy)
        with full(server):
            await leases_pass(farm.client, 2, LEASE)
            proxy.refuse(False)
            with pytest.raises((SessionLapsed, RedisFull)):
                await scene.answered.send(b"late")
        closing = await scene.answered.wait_closed(PATIENCE)
        assert closing is not None
        assert closing.reason.is_release
        await until(lambda: _is_tidy(survivor))


async def test_whoever_lost_its_session_begins_one_when_there_is_room(
    farm: Farm, server: RedisServer
) -> None:
    """Until then each call is refused, and none makes a session of its own."""
    source = await farm.broker("spooler", **QUIET)
    listener = await farm.broker("alice", **QUIET | {"retry_least": 0.01, "retry_most": 0.01})
    registration = await listener.register(PRINTER, TYPE)
    member = await Member.of(listener)
    on = await listener.server(PRINTER)
    with full(server):
        with pytest.raises(RedisFull):
            await on.lose()
        session = on.session
        for _ in range(20):
            with pytest.raises(RedisFull):
                await listener.open_channel(PRINTER, TYPE)
        assert (on.session, on.lapses) == (session, 1)
    await until(lambda: _stands(source, session))
    assert (on.session, on.lapses) == (session, 1)
    assert len(await farm.client.zrange(on.keys.leases, 0, -1)) == 2, "the lost one is buried"
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    await channel.send(b"page")
    assert await heard(registration) == b"page"
    assert (await member.delivery()).notification.data == b"page"
    await end_pools(source)


async def _stands(source: Broker, session: str) -> bool:
    """Whether this session listens, is the pool's replica, and no other is left."""
    await source.run_down(PRINTER)
    listening = [one.session for one in await source.registrations(PRINTER)]
    (found,) = await source.pools.on_server(PRINTER)
    return listening == [session] and found.replicas == (session,)


async def _is_tidy(survivor: Broker) -> bool:
    """Whether the dead are run down, and the two registrations were made again."""
    await survivor.run_down(PRINTER)
    of_the_dead = [facts for facts in await survivor.channels() if facts.opened_by != "bob"]
    return not of_the_dead and len(await survivor.registrations()) == 2


def cut_off(proxy: Proxy) -> None:
    """The processes behind the proxy are as good as dead."""
    proxy.refuse(True)
    proxy.cut()


# Pools ------------------------------------------------------------------------------------------


async def letter_of(member: Member) -> str:
    """What it has next is a dead letter."""
    return await (await member.take(1))[0].bury("it burns")  # type: ignore[no-any-return]


async def test_a_pool_is_not_made_on_a_full_redis(farm: Farm, server: RedisServer) -> None:
    async with pool(farm) as source:
        for make in (
            lambda: source.pools.create(POOL, ALERTS),
            lambda: Member.of(source, ALERTS),
            lambda: Member.of(source, QUESTIONS),
        ):
            async with unchanged(farm.client, f"{farm.namespace}:*"):
                with full(server), pytest.raises(RedisFull):
                    await make()
        assert await source.pools.create(POOL, ALERTS)


async def test_a_pool_that_is_there_gets_no_replica_on_a_full_redis(
    farm: Farm, server: RedisServer
) -> None:
    async with pool(farm, ALERTS) as source:
        async with unchanged(farm.client, f"{farm.namespace}:*"):
            with full(server), pytest.raises(RedisFull):
                await Member.of(source, ALERTS)
        await Member.of(source, ALERTS)


async def test_a_send_to_a_pool_is_refused_whole(farm: Farm, server: RedisServer) -> None:
    async with pool(farm, ALERTS) as source:
        member = await Member.join(farm)
        await member.is_idle()
        channel = await source.open_channel(PRINTER, TYPE)
        for body in (b"page", b"x" * 100_000):
            async with unchanged(farm.client, f"{farm.namespace}:*"):
                with full(server), pytest.raises(RedisFull):
                    await channel.send(body)
            assert await channel.send(body) == S_OK
            assert await member.drain() == [body]
            await member.is_idle()


@asynccontextmanager
async def poison_in_hand(
    farm: Farm, subscription: Subscription
) -> AsyncIterator[tuple[Broker, Member, Any]]:
    """A pool's source, and a replica of it with what it took."""
    async with pool(farm, subscription) as source:
        member = await Member.join(farm, subscription)
        channel = await source.open_channel(PRINTER, TYPE, style=subscription.style)
        await channel.send(b"poison")
        (taken,) = await member.take(1)
        yield source, member, taken


@pytest.mark.parametrize("subscription", [ALERTS, QUESTIONS], ids=["alert", "question"])
async def test_what_is_put_aside_stays_in_hand_while_redis_is_full(
    farm: Farm, server: RedisServer, subscription: Subscription
) -> None:
    async with poison_in_hand(farm, subscription) as (source, member, taken):
        async with unchanged(farm.client, f"{farm.namespace}:*"):
            with full(server), pytest.raises(RedisFull):
                await taken.bury("it burns")
        await counted(source, 0, 1, subscription.style)
        with full(server):
            await member.replica.audit()  # whoever is next gets it
        letter = await letter_of(member)
        async with unchanged(farm.client, f"{farm.namespace}:*"):
            with full(server), pytest.raises(RedisFull):
                await source.dead_letters.replay(PRINTER, letter)
        await source.dead_letters.replay(PRINTER, letter)
        assert [one.notification.data for one in await member.take(1)] == [b"poison"]


@pytest.mark.parametrize("subscription", [ALERTS, QUESTIONS], ids=["alert", "question"])
async def test_what_could_not_be_put_aside_is_by_the_same_call(
    farm: Farm, server: RedisServer, subscription: Subscription
) -> None:
    async with poison_in_hand(farm, subscription) as (source, _, taken):
        with full(server):
            for _ in range(2):
                with pytest.raises(RedisFull):
                    await taken.bury("it burns")
        letter = await taken.bury("it burns")
        (found,) = await source.dead_letters.on_server(PRINTER)
        assert (found.id, found.is_dialog) == (letter, False)
        await counted(source, 0, 0, subscription.style)


async def test_letters_are_dropped_on_a_full_redis(farm: Farm, server: RedisServer) -> None:
    async with pool(farm, ALERTS) as source:
        member = await Member.join(farm)
        channel = await source.open_channel(PRINTER, TYPE)
        await channel.send(b"poison")
        letter = await letter_of(member)
        with full(server):
            await source.dead_letters.drop(PRINTER, letter)
        assert await source.dead_letters.on_server(PRINTER) == []


async def test_a_pool_is_served_on_a_full_redis(farm: Farm, server: RedisServer) -> None:
    async with pool(farm, ALERTS) as source:
        first, second = await Member.join(farm), await Member.join(farm)
        channel = await source.open_channel(PRINTER, TYPE)
        bodies = [b"%d" % n for n in range(5)]
        await send(channel, *bodies)
        with full(server):
            taken = await first.take(3)
            await taken[0].done()
            await taken[1].hand_back()
            await first.replica.leave()
            rest = await second.take(4)
            assert sorted((one.notification.data, one.redelivered) for one in rest) == [
                (b"1", True), (b"2", True), (b"3", False), (b"4", False),
            ]  # fmt: skip
            for one in rest:
                await one.done()
            await second.is_idle()
        await counted(source, 0, 0)
        await channel.send(b"more")
        assert (await second.delivery()).notification.data == b"more"


async def test_a_pools_dialogs_change_hands_on_a_full_redis(
    farm: Farm, server: RedisServer
) -> None:
    async with pool(farm, QUESTIONS) as source:
        first, second = [await Member.join(farm, QUESTIONS) for _ in range(2)]
        channel = await farm.question(source)
        await (await first.offer()).respond(b"yes")
        assert (await channel.response(PATIENCE)).data == b"yes"
        with full(server):
            await first.replica.leave()
            dialog = await second.offer()
            assert dialog.id == channel.id
        await channel.send(b"sure?")
        await dialog.respond(b"yes")
        assert (await dialog.follow_up(PATIENCE)).data == b"sure?"
        await dialog.respond(b"quite")
        assert (await channel.response(PATIENCE)).data == b"quite"


async def test_a_pool_ends_on_a_full_redis(farm: Farm, server: RedisServer) -> None:
    async with pool(farm, ALERTS, QUESTIONS) as source:
        questions = await Member.join(farm, QUESTIONS)
        channel = await source.open_channel(PRINTER, TYPE)
        await channel.send(b"page")
        waiting = await farm.question(source)
        await (await questions.offer()).respond(b"yes")
        await questions.replica.leave()
        with full(server):
            ended = await source.pools.delete(POOL, PRINTER)
            await is_released_to_source(waiting)
        assert sorted(each.backlog for each in ended) == [1, 1]
        assert await source.pools.on_server(PRINTER) == []


async def is_released_to_source(channel: Channel) -> None:
    """Its dialog waited for a replica, and now never gets one."""
    assert (await channel.response(PATIENCE)).data == b"yes"
    closing = await channel.wait_closed(PATIENCE)
    assert closing is not None
    assert closing.reason.is_release


async def test_what_dead_replicas_held_is_handed_out_on_a_full_redis(server: RedisServer) -> None:
    async with Proxy(HOST, server.port) as proxy, Farm(BehindProxy(server, proxy)) as farm:
        options = SPRY | {"namespace": farm.namespace, "resync": 60.0}
        async with Broker.connect(server.url, user="alice", **options) as survivor:
            alerts = await Member.join(farm, **SPRY)
            questions = await Member.join(farm, QUESTIONS, **SPRY)
            channel = await survivor.open_channel(PRINTER, TYPE)
            await send(channel, b"1", b"2")
            dialog = await farm.question(survivor)
            asked = await farm.question(survivor, b"and this?")
            await alerts.take(1)
            offer, _ = await questions.take(2)
            await offer.respond(b"yes")
            mine = [await Member.of(survivor, each) for each in (ALERTS, QUESTIONS)]
            cut_off(proxy)
            with full(server):
                taken = await mine[0].take(2)
                assert sorted((one.notification.data, one.redelivered) for one in taken) == [
                    (b"1", True), (b"2", False),
                ]  # fmt: skip
                offers = await mine[1].take(2)
                assert {one.id for one in offers} == {dialog.id, asked.id}
                for one in taken:
                    await one.done()
            proxy.refuse(False)
            await end_pools(survivor)


async def test_replicas_empty_a_redis_that_a_pool_has_filled() -> None:
    with RedisServer(maxmemory="6mb") as small:
        async with Farm(RedisBackend(small)) as here, pool(here, ALERTS) as source:
            channel = await source.open_channel(PRINTER, TYPE)
            member = await Member.join(here)
            sent = 0
            while await fits(channel, b"x" * 10_000):
                sent += 1
            assert (await facts(source)).waiting == sent > 100
            assert await member.drain() == [b"x" * 10_000] * sent
            await until(lambda: fits(channel, b"again"))
            assert await member.drain() == [b"again"]
