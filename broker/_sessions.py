"""Sessions: one for each print server that this process uses, and an eye on the directory."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Protocol

from broker import _pools, inventory
from broker._directory import Directory
from broker._server import Server
from broker.errors import InvalidArgument, NotInDirectory, RedisError, ServerInUse
from broker.inventory import ServerFacts
from broker.pool import read_pools

if TYPE_CHECKING:
    from broker.settings import Settings


class Follower(Protocol):
    """Who wants to know which servers there are."""

    def follow(self, servers: Collection[str]) -> None:
        """These are the servers of the farm. Called with the same ones again and again."""

    async def broker_closed(self) -> None:
        """The broker object is being closed under it."""


class Sessions:
    """The sessions of one process, by canonical server.

    What the directory lost, though this process stands there, is put back: whoever looks at the
    whole farm must find it. What somebody made the farm forget is not.
    """

    def __init__(
        self,
        directory: Directory,
        settings: Settings,
        make: Callable[[str], Server],
        hear: Callable[[str], Awaitable[None]],
    ) -> None:
        self.servers: dict[str, Server] = {}
        self.directory = directory
        self._settings = settings
        self._make = make
        self._hear = hear
        self._starting: dict[str, asyncio.Lock] = {}
        self._kept: set[str] = set()
        """Servers whose names this process claimed, and whose sessions it keeps."""
        self._borrowed: Counter[str] = Counter()
        self._followers: list[Follower] = []
        self._restored = 0
        self._rang = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Follow no more. The sessions are the broker's to close."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        for follower in list(self._followers):
            await follower.broker_closed()

    # Beginning and ending -----------------------------------------------------------------------

    async def at(self, name: str) -> Server:
        """The session on the server that a name stands for, begun when it is first needed.

        A server comes into the directory once a session stands there. One with a session needs no
        look: its name is claimed, and stands for no other.
        """
        while True:
            if name not in self._kept:
                name = await self.directory.resolve(name)
            server = await self._session(name, keeps=True)
            if server is not None:
                return server

    async def borrow(self, server: str) -> Server:
        """A session for as long as it is not given back; of the directory's servers only.

        Raises NotInDirectory, and whatever keeps a session from beginning.
        """
        if server not in self.servers and await self.directory.find(server) != server:
            raise NotInDirectory(rf"\\{server} is no server of this farm any more")
        self._borrowed[server] += 1
        try:
            session = await self._session(server, keeps=False)
        except BaseException:
            self._borrowed[server] -= 1
            raise
        assert session is not None, "nothing was claimed, so nobody was first"
        return session

    async def give_back(self, session: Server) -> None:
        """End a session that was only borrowed, unless somebody holds something there."""
        async with self._lock(session.name):
            self._borrowed[session.name] -= 1
            if not self._borrowed[session.name] and session.name not in self._kept:
                await self._end(session)

    async def leave(self, name: str) -> None:
        """End a session, unless something hangs on it or somebody borrowed it."""
        async with self._lock(name):
            server = self.servers.get(name)
            if server is not None and not self._borrowed[name]:
                await self._end(server)

    async def _session(self, name: str, *, keeps: bool) -> Server | None:
        """The session; None where the name was made another server's alias meanwhile.

        The name is claimed last, so that a server which refuses us does not come to be known.
        """
        async with self._lock(name):
            server = self.servers.get(name)
            if server is None:
                server = self.servers[name] = self._make(name)
                try:
                    await server.start()
                except BaseException:
                    del self.servers[name]
                    raise
                self._watch()
            if not keeps or name in self._kept:
                return server
            try:
                if await self.directory.claim(name) == name:
                    self._kept.add(name)
            finally:
                if name not in self._kept and not self._borrowed[name]:
                    await self._end(server)
            return server if name in self._kept else None

    def _lock(self, name: str) -> asyncio.Lock:
        return self._starting.setdefault(name, asyncio.Lock())

    async def _end(self, server: Server) -> None:
        """Close a session, if nothing hangs on it."""
        held = (
            server.channels
            or server.dialogs
            or server.doubtful
            or server.replicas
            or server.listening.readers
        )
        if self.servers.get(server.name) is server and not held:
            del self.servers[server.name]
            self._kept.discard(server.name)
            await server.close()

    # The directory ------------------------------------------------------------------------------

    async def names(self) -> list[str]:
        """The servers of the farm, those that Redis had lost among them."""
        names = await self.directory.read()
        if await self._restore(set(self.servers).difference(names)):
            names = await self.directory.read()
        return sorted(name for name, server in names.items() if name == server)

    async def follow(self, follower: Follower) -> None:
        """Tell it the servers: now, when a bell rings for them, and every ``resync`` seconds."""
        self._followers.append(follower)
        self._watch()
        with contextlib.suppress(RedisError):  # without the bell it is told by the clock
            await self._hear(self.directory.key)
        follower.follow(await self.names())

    def unfollow(self, follower: Follower) -> None:
        """Tell it no more."""
        if follower in self._followers:
            self._followers.remove(follower)

    def rang(self) -> None:
        """The directory changed, or was not heard of for a while."""
        self._rang.set()

    def _watch(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._keep(), name="tympan-directory")

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.resync):
                    await self._rang.wait()
            self._rang.clear()
            with contextlib.suppress(RedisError):  # weather, to what comes around by the clock
                await self._look()

    async def _look(self) -> None:
        if self._followers:
            names = await self.names()
            for follower in list(self._followers):
                follower.follow(names)
        elif self.servers:
            await self._restore(await self.directory.missing(list(self.servers)))

    async def _restore(self, missing: Collection[str]) -> bool:
        """Put back what the directory lost; whether there was anything.

        A server that is missing from a directory that lost nothing was forgotten: only what hangs
        on a session there, other than farm-wide registrations, brings it back.
        """
        losses = self.directory.losses
        is_lost = losses > self._restored
        back = [name for name in missing if is_lost or _is_busy(self.servers.get(name))]
        for name in back:
            await self.directory.claim(name)
        self._restored = losses
        return bool(back)

    def glance(self, server: str) -> Server:
        """A server to read from: this process's, or one that does not begin, and only looks."""
        return self.servers.get(server) or self._make(server)

    async def glances(self) -> list[tuple[Server, tuple[str, ...]]]:
        """The servers of the farm, to read from, each with its aliases."""
        names = await self.directory.read()
        return [
            (
                self.glance(server),
                tuple(sorted(name for name, of in names.items() if of == server != name)),
            )
            for server in sorted(name for name, of in names.items() if name == of)
        ]

    async def overview(self) -> list[ServerFacts]:
        """The servers of the farm, and how much stands on each that can be read."""
        return await asyncio.gather(*(inventory.try_server(*one) for one in await self.glances()))

    async def forget(self, name: str) -> list[str]:
        """Remove a server that is gone from the farm; returns its aliases, which go with it.

        Raises NotInDirectory, ServerInUse, and InvalidArgument for an alias.
        """
        server = await self.directory.find(name)
        if server is None:
            raise NotInDirectory(
                rf"\\{name} is no server of this farm: `tympan servers` lists them"
            )
        if server != name:
            raise InvalidArgument(
                rf"\\{name} is an alias of \\{server}: forget the server by its own name, "
                rf"or remove the alias (tympan server unalias '\\{name}')"
            )
        there = self._make(name)  # it does not begin: it only looks
        if await inventory.count_sessions(there) or await read_pools(there):
            session = await self.at(name)
            try:
                await session.run_down()
                await _end_what_follows(session)
            finally:
                await self._end(session)
        return await self.directory.forget(name)


async def _end_what_follows(server: Server) -> None:
    """End the parts of farm-wide pools there. Raises ServerInUse where more than that stands."""
    pools = {facts.id: facts.everywhere and not facts.backlog for facts in await read_pools(server)}
    stands = await inventory.what_stands(server, [id_ for id_ in pools if pools[id_]])
    if stands:
        raise ServerInUse(
            rf"\\{server.name} is in use by {stands}: end that first (`tympan registrations`, "
            "`tympan channels` and `tympan pool list` say what); what dead processes left ends "
            "after their leases"
        )
    for id_ in pools:
        plan = await _pools.find(server, id_)
        if plan is not None:
            await _pools.delete(server, plan)


def _is_busy(server: Server | None) -> bool:
    """Whether more than farm-wide registrations hangs on a session."""
    if server is None:
        return False
    registrations = server.listening.registrations.values()
    return bool(
        server.channels
        or server.dialogs
        or server.replicas
        or any(not registration.everywhere for registration in registrations)
    )
