"""The misbehaving proxy, in front of a real redis-server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.proxy import Proxy
from tests.servers import RedisServer


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture
async def proxy(server: RedisServer) -> AsyncIterator[Proxy]:
    server.cli("FLUSHALL")
    async with Proxy("127.0.0.1", server.port) as opened:
        yield opened


def connect(proxy: Proxy) -> redis.asyncio.Redis:
    """Make a client that never retries on its own."""
    return redis.asyncio.Redis.from_url(
        proxy.url, retry=Retry(NoBackoff(), 0), socket_timeout=10, decode_responses=True
    )


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[redis.asyncio.Redis]:
    """A client with one connection open through the proxy."""
    async with connect(proxy) as connected:
        await connected.ping()
        yield connected


async def until(condition: Callable[[], bool], within: float = 10.0) -> None:
    """Let the event loop run until the condition holds; TimeoutError after so many seconds."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - the server sends no event to wait for
            await asyncio.sleep(0.001)


async def test_forwards(client: redis.asyncio.Redis, server: RedisServer) -> None:
    page = "x" * 3_000_000
    await client.set("page", page)
    assert server.cli("STRLEN", "page") == len(page)
    assert await client.get("page") == page


async def test_forwards_side_by_side(proxy: Proxy) -> None:
    async with connect(proxy) as client:
        await asyncio.gather(*(client.incr("pages") for _ in range(20)))
        assert await client.get("pages") == "20"
        assert proxy.connections > 1
    await until(lambda: proxy.connections == 0)


async def test_end_of_client_reaches_server(proxy: Proxy, server: RedisServer) -> None:
    async with connect(proxy) as client:
        number = await client.client_id()
    await until(lambda: f"id={number} " not in server.cli("CLIENT", "LIST", "ID", number))


async def test_bytes_before_the_end_arrive(proxy: Proxy, server: RedisServer) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"INCR pages\r\n" * 1000)
    writer.close()
    await writer.wait_closed()
    await until(lambda: server.cli("GET", "pages") == "1000")


async def test_last_words_of_server_arrive(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"PING\r\nQUIT\r\n")
    assert await reader.read() == b"+PONG\r\n+OK\r\n"
    writer.close()
    await writer.wait_closed()


async def test_cut(proxy: Proxy, client: redis.asyncio.Redis) -> None:
    waiting = asyncio.ensure_future(client.blpop(["jobs"], timeout=0))
    await until(lambda: server_has_blocked(proxy))
    assert proxy.cut() == 1
    assert proxy.connections == 0
    with pytest.raises(redis.ConnectionError):
        await waiting
    assert await client.ping()


def server_has_blocked(proxy: Proxy) -> bool:
    with redis.Redis(port=proxy._target[1]) as direct:
        return bool(direct.info("clients")["blocked_clients"] == 1)


async def test_cut_is_seen_by_server(
    proxy: Proxy, client: redis.asyncio.Redis, server: RedisServer
) -> None:
    number = await client.client_id()
    proxy.cut()
    await until(lambda: f"id={number} " not in server.cli("CLIENT", "LIST", "ID", number))


async def test_cut_before_the_first_byte(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    await until(lambda: proxy.connections == 1)
    assert proxy.cut() == 1
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_refuse(proxy: Proxy, client: redis.asyncio.Redis) -> None:
    proxy.refuse(True)
    proxy.refuse(True)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.port)
    assert await client.ping()  # over the connection it has
    proxy.cut()
    with pytest.raises(redis.ConnectionError):
        await client.ping()
    proxy.refuse(False)
    proxy.refuse(False)
    assert await client.ping()


async def held_back(call: Awaitable[Any]) -> asyncio.Future[Any]:
    """A call that gets no answer for a while."""
    future = asyncio.ensure_future(call)
    done, _ = await asyncio.wait([future], timeout=0.2)
    assert not done
    return future


async def test_stall(proxy: Proxy, client: redis.asyncio.Redis, server: RedisServer) -> None:
    proxy.stall(True)
    stalled = await held_back(client.incr("pages"))
    assert server.cli("GET", "pages") is None
    proxy.stall(False)
    assert await stalled == 1


async def test_stall_holds_back_replies(
    proxy: Proxy, client: redis.asyncio.Redis, server: RedisServer
) -> None:
    waiting = asyncio.ensure_future(client.blpop(["jobs"], timeout=0))
    await until(lambda: server_has_blocked(proxy))
    proxy.stall(True)
    server.cli("RPUSH", "jobs", "42")
    done, _ = await asyncio.wait([waiting], timeout=0.2)
    assert not done
    proxy.stall(False)
    assert await waiting in (("jobs", "42"), ["jobs", "42"])


async def test_stall_holds_back_the_end(proxy: Proxy) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    await until(lambda: proxy.connections == 1)
    proxy.stall(True)
    writer.close()
    await writer.wait_closed()
    with pytest.raises(TimeoutError):
        await until(lambda: proxy.connections == 0, within=0.2)
    proxy.stall(False)
    await until(lambda: proxy.connections == 0)


async def test_half_open_to_the_server(
    proxy: Proxy, client: redis.asyncio.Redis, server: RedisServer
) -> None:
    """Commands do not arrive; what the server says by itself does."""
    waiting = asyncio.ensure_future(client.blpop(["jobs"], timeout=0))
    await until(lambda: server_has_blocked(proxy))
    async with connect(proxy) as other:
        await other.ping()
        proxy.stall(True, only="requests")
        server.cli("RPUSH", "jobs", "42")
        assert await waiting in (("jobs", "42"), ["jobs", "42"])
        stalled = await held_back(other.incr("pages"))
        assert server.cli("GET", "pages") is None
        proxy.stall(False)
        assert await stalled == 1


async def test_half_open_from_the_server(
    proxy: Proxy, client: redis.asyncio.Redis, server: RedisServer
) -> None:
    """Commands are executed, and nobody hears what came of them."""
    proxy.stall(True, only="replies")
    stalled = asyncio.ensure_future(client.incr("pages"))
    await until(lambda: server.cli("GET", "pages") == "1")
    done, _ = await asyncio.wait([stalled], timeout=0.2)
    assert not done
    proxy.stall(False, only="replies")
    assert await stalled == 1


async def test_delay(proxy: Proxy, client: redis.asyncio.Redis) -> None:
    loop = asyncio.get_running_loop()
    proxy.delay(0.1)
    begun = loop.time()
    await asyncio.gather(*(client.ping() for _ in range(3)))
    assert loop.time() - begun >= 0.2, "there and back"
    proxy.delay(60)
    proxy.delay(0)
    await client.ping()


async def test_delayed_chunks_do_not_wait_for_each_other(proxy: Proxy) -> None:
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    proxy.delay(0.5)
    begun = loop.time()
    for _ in range(5):
        writer.write(b"PING\r\n")
        await asyncio.sleep(0.05)
    await reader.readexactly(5 * len(b"+PONG\r\n"))
    assert 1.0 <= loop.time() - begun < 2.5, "not half a second more for each"
    writer.close()


async def test_jitter_keeps_the_order(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    proxy.delay(0, 0.05, random.Random(7))
    for number in range(20):
        writer.write(b"ECHO %02d\r\n" % number)
        await asyncio.sleep(0.005)
    said = await reader.readexactly(20 * len(b"$2\r\n00\r\n"))
    assert said == b"".join(b"$2\r\n%02d\r\n" % number for number in range(20))
    writer.close()


async def test_narrow(proxy: Proxy, client: redis.asyncio.Redis, server: RedisServer) -> None:
    loop = asyncio.get_running_loop()
    page = "x" * 300_000
    async with connect(proxy) as other:
        await other.ping()
        proxy.narrow(1_000_000)
        begun = loop.time()
        await asyncio.gather(client.set("one", page), other.set("other", page))
        assert loop.time() - begun >= 0.6, "all connections share it"
    assert server.cli("STRLEN", "one") + server.cli("STRLEN", "other") == 2 * len(page)
    proxy.narrow(1)
    proxy.narrow(None)
    assert await client.get("one") == page


async def test_dropped_reply(
    proxy: Proxy, client: redis.asyncio.Redis, server: RedisServer
) -> None:
    proxy.drop_replies(1.0)
    with pytest.raises(redis.ConnectionError):
        await client.incr("pages")
    assert server.cli("GET", "pages") == "1"
    assert proxy.dropped == 1
    proxy.drop_replies(0.0)
    assert await client.incr("pages") == 2
    assert proxy.dropped == 1


async def test_drops_repeat_with_the_seed(proxy: Proxy) -> None:
    async def outcomes() -> list[bool]:
        """Tell for each of some pings whether its reply was lost."""
        lost = []
        for _ in range(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(b"PING\r\n")
            try:
                await reader.readexactly(7)
                lost.append(False)
            except ConnectionResetError:
                lost.append(True)
            writer.close()
        return lost

    proxy.drop_replies(0.3, random.Random(7))
    first = await outcomes()
    proxy.drop_replies(0.3, random.Random(7))
    assert await outcomes() == first
    assert 0 < sum(first) < 30
    assert proxy.dropped == 2 * sum(first)


@pytest.mark.parametrize("probability", [-0.1, 1.1])
def test_impossible_probability(probability: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Proxy("127.0.0.1", 1).drop_replies(probability)


def test_unopened_proxy_has_no_address() -> None:
    with pytest.raises(RuntimeError, match="async context manager"):
        _ = Proxy("127.0.0.1", 1).url


async def test_target_that_is_down() -> None:
    with RedisServer() as server:
        async with Proxy("127.0.0.1", server.port) as proxy, connect(proxy) as client:
            assert await client.ping()
            await asyncio.to_thread(server.kill)
            with pytest.raises(redis.ConnectionError):
                await client.ping()
            await asyncio.to_thread(server.restart)
            assert await client.ping()


async def test_exit_ends_connections_and_closes_the_port(server: RedisServer) -> None:
    async with Proxy("127.0.0.1", server.port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.stall(True)
        writer.write(b"PING\r\n")
        await until(lambda: proxy.connections == 1)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.port)


async def test_loses_the_reply_to_one_command(
    client: redis.asyncio.Redis, proxy: Proxy, server: RedisServer
) -> None:
    proxy.lose_reply_to(b"toner")
    assert await client.set("pages", 1)
    with pytest.raises(redis.ConnectionError):
        await client.set("toner", 1)
    assert server.cli("GET", "toner") == "1", "the command was executed"
    assert proxy.dropped == 1
    assert await client.set("toner", 2), "one reply is lost, and the next one is not"


async def test_follows_its_target(
    client: redis.asyncio.Redis, proxy: Proxy, server: RedisServer
) -> None:
    assert proxy.target == ("127.0.0.1", server.port)
    with RedisServer() as other:
        proxy.target = ("127.0.0.1", other.port)
        await client.set("pages", 1)
        assert server.cli("GET", "pages") == "1", "connections that stand go on"
        proxy.cut()
        async with connect(proxy) as later:
            await later.set("pages", 2)
        assert other.cli("GET", "pages") == "2"


async def test_loses_one_reply_after_others(
    client: redis.asyncio.Redis, proxy: Proxy, server: RedisServer
) -> None:
    proxy.lose_reply(2)
    assert await client.incr("pages") == 1
    assert await client.incr("pages") == 2
    with pytest.raises(redis.ConnectionError):
        await client.incr("pages")
    assert server.cli("GET", "pages") == "3", "the command was executed"
    assert await client.incr("pages") == 4, "one reply is lost, and the next one is not"
    proxy.lose_reply(0)
    proxy.lose_reply(None)
    assert await client.incr("pages") == 5
    assert proxy.dropped == 1


async def test_what_subscribers_are_told_is_no_reply(
    client: redis.asyncio.Redis, proxy: Proxy, server: RedisServer
) -> None:
    async with connect(proxy) as other, other.pubsub() as bells:
        await bells.subscribe("bell")
        assert (await bells.get_message(timeout=10))["type"] == "subscribe"
        proxy.lose_reply(0)
        server.cli("PUBLISH", "bell", "ring")
        assert (await bells.get_message(timeout=10))["data"] == "ring"
        with pytest.raises(redis.ConnectionError):
            await client.incr("pages")


async def test_silence(client: redis.asyncio.Redis, proxy: Proxy, server: RedisServer) -> None:
    """Nobody is told of an end; who connects anew is served."""
    assert proxy.silence() == 1
    unheard = asyncio.ensure_future(client.incr("pages"))
    done, _ = await asyncio.wait([unheard], timeout=0.2)
    assert not done
    assert server.cli("GET", "pages") is None
    async with connect(proxy) as other:
        assert await other.incr("pages") == 1
    proxy.cut()
    with pytest.raises(redis.ConnectionError):
        await unheard
