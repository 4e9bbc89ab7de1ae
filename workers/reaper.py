"""Reaper: ends what dead processes held, on every server of the farm, and counts the backlog.

Every process looks for the dead now and then. A reaper does it often, and runs also where nothing
else does: it bounds how long others wait, sees that farm-wide pools collect on servers that are
added later, and knows the backlog of pools without a single replica.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection
from dataclasses import replace

from broker import Broker, Name
from broker._server import Server
from broker.errors import OutcomeUnknown, RedisError, SessionLapsed, TympanError
from broker.pool import PoolFacts, Subscription
from workers.backlog import Backlog
from workers.health import Liveness, State

log = logging.getLogger("tympan")

AT_ONCE = 16
"""Servers that are read at the same time."""
GOOD_FOR = 30.0
"""Seconds that a look at the backlog is taken for the present one, at the least."""


class Reaper:
    """One reaper; any number may run.

    Args:
        broker: open; the caller closes it.
        every: seconds between two looks at the backlog.
        liveness: who is told that the loop goes around.
    """

    def __init__(
        self, broker: Broker, *, every: float = 1.0, liveness: Liveness | None = None
    ) -> None:
        self.backlog = Backlog(max(GOOD_FOR, 3 * every))
        self.liveness = liveness or Liveness(every)
        self._broker = broker
        self._every = every
        self._servers: set[str] = set()
        self._sessions: dict[str, Server] = {}
        self._extended: set[str] = set()
        """Servers on which farm-wide pools were seen to: once each, so that one that somebody
        deletes later does not come again."""
        self._gone: set[str] = set()
        """Servers that the farm has no more, with sessions that end."""
        self._known: dict[str, list[PoolFacts]] = {}
        """What each server's pools looked like when it was read last."""
        self._unread: set[str] = set()
        self._stirred = asyncio.Event()

    def follow(self, servers: Collection[str]) -> None:
        """See :class:`broker._sessions.Follower`."""
        if set(servers) != self._servers:
            self._servers = set(servers)
            self._extended &= self._servers
            for server in set(self._known) - self._servers:
                del self._known[server]
            for server in set(self._sessions) - self._servers:
                del self._sessions[server]
                self._gone.add(server)
            self._stirred.set()

    async def broker_closed(self) -> None:
        """The broker is being closed under it."""

    def obstacles(self) -> list[str]:
        """What keeps it from looking after every server, a sentence each. Any thread may ask."""
        silent = time.monotonic() - self._broker.settings.lease
        sessions = list(self._sessions.items())
        away = {name for name, session in sessions if session.answered < silent}
        return [f"server {server} cannot be read" for server in sorted(away | self._unread)]

    async def run(self) -> None:
        """Reap until cancelled. Raises RedisError where the directory cannot be read at first."""
        await self._broker.follow(self)
        try:
            while True:
                self.liveness.beat()
                await self._look()
                self.liveness.state = State.READY
                try:
                    async with asyncio.timeout(self._every):
                        await self._stirred.wait()
                except TimeoutError:
                    continue
                self._stirred.clear()
        finally:
            self._broker.unfollow(self)

    async def _look(self) -> None:
        """Read every server once; one that cannot be read counts as it did before."""
        gate = asyncio.Semaphore(AT_ONCE)
        unread: set[str] = set()

        async def read(server: str) -> None:
            async with gate:
                try:
                    if server not in self._sessions:
                        self._sessions[server] = await self._broker.server(Name(server))
                        self._sessions[server].sweeps_often = True
                    self._known[server] = await self._broker.pools.on_server(Name(server))
                except (RedisError, OutcomeUnknown, SessionLapsed) as error:
                    log.warning("server %s: its pools are not counted: %s", server, error)
                    unread.add(server)

        while self._gone:
            await self._broker.leave(Name(self._gone.pop()))
        servers = sorted(self._servers)
        looking = [asyncio.create_task(read(server)) for server in servers]
        try:
            while not all(task.done() for task in looking):
                self.liveness.beat()
                await asyncio.wait(looking, timeout=self._every)
        finally:
            for task in looking:
                task.cancel()
            await asyncio.gather(*looking, return_exceptions=True)
        for task in looking:
            task.result()
        self._unread = unread
        new = {server for server in servers if server in self._known} - self._extended
        found = [facts for server in servers for facts in self._known.get(server, ())]
        if not servers or len(unread) < len(servers):
            self.backlog.update(found)
        if await self._extend(found, new):
            self._stirred.set()
        self._extended |= new

    async def _extend(self, found: list[PoolFacts], new: set[str]) -> bool:
        """Have farm-wide pools listen on servers that came later; whether one did not."""
        wide = {
            (facts.pool, _wish(facts)): {each.name.server for each in found if each.id == facts.id}
            for facts in found
            if facts.everywhere
        }
        made = False
        for (pool, wish), servers in wide.items():
            for server in sorted(new - servers):
                try:
                    made |= await self._broker.pools.create(pool, replace(wish, name=Name(server)))
                except TympanError as error:
                    log.warning("pool %s does not listen on server %s: %s", pool, server, error)
        return made


def _wish(facts: PoolFacts) -> Subscription:
    return Subscription(
        None,
        facts.type,
        facts.user,
        facts.user_filter,
        facts.style,
        facts.printers,
        facts.buffer,
        everywhere=True,
    )
