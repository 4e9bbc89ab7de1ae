"""The link to Redis: redis-py connects, a thin multiplexer talks.

redis-py makes and authenticates each connection. On it, calls of one turn of the event loop leave
in one write and resolve as their replies come. redis-py's own retries are off: a write whose reply
is lost has an unknown outcome, and only the caller knows how to ask again without doing it twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from broker._connect import BROKEN, Connector, fault, identify, is_passing, open_connection
from broker._scripts import Arg, Call
from broker.errors import DurabilityUnavailable
from broker.settings import Durability, Settings

LARGE = 65_536
"""Calls that carry more than this many bytes take a lane of their own: small ones do not wait."""
DURABLE_LANES = 16
"""Calls of one process that wait for replicas or disk at the same time."""

Command = Sequence[Arg]
Reply = Any


class LinkLost(Exception):
    """The connection broke, or owed an answer for too long: the call's outcome is unknown."""


class Lane:
    """One multiplexed connection. Connects when it is needed; after a break, again."""

    def __init__(self, connector: Connector, settings: Settings) -> None:
        self._connector = connector
        self._settings = settings
        self._connection: Connection | None = None
        self._connecting: asyncio.Lock = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None
        self._pending: deque[tuple[asyncio.Future[Reply], float]] = deque()
        self._out: list[bytes] = []
        self._watch: asyncio.TimerHandle | None = None
        self.run_id = ""
        self.version: tuple[int, ...] = ()

    async def request(
        self, build: Callable[[str], Iterable[Command]], patience: float = 0.0
    ) -> list[Reply]:
        """Send commands in one write and await their replies.

        ``build`` gets the run id of the Redis process at the other end. ``patience``: seconds
        that the answer may take beyond the reply timeout. Error replies are returned, not raised.
        Raises LinkLost (outcome unknown), RedisUnreachable (not sent), RedisRefused, RedisTooOld.
        """
        connection = self._connection or await self._connect()
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Reply]] = []
        due = loop.time() + self._settings.reply_timeout + patience
        if not self._out:
            loop.call_soon(self._flush)
        for command in build(self.run_id):
            future: asyncio.Future[Reply] = loop.create_future()
            self._pending.append((future, due))
            futures.append(future)
            self._out.extend(connection.pack_command(*command))
        if len(self._pending) == len(futures):
            self._watch_over(loop, due)
        return [await future for future in futures]

    async def close(self) -> None:
        """Disconnect; whoever waits finds the link lost."""
        self._break(LinkLost("closed"))
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader

    async def _connect(self) -> Connection:
        async with self._connecting:
            if self._connection is not None:
                return self._connection
            connection = await open_connection(self._connector, self._settings)
            self.run_id, self.version = await identify(
                connection, self._connector.url, self._settings.reply_timeout
            )
            self._connection = connection
            self._reader = asyncio.create_task(self._read(connection), name="tympan-lane")
            return connection

    def _flush(self) -> None:
        connection, out = self._connection, self._out
        if not out:
            return
        self._out = []
        writer = getattr(connection, "_writer", None)
        if writer is None:
            return
        try:
            writer.writelines(out)
        except BROKEN as error:
            self._break(LinkLost(str(error)))

    async def _read(self, connection: Connection) -> None:
        try:
            while True:
                try:
                    reply = await connection.read_response(
                        disable_decoding=True, disconnect_on_error=False
                    )
                except ResponseError as error:
                    reply = error
                if not self._pending:
                    raise RedisConnectionError("a reply that nobody asked for")
                future, _ = self._pending.popleft()
                if not future.done():
                    future.set_result(reply)
        except BROKEN as error:
            if self._connection is connection:
                self._break(LinkLost(str(error) or type(error).__name__))
        finally:
            await connection.disconnect(nowait=True)

    def _break(self, error: LinkLost) -> None:
        connection, self._connection = self._connection, None
        pending, self._pending = self._pending, deque()
        self._out = []
        for future, _ in pending:
            if not future.done():
                future.set_exception(LinkLost(*error.args))
                future.exception()  # a caller that was cancelled never asks for it
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if connection is not None and self._reader is not None:
            self._reader.cancel()

    def _watch_over(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        if self._watch is None:
            self._watch = loop.call_at(due, self._overdue, loop)

    def _overdue(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watch = None
        if not self._pending:
            return
        due = self._pending[0][1]
        if due > loop.time():
            self._watch_over(loop, due)
        else:
            self._break(LinkLost("no answer in time"))


class Link:
    """Lanes to one Redis: common, large, and some that wait for replicas or disk."""

    def __init__(self, connector: Connector, settings: Settings) -> None:
        self.connector = connector
        self.settings = settings
        self._common = Lane(connector, settings)
        self._large = Lane(connector, settings)
        self._durable: list[Lane] = []
        self._durable_idle: list[Lane] = []
        self._durable_room = asyncio.Semaphore(DURABLE_LANES)

    @property
    def where(self) -> str:
        """The URL, without its password."""
        return self.connector.url

    async def close(self) -> None:
        for lane in (self._common, self._large, *self._durable):
            await lane.close()

    async def command(self, *command: Arg, large: bool = False) -> Reply:
        """One plain command. Raises as :meth:`run` does."""
        lane = self._large if large else self._common
        (reply,) = await lane.request(lambda _: (command,))
        return self._checked(reply)

    async def run(self, call: Call, lead: Sequence[Arg]) -> list[Any]:
        """Run a script: its ARGV are the run id, ``lead``, and the call's own.

        Raises LinkLost where the outcome is unknown, RedisUnreachable where nothing was sent, and
        the typed error for what Redis refused.
        """
        return (await self._eval(self._lane_for(call), call, lead))[0]

    async def run_durably(self, call: Call, lead: Sequence[Arg]) -> tuple[list[Any], bool]:
        """The same, and whether replicas or disk hold everything up to it, as the settings ask."""
        settings = self.settings
        wait = await self._wait_command()
        if wait is None:
            return await self.run(call, lead), True
        async with self._durable_lane() as lane:
            answer, held = await self._eval(lane, call, lead, wait, settings.durability_timeout)
        if isinstance(held, Exception):
            raise DurabilityUnavailable(
                f"{self.where} cannot wait for {settings.durability}: {held}"
            )
        if settings.durability is Durability.REPLICA:
            return answer, int(held) >= settings.replicas
        return answer, int(held[0]) >= 1

    @contextlib.asynccontextmanager
    async def _durable_lane(self) -> AsyncIterator[Lane]:
        """A lane of one's own: a wait for replicas or disk blocks its connection."""
        async with self._durable_room:
            if not self._durable_idle:
                lane = Lane(self.connector, self.settings)
                self._durable.append(lane)
                self._durable_idle.append(lane)
            lane = self._durable_idle.pop()
            try:
                yield lane
            finally:
                self._durable_idle.append(lane)

    async def check_durability(self) -> None:
        """Raises DurabilityUnavailable where this Redis can never give what the settings ask."""
        await self._wait_command()

    async def _wait_command(self) -> Command | None:
        milliseconds = math.ceil(self.settings.durability_timeout * 1000)
        match self.settings.durability:
            case Durability.MEMORY:
                return None
            case Durability.REPLICA:
                return ("WAIT", self.settings.replicas, milliseconds)
            case Durability.FSYNC:
                return await self._fsync_command(milliseconds)

    async def _fsync_command(self, milliseconds: int) -> Command | None:
        facts = await self.command("CONFIG", "GET", "append*")
        config = {facts[i].decode(): facts[i + 1].decode() for i in range(0, len(facts), 2)}
        if config.get("appendonly") != "yes":
            raise DurabilityUnavailable(
                f"durability=fsync needs an append-only file; on {self.where} appendonly is "
                f"{config.get('appendonly', 'unknown')}: CONFIG SET appendonly yes"
            )
        if config.get("appendfsync") == "always":
            return None
        if self._common.version < (7, 2):
            raise DurabilityUnavailable(
                f"durability=fsync needs Redis 7.2 or later, or appendfsync always; {self.where} "
                f"is {'.'.join(map(str, self._common.version))} with appendfsync "
                f"{config.get('appendfsync')}: CONFIG SET appendfsync always"
            )
        return ("WAITAOF", 1, 0, milliseconds)

    def _lane_for(self, call: Call) -> Lane:
        size = sum(len(arg) for arg in call.args if isinstance(arg, bytes))
        return self._large if size > LARGE else self._common

    async def _eval(
        self,
        lane: Lane,
        call: Call,
        lead: Sequence[Arg],
        then: Command | None = None,
        patience: float = 0.0,
    ) -> tuple[list[Any], Reply]:
        script = call.script
        tail = (*lead, *call.args)

        def commands(run: str) -> Iterable[Command]:
            yield ("EVALSHA", script.sha, len(call.keys), *call.keys, run, *tail)
            if then is not None:
                yield then

        replies = await lane.request(commands, patience)
        if isinstance(replies[0], NoScriptError):
            await lane.request(lambda _: (("SCRIPT", "LOAD", script.source),))
            replies = await lane.request(commands, patience)
        return self._checked(replies[0]), replies[-1]

    def _checked(self, reply: Reply) -> Reply:
        if isinstance(reply, ResponseError):
            if is_passing(reply):
                raise LinkLost(str(reply))
            raise fault(reply, self.where)
        return reply
