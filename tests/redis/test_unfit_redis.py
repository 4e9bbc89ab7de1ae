"""A Redis that cannot serve is told apart at once: too old, not there, closed to us, read-only.

Each is an error of its own, whose message names the Redis, says what is wrong and what to do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from broker import Broker
from broker.errors import (
    OutcomeUnknown,
    RedisError,
    RedisReadOnly,
    RedisRefused,
    RedisTooOld,
    RedisUnreachable,
)
from tests.farm import PRINTER, TYPE
from tests.proxy import Proxy
from tests.servers import RedisServer
from workers.embedded import HOST, free_port

FAST: dict[str, Any] = {
    "connect_timeout": 0.3,
    "reply_timeout": 0.3,
    "operation_timeout": 1.0,
    "lease": 60.0,
    "resync": 60.0,
}
SLACK = 3.0
"""Seconds by which a bound may be passed on a loaded machine."""
Answer = Callable[[list[bytes]], bytes | None]


@asynccontextmanager
async def impostor(answer: Answer) -> AsyncIterator[str]:
    """A server that speaks the protocol, and answers each command as told; None is silence.

    It goes once every client has gone.
    """
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while header := await reader.readline():
                command = []
                for _ in range(int(header[1:])):
                    size = int((await reader.readline())[1:])
                    command.append((await reader.readexactly(size + 2))[:-2])
                reply = answer(command)
                if reply is not None:
                    writer.write(reply)
                    await writer.drain()
        writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(accept, HOST, 0)
    try:
        yield f"redis://{HOST}:{server.sockets[0].getsockname()[1]}/0"
        _, connected = await asyncio.wait(serving, timeout=SLACK) if serving else ((), ())
        assert not connected, "a connection was left open"
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await server.wait_closed()


def of_version(version: str | None) -> Answer:
    """A Redis of this version; None says nothing about it."""

    def answer(command: list[bytes]) -> bytes:
        if command[0] == b"INFO":
            facts = "# Server\r\n" + (f"redis_version:{version}\r\n" if version else "")
            text = facts + "run_id:c0ffee\r\n"
            return b"$%d\r\n%s\r\n" % (len(text), text.encode())
        return b"+PONG\r\n" if command[0] == b"PING" else b"+OK\r\n"

    return answer


async def refused(url: str, **options: Any) -> RedisError:
    """The error with which a broker does not start, or does not begin its first session."""
    broker = Broker.connect(url, user="alice", **(FAST | options))
    with pytest.raises(RedisError) as found:
        async with broker:
            await broker.open_channel(PRINTER, TYPE)
    return found.value


# Versions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["5.0.14", "6.0.20", "2.8.4", "6.1.99"])
async def test_a_redis_that_is_too_old_is_refused(version: str) -> None:
    async with impostor(of_version(version)) as url:
        error = await refused(url)
        assert isinstance(error, RedisTooOld)
        assert f"{url} is Redis {version}" in str(error)
        assert "needs 6.2 or later" in str(error)
        assert not error.retryable


@pytest.mark.parametrize("version", ["6.2.0", "6.2.18", "7.0.15", "8.6.0", "10.0.0", "7.4.0-rc1"])
async def test_a_redis_of_a_supported_version_passes(version: str) -> None:
    async with impostor(of_version(version)) as url, Broker.connect(url, user="alice", **FAST):
        pass


# Nobody there -----------------------------------------------------------------------------------


async def test_a_port_where_nobody_listens_is_told_at_once() -> None:
    port = free_port()
    async with asyncio.timeout(SLACK):
        error = await refused(f"redis://127.0.0.1:{port}/0", connect_timeout=30, reply_timeout=30)
    assert isinstance(error, RedisUnreachable)
    assert f"127.0.0.1:{port}" in str(error)
    assert "tympan up" in str(error), "the message says how to get one"
    assert error.retryable


async def test_a_socket_that_is_not_there_is_told_at_once() -> None:
    error = await refused("unix:///nowhere/redis.sock")
    assert isinstance(error, RedisUnreachable)
    assert "/nowhere/redis.sock" in str(error)


@pytest.mark.parametrize(
    "silent_on", [b"CLIENT", b"INFO", b"PING"], ids=["connecting", "identifying", "asking"]
)
async def test_a_server_that_accepts_and_never_answers_is_given_up(silent_on: bytes) -> None:
    """Bounded by what the settings say: one connect_timeout and one reply_timeout, and no more."""
    speak = of_version("7.0.15")
    async with impostor(lambda c: None if c[0] == silent_on else speak(c)) as url:
        async with asyncio.timeout(0.3 + 0.3 + SLACK):
            error = await refused(url)
        assert isinstance(error, RedisUnreachable)
        assert url in str(error)


async def test_a_start_that_is_cancelled_leaves_no_connection() -> None:
    """The impostor waits for the end of every connection before it goes."""
    asked = asyncio.Event()
    speak = of_version("7.0.15")

    def answer(command: list[bytes]) -> bytes | None:
        if command[0] == b"INFO":
            asked.set()
            return None
        return speak(command)

    async with impostor(answer) as url:
        starting = asyncio.create_task(Broker.connect(url, user="alice").start())
        await asked.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting


async def test_something_else_than_redis_is_told() -> None:
    async with impostor(lambda _: b"HTTP/1.1 400 Bad Request\r\n") as url:
        error = await refused(url)
        assert url in str(error)


async def test_a_redis_that_stops_answering_bounds_every_call(redis_server: RedisServer) -> None:
    async with Proxy(HOST, redis_server.port) as proxy:
        broker = Broker.connect(proxy.url, user="alice", namespace="stalled", **FAST)
        async with broker:
            channel = await broker.open_channel(PRINTER, TYPE)
            proxy.stall(True)
            async with asyncio.timeout(1.0 + SLACK):
                with pytest.raises(OutcomeUnknown, match="call the same method again"):
                    await channel.send(b"page")
            async with asyncio.timeout(1.0 + SLACK):
                with pytest.raises(RedisUnreachable):
                    await broker.channels()
            proxy.stall(False)
            assert (await channel.send(b"page")).succeeded


# Loading ----------------------------------------------------------------------------------------


LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"


async def test_a_redis_that_still_loads_is_told() -> None:
    speak = of_version("7.0.15")
    async with impostor(lambda c: speak(c) if c[0] in (b"CLIENT", b"INFO") else LOADING) as url:
        error = await refused(url)
    assert isinstance(error, RedisUnreachable)
    assert url in str(error)
    assert "loading" in str(error)
    assert error.retryable


@pytest.mark.parametrize("is_connected", [True, False])
async def test_a_call_waits_while_redis_loads(is_connected: bool) -> None:
    """Loading is weather: also whoever connects just then asks again until it is over."""
    speak = of_version("7.0.15")
    loads = iter([not is_connected, True, True, True])

    def answer(command: list[bytes]) -> bytes | None:
        if command[0] == b"HGETALL":
            return b"*2\r\n$7\r\nprint01\r\n$7\r\nprint01\r\n"
        if command[0] == b"PING" and next(loads, False):
            return LOADING
        return speak(command)

    async with impostor(answer) as url, Broker.connect(url, user="alice", **FAST) as broker:
        assert await broker.servers() == ["print01"]


# Read-only --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def primary() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


async def test_a_replica_is_not_written_to(primary: RedisServer) -> None:
    with primary.replica() as replica:
        error = await refused(replica.url)
        assert isinstance(error, RedisReadOnly)
        assert replica.url in str(error)
        assert "primary" in str(error)
        assert error.retryable, "it may be promoted"
        assert replica.cli("KEYS", "*") == []


async def test_a_replica_that_has_not_caught_up_takes_nobody_for_dead(
    primary: RedisServer,
) -> None:
    """It knows no session; what is held at the primary goes on there."""
    with RedisServer(config={"replicaof": f"{HOST} {free_port()}"}) as empty:
        async with Proxy(HOST, primary.port) as proxy:
            options = FAST | {"namespace": "behind"}
            async with Broker.connect(proxy.url, user="alice", **options) as broker:
                channel = await broker.open_channel(PRINTER, TYPE)
                for port in (empty.port, primary.port):
                    proxy.target = HOST, port
                    proxy.cut()
                    if port == empty.port:
                        with pytest.raises(RedisReadOnly):
                            await channel.send(b"page")
                assert (await channel.send(b"page")).succeeded
                assert (await broker.server(PRINTER)).lapses == 0


async def test_a_primary_that_misses_its_replicas_refuses_writes(primary: RedisServer) -> None:
    primary.config("min-replicas-to-write", 1)
    try:
        error = await refused(primary.url)
    finally:
        primary.config("min-replicas-to-write", 0)
    assert isinstance(error, RedisReadOnly)
    assert "NOREPLICAS" in str(error)


# Credentials ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Iterator[RedisServer]:
    """A redis-server with users of which each lacks something."""
    with RedisServer() as server:
        acl = ("ACL", "SETUSER")
        server.cli(*acl, "keyless", "on", ">secret", "~other:*", "&*", "+@all")
        server.cli(*acl, "deaf", "on", ">secret", "~*", "resetchannels", "+@all")
        server.cli(*acl, "dumb", "on", ">secret", "~*", "&*", "+@all", "-evalsha")
        server.cli(*acl, "blind", "on", ">secret", "~*", "&*", "+@all", "-info")
        server.cli(*acl, "default", "resetpass", ">open sesame")
        server.cli("AUTH", "open sesame")
        yield server


def as_user(server: RedisServer, credentials: str) -> str:
    return f"redis://{credentials}{HOST}:{server.port}/0"


@pytest.mark.parametrize(
    ("credentials", "words"),
    [
        pytest.param("", "credentials", id="no password"),
        pytest.param(":wrong@", "credentials", id="wrong password"),
        pytest.param("nobody:secret@", "credentials", id="unknown user"),
        pytest.param("keyless:wrong@", "credentials", id="a user's wrong password"),
        pytest.param("keyless:secret@", "ACL", id="not our keys"),
        pytest.param("deaf:secret@", "ACL", id="not our bells"),
        pytest.param("dumb:secret@", "ACL", id="no scripts"),
        pytest.param("blind:secret@", "ACL", id="no look at the version"),
    ],
)
async def test_credentials_that_do_not_do_are_refused_at_once(
    guarded: RedisServer, credentials: str, words: str
) -> None:
    async with asyncio.timeout(SLACK):
        error = await refused(as_user(guarded, credentials), operation_timeout=30)
    assert isinstance(error, RedisRefused)
    assert f"{HOST}:{guarded.port}" in str(error)
    assert words in str(error)
    assert "wrong" not in str(error).replace("wrong number", "").replace("WRONGPASS", "")
    assert "secret" not in str(error), "no password is shown"
    assert error.result.hresult == 0x80070005
    assert not error.retryable
    assert guarded.cli("KEYS", "*") == []
