"""The stage of one row: servers on loopback, and the processes of those who are compared.

Each row has servers of its own, without persistence, and ends all that it started.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

from benchmarks.brokers import NatsServer, RabbitServer
from benchmarks.party import Contender, ContenderAbsent, Party, Role
from workers.embedded import EmbeddedRedis


class PrivateServer(Protocol):
    """A server that a contender speaks to."""

    @property
    def url(self) -> str:
        """Where it is."""

    @property
    def pid(self) -> int:
        """Its process, whose CPU and memory may be asked for."""

    def start(self) -> object:
        """Start it, and return when it answers; raises ContenderAbsent where it is not installed.

        May block.
        """

    def stop(self) -> None:
        """End it and delete what it kept. May block."""


def private_redis() -> EmbeddedRedis:
    """A redis-server that writes nothing to disk."""
    return EmbeddedRedis(config={"appendonly": "no"})


SERVERS: dict[str, Callable[[], PrivateServer]] = {
    "redis": private_redis,
    "nats": NatsServer,
    "rabbitmq": RabbitServer,
}
"""What makes a server, by the name that contenders ask for it."""


class Stage:
    """Servers and processes of one row; enter it, and all is ended when it is left."""

    def __init__(self) -> None:
        self._servers: dict[str, PrivateServer] = {}
        self._parties: list[Party] = []
        self._starting = asyncio.Lock()

    async def server(self, kind: str = "redis") -> PrivateServer:
        """The running server of that kind; started when it is first asked for.

        Raises ContenderAbsent.
        """
        async with self._starting:
            if kind not in self._servers:
                if kind not in SERVERS:
                    raise ContenderAbsent(f"nothing here starts a server of the kind {kind!r}")
                server = SERVERS[kind]()
                await asyncio.to_thread(server.start)
                self._servers[kind] = server
            return self._servers[kind]

    async def prepare(self, kinds: Iterable[str]) -> None:
        """Start these servers now, so that no round waits for one.

        One that is not installed is for its contenders to tell.
        """
        for kind in sorted(kinds):
            with suppress(ContenderAbsent):
                await self.server(kind)

    async def party(self, contender: Contender, role: Role, **environment: str) -> Party:
        """A new process of the contender, at its server.

        Raises ContenderAbsent where that, its server or its environment is not installed.
        """
        contender.argv(role, sys.executable)
        server = await self.server(contender.server)
        party = await Party.start(contender, role, server.url, sys.executable, environment)
        self._parties.append(party)
        return party

    async def dismiss(self, *parties: Party) -> None:
        """End these now."""
        await asyncio.gather(*(party.end() for party in parties))
        self._parties = [party for party in self._parties if party not in parties]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.dismiss(*self._parties)
        for server in self._servers.values():
            await asyncio.to_thread(server.stop)
