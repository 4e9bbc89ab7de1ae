"""A TCP proxy on the loopback interface that misbehaves on demand."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from types import TracebackType
from typing import Literal, Self

from workers.embedded import HOST, free_port

_CHUNK = 65_536
_BACKLOG = 128
_ON_ITS_WAY = 64
"""Chunks of one direction that are received and not yet delivered."""
# Closing with a linger time of nought sends a reset and forgets whatever was not delivered.
_RESET = struct.pack("ii", 1, 0)

Way = Literal["requests", "replies"]
"""A direction: to the server, or from it."""
_WAYS: tuple[Way, Way] = ("requests", "replies")


class Proxy:
    """Forwards connections to a server, and breaks them as told.

    Use it as an async context manager; everything else is synchronous and takes effect before
    the event loop next waits. The faults are independent of each other and can be combined.

    Args:
        target_host: host of the server to forward to.
        target_port: its TCP port.
    """

    def __init__(self, target_host: str, target_port: int) -> None:
        self._target = (target_host, target_port)
        self._port: int | None = None
        self._listener: socket.socket | None = None
        self._links: set[_Link] = set()
        self._flowing: dict[Way, asyncio.Event] = {way: asyncio.Event() for way in _WAYS}
        self.stall(on=False)
        self._delay, self._jitter = 0.0, 0.0
        self._bandwidth: float | None = None
        self._free: dict[Way, float] = dict.fromkeys(_WAYS, 0.0)
        """When, by the event loop's clock, the last byte that was let in has passed."""
        self._drop_probability = 0.0
        self._rng = random.Random()
        self._dropped = 0
        self._marker: bytes | None = None
        self._spared: int | None = None

    @property
    def target(self) -> tuple[str, int]:
        """Host and port of the server; set it for connections to come, as a failover does."""
        return self._target

    @target.setter
    def target(self, target: tuple[str, int]) -> None:
        self._target = target

    @property
    def port(self) -> int:
        """TCP port on 127.0.0.1; it stays the same for the proxy's life.

        Raises:
            RuntimeError: the proxy was not entered.
        """
        if self._port is None:
            raise RuntimeError("the proxy is not open: use it as an async context manager")
        return self._port

    @property
    def url(self) -> str:
        """Address for Redis clients: ``redis://127.0.0.1:<port>/0``."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def connections(self) -> int:
        """Number of connections being forwarded now."""
        return len(self._links)

    @property
    def dropped(self) -> int:
        """Number of replies swallowed so far."""
        return self._dropped

    def cut(self) -> int:
        """Reset all connections, losing what is on its way; return how many there were."""
        links = list(self._links)
        self._links.clear()
        for link in links:
            for task in link.tasks:
                task.cancel()
        return len(links)

    def refuse(self, on: bool) -> None:
        """Refuse new connections, as a closed port does, or take them again.

        Existing connections go on; combine with :meth:`cut` for a server that is down.
        """
        if on:
            self._close()
        elif self._listener is None:
            self._listen()

    def stall(self, on: bool, only: Way | None = None) -> None:
        """Hold back all bytes, or let them go on; nothing is lost.

        Connections are taken meanwhile, and the end of one is held back like its bytes.

        Args:
            on: whether to hold them back.
            only: the one direction that is meant: its connections are half open then.
        """
        for way in _WAYS if only is None else (only,):
            if on:
                self._flowing[way].clear()
            else:
                self._flowing[way].set()

    def silence(self) -> int:
        """Have the connections of now carry nothing any more, and tell no side of its end.

        New ones are not concerned; return how many there were.
        """
        for link in self._links:
            link.is_silent = True
        return len(self._links)

    def delay(self, seconds: float, jitter: float = 0.0, rng: random.Random | None = None) -> None:
        """Deliver each chunk later, in its order; a round trip takes twice as long.

        Args:
            seconds: for each direction; 0 for none.
            jitter: up to so many seconds more, drawn for each chunk.
            rng: source of the draws, for runs that repeat; None keeps the last one.
        """
        self._delay, self._jitter = seconds, jitter
        self._rng = self._rng if rng is None else rng

    def narrow(self, bandwidth: float | None) -> None:
        """Let so many bytes a second pass in each direction, all connections together.

        Args:
            bandwidth: bytes a second; None for as many as come.
        """
        self._bandwidth = bandwidth
        self._free = dict.fromkeys(_WAYS, 0.0)

    def drop_replies(self, probability: float, rng: random.Random | None = None) -> None:
        """Swallow replies: the command was executed, but its answer is lost with the connection.

        It applies to every chunk from the server, so also to the replies of a client's opening
        handshake; with probability 1 no new connection gets through.

        Args:
            probability: from 0 (off) to 1, drawn for each chunk.
            rng: source of the draws, for runs that repeat; None keeps the last one.
        """
        if not 0.0 <= probability <= 1.0:
            raise ValueError(f"probability must be between 0 and 1, not {probability}")
        self._drop_probability = probability
        if rng is not None:
            self._rng = rng

    def lose_reply(self, number: int | None) -> None:
        """Swallow, once, the reply that comes after so many others from now on.

        What a server says unasked, to subscribers, is no reply.

        Args:
            number: how many come through before, on whatever connection; None for no loss.
        """
        self._spared = number

    def lose_reply_to(self, marker: bytes) -> None:
        """Swallow, once, the reply to the next command that holds these bytes.

        The command reaches the server; what the server says next on that connection is lost with
        it. The client must not have other commands under way there.
        """
        self._marker = marker

    async def __aenter__(self) -> Self:
        self._port = free_port()
        self._listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        tasks = [task for link in self._links for task in link.tasks]
        self._close()
        self.cut()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _listen(self) -> None:
        listener = socket.socket()
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setblocking(False)
            listener.bind((HOST, self.port))
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
        asyncio.get_running_loop().add_reader(listener, self._take, listener)
        self._listener = listener

    def _close(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _take(self, listener: socket.socket) -> None:
        """Take one waiting connection and start forwarding it."""
        try:
            client, _ = listener.accept()
        except OSError:  # the client went away again before its turn
            return
        link = _Link(client)
        self._links.add(link)
        task = asyncio.get_running_loop().create_task(self._forward(link))
        link.tasks.append(task)
        # Not a `finally` of the task: one that is cancelled before its first step never runs it.
        task.add_done_callback(lambda _: self._end(link))

    def _end(self, link: _Link) -> None:
        self._links.discard(link)
        link.close()

    async def _forward(self, link: _Link) -> None:
        """Carry one connection until either side ends it or a fault does."""
        # A side that is gone or never came is answered by resetting the other one.
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_connect(link.server, self._target)
            pumps = [
                asyncio.create_task(self._carry(link, replies=False)),
                asyncio.create_task(self._carry(link, replies=True)),
            ]
            link.tasks += pumps
            try:
                done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for pump in done:
                    pump.result()
                link.orderly = True
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)

    async def _carry(self, link: _Link, *, replies: bool) -> None:
        """Forward one direction until its end.

        Raises:
            OSError: a side broke off, or a reply was swallowed.
        """
        source, sink = (link.server, link.client) if replies else (link.client, link.server)
        way = _WAYS[replies]
        arriving: asyncio.Queue[tuple[float, bytes | OSError]] = asyncio.Queue(_ON_ITS_WAY)
        receiving = asyncio.create_task(self._receive(source, arriving))
        try:
            while chunk := await self._passed(link, way, *await arriving.get()):
                if not replies and self._marker is not None and self._marker in chunk:
                    self._marker, link.loses = None, True
                is_reply, link.owes = replies and link.owes, not replies
                if replies and (link.loses or self._is_dropped(is_reply=is_reply)):
                    self._dropped += 1
                    raise ConnectionAbortedError("reply swallowed")
                await asyncio.get_running_loop().sock_sendall(sink, chunk)
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    async def _receive(
        self, source: socket.socket, arriving: asyncio.Queue[tuple[float, bytes | OSError]]
    ) -> None:
        """Read one direction; each chunk with the time when it is due at the other side.

        The last one is empty, or says how the side broke off.
        """
        loop = asyncio.get_running_loop()
        chunk: bytes | OSError = b"first"
        while isinstance(chunk, bytes) and chunk:
            try:
                chunk = await loop.sock_recv(source, _CHUNK)
            except OSError as error:
                chunk = error
            late = self._rng.uniform(0, self._jitter) if self._jitter else 0.0
            await arriving.put((loop.time() + self._delay + late, chunk))

    async def _passed(self, link: _Link, way: Way, due: float, chunk: bytes | OSError) -> bytes:
        """Return a chunk when it may be delivered.

        Raises:
            OSError: the side broke off.
        """
        loop = asyncio.get_running_loop()
        if isinstance(chunk, bytes):
            if self._bandwidth is not None:
                due = self._free[way] = max(due, self._free[way]) + len(chunk) / self._bandwidth
            await asyncio.sleep(max(0.0, due - loop.time()))
            await self._flowing[way].wait()
        if link.is_silent:
            await loop.create_future()
        if isinstance(chunk, OSError):
            raise chunk
        return chunk

    def _is_dropped(self, *, is_reply: bool) -> bool:
        if is_reply and self._spared is not None:
            self._spared = self._spared - 1 if self._spared else None
            if self._spared is None:
                return True
        # Nothing is drawn while the fault is off, so that seeded runs repeat.
        return bool(self._drop_probability) and self._rng.random() < self._drop_probability


class _Link:
    """The two sockets of a forwarded connection, and the tasks at work on it."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.server = socket.socket()
        self.tasks: list[asyncio.Task[None]] = []
        self.orderly = False
        self.loses = False
        self.is_silent = False
        self.owes = False
        """Whether the client said something since the server did."""
        for end in (self.client, self.server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Close both sides: after an orderly end as TCP does, else with a reset."""
        for end in (self.client, self.server):
            if not self.orderly:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()
