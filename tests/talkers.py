"""Sources and listeners that talk all the time, and keep a record of what each end saw.

They are brokers of one process, each a process of its own to the others. Every question is offered
to all listeners, who race for it. Some questions stay open, and some dialogs rest, until the next
failover has passed, or for half the other end's patience (:class:`Weather`). A success is what a
call returned; one that is done but not as safe as the durability asks for (NotDurable) is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from broker import BIDIRECTIONAL, Broker, Channel, Notification, Offer, Registration, Response
from broker.errors import (
    ChannelAcquired,
    ChannelAlreadyClosed,
    NotDurable,
    OutcomeUnknown,
    ResponseTimeout,
    TympanError,
)
from broker.notification import Closing
from tests.conformance.actors import eventually
from tests.farm import PRINTER, TYPE

PATIENCE = 30.0
"""Seconds after which whoever still waits for the other end was left hanging."""
SETTINGS: dict[str, Any] = {
    "lease": 5.0,
    "resync": 60.0,
    "reply_timeout": 1.0,
    "connect_timeout": 1.0,
    "durability_timeout": 0.5,
    "buffer": 10_000,
}
"""Nobody looks by the clock: who hears again, hears by a bell."""
KINDS = ("short", "short", "short", "long", "resting", "unanswered")
"""The dialogs that each source holds, one of each at a time."""
TURNS = {"short": 0, "long": 5, "resting": 2, "unanswered": 1}
HUNG = "hung"
LEFT = "left"
"""A question stays open, as everybody was told that somebody else had answered it."""


@dataclass
class Hand:
    """One listener's end of one dialog."""

    responses: dict[str, bool] = field(default_factory=dict)
    """What it said that was done; whether it was as safe as was asked."""
    heard: list[str] = field(default_factory=list)
    offer: Any = None
    end: str = ""
    """How it ended: ``lost``, ``released``, ``closed <reason>``, an error's name, or HUNG."""


@dataclass
class Dialog:
    """One channel, as both ends saw it."""

    sends: dict[str, bool] = field(default_factory=dict)
    """Question and follow-ups of the source that were done; whether as safe as was asked."""
    heard: list[tuple[str, str]] = field(default_factory=list)
    """Responses: registration, and what it said."""
    close: dict[str, bool] = field(default_factory=dict)
    """The source's own close, likewise."""
    end: str = ""
    hands: dict[str, Hand] = field(default_factory=dict)
    log: set[str] = field(default_factory=set)
    """What Redis knows in the end of all that was said."""

    @property
    def is_left_by_all(self) -> bool:
        """Whether nobody is left who heard the question, and could answer it."""
        return bool(self.hands) and all(hand.end for hand in self.hands.values())

    def hand(self, registration: str, offer: Offer[Any]) -> Hand:
        """A listener's end. Where Redis forgot the question, and it is asked again, another one."""
        known = self.hands.get(registration)
        left = ("released", "lost")
        if known is None or (not known.responses and ended(known.offer.closing) in left):
            known = self.hands[registration] = Hand(offer=offer)
        return known


@dataclass
class Feed:
    """One unidirectional channel, as its source saw it, and what each listener heard of it."""

    sends: dict[int, bool] = field(default_factory=dict)
    end: str = ""
    heard: dict[str, list[int]] = field(default_factory=dict)
    known: int = 0
    """How many of the sends Redis knows in the end."""


class Weather:
    """When the primary was struck, and who heard again since."""

    def __init__(self) -> None:
        self.struck: float | None = None
        self.heard: dict[str, float] = {}
        """Each listener, with the time at which it heard a question sent after the strike."""
        self._passed = asyncio.Event()

    def strikes(self) -> None:
        self.struck, self.heard = now(), {}

    def passes(self) -> None:
        """Whoever rests goes on."""
        self.struck = None
        self._passed.set()
        self._passed = asyncio.Event()

    async def passed(self) -> None:
        """When the next failover has passed; where that takes long, the other end waits enough."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE / 2):
                await self._passed.wait()

    def hears(self, listener: str, asked: float) -> None:
        """A listener heard a question that its source began to send then."""
        if self.struck is not None and asked > self.struck:
            self.heard.setdefault(listener, now())


def now() -> float:
    return asyncio.get_running_loop().time()


async def done(call: Callable[[], Awaitable[object]]) -> bool:
    """Make a call until it is settled; whether what it did is as safe as was asked."""
    while True:
        try:
            await call()
        except NotDurable:
            return False
        except OutcomeUnknown:
            continue
        return True


@dataclass
class Talk:
    """All that is said at one durability."""

    namespace: str
    url: str
    durability: str
    weather: Weather
    seed: int
    dialogs: dict[str, Dialog] = field(default_factory=dict)
    feeds: dict[str, Feed] = field(default_factory=dict)
    asked: dict[str, float] = field(default_factory=dict)
    """When each question began to be sent."""
    finished: int = 0
    """Dialogs that went from question to close."""
    faults: list[str] = field(default_factory=list)
    listeners: list[str] = field(default_factory=list)
    is_over: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        return SETTINGS | {"namespace": self.namespace, "durability": self.durability}

    def broker(self) -> Broker:
        return Broker.connect(self.url, user="alice", **self.settings)

    def dialog(self, channel: str) -> Dialog:
        return self.dialogs.setdefault(channel, Dialog())

    @contextlib.asynccontextmanager
    async def goes_on(self, sources: int, listeners: int) -> AsyncIterator[None]:
        """They talk meanwhile; afterwards each dialog is brought to its end."""
        brokers = [self.broker() for _ in range(sources + listeners)]
        async with contextlib.AsyncExitStack() as stack:
            for broker in brokers:
                await stack.enter_async_context(broker)
            hearing = [Listener(self, broker) for broker in brokers[sources:]]
            for listener in hearing:
                await listener.begin()
            self.listeners = [listener.name for listener in hearing]
            speaking = [
                asyncio.create_task(work, name=f"{self.durability} source")
                for number, broker in enumerate(brokers[:sources])
                for work in Source(self, broker, number).work()
            ]
            try:
                yield
            finally:
                self.is_over = True
                self.weather.passes()
                await self._come_to_an_end(speaking, "sources")
                for listener in hearing:
                    await self._come_to_an_end(list(listener.working), "listeners")
                    await listener.end()

    async def _come_to_an_end(self, tasks: list[asyncio.Task[None]], who: str) -> None:
        if not tasks:
            return
        found, left = await asyncio.wait(tasks, timeout=2 * PATIENCE)
        self.faults += [f"{len(left)} {who} were left hanging"] if left else []
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        self.faults += [f"{who}: {e!r}" for task in found if (e := task.exception())]


class Source:
    """Asks questions, and speaks to whoever listens, over and over."""

    def __init__(self, talk: Talk, broker: Broker, number: int) -> None:
        self._talk = talk
        self._broker = broker
        self._random = random.Random(f"{talk.seed}:{talk.durability}:{number}")

    def work(self) -> Iterator[Any]:
        """What it does at the same time."""
        for kind in KINDS:
            yield self._ask_on(kind)
        yield self._feed_on()

    async def _ask_on(self, kind: str) -> None:
        while not self._talk.is_over:
            begun = now()
            try:
                channel = await self._broker.open_channel(
                    PRINTER, TYPE, user="alice", style=BIDIRECTIONAL
                )
            except TympanError as error:
                self._talk.faults.append(f"open: {error!r}")
                continue
            self._talk.asked[channel.id] = begun
            await self._ask(channel, kind)
            await asyncio.sleep(self._random.uniform(0.02, 0.06))

    async def _ask(self, channel: Channel, kind: str) -> None:
        dialog = self._talk.dialog(channel.id)
        try:
            await self._converse(channel, dialog, kind)
            self._talk.finished += 1
        except ResponseTimeout:
            dialog.end = LEFT if dialog.is_left_by_all else HUNG
        except ChannelAlreadyClosed:
            dialog.end = ended(channel.closing)
        except TympanError as error:
            dialog.end = type(error).__name__
        if not dialog.close:
            with contextlib.suppress(TympanError):  # as an application would give it up
                await channel.close()

    async def _converse(self, channel: Channel, dialog: Dialog, kind: str) -> None:
        for turn in range(TURNS[kind] + 1):
            body = f"{kind} {turn}"
            dialog.sends[body] = await done(partial(channel.send, body))
            response = await self._response(channel, dialog)
            dialog.heard.append((response.registration, response.text))
            if kind == "resting" and turn == 0 and not self._talk.is_over:
                await self._talk.weather.passed()
        dialog.close["enough"] = await done(partial(channel.close, "enough"))
        dialog.end = "closed"

    async def _response(self, channel: Channel, dialog: Dialog) -> Response[Any]:
        """The next response. Raises ResponseTimeout: too late, or all who heard have ended."""
        due = now() + PATIENCE
        while True:
            try:
                return await channel.response(1.0)
            except ResponseTimeout:
                if dialog.is_left_by_all or now() > due:
                    raise

    async def _feed_on(self) -> None:
        while not self._talk.is_over:
            try:
                channel = await self._broker.open_channel(PRINTER, TYPE, user="alice")
            except TympanError as error:
                self._talk.faults.append(f"open: {error!r}")
                continue
            feed = self._talk.feeds.setdefault(channel.id, Feed())
            try:
                await self._feed(channel, feed)
            except ChannelAlreadyClosed:
                feed.end = ended(channel.closing)
            except TympanError as error:
                feed.end = type(error).__name__

    async def _feed(self, channel: Channel, feed: Feed) -> None:
        for number in itertools.count():
            feed.sends[number] = await done(partial(channel.send, str(number)))
            if self._talk.is_over:
                break
            await asyncio.sleep(self._random.uniform(0.01, 0.03))
        await done(channel.close)
        feed.end = "closed"


class Listener:
    """Answers what it is asked, and hears what it is told."""

    def __init__(self, talk: Talk, broker: Broker) -> None:
        self.name = ""
        self.working: set[asyncio.Task[None]] = set()
        self._talk = talk
        self._broker = broker
        self._registrations: list[Registration[Any]] = []
        self._hearing: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        two_way = await self._broker.register(PRINTER, TYPE, style=BIDIRECTIONAL)
        one_way = await self._broker.register(PRINTER, TYPE)
        self.name = two_way.id
        self._registrations = [two_way, one_way]
        self._hearing = [
            asyncio.create_task(self._answer_on(two_way)),
            asyncio.create_task(self._hear_on(one_way)),
        ]

    async def end(self) -> None:
        """Let the last notifications come, then stop."""
        await eventually(lambda: not any(each.unread for each in self._registrations), "the rest")
        for registration in self._registrations:
            await registration.unregister()
        for task in self._hearing:
            task.cancel()
        for error in await asyncio.gather(*self._hearing, return_exceptions=True):
            if isinstance(error, Exception):
                self._talk.faults.append(f"a listener: {error!r}")

    async def _hear_on(self, registration: Registration[Any]) -> None:
        async for notification in registration:
            assert isinstance(notification, Notification)
            feed = self._talk.feeds.setdefault(notification.channel, Feed())
            feed.heard.setdefault(self.name, []).append(int(notification.text))

    async def _answer_on(self, registration: Registration[Any]) -> None:
        async for offer in registration:
            assert isinstance(offer, Offer)
            self._talk.weather.hears(self.name, self._talk.asked.get(offer.id, 0.0))
            task = asyncio.create_task(self._answer(offer, registration.id))
            self.working.add(task)
            task.add_done_callback(self.working.discard)

    async def _answer(self, offer: Offer[Any], registration: str) -> None:
        hand = self._talk.dialog(offer.id).hand(registration, offer)
        try:
            await self._converse(offer, hand)
        except ResponseTimeout:
            hand.end = HUNG
        except ChannelAcquired:
            hand.end = "lost"
        except ChannelAlreadyClosed:
            hand.end = ended(offer.closing)
        except TympanError as error:
            hand.end = type(error).__name__

    async def _converse(self, offer: Offer[Any], hand: Hand) -> None:
        hand.heard.append(offer.notification.text)
        if offer.notification.text.startswith("unanswered") and not self._talk.is_over:
            await self._talk.weather.passed()
        for turn in itertools.count():
            body = f"{offer.registration.id} {turn}"
            hand.responses[body] = await done(partial(offer.respond, body))
            hand.heard.append((await offer.follow_up(PATIENCE)).text)


def ended(closing: Closing | None) -> str:
    """How an end was told that its channel is over."""
    if closing is None:
        return "error"
    if closing.acquired:
        return "lost"
    if closing.reason.is_release:
        return "released"
    return f"closed {closing.reason.text}"
