"""Bells: one subscription for each process; they hint, and a lost one is only late."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from broker._batches import batches
from broker._connect import BROKEN, Connector, Redirected, fault, is_passing
from broker._wire import Wire, pack
from broker.errors import BrokerClosed, RedisError, RedisUnreachable
from broker.settings import Settings

log = logging.getLogger("tympan")

PUBLISH = "PUBLISH"
SPUBLISH = "SPUBLISH"
"""Sharded: in a Cluster only the nodes of the slot hear it. Redis 7 and later."""
ASK_AGAIN = 0.2
"""Seconds until a subscription that Redis cannot take now is asked for again."""
RANG = {b"message", b"smessage"}
BEGAN = {b"subscribe", b"ssubscribe"}
ENDED = {b"unsubscribe", b"sunsubscribe"}

Ring = Callable[[str, bytes], None]
Gap = Callable[[str], None]


class Hearing(Protocol):
    """Where a server's processes listen for bells."""

    async def subscribe(self, channel: str, bell: str = PUBLISH) -> None:
        """Returns once Redis confirmed. Raises RedisRefused, RedisUnreachable."""

    async def unsubscribe(self, channel: str) -> None:
        """Stop listening to a channel."""

    def trouble_of(self, channel: str) -> object | None:
        """What kept the channel from being heard last, if anything did."""


class Bells:
    """The one subscription of a process at one Redis: bells ring here.

    ``on_ring(channel, payload)`` for each bell. ``on_gap(channel)`` for each channel after it was
    not heard for a while: whoever reads its stream must look for itself. ``on_trouble()`` where
    there is no connection.
    """

    PING_EVERY = 5.0
    """Seconds at most; where the clock is looked at more often, as often."""

    def __init__(
        self,
        connector: Connector,
        settings: Settings,
        on_ring: Ring,
        on_gap: Gap,
        on_trouble: Callable[[], None] = lambda: None,
    ) -> None:
        self._connector = connector
        self._settings = settings
        self._on_ring = on_ring
        self._on_gap = on_gap
        self._on_trouble = on_trouble
        self._wanted: dict[str, asyncio.Future[None]] = {}
        self._bells: dict[str, str] = {}
        """By which command each channel's bell is rung."""
        self._new: set[str] = set()
        self._asked: deque[tuple[bool, list[str]]] = deque()
        """What Redis owes answers for, in order: whether to begin, and for which channels."""
        self.trouble: Exception | None = None
        """Why there was no connection, or no subscription, last."""
        self._is_closed = False
        self._wire: Wire | None = None
        self._broken: asyncio.Future[None] | None = None
        """Fails when the connection breaks."""
        self._task: asyncio.Task[None] | None = None
        self._heard = asyncio.Event()
        """Set by whatever Redis says."""
        connector.on_change.append(self._elsewhere)

    async def subscribe(self, channel: str, bell: str = PUBLISH) -> None:
        """Returns once Redis confirmed.

        Raises RedisRefused, Redirected where another node of a Cluster has the channel's slot,
        RedisUnreachable after the operation timeout, and BrokerClosed.
        """
        if self._is_closed:
            raise BrokerClosed("the broker is closed")
        confirmed = self._wanted.get(channel)
        if confirmed is None:
            confirmed = self._wanted[channel] = asyncio.get_running_loop().create_future()
            self._bells[channel] = bell
            self._new.add(channel)
            self._ask_for([channel])
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name="tympan-bells")
        try:
            async with asyncio.timeout(self._settings.operation_timeout):
                await asyncio.shield(confirmed)
        except TimeoutError:
            why = f": {self.trouble}" if self.trouble is not None else ""
            raise RedisUnreachable(
                f"no subscription to {channel} at {self._connector.url} within "
                f"{self._settings.operation_timeout:g} s{why}"
            ) from None

    async def unsubscribe(self, channel: str) -> None:
        """Stop listening to a channel."""
        if channel in self._wanted:
            prefix = self._prefix(channel)
            self.forget(channel, RedisUnreachable("the subscription was given up"))
            if self._write((prefix + "UNSUBSCRIBE", channel)):
                self._asked.append((False, [channel]))

    def trouble_of(self, channel: str) -> object | None:  # noqa: ARG002 (all are heard alike)
        """See :meth:`Hearing.trouble_of`."""
        return self.trouble

    def wants(self, channel: str) -> bool:
        """Whether a channel is heard here, or will be once there is a connection."""
        return channel in self._wanted

    def forget(self, channel: str, why: Exception) -> None:
        """A channel that is not to be heard here any more; who waits for it is told why."""
        self._new.discard(channel)
        self._bells.pop(channel, None)
        confirmed = self._wanted.pop(channel, None)
        if confirmed is not None and not confirmed.done():
            confirmed.set_exception(why)
            confirmed.exception()  # perhaps nobody waits for it

    async def close(self) -> None:
        """End the subscription."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def _prefix(self, channel: str) -> str:
        return "S" if self._bells[channel] == SPUBLISH else ""

    def _ask_for(self, channels: Iterable[str]) -> None:
        """Subscribe where there is a connection; sharded channels with those of their slot."""
        alike: dict[tuple[str, str], list[str]] = {}
        for channel in channels:
            prefix = self._prefix(channel)
            slot = channel.partition("}")[0] if prefix else ""
            alike.setdefault((prefix, slot), []).append(channel)
        for (prefix, _), together in alike.items():
            for some in batches(together):
                if self._write((prefix + "SUBSCRIBE", *some)):
                    self._asked.append((True, some))

    def _write(self, command: tuple[str, ...]) -> bool:
        """Write to the connection that is there. Whoever listens notices when it is broken."""
        if self._wire is None:
            return False
        self._wire.write((pack(command),))
        return True

    def _elsewhere(self) -> None:
        """Redis is at another address now."""
        self._break(RedisConnectionError("Redis is at another address now"))

    def _break(self, error: Exception) -> None:
        """Give the connection up, if there is one."""
        if self._broken is not None and not self._broken.done():
            self._broken.set_exception(error)

    async def _listen(self) -> None:
        pause = 0.05
        while True:
            self._heard.clear()
            try:
                await self._listen_once()
            except (RedisError, *BROKEN) as error:
                self._lost(error)
            except Exception as error:  # a fault of ours must not leave this process deaf
                log.exception("bells at %s: a bell could not be handled", self._connector.url)
                self._lost(error)
            pause = 0.05 if self._heard.is_set() else min(pause * 2, 2.0)
            await asyncio.sleep(pause)

    async def _listen_once(self) -> None:
        """Until the connection breaks. Raises what broke it."""
        connection = await self._connector.connect()
        broken = self._broken = asyncio.get_running_loop().create_future()
        wire = self._wire = Wire.over(connection, self._told, self._break)
        try:
            self._ask_for(list(self._wanted))
            pinging = asyncio.create_task(self._ping(), name="tympan-ping")
            try:
                await broken
            finally:
                pinging.cancel()
        finally:
            self._wire = self._broken = None
            self._asked.clear()
            await wire.close()

    def _lost(self, error: Exception) -> None:
        """No connection. Where that is no weather, who waits for a first subscription is told."""
        is_final = isinstance(error, RedisError) and not isinstance(error, RedisUnreachable)
        if is_final and str(error) != str(self.trouble):
            log.warning("no bells are heard: %s", error)
        self.trouble = error
        for channel, confirmed in list(self._wanted.items()):
            if confirmed.done():
                self._wanted[channel] = asyncio.get_running_loop().create_future()
            elif is_final and channel in self._new:
                self.forget(channel, error)
        self._on_trouble()

    def _told(self, message: Any) -> None:
        if isinstance(message, ResponseError):
            self._refused(message)
            return
        self._heard.set()
        if not isinstance(message, list) or len(message) != 3:
            return  # an answer to PING
        kind, channel, payload = message[0], message[1].decode(), message[2]
        if kind in RANG:
            if channel in self._wanted:
                self._on_ring(channel, payload)
        elif kind in BEGAN:
            self._answered(channel, begins=True)
            self._confirmed(channel)
        elif kind in ENDED and not self._answered(channel, begins=False):
            self._ended_by_redis(channel)

    def _answered(self, channel: str, *, begins: bool) -> bool:
        """Strike a channel off what Redis owes; whether it was owed."""
        if not self._asked or self._asked[0][0] is not begins or channel not in self._asked[0][1]:
            return False
        self._asked[0][1].remove(channel)
        if not self._asked[0][1]:
            self._asked.popleft()
        return True

    def _ended_by_redis(self, channel: str) -> None:
        """The slot left this node, or an operator interfered: ask again, and look meanwhile."""
        if channel in self._wanted:
            self._ask_for([channel])
            self._on_gap(channel)

    def _confirmed(self, channel: str) -> None:
        self.trouble = None
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
        clock, and it is asked for again on the next connection. One whose slot is elsewhere is.
        Weather is waited out.
        """
        begins, channels = self._asked.popleft() if self._asked else (False, [])
        if not begins:
            return
        redirected = Redirected.of(error)
        if redirected is not None:
            for channel in channels:
                self.forget(channel, redirected)
            self._on_trouble()
        elif is_passing(error):
            self.trouble = error
            asyncio.get_running_loop().call_later(ASK_AGAIN, self._ask_again, channels)
            self._on_trouble()
        else:
            for channel in self._new.intersection(channels):
                self.forget(channel, fault(error, self._connector.url, [channel]))

    def _ask_again(self, channels: list[str]) -> None:
        self._ask_for(channel for channel in channels if channel in self._wanted)

    async def _ping(self) -> None:
        """A connection that owes an answer for too long is dead, whatever TCP believes."""
        with contextlib.suppress(TimeoutError):
            while True:
                await asyncio.sleep(min(self.PING_EVERY, self._settings.resync))
                self._heard.clear()
                self._write(("PING",))
                async with asyncio.timeout(self._settings.reply_timeout):
                    await self._heard.wait()
        self._break(RedisConnectionError("no answer in time"))
