"""A scene with one of everything, brokers behind a proxy, and small waits that tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio

from broker import BIDIRECTIONAL, Broker, Channel, Notification, Offer, Registration
from broker._bells import Bells
from broker._keys import Keys
from tests.farm import PATIENCE, PRINTER, TYPE, Farm, RedisBackend
from tests.proxy import Proxy
from tests.servers import RedisServer

QUIET: dict[str, Any] = {"lease": 60.0, "resync": 60.0}
"""Nothing is written by the clock."""
BRISK: dict[str, Any] = {"lease": 4.0, "resync": 0.2, "retry_least": 0.05, "retry_most": 0.5}
"""What is wrong is found, and mended, soon."""


class BehindProxy(RedisBackend):
    """Brokers reach the server through a proxy; the plain client looks at it directly."""

    def __init__(self, server: RedisServer, proxy: Proxy) -> None:
        super().__init__(server)
        self.proxy = proxy

    def broker(self, **options: Any) -> Broker:
        return Broker.connect(self.proxy.url, **options)


def bells_of(broker: Broker) -> Bells:
    """The subscription of a broker on one Redis."""
    bells = broker._topology.bells
    assert isinstance(bells, Bells)
    return bells


class Scene:
    """One of everything, between a source and a listener."""

    source: Broker
    listener: Broker
    fresh: Channel
    """Bidirectional and open, nothing sent."""
    used: Channel
    """Unidirectional, with a listener."""
    one_way: Registration[Any]
    asked: Channel
    question: Offer[Any]
    """Of ``asked``: offered, unanswered."""
    answered: Channel
    owned: Offer[Any]
    """Of ``answered``: acquired; the source's turn."""
    two_way: Registration[Any]
    made: Any = None
    """What the test made itself, where it is to use the same object twice."""

    @classmethod
    async def set(cls, farm: Farm, **options: Any) -> Scene:
        """Set it on a farm; its brokers are quiet unless the options say otherwise."""
        scene = cls()
        options = QUIET | options
        scene.source = await farm.broker("alice", **options)
        scene.listener = await farm.broker("alice", **options)
        scene.one_way = await scene.listener.register(PRINTER, TYPE)
        scene.two_way = await scene.listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
        scene.used = await scene.source.open_channel(PRINTER, TYPE)
        scene.fresh = await scene.source.open_channel(PRINTER, TYPE, style=BIDIRECTIONAL)
        scene.asked = await farm.question(scene.source)
        scene.question = await farm.offered(scene.two_way)
        scene.answered = await farm.question(scene.source)
        scene.owned = await farm.offered(scene.two_way)
        await scene.owned.respond(b"yes")
        await scene.answered.response(PATIENCE)
        await scene.source.grant(PRINTER, "bob", "use")
        return scene


async def bodies(farm: Farm) -> dict[str, int]:
    """Each body's key, and its time to live in milliseconds; -1 for none."""
    return {key: int(await farm.client.pttl(key)) for key in await farm.keys() if ":body:" in key}


async def heard(registration: Registration[Any]) -> bytes | None:
    """The bytes of a unidirectional registration's next notification."""
    found = await registration.fetch(PATIENCE)
    assert isinstance(found, Notification), f"nothing came within {PATIENCE:g} s"
    return found.data


async def clock(client: redis.asyncio.Redis) -> float:
    """Redis's own time, in seconds."""
    seconds, microseconds = await client.time()
    return float(seconds + microseconds / 1e6)


async def leases_pass(client: redis.asyncio.Redis, many: float, lease: float) -> None:
    """Return when so much of Redis's own time has gone by."""
    due = await clock(client) + many * lease
    while await clock(client) < due:  # noqa: ASYNC110 - Redis's clock rings no bell
        await asyncio.sleep(lease / 10)


async def until(condition: Callable[[], Awaitable[bool]], within: float = PATIENCE) -> None:
    """Return when the condition holds; TimeoutError after so many seconds."""
    async with asyncio.timeout(within):
        while not await condition():  # noqa: ASYNC110 - nothing rings when it comes to hold
            await asyncio.sleep(0.01)


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
