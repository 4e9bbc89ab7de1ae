"""A gate on one process's way to Redis: it holds one call of a script, or the reply to it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

from workers.embedded import HOST

CHUNK = 65_536
LEAD = len(b"$7\r\nEVALSHA\r\n$40\r\n")
"""Bytes between the beginning of a call's arguments and its script's SHA-1."""


class Gate:
    """Forwards connections to the Redis on a loopback port; use it as an async context manager.

    What is held stays held when the process behind it dies, as packets do that are on their way:
    :meth:`let_go` has it arrive after all.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._marker = b""
        self._calls = 0
        self._holds_reply = False
        self._caught = asyncio.Event()
        self._open = asyncio.Event()
        self._reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._links: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Address for the process behind it."""
        assert self._server is not None
        return f"redis://{HOST}:{self._server.sockets[0].getsockname()[1]}/0"

    @property
    def has_caught(self) -> bool:
        """Whether it holds something, or held it."""
        return self._caught.is_set()

    def hold(self, sha: str, *, reply: bool, call: int = 1) -> None:
        """Hold the n-th call from now of the script with this SHA-1, or the reply to it."""
        self._marker, self._calls, self._holds_reply = sha.encode(), call, reply

    async def caught(self) -> None:
        """When it holds that; a reply is held once Redis has given it."""
        await self._caught.wait()

    async def let_go(self) -> bytes:
        """Let it go on its way; what Redis answers, or answered, to the call."""
        self._open.set()
        return await self._reply

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, HOST, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        task.add_done_callback(self._links.discard)
        streams = [writer]
        try:
            server_reader, server_writer = await asyncio.open_connection(HOST, self._target)
            streams.append(server_writer)
            link = _Link(self)
            replies = asyncio.create_task(link.replies(server_reader, writer))
            try:
                await link.requests(reader, server_writer)
                if link.is_held:  # the process is gone, its call is not
                    await replies
            finally:
                replies.cancel()
                await asyncio.gather(replies, return_exceptions=True)
        except (ConnectionError, asyncio.CancelledError):  # a side is gone, or the gate closes
            return
        finally:
            for each in streams:
                each.close()


class _Link:
    """One forwarded connection."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.is_held = False
        """Whether the call came by here."""
        self.is_asked = False
        """Whether Redis was given it."""

    async def requests(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        gate = self._gate
        while chunk := await self._read(source):
            marker = gate._marker
            if marker and marker in chunk:
                gate._calls -= 1
                if gate._calls == 0:
                    self.is_held = True
                    gate._marker = b""
                    if not gate._holds_reply:
                        begins = chunk.rindex(b"*", 0, chunk.index(marker) - LEAD)
                        sink.write(chunk[:begins])
                        chunk = chunk[begins:]
                        gate._caught.set()
                        await gate._open.wait()
                    self.is_asked = True
            sink.write(chunk)
            await sink.drain()

    async def replies(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        gate = self._gate
        while chunk := await self._read(source):
            if self.is_asked and not gate._reply.done():
                gate._reply.set_result(chunk)
                if gate._holds_reply:
                    gate._caught.set()
                    await gate._open.wait()
            with contextlib.suppress(ConnectionError):
                sink.write(chunk)
                await sink.drain()

    @staticmethod
    async def _read(source: asyncio.StreamReader) -> bytes:
        """The next bytes; none where the other side is gone."""
        try:
            return await source.read(CHUNK)
        except ConnectionError:
            return b""
