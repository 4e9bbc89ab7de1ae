"""Lifetimes: channels and registrations that are made, used once, and gone."""

from __future__ import annotations

import asyncio
import time
from statistics import median

import redis.asyncio

from benchmarks.contenders.tympan import TYPE, USER, name_of
from benchmarks.contest import Figures
from benchmarks.footprint import heard
from broker import Broker, Settings
from broker._keys import CATALOGUE
from broker.results import S_OK

BODY = b"x" * 256
KEPT_S = 1.0
"""Lease of the sessions, and how long a closed channel answers."""
HUNDRED = 100
_PATIENCE_S = 30.0


class Lifetimes:
    """A source and a listener in this process, in a namespace of their own."""

    def __init__(self, url: str, namespace: str) -> None:
        self._url = url
        self._namespace = namespace
        settings = Settings(namespace=namespace, lease=KEPT_S, keep_closed=KEPT_S)
        self._source = Broker.connect(url, user=USER, settings=settings)
        self._listener = Broker.connect(url, user=USER, settings=settings)

    async def start(self) -> None:
        """Connect, and begin sessions: what all things share is there when the first is made."""
        await self._source.start()
        await self._listener.start()
        await self._live("first")

    async def stop(self) -> None:
        """Disconnect."""
        await self._source.close()
        await self._listener.close()

    async def turn(self, count: int = HUNDRED) -> Figures:
        """So many of both, one after another: median microseconds of a life."""
        took = []
        for i in range(count):
            began = time.perf_counter()
            await self._live(f"printer-{i}")
            took.append((time.perf_counter() - began) * 1e6)
        return {"us": median(took)}

    async def _live(self, subject: str) -> None:
        name = name_of(subject)
        registration = await self._listener.register(name, TYPE)
        channel = await self._source.open_channel(name, TYPE)
        if await channel.send(BODY) != S_OK:
            raise RuntimeError("a send was not heard")
        await heard(registration)
        await channel.close()
        await registration.unregister()

    async def left(self) -> list[str]:
        """Keys that are left when closed channels answer no more, but for those that never end.

        Waits for those that end by themselves.
        """
        lasting = {fact.pattern.rpartition(":")[2] for fact in CATALOGUE if fact.ends == "never"}
        due = time.monotonic() + _PATIENCE_S
        async with redis.asyncio.Redis.from_url(self._url, decode_responses=True) as client:
            while True:
                keys = [key async for key in client.scan_iter(f"{self._namespace}:*", count=1000)]
                left = [key for key in keys if key.rpartition(":")[2] not in lasting]
                if not left or time.monotonic() > due:
                    return left
                await asyncio.sleep(KEPT_S / 4)
