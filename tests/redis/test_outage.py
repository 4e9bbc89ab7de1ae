"""A Redis that does not answer any more is told of once, and once more when it answers again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import redis

from broker import Broker
from broker.errors import RedisUnreachable
from tests.farm import PRINTER, TYPE, Farm, RedisBackend
from tests.redis.scenes import BRISK, QUIET, anew, until
from tests.servers import RedisServer
from workers.embedded import free_port

SILENT, AGAIN = "Redis does not answer; trying again", "Redis answers again"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of the test's own, whose acknowledged writes survive a kill."""
    with RedisServer(appendonly=True, config={"appendfsync": "always"}) as running:
        yield running


@pytest.fixture
async def farm(server: RedisServer) -> AsyncIterator[Farm]:
    async with Farm(RedisBackend(server)) as made:
        yield made


@pytest.fixture
def told(server: RedisServer, caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was told of this server so far, without its URL and how long it took."""

    def said() -> list[str]:
        return [
            record.getMessage().partition(",")[0].partition(" (")[0]
            for record in caplog.records
            if record.levelno == logging.WARNING and f"({server.url})" in record.getMessage()
        ]

    return said


async def tells(told: Callable[[], list[str]], *lines: str) -> None:
    """Return when this is what was told, and all of it."""

    async def does() -> bool:
        return told() == list(lines)

    await until(does)


async def listening(farm: Farm, **options: float) -> Broker:
    broker = await farm.broker(**BRISK | options)
    await broker.register(PRINTER, TYPE)
    return broker


async def test_listeners_that_only_wait_tell_an_outage_once(
    farm: Farm, server: RedisServer, told: Callable[[], list[str]]
) -> None:
    """One word of a process, whatever it has on that Redis and however often it asks."""
    first, second = [await listening(farm) for _ in range(2)]
    before: list[str] = []
    for _ in range(2):
        assert told() == before
        await asyncio.to_thread(server.kill)
        calls = [
            asyncio.create_task(broker.open_channel(PRINTER, TYPE))
            for broker in (first, second)
            for _ in range(3)
        ]
        await tells(told, *before, SILENT)
        await asyncio.to_thread(server.restart)
        await asyncio.gather(*calls)
        before += [SILENT, AGAIN]
        assert told() == before
    await anew(farm)


async def test_a_redis_that_froze_does_not_answer(
    farm: Farm, server: RedisServer, told: Callable[[], list[str]]
) -> None:
    await listening(farm, reply_timeout=1.5, connect_timeout=1.5)
    server.pause()
    try:
        await tells(told, SILENT)
    finally:
        server.resume()
    await tells(told, SILENT, AGAIN)


async def test_a_redis_that_is_busy_does_not_answer(
    farm: Farm, server: RedisServer, told: Callable[[], list[str]]
) -> None:
    """It takes connections, and tells every call to come later, as one that loads its data does."""
    broker = await farm.broker(**QUIET)
    await broker.server(PRINTER)
    server.config("lua-time-limit", 10)
    busy = asyncio.create_task(asyncio.to_thread(server.cli, "EVAL", "while true do end", 0))

    async def is_busy() -> bool:
        try:
            return not await farm.client.ping()
        except redis.ResponseError:
            return True

    await until(is_busy)
    calls = asyncio.gather(*(broker.open_channel(PRINTER, TYPE) for _ in range(3)))
    await tells(told, SILENT)
    with redis.Redis.from_url(server.url) as client:
        client.script_kill()
    with pytest.raises(redis.RedisError):
        await busy
    await calls
    assert told() == [SILENT, AGAIN]


async def test_a_connection_that_breaks_is_no_outage(
    farm: Farm, server: RedisServer, told: Callable[[], list[str]]
) -> None:
    broker = await listening(farm)
    for _ in range(3):
        server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await broker.open_channel(PRINTER, TYPE)
    await anew(farm)
    assert told() == []


async def test_whoever_never_reached_it_is_told_by_the_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Broker.connect(f"redis://127.0.0.1:{free_port()}/0", operation_timeout=0.2)
    with pytest.raises(RedisUnreachable):
        await broker.start()
    assert SILENT not in caplog.text
