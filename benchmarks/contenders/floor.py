"""The floor: the leanest honest asyncio client on hiredis, doing the same work with raw commands.

A stream for each subject, a consumer group and a connection for each listener, blocked in
XREADGROUP; acknowledgements go with the next read. A send is an XADD, and the calls of one turn of
the event loop are one write.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any
from urllib.parse import urlsplit

import hiredis

from benchmarks.contenders.program import Heard, Listener, Source, main

BATCH = 64
"""Entries of one read."""
_READ = ("BLOCK", "0", "COUNT", str(BATCH), "STREAMS")


class Connection(asyncio.Protocol):
    """One connection; replies come in the order of the calls."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, url: str) -> Connection:
        """Connect to a plain ``redis://host:port`` URL."""
        at = urlsplit(url)
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            cls, at.hostname or "127.0.0.1", at.port or 6379
        )
        return connection

    def call(self, *words: str | bytes | int) -> asyncio.Future[Any]:
        """A command, written in this turn of the loop with all others of it."""
        if not self._unsent:
            self._loop.call_soon(self._write)
        self._unsent.append(hiredis.pack_command(words))  # type: ignore[arg-type]  # its stub
        reply = self._loop.create_future()
        self._waiting.append(reply)
        return reply

    def close(self) -> None:
        """Hang up; whoever waits for a reply is cancelled."""
        if self._transport is not None:
            self._transport.close()

    def _write(self) -> None:
        assert self._transport is not None
        self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        while (reply := reader.gets()) is not False:
            future = waiting.popleft()
            if future.done():
                continue
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the loop."""
        for future in self._waiting:
            if error is None:
                future.cancel()
            elif not future.done():
                future.set_exception(error)


class FloorListener(Listener):
    """Listeners, each blocked in a read of its own."""

    def __init__(self, url: str, form: str) -> None:
        super().__init__(url, form)
        self._connections: list[Connection] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def listen(self, subjects: list[str], each: int, handler: str) -> None:
        """Groups are named anew, so that processes may share a subject."""
        hear = _hear_async if handler == "async" else _hear
        for subject in subjects:
            for _ in range(each):
                connection = await self._connect()
                client = await connection.call("CLIENT", "ID")
                group = f"group-{client}"
                await connection.call("XGROUP", "CREATE", subject, group, "$", "MKSTREAM")
                self._follow(hear(connection, subject, group, self.heard))

    async def answer(self, subjects: list[str]) -> None:
        """Questions are entries of ``subject``, answers entries of the stream that they name."""
        for subject in subjects:
            connection = await self._connect()
            await connection.call("XGROUP", "CREATE", subject, "responder", "$", "MKSTREAM")
            self._follow(_respond(connection, subject))

    async def stop(self) -> None:
        """Hang up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self._connections:
            connection.close()

    async def _connect(self) -> Connection:
        connection = await Connection.open(self.url)
        self._connections.append(connection)
        return connection

    def _follow(self, work: Any) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))


async def _hear(connection: Connection, subject: str, group: str, heard: Heard) -> None:
    read = ("XREADGROUP", "GROUP", group, "me", *_READ, subject, ">")
    take = heard.take
    reply = await connection.call(*read)
    while True:
        entries = reply[0][1]
        for _, fields in entries:
            take(fields[1])
        connection.call("XACK", subject, group, *(entry[0] for entry in entries))
        reply = await connection.call(*read)


async def _hear_async(connection: Connection, subject: str, group: str, heard: Heard) -> None:
    async def handle(data: bytes) -> None:
        heard.take(data)

    read = ("XREADGROUP", "GROUP", group, "me", *_READ, subject, ">")
    reply = await connection.call(*read)
    while True:
        entries = reply[0][1]
        for _, fields in entries:
            await handle(fields[1])
        connection.call("XACK", subject, group, *(entry[0] for entry in entries))
        reply = await connection.call(*read)


async def _respond(connection: Connection, subject: str) -> None:
    read = ("XREADGROUP", "GROUP", "responder", "me", *_READ, subject, ">")
    reply = await connection.call(*read)
    while True:
        entries = reply[0][1]
        for _, (_, data, _, answers) in entries:
            connection.call("XADD", answers, "*", "body", data)
        connection.call("XACK", subject, "responder", *(entry[0] for entry in entries))
        reply = await connection.call(*read)


class FloorSource(Source):
    """One connection, used by all sends."""

    def __init__(self, url: str, form: str) -> None:
        super().__init__(url, form)
        self._subjects: list[str] = []
        self._connection: Connection | None = None
        self._answers = ""
        self._dialogs = 0

    @property
    def connection(self) -> Connection:
        """The one connection."""
        assert self._connection is not None
        return self._connection

    async def start(self) -> None:
        """Connect."""
        self._connection = await Connection.open(self.url)

    async def open(self, subjects: list[str], per_subject: int) -> None:
        """Nothing is to be opened; sends take turns."""
        self._subjects = [subject for subject in subjects for _ in range(per_subject)]

    async def send(self, index: int, data: bytes) -> None:
        """An XADD."""
        subject = self._subjects[index % len(self._subjects)]
        await self.connection.call("XADD", subject, "*", "body", data)

    async def dialog(self, subject: str, data: bytes) -> None:
        """State of the dialog, question and read of the answer in one write."""
        call = self.connection.call
        if not self._answers:
            self._answers = f"answers-{await call('CLIENT', 'ID')}"
            await call("XGROUP", "CREATE", self._answers, "me", "$", "MKSTREAM")
        self._dialogs += 1
        call("HSET", f"{self._answers}-{self._dialogs}", "state", "open")
        call("XADD", subject, "*", "body", data, "answers", self._answers)
        read = ("XREADGROUP", "GROUP", "me", "me", *_READ, self._answers, ">")
        [[_, [[answer, _]]]] = await call(*read)
        call("XACK", self._answers, "me", answer)

    async def stop(self) -> None:
        """Hang up."""
        self.connection.close()


if __name__ == "__main__":
    main(source=FloorSource, listener=FloorListener)
