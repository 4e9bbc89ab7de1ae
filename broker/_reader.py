"""Readers: how a process follows its streams. Streams hold, bells hint.

A bell that carries the next entry is taken as it is. Anything else (a gap, a bell without its
entry, a subscription that was away, the clock) makes the reader look into Redis itself.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from broker._bodies import Command, read_body
from broker._entries import Entry, EntryId, read_bell, read_range
from broker.errors import RedisError, RedisRefused

log = logging.getLogger("tympan")

BATCH = 256
Missed = Callable[[], None]
"""Called for each bell that shows that one before it was not heard."""


class Reader(ABC):
    """What stream and board readers share: bells in, one look at Redis at a time."""

    def __init__(
        self, key: str, field: str, streams: str, command: Command, missed: Missed
    ) -> None:
        self.key = key
        self.field = field
        self.position = EntryId(0, 0)
        self.resyncs = 0
        self._rung = EntryId(0, 0)
        self._epoch = 0
        """Of the present primary, where it has replaced the one that was read first."""
        self._streams = streams
        self._command = command
        self._missed = missed
        self._paused = 0
        self._again = False
        self._is_refused = False
        self._task: asyncio.Task[None] | None = None

    def ring(self, payload: bytes) -> None:
        """A bell. One that cannot be read is as good as a lost one."""
        try:
            rung = read_bell(payload)
        except ValueError:
            self.look()
            return
        for id_, entry in rung:
            self._rang(id_, entry)

    def _rang(self, id_: EntryId, entry: Entry | None) -> None:
        if id_ <= self.position:
            return
        if id_.epoch < self._epoch:  # of a former primary: perhaps nobody else knows of it
            self.look()
            return
        self._rung = max(self._rung, id_)
        next_in_line = id_.epoch == self.position.epoch and id_.number == self.position.number + 1
        busy = self._paused or (self._task is not None and not self._task.done())
        if not busy and self._is_behind(id_):
            self._missed()
        if busy or not next_in_line or entry is None or entry.reference:
            self.look()
        else:
            self.position = id_
            self.take(entry)

    def _is_behind(self, rung: EntryId) -> bool:
        """Whether a bell before this one was lost; before the first entry nobody can tell."""
        last = self.position
        return last.epoch == rung.epoch and 0 < last.number < rung.number - 1

    def look(self) -> None:
        """Read Redis soon; asked during a look, once more after it."""
        self._again = True
        if not self._paused and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._look(), name=f"tympan-look {self.field}")

    async def looked(self) -> None:
        """Read Redis now, and return when everything that was there is taken."""
        self.look()
        while self._task is not None and not self._task.done():
            await asyncio.wait({self._task})

    async def pause(self) -> None:
        """Take nothing until :meth:`resume`: somebody joins. Nests."""
        self._paused += 1
        if self._task is not None and not self._task.done():
            await asyncio.wait({self._task})

    def resume(self) -> None:
        """Undo one pause; what rang meanwhile is read."""
        self._paused -= 1
        if self._again:
            self.look()

    def replaced(self, epoch: int) -> None:
        """Another primary is the present one: only what it has counts from now on."""
        self._epoch = epoch

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _look(self) -> None:
        while self._again and not self._paused:
            self._again = False
            self.resyncs += 1
            try:
                await self.read()
                self._is_refused = False
            except RedisRefused as error:
                if not self._is_refused and error.is_forbidden:
                    log.warning("%s cannot be read, and is tried again: %s", self.key, error)
                self._is_refused = True
                return
            except RedisError:
                return  # the next look, at the latest the one by the clock, reads the same again

    async def body_of(self, entry: Entry) -> Entry:
        """The entry with its body, fetched where it is kept by reference; None stays away."""
        if entry.reference is None:
            return entry
        body = await read_body(self._command, entry.reference)
        return entry if body is None else entry.with_body(body)

    @abstractmethod
    def take(self, entry: Entry) -> None:
        """One entry, in order."""

    @abstractmethod
    async def read(self) -> None:
        """Look into Redis from the position on."""


class StreamReader(Reader):
    """Follows one stream and hands each entry, in order and once, to ``taker``."""

    def __init__(
        self,
        key: str,
        field: str,
        streams: str,
        command: Command,
        taker: Callable[[Entry], None],
        missed: Missed,
    ) -> None:
        super().__init__(key, field, streams, command, missed)
        self._taker = taker
        self._references: deque[tuple[EntryId, str]] = deque()

    def take(self, entry: Entry) -> None:
        if entry.reference is not None and not entry.text("keep"):  # no pool needs it
            self._references.append((entry.id, entry.reference))
        self._taker(entry)

    def references_upto(self, id_: EntryId) -> list[str]:
        """Keys of bodies that entries up to this one named; each is answered once."""
        found: list[str] = []
        while self._references and self._references[0][0] <= id_:
            found.append(self._references.popleft()[1])
        return found

    async def read(self) -> None:
        while not self._paused:
            epoch = self._epoch
            reply = await self._command(
                "XRANGE", self.key, f"({self.position}", "+", "COUNT", BATCH
            )
            if epoch != self._epoch:
                continue
            entries = read_range(reply)
            for found in entries:
                whole = await self.body_of(found)
                if whole.id > self.position:
                    self.position = whole.id
                    self.take(whole)
            if len(entries) < BATCH:
                return
        self._again = True


class BoardMember(Protocol):
    """A registration, as its board sees it."""

    def offered(self, entry: Entry) -> None:
        """A question is open. Told again for one it knows, it does nothing."""

    def withdrawn(self, entry: Entry) -> None:
        """A question is over: acquired, or closed by its source."""

    def open_offers(self) -> set[str]:
        """Channels that it was offered and that are, for all it knows, open."""


class BoardReader(Reader):
    """Follows one board of open questions; what is not on it is not open."""

    def __init__(
        self,
        key: str,
        field: str,
        streams: str,
        command: Command,
        fate: Callable[[str], Awaitable[Entry | None]],
        missed: Missed,
    ) -> None:
        super().__init__(key, field, streams, command, missed)
        self.members: dict[BoardMember, None] = {}
        """In the order in which they came."""
        self._offers: dict[str, EntryId] = {}
        self._fate = fate

    def know(self, entry: Entry) -> None:
        """A member was given a question in another way, perhaps before its bell rang here."""
        self._offers.setdefault(entry.text("channel"), entry.id)

    def take(self, entry: Entry) -> None:
        if entry.text("event") == "offer":
            self._offers[entry.text("channel")] = entry.id
            for member in list(self.members):
                member.offered(entry)
        else:
            self._offers.pop(entry.text("channel"), None)
            for member in list(self.members):
                member.withdrawn(entry)

    async def read(self) -> None:
        """Compare the whole board with what the members know."""
        known = set(self._offers)
        number = await self._command("HGET", self._streams, self.field)
        open_now: dict[str, EntryId] = {}
        after = "-"
        while True:
            reply = await self._command("XRANGE", self.key, after, "+", "COUNT", BATCH)
            entries = read_range(reply)
            for found in entries:
                open_now[found.text("channel")] = found.id
                self.take(await self.body_of(found))
            if len(entries) < BATCH:
                break
            after = f"({entries[-1].id}"
        awaited = {channel for member in self.members for channel in member.open_offers()}
        for channel in known - set(open_now):
            if channel not in awaited:
                self._offers.pop(channel, None)
            elif (fate := await self._fate(channel)) is not None:
                self.take(fate)
        epoch = max(self._rung.epoch, self.position.epoch)
        self.position = max(self.position, EntryId(epoch, int(number or 0)))
