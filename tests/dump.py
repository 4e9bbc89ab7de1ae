"""Everything that a farm keeps in Redis, in a form that two moments can be compared by."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio

Dump = dict[str, Any]


async def dump(client: redis.asyncio.Redis, pattern: str = "*") -> Dump:
    """All keys of this pattern with what they hold, consumer groups and their entries included."""
    found: Dump = {}
    async for key in client.scan_iter(pattern):
        assert isinstance(key, bytes), "the client must not decode"
        found[key.decode(errors="surrogateescape")] = await _value(client, key)
    return found


@asynccontextmanager
async def unchanged(client: redis.asyncio.Redis, pattern: str = "*") -> AsyncIterator[None]:
    """What happens inside leaves no trace in Redis."""
    before = await dump(client, pattern)
    yield
    assert await dump(client, pattern) == before, "something was done, or half done"


async def _in_hand(client: redis.asyncio.Redis, key: bytes, group: bytes) -> Any:
    """The consumers of a group; entry, consumer and number of deliveries of what is pending."""
    consumers = [one["name"] for one in await client.xinfo_consumers(key, group)]
    pending = await client.xpending_range(key, group, "-", "+", 1000) if consumers else []
    return (
        group,
        sorted(consumers),
        [(one["message_id"], one["consumer"], one["times_delivered"]) for one in pending],
    )


async def _value(client: redis.asyncio.Redis, key: bytes) -> Any:
    kind: bytes | str = await client.type(key)
    if isinstance(kind, bytes):
        kind = kind.decode()
    match kind:
        case "hash":
            held: Any = await client.hgetall(key)
        case "set":
            held = await client.smembers(key)
        case "zset":
            held = await client.zrange(key, 0, -1, withscores=True)
        case "stream":
            groups = await client.xinfo_groups(key)
            held = [
                await client.xrange(key),
                sorted((group["name"], group["last-delivered-id"]) for group in groups),
                [await _in_hand(client, key, group["name"]) for group in groups],
            ]
        case "list":
            held = await client.lrange(key, 0, -1)
        case _:
            held = await client.get(key)
    return kind, held, await client.ttl(key) >= 0
