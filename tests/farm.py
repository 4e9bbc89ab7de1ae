"""What tests hold their conversations on: a backend, and a farm of brokers on it.

Every farm has a namespace of its own, so that tests share a server without meeting. When a farm
closes, no key may be left that has neither a time to live nor a place on the permanent list.
"""

from __future__ import annotations

import secrets
from typing import Any, Protocol, Self, cast
from uuid import UUID

import redis.asyncio

from broker import BIDIRECTIONAL, Broker, Channel, Name, Offer, Payload, Registration
from broker.memory import MemoryRedis
from tests.cluster import RedisCluster
from tests.servers import RedisServer
from workers.embedded import HOST
from workers.proof import invariants

TYPE = UUID("5a1f6f0e-3c0b-4f0e-8f55-6a4d2f0d9a01")
OTHER_TYPE = UUID("5a1f6f0e-3c0b-4f0e-8f55-6a4d2f0d9a02")
PRINTER = r"\\print01\laser-3"
OTHER_PRINTER = r"\\print01\laser-4"
SERVER = r"\\print01"
OTHER_SERVER = r"\\print03"
"""On another master of three than :data:`SERVER`."""
PRINTER_OF_OTHER_SERVER = r"\\print03\laser-3"
PATIENCE = 30.0
"""Seconds that a test waits for what must come."""
SCANNED = 1000
"""Keys that Redis looks at in one step of a scan: few steps, though tests share a server."""
PERMANENT = invariants.PERMANENT
"""Last parts of keys that may stay when nobody holds anything."""


class Answer(Payload, type=TYPE):
    """A response of the tests' type."""

    proceed: bool


class OutOfPaper(Payload, type=TYPE, response=Answer):
    """A notification of the tests' type."""

    tray: int
    question: str = "Continue on A3?"


class Backend(Protocol):
    """Where a farm lives."""

    name: str

    def broker(self, **options: Any) -> Broker:
        """A broker, not entered yet."""

    def direct(self, **options: Any) -> Broker:
        """The same, by no proxy that a test put in between."""

    def client(self) -> redis.asyncio.Redis:
        """A plain client to look at the keys."""


class MemoryBackend:
    """The public in-memory double."""

    name = "memory"

    def __init__(self) -> None:
        self.redis = MemoryRedis()

    def broker(self, **options: Any) -> Broker:
        return self.redis.broker(**options)

    direct = broker

    def client(self) -> redis.asyncio.Redis:
        return self.redis.client()


class RedisBackend:
    """A real redis-server."""

    name = "redis"

    def __init__(self, server: RedisServer) -> None:
        self.server = server

    def broker(self, **options: Any) -> Broker:
        return self.direct(**options)

    def direct(self, **options: Any) -> Broker:
        return Broker.connect(self.server.url, **options)

    def client(self) -> redis.asyncio.Redis:
        return redis.asyncio.Redis.from_url(self.server.url, protocol=2, driver_info=None)


class ClusterBackend:
    """A real Redis Cluster."""

    name = "cluster"

    def __init__(self, cluster: RedisCluster) -> None:
        self.cluster = cluster

    def broker(self, **options: Any) -> Broker:
        return Broker.connect(self.cluster.url, **options)

    direct = broker

    def client(self) -> redis.asyncio.Redis:
        """One that takes the same calls, for the keys of all masters."""
        node = self.cluster.nodes[0]
        client = redis.asyncio.RedisCluster(HOST, node.port, protocol=2, driver_info=None)
        return cast(redis.asyncio.Redis, client)


class Farm:
    """Brokers on one backend, in one namespace: each is a process of its own to the others."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.namespace = f"t{secrets.token_hex(4)}"
        self.brokers: list[Broker] = []
        self.client = backend.client()

    async def broker(self, user: str = "alice", **options: Any) -> Broker:
        """Another process: a broker, entered, closed with the farm."""
        broker = self.backend.broker(user=user, namespace=self.namespace, **options)
        await broker.start()
        self.brokers.append(broker)
        return broker

    async def administrator(self, user: str = "admin", *names: str, **options: Any) -> Broker:
        """The same, with grants to administer the names (default: printer and server)."""
        broker = await self.broker(user, **options)
        for name in names or (PRINTER, SERVER):
            await broker.grant(name, user, "administer")
        return broker

    async def question(
        self, source: Broker, body: bytes = b"continue?", user: str = "alice", name: str = PRINTER
    ) -> Channel:
        """An open bidirectional channel with its initial notification sent."""
        channel = await source.open_channel(name, TYPE, user=user, style=BIDIRECTIONAL)
        await channel.send(body)
        return channel

    async def offered(self, registration: Registration[Any]) -> Offer[Any]:
        """The next offer of a registration."""
        offer = await registration.fetch(PATIENCE)
        assert isinstance(offer, Offer), f"no offer within {PATIENCE:g} s"
        return offer

    async def keys(self) -> list[str]:
        """All keys of this farm."""
        found = self.client.scan_iter(f"{self.namespace}:*", count=SCANNED)
        return sorted([key.decode() async for key in found])

    async def clear(self) -> None:
        """Take all of it away, whoever owns it."""
        if keys := await self.keys():
            await self.client.unlink(*keys)

    async def close(self) -> None:
        """Close all brokers, and check that nothing is left behind."""
        for broker in self.brokers:
            await broker.close()
        left = await self._left()
        if left:
            await self._sweep()
            left = await self._left()
        await self.clear()  # whoever looks through this Redis next has less to look at
        await self.client.aclose()
        assert not left, f"keys without an owner and without a time to live: {left}"

    async def _left(self) -> list[str]:
        return [
            key
            for key in await self.keys()
            if key.rsplit(":", 1)[-1] not in PERMANENT and await self.client.ttl(key) < 0
        ]

    async def _sweep(self) -> None:
        """End what sessions left whose leases ran out: on a slow machine a short one may."""
        async with self.backend.direct(namespace=self.namespace) as sweeper:
            for server in await sweeper.servers():
                await (await sweeper.server(Name(server))).run_down()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
