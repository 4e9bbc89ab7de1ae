"""Many ends in one process, told what to do as :mod:`tests.faults.puppet` is.

``python -m tests.faults.crowd SOCKET``. Registrations and channels are for printers of their own,
or brokers of their own: each is a process of its own to the others.
"""

from __future__ import annotations

import asyncio
import hashlib
import resource
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from broker import Broker, Channel, Notification, Registration
from broker.errors import NotificationFailure, TympanError
from tests.farm import PRINTER, TYPE
from tests.faults.puppet import Doing, forks

AT_ONCE = 64


def printer(number: int) -> str:
    return rf"\\print01\printer-{number}"


class Hearing:
    """A registration, and the bodies that it heard; long ones by their length and SHA-1."""

    def __init__(self, registration: Registration[Any], reads: bool = True) -> None:
        self.registration = registration
        self.heard: list[str] = []
        self.at: dict[str, float] = {}
        """When each was heard, in seconds of the host's monotonic clock."""
        self.reads = asyncio.Event()
        if reads:
            self.reads.set()
        self.task = asyncio.create_task(self._hear())

    async def _hear(self) -> None:
        await self.reads.wait()
        async for notification in self.registration:
            assert isinstance(notification, Notification)
            body = short(notification.body)
            self.heard.append(body)
            self.at.setdefault(body, time.monotonic())


def short(body: bytes) -> str:
    """What is kept of a body."""
    if len(body) <= 64:
        return body.decode()
    return f"{len(body)} {hashlib.sha1(body, usedforsecurity=False).hexdigest()}"


class Crowd:
    """What it has, and what it can be told."""

    def __init__(self, options: dict[str, Any], stack: AsyncExitStack) -> None:
        self._options = options
        self._stack = stack
        self._brokers: list[Broker] = []
        self._channels: list[Channel] = []
        self._hearing: list[Hearing] = []
        self._floods: list[asyncio.Task[None]] = []
        self._results: Counter[str] = Counter()

    async def do(self, words: list[Any]) -> dict[str, Any]:
        """Do one thing; what came of it, with how long it took."""
        name, *rest = words
        began = time.monotonic()
        try:
            found: dict[str, Any] = await getattr(self, f"do_{name}")(*rest) or {}
        except (TympanError, TimeoutError) as error:
            found = {"error": type(error).__name__, "why": str(error)}
        return {"began": began, "seconds": time.monotonic() - began, **found}

    async def do_connect(self, many: int) -> None:
        """So many brokers."""
        await together(lambda _: self._connect(), range(many))

    async def _connect(self) -> Broker:
        broker = Broker.connect(user="alice", **self._options)
        await self._stack.enter_async_context(broker)
        self._brokers.append(broker)
        return broker

    async def do_stand(self, first: int, many: int, ahead: int, of: int) -> None:
        """So many registrations and channels of one broker, each for a printer of its own.

        The channels are for printers that are ``ahead``, modulo ``of``.
        """
        broker = await self._connect()

        async def stand(number: int) -> None:
            self._hearing.append(Hearing(await broker.register(printer(number), TYPE)))
            there = printer((number + ahead) % of)
            self._channels.append(await broker.open_channel(there, TYPE, user="alice"))

        await together(stand, range(first, first + many))

    async def do_come(
        self, many: int, where: str = PRINTER, buffer: int = 100, reads: bool = True
    ) -> None:
        """So many brokers come at once, and each listens to a printer."""

        async def come(_: int) -> None:
            broker = await self._connect()
            made = await broker.register(where, TYPE, buffer=buffer)
            self._hearing.append(Hearing(made, reads))

        await asyncio.gather(*(come(i) for i in range(many)))

    async def do_read(self) -> None:
        """Who did not read, reads."""
        for hearing in self._hearing:
            hearing.reads.set()

    async def do_unread(self) -> dict[str, Any]:
        """How much waits here to be read, and how much was missed."""
        made = [hearing.registration for hearing in self._hearing]
        return {
            "unread": sum(each.unread for each in made),
            "denied": sum(each.denied for each in made),
        }

    async def do_open(self, many: int, where: str = PRINTER) -> None:
        """So many channels to a printer, of the last broker."""
        broker = self._brokers[-1]
        for _ in range(many):
            self._channels.append(await broker.open_channel(where, TYPE, user="alice"))

    async def do_reopen(self) -> None:
        """Have channels of the same broker in the place of those that are over."""
        over = [channel for channel in self._channels if not channel.is_open]
        self._channels = [channel for channel in self._channels if channel.is_open]
        await self.do_open(len(over))

    async def do_send(self, body: str) -> dict[str, Any]:
        """Send the same on every channel; how often each result came."""
        results: Counter[str] = Counter()

        async def send(number: int) -> None:
            try:
                results[(await self._channels[number].send(body)).name] += 1
            except TympanError as error:
                results[type(error).__name__] += 1

        await together(send, range(len(self._channels)))
        return {"results": results}

    async def do_send_large(self, many: int, byte: int) -> dict[str, Any]:
        """Send so many of a byte on the first channel."""
        return {"result": (await self._channels[0].send(bytes([byte]) * many)).name}

    async def do_flood(self, size: int, at_once: int, lossless: bool) -> dict[str, Any]:
        """Send on every channel as fast as it goes, until told to stop."""
        self._floods = [
            asyncio.create_task(self._flood(channel, size, lossless))
            for channel in self._channels
            for _ in range(at_once)
        ]
        return {}

    async def _flood(self, channel: Channel, size: int, lossless: bool) -> None:
        while True:
            try:
                self._results[(await channel.send(b"f" * size, lossless=lossless)).name] += 1
            except TympanError as error:
                self._results[type(error).__name__] += 1

    async def do_stop(self) -> dict[str, Any]:
        """Flood no more; how often each result came."""
        for task in self._floods:
            task.cancel()
        await asyncio.gather(*self._floods, return_exceptions=True)
        return {"results": self._results}

    async def do_tick(self, many: int, size: int, pause: float, lossless: bool) -> dict[str, Any]:
        """Send numbers on the first channel with pauses; when each was that was done."""
        at: dict[str, float] = {}
        results: Counter[str] = Counter()
        for number in range(many):
            body, began = f"{number}".ljust(size), time.monotonic()
            try:
                results[(await self._channels[0].send(body, lossless=lossless)).name] += 1
                at[short(body.encode())] = began
            except NotificationFailure as error:
                results[type(error).__name__] += 1
            await asyncio.sleep(pause)
        return {"at": at, "results": results}

    async def do_hear(self, body: str, within: float) -> dict[str, Any]:
        """When all have heard this; how many have."""

        def have() -> int:
            return sum(body in each.at for each in self._hearing)

        due = time.monotonic() + within
        while have() < len(self._hearing) and time.monotonic() < due:  # noqa: ASYNC110 - many ring
            await asyncio.sleep(0.01)
        last = max((each.at[body] for each in self._hearing if body in each.at), default=0.0)
        return {"have": have(), "last": last}

    async def do_heard(self) -> dict[str, Any]:
        """What all heard, and how many heard just that; a few of it where there is much."""
        heard = Counter(" | ".join(each.heard) for each in self._hearing)
        return {"heard": dict(heard.most_common(5))}

    async def do_times(self) -> dict[str, Any]:
        """What the first registration heard, and when."""
        return {"at": self._hearing[0].at, "heard": self._hearing[0].heard}

    async def do_lapses(self) -> dict[str, Any]:
        """How often its brokers lapsed in all."""
        servers = [server for broker in self._brokers for server in broker._servers.values()]
        return {"lapses": sum(server.lapses for server in servers)}

    async def do_memory(self) -> dict[str, Any]:
        """Its resident bytes."""
        return {"bytes": resident()}


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def together(do: Callable[[int], Awaitable[object]], numbers: range) -> None:
    """Do it with each number, some at a time."""
    waiting = iter(numbers)

    async def some() -> None:
        for number in waiting:
            await do(number)

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


@asynccontextmanager
async def crowd(options: dict[str, Any]) -> AsyncIterator[Doing]:
    """One whose brokers have these settings."""
    async with AsyncExitStack() as stack:
        yield Crowd(options, stack).do


if __name__ == "__main__":
    forks(sys.argv[1], crowd)
