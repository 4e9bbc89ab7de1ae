"""The gate of the fault kit holds one call on its way, or its reply; its sender may be gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from tests.conformance.actors import eventually
from tests.farm import PATIENCE
from tests.faults.gate import Gate
from tests.servers import RedisServer

COUNT = "return redis.call('INCR', KEYS[1])"
KEY = "gate:count"


async def counted(client: redis.asyncio.Redis, sha: str) -> object:
    """What the script answers."""
    return await client.execute_command("EVALSHA", sha, 1, KEY)


@pytest.fixture
async def gate(redis_server: RedisServer) -> AsyncIterator[Gate]:
    redis_server.cli("DEL", KEY)
    async with Gate(redis_server.port) as made:
        yield made
    redis_server.cli("DEL", KEY)


@pytest.fixture
async def client(gate: Gate) -> AsyncIterator[redis.asyncio.Redis]:
    made = redis.asyncio.Redis.from_url(gate.url, protocol=2)
    yield made
    await made.aclose()


async def test_a_call_is_held_until_it_is_let_go(
    gate: Gate, client: redis.asyncio.Redis, redis_server: RedisServer
) -> None:
    sha = str(await client.script_load(COUNT))
    gate.hold(sha, reply=False)
    asking = asyncio.create_task(counted(client, sha))
    await asyncio.wait_for(gate.caught(), PATIENCE)
    assert gate.has_caught
    assert redis_server.cli("GET", KEY) is None
    assert await gate.let_go() == b":1\r\n"
    assert await asking == 1


async def test_only_the_call_that_is_meant_is_held(
    gate: Gate, client: redis.asyncio.Redis, redis_server: RedisServer
) -> None:
    sha = str(await client.script_load(COUNT))
    gate.hold(sha, reply=False, call=3)
    for number in (1, 2):
        assert await counted(client, sha) == number
    asking = asyncio.create_task(counted(client, sha))
    await asyncio.wait_for(gate.caught(), PATIENCE)
    assert redis_server.cli("GET", KEY) == "2"
    await gate.let_go()
    assert await asking == 3
    assert await counted(client, sha) == 4, "once"


async def test_a_reply_is_held_when_the_call_is_done(
    gate: Gate, client: redis.asyncio.Redis, redis_server: RedisServer
) -> None:
    sha = str(await client.script_load(COUNT))
    gate.hold(sha, reply=True)
    asking = asyncio.create_task(counted(client, sha))
    await asyncio.wait_for(gate.caught(), PATIENCE)
    assert redis_server.cli("GET", KEY) == "1"
    assert not asking.done()
    assert await gate.let_go() == b":1\r\n"
    assert await asking == 1


async def test_a_held_call_arrives_although_its_sender_is_gone(
    gate: Gate, client: redis.asyncio.Redis, redis_server: RedisServer
) -> None:
    """What others asked for on the same connection before is not held."""
    sha = str(await client.script_load(COUNT))
    gate.hold(sha, reply=False)
    connection = await client.connection_pool.get_connection()
    packed = [
        *connection.pack_command("SET", "gate:before", "yes"),
        *connection.pack_command("EVALSHA", sha, 1, KEY),
    ]
    await connection.send_packed_command(b"".join(packed))
    await asyncio.wait_for(gate.caught(), PATIENCE)
    await eventually(lambda: redis_server.cli("GETDEL", "gate:before") == "yes", "what was before")
    assert await connection.read_response() == b"OK"
    await connection.disconnect(nowait=True)
    assert redis_server.cli("GET", KEY) is None
    assert await gate.let_go() == b":1\r\n"
    assert redis_server.cli("GET", KEY) == "1"
