"""Connections of one process that can be cut: its own sockets, whatever the URL is."""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import dataclass, replace
from typing import Any

from redis.asyncio.connection import AbstractConnection

from broker import Broker, Settings
from broker._address import Address, Dialer, Node
from broker._bells import Gap, Ring
from broker._topology import Topology, topology_of


@dataclass(frozen=True)
class _Noting(Dialer):
    """Makes the same connections, and notes them."""

    made: weakref.WeakSet[AbstractConnection]

    def connection(self, node: Node | None = None) -> AbstractConnection:
        connection = super().connection(node)
        self.made.add(connection)
        return connection


class Connections:
    """Makes brokers, and cuts what connects them to Redis."""

    def __init__(self) -> None:
        self._made: weakref.WeakSet[AbstractConnection] = weakref.WeakSet()

    def broker(self, url: str, *, user: str, **options: Any) -> Broker:
        """As :meth:`broker.Broker.connect`."""
        settings = Settings.of(**options)
        address = Address.parse(url, settings)
        noting = _Noting(address.redis.kind, address.redis.options, self._made)

        def topology(settings: Settings, on_ring: Ring, on_gap: Gap) -> Topology:
            return topology_of(replace(address, redis=noting), settings, on_ring, on_gap)

        return Broker(topology, settings, user=user)

    def cut(self) -> int:
        """Break all of them off, losing what is on its way; how many there were."""
        cut = 0
        for connection in list(self._made):
            writer = getattr(connection, "_writer", None)  # redis-py has no other way to it
            if isinstance(writer, asyncio.StreamWriter) and not writer.transport.is_closing():
                writer.transport.abort()
                cut += 1
        return cut
