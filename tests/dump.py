"""Everything that a farm keeps in Redis, in a form that two moments can be compared by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio

from tests.farm import SCANNED

Dump = dict[str, Any]
_READ: dict[str, Callable[[Any, bytes], object]] = {
    "hash": lambda asked, key: asked.hgetall(key),
    "set": lambda asked, key: asked.smembers(key),
    "zset": lambda asked, key: asked.zrange(key, 0, -1, withscores=True),
    "stream": lambda asked, key: asked.xrange(key),
    "list": lambda asked, key: asked.lrange(key, 0, -1),
    "string": lambda asked, key: asked.get(key),
    "none": lambda asked, key: asked.get(key),
}
"""How a key of each type is read."""


async def dump(client: redis.asyncio.Redis, pattern: str = "*") -> Dump:
    """All keys of this pattern with what they hold, consumer groups and their entries included."""
    keys = [key async for key in client.scan_iter(pattern, count=SCANNED)]
    if not keys:
        return {}
    async with client.pipeline(transaction=False) as asked:
        for key in keys:
            assert isinstance(key, bytes), "the client must not decode"
            asked.type(key)
        kinds = [_text(kind) for kind in await asked.execute()]
        for key, kind in zip(keys, kinds, strict=True):
            asked.ttl(key)
            _READ[kind](asked, key)
        flat = await asked.execute()
    found: Dump = {}
    for key, kind, lives, held in zip(keys, kinds, flat[::2], flat[1::2], strict=True):
        whole = [held, *await _groups(client, key)] if kind == "stream" else held
        found[key.decode(errors="surrogateescape")] = kind, whole, lives >= 0
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


async def _groups(client: redis.asyncio.Redis, key: bytes) -> tuple[Any, Any]:
    """Where each consumer group of a stream stands, and what is in hand there."""
    groups = await client.xinfo_groups(key)
    return (
        sorted((group["name"], group["last-delivered-id"]) for group in groups),
        [await _in_hand(client, key, group["name"]) for group in groups],
    )


def _text(kind: bytes | str) -> str:
    return kind.decode() if isinstance(kind, bytes) else kind
