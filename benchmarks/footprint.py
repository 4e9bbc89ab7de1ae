"""Footprint: what things hold of Redis's memory, by the growth over a thousand of them."""

from __future__ import annotations

import asyncio
from typing import Any

import redis.asyncio

from benchmarks.contenders.tympan import TYPE, USER, name_of, together
from broker import BIDIRECTIONAL, Broker, Channel, Notification, Registration
from broker.results import S_OK

MANY = 1_000
BODY = b"x" * 256


class Footprint:
    """Makes things in this process, and looks at Redis before and after."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def measure(self) -> dict[str, float]:
        """Bytes of each, and connections more for a thousand registrations."""
        async with redis.asyncio.Redis.from_url(self._url) as client:
            await client.flushall()
            async with (
                Broker.connect(self._url, user=USER) as source,
                Broker.connect(self._url, user=USER) as listener,
            ):
                return await self._measure(client, source, listener)

    async def _measure(
        self, client: redis.asyncio.Redis, source: Broker, listener: Broker
    ) -> dict[str, float]:
        async def register(subject: str) -> Registration[Any]:
            return await listener.register(name_of(subject), TYPE)

        async def tell(subject: str) -> Channel:
            channel = await source.open_channel(name_of(subject), TYPE)
            if await channel.send(BODY) != S_OK:
                raise RuntimeError("a send was not heard")
            return channel

        async def ask(subject: str) -> Channel:
            channel = await source.open_channel(name_of(subject), TYPE, style=BIDIRECTIONAL)
            await channel.send(BODY)
            return channel

        found: dict[str, float] = {}
        first = await register("one")
        await tell("one")  # sessions, scripts and connections are there from here on
        await ask("another")
        await heard(first)
        connections, before = await connected(client), await used(client)
        await together(register, ["one"] * MANY)
        found["registration"] = (await used(client) - before) / MANY
        found["connections"] = await connected(client) - connections
        before = await used(client)
        opened = await together(
            lambda i: source.open_channel(name_of(f"open-{i}"), TYPE), range(MANY)
        )
        found["channel"] = (await used(client) - before) / MANY
        await together(lambda channel: channel.release(), opened)
        before = await used(client)
        await together(register, [f"told-{i}" for i in range(MANY)])
        listened = await used(client)
        found["registration alone"] = (listened - before) / MANY
        await together(tell, [f"told-{i}" for i in range(MANY)])
        found["channel used"] = (await used(client) - listened) / MANY
        before = await used(client)
        await together(ask, [f"asked-{i}" for i in range(MANY)])
        found["question"] = (await used(client) - before) / MANY
        return found


async def heard(registration: Registration[Any]) -> Notification[Any]:
    """Its next notification."""
    item = await registration.fetch(timeout=10)
    if not isinstance(item, Notification):
        raise TypeError(f"a registration was handed {item!r} in the place of a notification")
    return item


async def used(client: redis.asyncio.Redis) -> int:
    """Bytes that Redis has allocated, when what is under way has settled."""
    last = -1
    while True:
        memory: Any = await client.info("memory")
        # What connections hold while they are busy is none of what was made.
        now = int(memory["used_memory"]) - int(memory["mem_clients_normal"])
        if abs(now - last) < MANY:
            return now
        last = now
        await asyncio.sleep(0.1)


async def connected(client: redis.asyncio.Redis) -> int:
    """Connections of others."""
    return len(await client.client_list()) - 1
