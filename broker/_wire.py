"""Wires: a connection that redis-py made, taken over. Bytes go out at once, replies come in order.

redis-py connects, authenticates and secures; what is read and written afterwards goes past its
client, straight between the socket and the parser. A connection without a socket, as the in-memory
double's, is read by redis-py.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import hiredis
from redis._parsers.base import BaseParser
from redis.asyncio.connection import AbstractConnection as Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ResponseError

from broker._connect import BROKEN

Reply = Any
OnReply = Callable[[Reply], None]
OnLost = Callable[[Exception], None]


class Wire(ABC):
    """One connection.

    ``on_reply`` gets each reply, an error as a ResponseError; ``on_lost`` gets, once, what broke
    the connection, unless it was closed from here.
    """

    def __init__(self, connection: Connection, on_reply: OnReply, on_lost: OnLost) -> None:
        self._connection = connection
        self._on_reply = on_reply
        self._on_lost: OnLost | None = on_lost

    @staticmethod
    def over(connection: Connection, on_reply: OnReply, on_lost: OnLost) -> Wire:
        """Take a connection over, once redis-py is done with it."""
        writer = getattr(connection, "_writer", None)
        if isinstance(writer, asyncio.StreamWriter):
            return Socket(connection, writer.transport, on_reply, on_lost)
        return Borrowed(connection, on_reply, on_lost)

    @abstractmethod
    def write(self, chunks: Iterable[bytes]) -> None:
        """Send; nothing where it is broken already."""

    async def close(self) -> None:
        """Disconnect; nobody is told."""
        self._on_lost = None
        await self._connection.disconnect(nowait=True)

    def _lost(self, error: Exception) -> None:
        on_lost, self._on_lost = self._on_lost, None
        if on_lost is not None:
            on_lost(error)


class Socket(Wire, asyncio.Protocol):
    """A socket, with TLS or without."""

    def __init__(
        self,
        connection: Connection,
        transport: asyncio.WriteTransport,
        on_reply: OnReply,
        on_lost: OnLost,
    ) -> None:
        super().__init__(connection, on_reply, on_lost)
        self._parser = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=BaseParser.parse_error,
            notEnoughData=_MORE,
        )
        self._transport = transport
        transport.set_protocol(self)

    def write(self, chunks: Iterable[bytes]) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"".join(chunks))

    def data_received(self, data: bytes) -> None:
        """Part of a reply, or many."""
        parser, on_reply = self._parser, self._on_reply
        try:
            parser.feed(data)
            while (reply := parser.gets()) is not _MORE:
                if isinstance(reply, RedisConnectionError):  # as LOADING: redis-py takes it so
                    raise reply
                on_reply(reply)
        except BROKEN as error:
            self._lost(error)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side, or the net, ended it."""
        self._lost(exc or RedisConnectionError("Connection closed by server."))


class Borrowed(Wire):
    """A connection that only redis-py can read."""

    def __init__(self, connection: Connection, on_reply: OnReply, on_lost: OnLost) -> None:
        super().__init__(connection, on_reply, on_lost)
        self._task = asyncio.create_task(self._read(), name="tympan-wire")

    def write(self, chunks: Iterable[bytes]) -> None:
        writer: Any = getattr(self._connection, "_writer", None)
        if writer is not None:
            writer.writelines(list(chunks))

    async def _read(self) -> None:
        try:
            while True:
                try:
                    reply = await self._connection.read_response(
                        disable_decoding=True, disconnect_on_error=False
                    )
                except ResponseError as error:
                    reply = error
                self._on_reply(reply)
        except BROKEN as error:
            self._lost(error)

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await super().close()


_MORE = object()
"""What the parser says where a reply is not whole yet."""


def pack(command: tuple[Any, ...]) -> bytes:
    """A command as Redis reads it."""
    packed: bytes = hiredis.pack_command(command)
    return packed
