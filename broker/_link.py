"""The link to Redis: redis-py connects, a thin multiplexer talks.

On each connection calls of one turn of the event loop leave
in one write and resolve as their replies come. redis-py's own retries are off: a write whose reply
is lost has an unknown outcome, and only the caller knows how to ask again without doing it twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Protocol

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from broker import _outage
from broker._connect import (
    Connector,
    Process,
    Redirected,
    fault,
    identify,
    is_between_nodes,
    is_passing,
    is_read_only,
)
from broker._scripts import Arg, Call
from broker._waiting import LinkLost
from broker._wire import Wire, pack
from broker.errors import BrokerClosed, DurabilityUnavailable, RedisUnreachable
from broker.settings import Durability, Settings

LARGE = 65_536
"""Calls that carry more bytes in one argument take a lane of their own: small ones do not wait."""
DURABLE_LANES = 16
"""Calls of one process that wait for replicas or disk at the same time."""
ALWAYS = frozenset({"CLUSTER", "PING"})
"""Commands that a process answers although it does nothing else now."""

Command = tuple[Arg, ...]
Reply = Any


NOBODY = Process("", (), "")
ASKING: Command = ("ASKING",)
"""Goes before a command for a slot that is on its way to this node."""


class BetweenNodes(Exception):
    """The slot is moving, and some of the call's keys are on either node: ask again."""


class Lane:
    """One multiplexed connection. Connects when it is needed; after a break, again."""

    def __init__(
        self,
        connector: Connector,
        settings: Settings,
        on_silence: Callable[[], None] = lambda: None,
    ) -> None:
        self._connector = connector
        self._settings = settings
        self._on_silence = on_silence
        """Called where there is no connection, or one owes an answer for too long."""
        self._wire: Wire | None = None
        self._connecting: asyncio.Lock = asyncio.Lock()
        self._pending: deque[tuple[asyncio.Future[Reply], float]] = deque()
        self._out: list[bytes] = []
        self._watch: asyncio.TimerHandle | None = None
        self._broken: set[asyncio.Task[None]] = set()
        """Wires that are being closed."""
        self._is_closed = False
        self._heard = 0.0
        """When it answered last, by the event loop's clock."""
        self.process = NOBODY
        """What it reached last."""

    @property
    def is_connected(self) -> bool:
        """Whether :meth:`send` may be called."""
        return self._wire is not None

    async def connect(self) -> None:
        """Connect, where it is not.

        Raises RedisUnreachable, RedisRefused, RedisTooOld, and BrokerClosed.
        """
        try:
            await self._connect()
        except RedisUnreachable:
            self._on_silence()
            raise

    def send(self, command: Command, patience: float = 0.0) -> asyncio.Future[Reply]:
        """Send a command: at once, or while others are under way with all of this turn of the loop.

        ``patience``: seconds that the answer may take beyond the reply timeout. The future's result
        is the reply, an error of Redis too; its exception is LinkLost.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        if self._wire is None:
            _fail(future, "the connection broke")
            return future
        due = loop.time() + self._settings.reply_timeout + patience
        if self._out:
            self._out.append(pack(command))
        elif self._pending:
            self._out.append(pack(command))
            loop.call_soon(self._flush)
        else:  # nobody to travel with
            self._wire.write((pack(command),))
        self._pending.append((future, due))
        if self._watch is None:
            self._watch = loop.call_at(due, self._overdue, loop)
        return future

    def drop(self, why: str) -> None:
        """Give the connection up; whoever waits finds the link lost, and the next call connects."""
        self._break(why)

    async def close(self) -> None:
        """Disconnect for good; whoever waits finds the link lost."""
        self._is_closed = True
        self.drop("closed")
        await asyncio.gather(*self._broken)

    async def _connect(self) -> None:
        async with self._connecting:
            if self._wire is not None:
                return
            self._refuse_closed()
            connection = await self._connector.connect()
            self.process = await identify(
                connection, self._connector.url, self._settings.reply_timeout
            )
            if self._is_closed:
                await connection.disconnect(nowait=True)
                self._refuse_closed()
            self._wire = Wire.over(connection, self._replied, self._lost)

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise BrokerClosed("the broker is closed")

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._wire is not None:
            self._wire.write(out)

    def _replied(self, reply: Reply) -> None:
        if not self._pending:
            raise RedisConnectionError("a reply that nobody asked for")
        self._heard = time.monotonic()
        future, _ = self._pending.popleft()
        if not future.done():
            future.set_result(reply)

    def _lost(self, error: Exception) -> None:
        self._break(str(error) or type(error).__name__)

    def _break(self, why: str) -> None:
        wire, self._wire = self._wire, None
        pending, self._pending = self._pending, deque()
        self._out = []
        for future, _ in pending:
            if not future.done():
                _fail(future, why)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if wire is not None:
            closing = asyncio.create_task(wire.close())
            self._broken.add(closing)
            closing.add_done_callback(self._broken.discard)

    def _overdue(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watch = None
        if not self._pending:
            return
        # Where much is under way an answer takes its time: whoever answers others is not silent.
        due = max(self._pending[0][1], self._heard + self._settings.reply_timeout)
        if due > loop.time():
            self._watch = loop.call_at(due, self._overdue, loop)
        else:
            self._on_silence()
            self._break("no answer in time")


def _fail(future: asyncio.Future[Reply], why: str) -> None:
    future.set_exception(LinkLost(why))
    future.exception()  # a caller that was cancelled never asks for it


class Asking(Protocol):
    """Asks the Redis process that has a key."""

    @property
    def where(self) -> str:
        """What to call it in messages."""

    async def command(self, *command: Arg, large: bool = False) -> Reply:
        """One plain command. Raises as :meth:`Link.run` does."""

    async def run(self, call: Call, lead: Sequence[Arg]) -> list[Any]:
        """Run a script; see :meth:`Link.run`."""

    async def run_durably(self, call: Call, lead: Sequence[Arg]) -> tuple[list[Any], bool]:
        """Run a script, and wait for replicas or disk; see :meth:`Link.run_durably`."""


class Link:
    """Lanes to one Redis: common, large, and some that wait for replicas or disk."""

    def __init__(self, connector: Connector, settings: Settings) -> None:
        self.connector = connector
        self.settings = settings
        self._common = Lane(connector, settings, self._silent)
        self._large = Lane(connector, settings, self._silent)
        self._durable: list[Lane] = []
        self._durable_idle: list[Lane] = []
        self._durable_room = asyncio.Semaphore(DURABLE_LANES)
        self._is_done_in_memory = settings.durability is Durability.MEMORY
        self._refuses = False
        """Whether it said last that it does nothing now."""

    @property
    def where(self) -> str:
        """The URL, without its password."""
        return self.connector.url

    @property
    def process(self) -> Process:
        """The Redis process that was reached last."""
        return self._common.process

    def _silent(self) -> None:
        if self.process is not NOBODY:  # what never answered, its caller tells of
            _outage.began(self.where)

    def drop(self, why: str) -> None:
        """Give all connections up; the next call connects again."""
        for lane in self._lanes:
            lane.drop(why)

    async def close(self) -> None:
        """Disconnect for good."""
        for lane in self._lanes:
            await lane.close()

    @property
    def _lanes(self) -> tuple[Lane, ...]:
        return (self._common, self._large, *self._durable)

    async def command(self, *command: Arg, large: bool = False, asking: bool = False) -> Reply:
        """One plain command. Raises as :meth:`run` does."""
        lane = self._large if large else self._common
        if not lane.is_connected:
            await lane.connect()
        if asking:
            lane.send(ASKING)
        reply = await lane.send(command)
        return self._checked(reply, lane, command[1:], serves=command[0] not in ALWAYS)

    async def run(self, call: Call, lead: Sequence[Arg], *, asking: bool = False) -> list[Any]:
        """Run a script: its ARGV are the run id, ``lead``, and the call's own.

        ``asking``: the node has this slot only for those who ask, while it moves (Cluster).

        Raises LinkLost where the outcome is unknown; where nothing was done RedisUnreachable,
        Redirected, or the typed error for what Redis refused.
        """
        return await self._eval(self._lane_for(call), call, lead, asking=asking)

    async def run_durably(
        self, call: Call, lead: Sequence[Arg], *, asking: bool = False
    ) -> tuple[list[Any], bool]:
        """The same, and whether replicas or disk hold everything up to it, as the settings ask."""
        settings = self.settings
        wait = None if self._is_done_in_memory else await self._wait_command()
        if wait is None:
            return await self._eval(self._lane_for(call), call, lead, asking=asking), True
        waiting: list[asyncio.Future[Reply]] = []
        async with self._durable_lane() as lane:
            patience = settings.durability_timeout
            answer = await self._eval(
                lane,
                call,
                lead,
                patience=patience,
                asking=asking,
                then=lambda: waiting.append(lane.send(wait, patience)),
            )
            held = await waiting[-1]
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
                lane = Lane(self.connector, self.settings, self._silent)
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
        if self.process.version < (7, 2):
            raise DurabilityUnavailable(
                f"durability=fsync needs Redis 7.2 or later, or appendfsync always; {self.where} "
                f"is {'.'.join(map(str, self.process.version))} with appendfsync "
                f"{config.get('appendfsync')}: CONFIG SET appendfsync always"
            )
        return ("WAITAOF", 1, 0, milliseconds)

    def _lane_for(self, call: Call) -> Lane:
        for arg in call.args:
            if isinstance(arg, bytes) and len(arg) > LARGE:
                return self._large
        return self._common

    async def _eval(
        self,
        lane: Lane,
        call: Call,
        lead: Sequence[Arg],
        *,
        patience: float = 0.0,
        asking: bool = False,
        then: Callable[[], None] = lambda: None,
    ) -> list[Any]:
        """The script's reply. ``then`` sends what follows it."""
        if not lane.is_connected:
            await lane.connect()
        script = call.script
        command = (
            "EVALSHA",
            script.sha,
            len(call.keys),
            *call.keys,
            lane.process.run_id,
            *lead,
            *call.args,
        )
        while True:
            if asking:
                lane.send(ASKING, patience)
            replying = lane.send(command, patience)
            then()
            reply = await replying
            if not isinstance(reply, NoScriptError):
                answer: list[Any] = self._checked(reply, lane, call.keys)
                return answer
            self._checked(await lane.send(("SCRIPT", "LOAD", script.source)), lane, ())

    def _checked(
        self, reply: Reply, lane: Lane, keys: Iterable[object], *, serves: bool = True
    ) -> Reply:
        """``serves``: whether an answer to this shows that it does what it refused before."""
        if not isinstance(reply, ResponseError):
            if serves or not self._refuses:
                self._refuses = False
                _outage.ended(self.where)
            return reply
        if is_between_nodes(reply):
            _outage.ended(self.where)
            raise BetweenNodes
        if is_passing(reply):
            self._refuses = True
            self._silent()
            raise RedisUnreachable(f"{self.where} does nothing now: {reply}")
        if is_read_only(reply) and not self.connector.is_fixed:
            lane.drop("a replica answered")
            self._silent()
            raise RedisUnreachable(f"{self.where} is a replica: it was the primary until now")
        _outage.ended(self.where)
        redirected = Redirected.of(reply)
        if redirected is not None:
            raise redirected
        raise fault(reply, self.where, keys)
