"""Tympan, as a user has it: through the public interface of ``broker``.

In the forms ``deep`` and ``uvloop`` its listeners have room for a hundred thousand unread
notifications each, as those who are sent bursts would set it; otherwise for as many as the default
says.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice
from typing import Any

import uvloop

from benchmarks.contenders.program import Heard, Listener, Source, main
from broker import BIDIRECTIONAL, Broker, Channel, Notification
from broker.results import S_OK

TYPE = "9d9c1d6a-1c7f-4b3e-8a70-0c3c2f5b6e01"
USER = "bench"
DEEP = 100_000
"""Notifications that a deep listener has room for."""
UVLOOP = "uvloop"
"""The form that is deep, and runs on uvloop."""
AT_ONCE = 100
"""Calls in flight while things are made."""


def name_of(subject: str) -> str:
    """A printer for each subject."""
    return rf"\\bench\{subject}"


class Counter:
    """A plain callback."""

    def __init__(self, heard: Heard) -> None:
        self._take = heard.take

    def on_event_notify(self, _channel: Any, notification: Notification[Any]) -> None:
        """One delivery."""
        self._take(notification.data or b"")

    def channel_closed(self, _channel: Any, _reason: Any) -> None:
        """Unidirectional: never called."""


class AsyncCounter(Counter):
    """The same, asynchronous."""

    async def on_event_notify(  # type: ignore[override]  # a callback may be either
        self, _channel: Any, notification: Notification[Any]
    ) -> None:
        """One delivery."""
        self._take(notification.data or b"")


class Responder:
    """Answers at once, with the question's own bytes."""

    async def on_event_notify(self, channel: Any, notification: Notification[Any]) -> None:
        """One question."""
        await channel.respond(notification.data)

    def channel_closed(self, _channel: Any, _reason: Any) -> None:
        """The source closed it."""


class TympanListener(Listener):
    """Registrations with callbacks."""

    def __init__(self, url: str, form: str) -> None:
        super().__init__(url, form)
        self._broker = Broker.connect(url, user=USER)

    async def start(self) -> None:
        """Connect."""
        await self._broker.start()

    async def listen(self, subjects: list[str], each: int, handler: str) -> None:
        """A registration for each listener, all with one callback."""
        callback = AsyncCounter(self.heard) if handler == "async" else Counter(self.heard)
        names = [name_of(subject) for subject in subjects for _ in range(each)]
        buffer = DEEP if self.form in ("deep", UVLOOP) else None
        await together(lambda name: self._broker.listen(name, TYPE, callback, buffer=buffer), names)

    async def answer(self, subjects: list[str]) -> None:
        """A bidirectional registration for each subject."""
        for subject in subjects:
            await self._broker.listen(name_of(subject), TYPE, Responder(), style=BIDIRECTIONAL)

    async def stop(self) -> None:
        """End all registrations."""
        await self._broker.close()


class TympanSource(Source):
    """Open channels, on which sends take turns."""

    def __init__(self, url: str, form: str) -> None:
        super().__init__(url, form)
        self._broker = Broker.connect(url, user=USER)
        self._channels: list[Channel] = []
        self._dialog: Channel | None = None

    async def start(self) -> None:
        """Connect."""
        await self._broker.start()

    async def open(self, subjects: list[str], per_subject: int) -> None:
        """Unidirectional channels."""
        names = [name_of(subject) for subject in subjects for _ in range(per_subject)]
        self._channels = await together(lambda name: self._broker.open_channel(name, TYPE), names)

    async def send(self, index: int, data: bytes) -> None:
        """A send that everybody has room for."""
        result = await self._channels[index % len(self._channels)].send(data)
        if result != S_OK:
            raise RuntimeError(f"a send ended with {result}: not every listener heard it")

    async def dialog(self, subject: str, data: bytes) -> None:
        """Open, send, response."""
        channel = await self._broker.open_channel(name_of(subject), TYPE, style=BIDIRECTIONAL)
        self._dialog = channel
        await channel.send(data)
        await channel.response()

    async def settle(self) -> None:
        """Close the dialog."""
        if self._dialog is not None:
            await self._dialog.close()
            self._dialog = None

    async def close(self) -> None:
        """Let go of all channels."""
        await together(lambda channel: channel.close(), self._channels)
        self._channels = []

    async def stop(self) -> None:
        """End what is open."""
        await self._broker.close()


async def together(call: Callable[[Any], Awaitable[Any]], things: Iterable[Any]) -> list[Any]:
    """Calls for all things, a hundred in flight; what they return, in order."""
    remaining = iter(things)
    done: list[Any] = []
    while batch := list(islice(remaining, AT_ONCE)):
        done += await asyncio.gather(*(call(thing) for thing in batch))
    return done


if __name__ == "__main__":
    main(
        source=TympanSource,
        listener=TympanListener,
        loop=uvloop.new_event_loop if os.environ.get("BENCH_FORM") == UVLOOP else None,
    )
