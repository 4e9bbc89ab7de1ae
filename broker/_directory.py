"""The directory: which servers a farm has, and which names stand for them (D2).

One hash: field = a name, value = the server that it stands for; a server stands for itself. A name
is claimed by one HSETNX, so of any number of claims one wins, and no alias of an alias comes to be.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from broker._entries import by_name
from broker._keys import IDENTITY, directory
from broker._scripts import Arg
from broker._waiting import LinkLost, until_answered
from broker.errors import (
    AliasTaken,
    ForeignLayout,
    InvalidArgument,
    NotInDirectory,
    RedisError,
    RedisUnreachable,
)

if TYPE_CHECKING:
    from broker.settings import Settings


class Commands(Protocol):
    """What the directory asks of a link."""

    @property
    def where(self) -> str:
        """The URL, without its password."""

    async def command(self, *command: Arg) -> Any:
        """One plain command. Raises LinkLost, RedisError."""


class Directory:
    """The directory of a farm: servers and aliases, each a folded server name.

    Every method raises RedisUnreachable where nothing answers in time, and ForeignLayout where the
    key is another program's. All of them may be repeated.
    """

    def __init__(
        self, link: Commands, settings: Settings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.key = directory(settings.namespace)
        self.losses = 0
        """How often Redis was found to have lost what was in the directory."""
        self._identity = ""
        self._link = link
        self._settings = settings
        self._clock = clock
        self._known: dict[str, tuple[str, float]] = {}

    # Looking ------------------------------------------------------------------------------------

    async def servers(self) -> list[str]:
        """The servers, sorted."""
        return sorted(name for name, server in (await self.read()).items() if name == server)

    async def aliases(self) -> dict[str, str]:
        """The aliases, sorted, and for which server each stands."""
        return {
            name: server for name, server in sorted((await self.read()).items()) if name != server
        }

    async def read(self) -> dict[str, str]:
        """All names, and the server that each stands for."""
        flat = await self._ask("HGETALL", self.key)
        texts = [self._text(each) for each in flat]
        names = by_name(texts)
        self._identified(names.pop(IDENTITY, ""))
        self._known.clear()
        for name, server in names.items():
            self._remember(name, server)
        return names

    async def missing(self, names: list[str]) -> list[str]:
        """Those of the names that nobody claimed."""
        identity, *found = await self._ask("HMGET", self.key, IDENTITY, *names)
        self._identified(self._text(identity or b""))
        return [name for name, value in zip(names, found, strict=True) if value is None]

    async def resolve(self, name: str) -> str:
        """The server that a name stands for; a name that nobody claimed stands for itself."""
        return await self.find(name) or name

    async def find(self, name: str) -> str | None:
        """The server that a name stands for; None where nobody claimed it.

        An answer is good for ``resync`` seconds; otherwise this is one round trip.
        """
        server, until = self._known.get(name, ("", 0.0))
        if server and self._clock() < until:
            return server
        found, _ = await self._look_up(name, name)
        return found

    # Changing -----------------------------------------------------------------------------------

    async def claim(self, server: str) -> str:
        """Have a server in the directory; returns it, or the server that it is an alias of."""
        while (found := await self._value(server)) is None:
            await self._identify()
            if await self._ask("HSETNX", self.key, server, server):
                self._remember(server, server)
                await self._announce(server)
                return server
        return found

    async def alias(self, alias: str, server: str) -> str:
        """Have a name stand for a server, or for what that one is an alias of; returns the server.

        Raises AliasTaken where the name stands for another server, or is one itself.
        """
        if alias == server:
            raise InvalidArgument(rf"\\{alias} needs no alias of its own name: name another one")
        self._refuse_taken(alias, await self._value(alias), await self.resolve(server))
        while True:
            server = await self.claim(server)
            await self._ask("HSETNX", self.key, alias, server)
            taken, own = await self._look_up(alias, server)
            self._refuse_taken(alias, taken, server)
            if taken == own == server:  # otherwise one of the two was removed meanwhile
                await self._announce(alias)
                return server

    async def unalias(self, alias: str) -> str:
        """Remove an alias; returns the server that it stood for. Raises NotInDirectory."""
        server = await self._value(alias)
        if server is None or server == alias:
            what = "is a server" if server else "is not known"
            raise NotInDirectory(rf"\\{alias} {what}: `tympan servers` lists the aliases")
        await self._ask("HDEL", self.key, alias)
        self._known.pop(alias, None)
        await self._announce(alias)
        return server

    async def forget(self, server: str) -> list[str]:
        """Remove a server and its aliases, which are returned; whatever may stand there."""
        aliases: set[str] = set()
        while stale := [name for name, of in (await self.read()).items() if of == server]:
            if aliases and server in stale:
                break  # it was claimed anew meanwhile
            await self._ask("HDEL", self.key, *stale)
            aliases |= set(stale)
        self._known.clear()
        await self._announce(server)
        return sorted(aliases - {server})

    @staticmethod
    def _refuse_taken(alias: str, taken: str | None, server: str) -> None:
        if taken == alias:
            raise AliasTaken(
                rf"\\{alias} is itself a server of this farm, and cannot stand for \\{server}: "
                rf"forget it first (tympan server forget '\\{alias}')",
                alias,
                taken,
            )
        if taken not in (None, server):
            raise AliasTaken(
                rf"\\{alias} stands for \\{taken}, and cannot stand for \\{server}: take it from "
                rf"there first (tympan server unalias '\\{alias}'), or choose another alias",
                alias,
                taken,
            )

    # Asking -------------------------------------------------------------------------------------

    async def _identify(self) -> None:
        """A new directory gets an identity, before the first name."""
        if self._identity:
            return
        minted = secrets.token_hex(8)
        if await self._ask("HSETNX", self.key, IDENTITY, minted):
            self._identity = minted

    def _identified(self, identity: str) -> None:
        if self._identity and identity != self._identity:
            self.losses += 1
        self._identity = identity

    async def _value(self, name: str) -> str | None:
        return (await self._look_up(name, name))[0]

    async def _look_up(self, one: str, other: str) -> tuple[str | None, str | None]:
        """What two names stand for, at one instant."""
        identity, *values = await self._ask("HMGET", self.key, IDENTITY, one, other)
        self._identified(self._text(identity or b""))
        for name, value in zip((one, other), values, strict=True):
            if value is None:
                self._known.pop(name, None)
            else:
                self._remember(name, self._text(value))
        first, second = (None if value is None else self._text(value) for value in values)
        return first, second

    def _remember(self, name: str, server: str) -> None:
        self._known[name] = (server, self._clock() + self._settings.resync)

    def _text(self, value: bytes) -> str:
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ForeignLayout(
                f"{self._link.where}: {self.key} holds what no Tympan wrote: use another namespace"
            ) from None

    async def _announce(self, name: str) -> None:
        """A hint: whoever does not hear it looks by the clock."""
        with contextlib.suppress(LinkLost, RedisError):
            await self._link.command("PUBLISH", self.key, name)

    async def _ask(self, *command: Arg) -> Any:
        """One command, asked again until it is answered or the operation timeout is over."""
        try:
            return await until_answered(
                lambda: self._link.command(*command),
                self._link.where,
                self._settings.operation_timeout,
            )
        except LinkLost as error:
            raise RedisUnreachable(f"{self._link.where} does not answer: {error}") from None
