"""The ground of a play: one namespace of a Redis, to look at in the end, and to clear away."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from broker import Settings
from broker._keys import IDENTITY, Keys, directory, inbox_field
from broker._stored import stored
from broker._topology import topology_at
from broker._waiting import LinkLost
from broker.errors import RedisRefused
from broker.inventory import together
from broker.names import Name
from workers.proof.history import SOURCE, Dialog, Feed, History, Known
from workers.proof.talk import PRINTER

T = TypeVar("T")

AT_ONCE = 1000
"""Keys of one page of SCAN."""
TOGETHER = 64
"""Questions on their way at the same time."""
DROPPED = "dropped"
GONE = -2
"""The time to live of a key that is not there."""
A_MINUTE = 60_000
ONE_EACH = tuple(name for name in Keys.__slots__ if not name.startswith("_"))
"""Keys of which a print server has one each."""


class Ground:
    """One namespace, and the one print server in it that everything is played on."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.namespace = settings.namespace
        self.keys = Keys(settings.namespace, Name.parse(PRINTER).server)
        self.is_scanned = True
        """Whether all keys could be listed; otherwise only those that are known by name."""
        self._directory = directory(settings.namespace)
        self._topology = topology_at(url, settings, lambda *_: None, lambda *_: None)
        self._names: set[str] = set()

    async def __aenter__(self) -> Self:
        """Connect. Raises RedisError, InvalidUrl."""
        await self._topology.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._topology.close()

    @property
    def where(self) -> str:
        """The URL, without its password."""
        return self._topology.url

    async def ask(self, command: str, key: str, *more: str | int) -> Any:
        """One plain command about a key. Raises RedisError."""
        while True:
            try:
                return await self._topology.link(key).command(command, key, *more)
            except LinkLost:  # all that is asked here may be asked again
                continue

    async def info(self, *sections: str) -> dict[str, str]:
        """What Redis tells of itself; nothing where that is forbidden."""
        facts: dict[str, str] = {}
        for section in sections:
            with contextlib.suppress(RedisRefused):
                text = await self._topology.link(self.keys.meta).command("INFO", section)
                lines = text.decode(errors="replace").splitlines()
                facts |= dict(line.split(":", 1) for line in lines if ":" in line)
        return facts

    # Looking ------------------------------------------------------------------------------------

    async def look(self, history: History) -> None:
        """Note what Redis knows of each channel."""
        await _each(history.dialogs.items(), self._look_at)
        await _each(history.feeds.items(), self._look_at_feed)

    async def _look_at(self, found: tuple[str, Dialog]) -> None:
        channel, dialog = found
        facts = read_pairs(await self.ask("HGETALL", self.keys.channel(channel)))
        entries = await self.ask("XRANGE", self.keys.log(channel), "-", "+")
        said = [read_pairs(fields) for _, fields in entries]
        dialog.log = {one["body"] for one in said if "body" in one}
        dialog.known = known_of(facts, sum(one.get("event") == "response" for one in said))

    async def _look_at_feed(self, found: tuple[str, Feed]) -> None:
        channel, feed = found
        op = int(await self.ask("HGET", self.keys.channel(channel), "op") or 0)
        feed.known = max(0, op - 1)  # the last one ended it

    def know(self, names: Iterable[str]) -> None:
        """Keys that may be there: for whoever may not list all."""
        self._names.update(names)

    async def note_names(self, history: History) -> None:
        """Learn keys by what stands now: sessions, streams, pools, and what was opened so far."""
        self.know([self._directory, *(getattr(self.keys, name) for name in ONE_EACH)])
        pooled = [channel for work in history.works.values() for channel in work.channels]
        for channel in (*history.dialogs, *history.feeds, *pooled):
            self.know((self.keys.channel(channel), self.keys.log(channel)))
        pools = read_pairs(await self.ask("HGETALL", self.keys.pools))
        for pool in pools:
            self.know((self.keys.held(pool), self.keys.idle(pool)))
        prefix = self.keys.meta.removesuffix("meta")
        for field in read_pairs(await self.ask("HGETALL", self.keys.streams)):
            session = field.removeprefix("to:")
            if inbox_field(session) == field:
                self.know((self.keys.inbox(session), self.keys.held(session)))
            else:
                self.know((f"{prefix}stream:{field}", f"{prefix}room:{field}"))
                self.know(f"{prefix}returned:{pool}|{field}" for pool in pools)

    async def find(self) -> dict[str, int]:
        """All keys with their times to live in ms, -1 for none."""
        found: dict[str, int] = {}

        async def look(name: str) -> None:
            found[name] = await self._left(name)

        await _each(await self._listed(), look)
        return {name: ms for name, ms in sorted(found.items()) if ms != GONE}

    async def _left(self, name: str) -> int:
        """A key's time to live; without the right to ask, by taking it away and giving another."""
        with contextlib.suppress(RedisRefused):
            return int(await self.ask("PTTL", name))
        if not await self.ask("EXISTS", name):
            return GONE
        if not await self.ask("PERSIST", name):
            return -1
        await self.ask("PEXPIRE", name, A_MINUTE)
        return A_MINUTE

    async def _listed(self) -> set[str]:
        found: set[str] = set()
        for key, pattern in (
            (self.keys.meta, f"{self.namespace}:*"),
            (self._directory, self._directory),
        ):
            try:
                found |= await self._scan(key, pattern)
            except RedisRefused:
                self.is_scanned = False
                return self._names
        return found

    async def _scan(self, key: str, pattern: str) -> set[str]:
        """The keys of the process that has this one: one print server's are all there."""
        found: set[str] = set()
        link, cursor = self._topology.link(key), b"0"
        while True:
            cursor, names = await link.command("SCAN", cursor, "MATCH", pattern, "COUNT", AT_ONCE)
            found.update(name.decode() for name in names)
            if cursor == b"0":
                return found

    # Clearing -----------------------------------------------------------------------------------

    async def is_taken(self) -> bool:
        """Whether anything is in this namespace: all that is there in the end is cleared away."""
        if await self._listed():
            return True
        names = read_pairs(await self.ask("HGETALL", self._directory))
        return bool(names.keys() - {IDENTITY})

    async def clear(self) -> None:
        """Remove every key. Raises RedisError."""
        await _each(await self._listed(), lambda name: self.ask("UNLINK", name))


async def _each(items: Iterable[T], work: Callable[[T], Awaitable[object]]) -> None:
    """Do it with each, so many at a time as fit the way to Redis."""
    some = list(items)
    for i in range(0, len(some), TOGETHER):
        await together(*(work(item) for item in some[i : i + TOGETHER]))


def read_pairs(flat: Sequence[bytes]) -> dict[str, str]:
    """A hash, or an entry of a stream: name, value, name, value, ... Raises ForeignLayout."""
    with stored("a hash of the play"):
        return {
            flat[i].decode(): flat[i + 1].decode(errors="replace") for i in range(0, len(flat), 2)
        }


def known_of(facts: dict[str, str], responses: int) -> Known | None:
    """A channel by its hash; None where there is none. Raises ForeignLayout."""
    if not facts:
        return None
    dropped = {
        name.partition(":")[2] or SOURCE for name in facts if name.partition(":")[0] == DROPPED
    }
    with stored("drops of a channel"):
        drops = int(facts.get("drops", 0))
    return Known(
        facts.get("state", ""),
        facts.get("owner", ""),
        facts.get("owner_user", ""),
        drops,
        dropped,
        responses,
    )
