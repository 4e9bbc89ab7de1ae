"""The in-memory double: a Redis for your own unit tests, inside the process.

::

    memory = MemoryRedis()
    async with memory.broker(user="alice") as source, memory.broker(user="bob") as listener:
        ...

It is fakeredis (install ``tympan[memory]``) behind the very same scripts. It has no concurrency,
no persistence, no replicas and no ACL: it shows what your code does, not what a farm survives.
"""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import Connection

from broker._bells import Gap, Ring
from broker._connect import Direct
from broker._topology import Single
from broker.broker import Broker
from broker.errors import InvalidSettings
from broker.observer import Observer
from broker.rights import RightsSource
from broker.settings import Durability, Settings


class MemoryRedis:
    """One Redis in memory; brokers made from the same one share it."""

    url = "memory://"

    def __init__(self) -> None:
        try:
            from fakeredis import FakeAsyncRedis, FakeServer
        except ImportError as error:
            raise ImportError(
                "the in-memory double needs fakeredis: pip install tympan[memory]"
            ) from error
        self._server = FakeServer()
        self._client = FakeAsyncRedis(server=self._server, protocol=2)

    def connection(self) -> Connection:
        """A connection to this Redis."""
        made: Connection = self._client.connection_pool.make_connection()
        return made

    def client(self) -> Redis:
        """A plain redis-py client, to look at the keys."""
        from fakeredis import FakeAsyncRedis

        return FakeAsyncRedis(server=self._server, protocol=2)

    def broker(
        self,
        *,
        user: str | None = None,
        server: str | None = None,
        settings: Settings | None = None,
        rights: RightsSource | None = None,
        observer: Observer | None = None,
        **options: Any,
    ) -> Broker:
        """A broker on it; arguments as of :meth:`Broker.connect`."""
        settings = settings or Settings.of(**options)
        if settings.durability is not Durability.MEMORY:
            raise InvalidSettings("durability: the in-memory double is memory only")
        return Broker(
            self._topology, settings, user=user, server=server, rights=rights, observer=observer
        )

    def _topology(self, settings: Settings, on_ring: Ring, on_gap: Gap) -> Single:
        return Single(Direct(self, self.url, settings), settings, on_ring, on_gap)
