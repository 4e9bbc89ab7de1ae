"""Channels of a print host: one for each printer, type and user, open while it is in use.

What is sent on one channel arrives in its order. A send is done when Redis has it: through an
outage it waits, and a call whose outcome is unknown is made again, so that it happens once. Where a
listener has no room the others wait for it a little; then it misses what it has no room for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from broker import ALL_USERS, Broker, Channel, Name
from broker.errors import (
    AccessDenied,
    BrokerClosed,
    ChannelError,
    InvalidArgument,
    InvalidName,
    NotDurable,
    NotificationError,
    NotificationFailure,
    OutcomeUnknown,
    QueueFull,
    RedisRefused,
    SessionLapsed,
    TympanError,
)
from broker.payload import Payload
from broker.results import NO_LISTENERS, NOTIFICATION_LOST, Result
from workers.cups.cupsd.names import name_of
from workers.cups.events.levels import Told
from workers.cups.types import ServerStatus
from workers.cups.types import Told as ToldPayload

log = logging.getLogger("tympan.cups")

MOST_OPEN = 1000
IDLE = 60.0
"""Seconds after which a channel that nothing is sent on is closed."""
AT_ONCE = 64
MOST_WAITS = 4
"""How many times PATIENCE a listener is waited for that makes room, but slowly."""
PATIENCE = 2.0
"""Seconds that a listener is waited for that makes no room at all…"""
IMPATIENCE = 30.0
"""…and for how long none is, on that channel, after one made it wait in vain."""
LAST_MOMENT = 2.0
"""Seconds for closing channels at the end."""
LEAST_PAUSE = 0.2
MOST_PAUSE = 5.0


class Key(NamedTuple):
    """What a channel is for."""

    name: Name
    model: type[Payload]
    user: str | None


@dataclass(eq=False, slots=True)
class Item:
    """One notification on its way."""

    payload: Payload
    done: asyncio.Future[None]
    unsure_on: Channel | None = None
    """Where a call ended with its outcome unknown: made again there it happens once."""

    def sent_on(self, channel: Channel) -> None:
        """It is sent there now; on another channel than before it may come twice, and says so."""
        if self.unsure_on in (None, channel) or not isinstance(self.payload, ToldPayload):
            return
        self.payload = self.payload.model_copy(update={"repeated": True})


class Sending:
    """For one print server. ``trouble`` says what keeps it from sending now; None while nothing."""

    def __init__(self, broker: Broker, server: Name, *, patience: float = PATIENCE) -> None:
        self._broker = broker
        self.server = server.of_server
        self.patience = patience
        self.counts: dict[str, int] = {}
        """``sent``, of these ``unheard`` and ``missed``; ``refused``; until somebody clears it."""
        self.trouble: str | None = None
        self._lines: OrderedDict[Key, Line] = OrderedDict()

    async def begin(self) -> None:
        """Open the server's own channel. Raises AccessDenied, and what else opening raises."""
        await self._line(Key(self.server, ServerStatus, None)).open()

    def put(self, told: Told) -> asyncio.Future[None]:
        """Send it, behind what was put before on that channel; done when that succeeded."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            name = name_of(self.server, told.queue) if told.queue else self.server
        except InvalidName as error:
            self.refuse(told.payload, error)
            done.set_result(None)
            return done
        self._line(Key(name, type(told.payload), told.user)).put(Item(told.payload, done))
        return done

    def _line(self, key: Key) -> Line:
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line(self, self._broker, key)
        self._lines.move_to_end(key)
        return line

    async def send(self, told: Iterable[Told]) -> None:
        """Send them all. Raises BrokerClosed."""
        await asyncio.gather(*[self.put(one) for one in told])

    def count(self, name: str) -> None:
        """One more."""
        self.counts[name] = self.counts.get(name, 0) + 1

    def refuse(self, payload: Payload, error: TympanError) -> None:
        """It can be sent to nobody, ever."""
        self.count("refused")
        log.error("not sent, and not tried again: %s: %r", error, payload)

    async def sweep(self) -> None:
        """Close channels that are not in use, unless Redis is away."""
        if self.trouble is not None:
            return
        now = asyncio.get_running_loop().time()
        surplus = len(self._lines) - MOST_OPEN
        idle: list[Line] = []
        for key, line in list(self._lines.items()):
            if line.is_idle and (surplus > 0 or now - line.used_at > IDLE):
                surplus -= 1
                idle.append(self._lines.pop(key))
        await asyncio.gather(*[line.close() for line in idle])

    async def close(self) -> None:
        """Close all channels; what was not sent is not sent. Those that cannot be end by lease."""
        lines, self._lines = list(self._lines.values()), OrderedDict()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_MOMENT):
                await asyncio.gather(*[line.close() for line in lines])

    def forget(self, key: Key) -> None:
        """Its line failed for good."""
        self._lines.pop(key, None)


class Line:
    """One channel, and what waits for it."""

    def __init__(self, sending: Sending, broker: Broker, key: Key) -> None:
        self._sending = sending
        self._broker = broker
        self._key = key
        self._waiting: deque[Item] = deque()
        self._task: asyncio.Task[None] | None = None
        self._channel: Channel | None = None
        self._impatient_until = 0.0
        self.used_at = asyncio.get_running_loop().time()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being sent."""
        return self._task is None

    def put(self, item: Item) -> None:
        """Send it behind the others."""
        self._waiting.append(item)
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Close the channel."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        channel, self._channel = self._channel, None
        if channel is None:
            return
        try:
            async with channel:
                pass
        except TympanError as error:  # its lease ends it
            log.debug("channel %s was not closed: %s", channel.id, error)

    async def _run(self) -> None:
        items: list[Item] = []
        try:
            while self._waiting:
                items = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
                await self._deliver(items)
            self._task = None
        except BaseException as error:
            self._sending.forget(self._key)
            for item in (*items, *self._waiting):
                if not item.done.done():
                    if isinstance(error, asyncio.CancelledError):
                        item.done.cancel()
                    else:
                        item.done.set_exception(error)
            self._waiting.clear()
            if not isinstance(error, TympanError):
                raise
        finally:
            self.used_at = asyncio.get_running_loop().time()

    async def _deliver(self, items: list[Item]) -> None:
        """Until all are sent. Raises BrokerClosed."""
        pause = LEAST_PAUSE
        now = asyncio.get_running_loop().time
        due = now() + self._sending.patience * MOST_WAITS
        while items:
            if now() >= due:
                self._impatient_until = now() + IMPATIENCE
            left, error = await self._attempt(items)
            if error is None:
                self._sending.trouble = None
            elif left:
                self._tell(error)
                await asyncio.sleep(random.uniform(0.5, 1) * pause)
                pause = min(2 * pause, MOST_PAUSE)
            items = left

    def _tell(self, error: TympanError) -> None:
        if self._sending.trouble is None:
            log.warning("%s: nothing can be sent now, and events wait: %s", self._key.name, error)
        self._sending.trouble = str(error)

    async def _attempt(self, items: list[Item]) -> tuple[list[Item], TympanError | None]:
        """Those that are not sent yet, and what is to be waited for before they can be."""
        try:
            channel = await self.open()
        except BrokerClosed:
            raise
        except InvalidArgument as error:
            for item in items:
                self._sending.refuse(item.payload, error)
                self._finish(item)
            return [], None
        except TympanError as error:
            return items, error
        for item in items:
            item.sent_on(channel)
        now = asyncio.get_running_loop().time()
        is_lossless = now >= self._impatient_until
        outcomes = await asyncio.gather(
            *[
                channel.send(item.payload, lossless=is_lossless, timeout=self._sending.patience)
                for item in items
            ],
            return_exceptions=True,
        )
        left: list[Item] = []
        trouble: TympanError | None = None
        is_stuck = False
        for item, outcome in zip(items, outcomes, strict=True):
            again = self._settle(item, outcome)
            if again is not None:
                left.append(item)
                is_stuck = isinstance(again, QueueFull) and len(left) == len(items)
                trouble = trouble if isinstance(again, QueueFull) else again
        if is_stuck:
            self._impatient_until = asyncio.get_running_loop().time() + IMPATIENCE
        return left, trouble

    async def open(self) -> Channel:
        """Its channel, opened where it is not. Raises what opening raises."""
        if self._channel is not None and self._channel.is_open:
            return self._channel
        self._channel = None
        name, model, user = self._key
        if user is not None:
            self._channel = await self._broker.open_channel(name, model, user=user)
            return self._channel
        try:
            self._channel = await self._broker.open_channel(name, model, user_filter=ALL_USERS)
        except AccessDenied as error:
            await self._appoint(error)
            self._channel = await self._broker.open_channel(name, model, user_filter=ALL_USERS)
        return self._channel

    async def _appoint(self, error: AccessDenied) -> None:
        """A print host administers its printers: those that are new, too. Raises AccessDenied."""
        name, user = self._key.name, self._broker.user
        right = "all" if self._broker.settings.strict_rights else "administer"
        try:
            await self._broker.grant(name, user, right)
        except RedisRefused as refusal:
            raise AccessDenied(
                f"{error}; and this credential may not give it the right ({refusal}): make it by "
                f"tympan acl source observer --all-users --server '{name.of_server}', or run "
                f"tympan grant '{name}' {user} {right}"
            ) from refusal

    def _settle(self, item: Item, outcome: Result | BaseException) -> TympanError | None:
        """What became of it; the error after which it has to be sent again."""
        match outcome:
            case Result():
                self._done(item, outcome)
            case NotDurable():
                log.warning("%s: %s", self._key.name, outcome)
                self._done(item, outcome.outcome)
            case NotificationFailure():
                self._done(item, NOTIFICATION_LOST)
            case BrokerClosed():
                raise outcome
            case QueueFull():
                return outcome
            case ChannelError() | SessionLapsed():
                self._channel = None
                return outcome
            case OutcomeUnknown():
                item.unsure_on = self._channel
                return outcome
            case TympanError() if outcome.retryable and not isinstance(outcome, NotificationError):
                return outcome
            case TympanError():
                self._sending.refuse(item.payload, outcome)
                self._finish(item)
            case _:
                raise outcome
        return None

    def _done(self, item: Item, result: Result) -> None:
        self._sending.count("sent")
        if result == NO_LISTENERS:
            self._sending.count("unheard")
        elif result == NOTIFICATION_LOST:
            self._sending.count("missed")
        self._finish(item)

    @staticmethod
    def _finish(item: Item) -> None:
        if not item.done.done():
            item.done.set_result(None)
