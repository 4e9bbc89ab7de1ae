"""Bells: one subscription for each process; they hint, and a lost one is only late."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from redis.asyncio.connection import Connection
from redis.exceptions import ResponseError

from broker._connect import BROKEN, Connector, fault, open_connection
from broker.errors import RedisError, RedisUnreachable
from broker.settings import Settings


class Bells:
    """The one subscription of a process: bells ring here, and a lost one is only late.

    ``on_ring(channel, payload)`` for each bell. ``on_gap(channel)`` for each channel after it was
    not heard for a while: whoever reads its stream must look for itself.
    """

    PING_EVERY = 5.0

    def __init__(
        self,
        connector: Connector,
        settings: Settings,
        on_ring: Callable[[str, bytes], None],
        on_gap: Callable[[str], None],
    ) -> None:
        self._connector = connector
        self._settings = settings
        self._on_ring = on_ring
        self._on_gap = on_gap
        self._wanted: dict[str, asyncio.Future[None]] = {}
        self._new: set[str] = set()
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._heard = 0.0

    async def subscribe(self, channel: str) -> None:
        """Returns once Redis confirmed.

        Raises RedisRefused, and RedisUnreachable after the operation timeout.
        """
        loop = asyncio.get_running_loop()
        confirmed = self._wanted.get(channel)
        if confirmed is None:
            confirmed = self._wanted[channel] = loop.create_future()
            self._new.add(channel)
            await self._send("SUBSCRIBE", channel)
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name="tympan-bells")
        try:
            async with asyncio.timeout(self._settings.operation_timeout):
                await asyncio.shield(confirmed)
        except TimeoutError:
            raise RedisUnreachable(
                f"no subscription at {self._connector.url} within "
                f"{self._settings.operation_timeout:g} s"
            ) from None

    async def unsubscribe(self, channel: str) -> None:
        """Stop listening to a channel."""
        self._new.discard(channel)
        if self._wanted.pop(channel, None) is not None:
            await self._send("UNSUBSCRIBE", channel)

    async def close(self) -> None:
        """End the subscription."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _send(self, *command: str) -> None:
        if self._connection is not None:
            with contextlib.suppress(*BROKEN):  # the reader notices, and subscribes anew
                await self._connection.send_packed_command(
                    self._connection.pack_command(*command), check_health=False
                )

    async def _listen(self) -> None:
        pause = 0.05
        while True:
            try:
                self._connection = await open_connection(self._connector, self._settings)
                pinging = asyncio.create_task(self._ping(self._connection), name="tympan-ping")
                try:
                    await self._read(self._connection)
                finally:
                    pinging.cancel()
                    connection, self._connection = self._connection, None
                    await connection.disconnect(nowait=True)
            except (RedisError, ResponseError, *BROKEN):
                for channel, confirmed in self._wanted.items():
                    if confirmed.done():
                        self._wanted[channel] = asyncio.get_running_loop().create_future()
            await asyncio.sleep(pause)
            pause = 0.05 if self._heard else min(pause * 2, 2.0)
            self._heard = 0.0

    async def _read(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        channels = list(self._wanted)
        for i in range(0, len(channels), 256):
            await self._send("SUBSCRIBE", *channels[i : i + 256])
        while True:
            try:
                message = await connection.read_response(
                    disable_decoding=True, disconnect_on_error=False
                )
            except ResponseError as error:
                self._refused(error)
                continue
            self._heard = loop.time()
            if not isinstance(message, list) or len(message) != 3:
                continue  # an answer to PING
            kind, channel, payload = message[0], message[1].decode(), message[2]
            if kind == b"message":
                if channel in self._wanted:
                    self._on_ring(channel, payload)
            elif kind == b"subscribe":
                self._confirmed(channel)
            elif kind == b"unsubscribe" and channel in self._wanted:
                await self._send("SUBSCRIBE", channel)
                self._on_gap(channel)

    def _confirmed(self, channel: str) -> None:
        confirmed = self._wanted.get(channel)
        if confirmed is None:
            return
        if not confirmed.done():
            confirmed.set_result(None)
        if channel in self._new:
            self._new.discard(channel)
        else:
            self._on_gap(channel)

    def _refused(self, error: ResponseError) -> None:
        """Redis refuses a subscription: whoever waits for its first one is told.

        One that was confirmed on an earlier connection is not given up: its stream is read by the
        clock, and it is asked for again on the next connection.
        """
        for channel in [channel for channel in self._wanted if channel in self._new]:
            self._new.discard(channel)
            confirmed = self._wanted.pop(channel)
            if not confirmed.done():
                confirmed.set_exception(fault(error, self._connector.url))

    async def _ping(self, connection: Connection) -> None:
        """A connection that is silent for three pings is dead, whatever TCP believes."""
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        while loop.time() - self._heard < 3 * self.PING_EVERY:
            await asyncio.sleep(self.PING_EVERY)
            await self._send("PING")
        await connection.disconnect(nowait=True)
