"""A full Redis refuses whole what would add to it, and does everything that makes room.

So nothing is half done while it is full, and it can always be emptied.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from broker import BIDIRECTIONAL, Broker, Channel
from broker.errors import RedisFull, SessionLapsed
from broker.results import NO_LISTENERS, S_OK
from tests.dump import unchanged
from tests.farm import PATIENCE, PRINTER, TYPE, Farm, RedisBackend
from tests.proxy import Proxy
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
    scene = await Scene.set(farm, lease=0.4)
    session = (await scene.source.server(PRINTER)).session
    with full(server):
        await leases_pass(farm.client, 3, 0.4)
    assert await scene.answered.send(b"sure?") == S_OK, "neither end was declared dead"
    assert (await scene.owned.follow_up(PATIENCE)).data == b"sure?"
    assert (await scene.source.server(PRINTER)).session == session


async def test_the_dead_are_run_down_on_a_full_redis(server: RedisServer) -> None:
    """What they held is what fills it."""
    async with (
        Proxy(HOST, server.port) as proxy,
        Farm(BehindProxy(server, proxy)) as farm,
        Broker.connect(
            server.url, user="bob", namespace=farm.namespace, lease=0.4, resync=60.0
        ) as survivor,
    ):
        await survivor.open_channel(PRINTER, TYPE)
        await Scene.set(farm, lease=0.4)
        cut_off(proxy)
        with full(server):
            await leases_pass(farm.client, 2, 0.4)
            assert await survivor.run_down(PRINTER) == 2
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
    assert ends <= {"meta", "opened", "grants", "servers"}


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
            server.url, user="bob", namespace=farm.namespace, lease=0.4, resync=60.0
        ) as survivor,
    ):
        scene = await Scene.set(farm, lease=0.4)
        cut_off(proxy)
        with full(server):
            await leases_pass(farm.client, 2, 0.4)
            proxy.refuse(False)
            with pytest.raises((SessionLapsed, RedisFull)):
                await scene.answered.send(b"late")
        closing = await scene.answered.wait_closed(PATIENCE)
        assert closing is not None
        assert closing.reason.is_release
        await until(lambda: _is_tidy(survivor))


async def _is_tidy(survivor: Broker) -> bool:
    """Whether the dead are run down, and the two registrations were made again."""
    await survivor.run_down(PRINTER)
    of_the_dead = [facts for facts in await survivor.channels() if facts.opened_by != "bob"]
    return not of_the_dead and len(await survivor.registrations()) == 2


def cut_off(proxy: Proxy) -> None:
    """The processes behind the proxy are as good as dead."""
    proxy.refuse(True)
    proxy.cut()
