"""Sources and listeners that talk all the time, and keep a record of what each end saw.

They are brokers of one process, each a process of its own to the others. Every question is offered
to all listeners, who race for it. Some questions stay open, and some dialogs rest, until the next
blow has passed, or for half the other end's patience (:class:`Weather`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from broker import BIDIRECTIONAL, Broker, Channel, Notification, Offer, Registration, Response
from broker.errors import (
    ChannelAcquired,
    ChannelAlreadyClosed,
    ResponseTimeout,
    TympanError,
)
from broker.names import Name
from workers.proof.history import (
    HUNG,
    LEFT,
    SOURCE,
    Dialog,
    Feed,
    Hand,
    History,
    Listening,
    ended,
)
from workers.proof.patience import AGAIN, REFUSED, done, now, until

PRINTER = r"\\print01\laser-3"
TYPE = "5a1f6f0e-3c0b-4f0e-8f55-6a4d2f0d9a01"
TOLD_WITHIN = 15.0
"""Seconds in which a source is told of the end of a question that all others were told of.

It finds out when it renews its lease, after its connections; on a busy machine that takes a while.
"""
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
Connect = Callable[..., Broker]
"""Makes a broker, as :meth:`broker.Broker.connect` does."""


class Weather:
    """When Redis, or the way there, was struck, and who heard again since."""

    def __init__(self) -> None:
        self.struck: float | None = None
        self.patience = PATIENCE
        self.heard: dict[str, float] = {}
        """Each listener, with the time at which it heard a question sent after the strike."""
        self._passed = asyncio.Event()

    def strikes(self) -> None:
        """The blow falls now."""
        self.struck, self.heard = now(), {}

    def passes(self) -> None:
        """Whoever rests goes on."""
        self.struck = None
        self._passed.set()
        self._passed = asyncio.Event()

    async def passed(self) -> None:
        """When the next blow has passed; where that takes long, the other end waits enough."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.patience / 2):
                await self._passed.wait()

    def hears(self, listener: str, asked: float) -> None:
        """A listener heard a question that its source began to send then."""
        if self.struck is not None and asked > self.struck:
            self.heard.setdefault(listener, now())


@dataclass
class Talk:
    """All that is said at one durability."""

    namespace: str
    url: str
    durability: str
    weather: Weather
    seed: int
    history: History = field(default_factory=History)
    asked: dict[str, float] = field(default_factory=dict)
    """When each question began to be sent."""
    finished: int = 0
    """Dialogs that went from question to close."""
    listeners: list[str] = field(default_factory=list)
    is_over: bool = False
    tuning: Mapping[str, Any] = field(default_factory=dict)
    """Settings in the place of :data:`SETTINGS`."""
    connect: Connect = Broker.connect
    patience: float = PATIENCE

    @property
    def dialogs(self) -> dict[str, Dialog]:
        """Bidirectional channels."""
        return self.history.dialogs

    @property
    def feeds(self) -> dict[str, Feed]:
        """Unidirectional channels."""
        return self.history.feeds

    @property
    def faults(self) -> list[str]:
        """What failed, or did not end, without a reason."""
        return self.history.faults

    @faults.setter
    def faults(self, faults: list[str]) -> None:
        self.history.faults = faults

    @property
    def settings(self) -> dict[str, Any]:
        """Of each broker."""
        return {
            **SETTINGS,
            "namespace": self.namespace,
            "durability": self.durability,
            **self.tuning,
        }

    def broker(self) -> Broker:
        """One more process, not entered yet."""
        return self.connect(self.url, user="alice", **self.settings)

    def dialog(self, channel: str) -> Dialog:
        """The record of a bidirectional channel."""
        return self.history.dialog(channel)

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
        found, left = await asyncio.wait(tasks, timeout=2 * self.patience)
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
            except REFUSED:
                await asyncio.sleep(AGAIN)
                continue
            except TympanError as error:
                self._talk.faults.append(f"open: {error!r}")
                continue
            self._talk.asked[channel.id] = begun
            await self._ask(channel, kind)
            await asyncio.sleep(self._random.uniform(0.02, 0.06))

    async def _ask(self, channel: Channel, kind: str) -> None:
        dialog = self._talk.dialog(channel.id)
        dialog.user, dialog.printer, dialog.type = "alice", str(channel.name), TYPE
        try:
            await self._converse(channel, dialog, kind)
            self._talk.finished += 1
        except ResponseTimeout:
            dialog.end = LEFT if dialog.is_left_by_all else HUNG
        except ChannelAlreadyClosed:
            dialog.end = dialog.is_told(SOURCE, ended(channel.closing))
        except TympanError as error:
            dialog.end = type(error).__name__
        if not dialog.close:
            with contextlib.suppress(TympanError):  # as an application would give it up
                await channel.close()

    async def _converse(self, channel: Channel, dialog: Dialog, kind: str) -> None:
        for turn in range(TURNS[kind] + 1):
            body = f"{kind} {turn}"
            dialog.sends[body] = await dialog.call(SOURCE, "send", partial(channel.send, body))
            response = await self._response(channel, dialog)
            said = dialog.hands_over(SOURCE, response.text)
            dialog.heard.append((response.registration, said))
            if kind == "resting" and turn == 0 and not self._talk.is_over:
                await self._talk.weather.passed()
        close = partial(channel.close, "enough")
        dialog.close["enough"] = await dialog.call(SOURCE, "close", close)
        dialog.end = "closed"

    async def _response(self, channel: Channel, dialog: Dialog) -> Response[Any]:
        """The next response. Raises ResponseTimeout: too late, or all who heard have ended."""
        due = now() + self._talk.patience
        while True:
            try:
                return await channel.response(1.0)
            except ResponseTimeout:
                if now() > due:
                    raise
                if dialog.is_left_by_all:  # of a question that Redis forgot it is told a bit later
                    due = min(due, now() + TOLD_WITHIN)

    async def _feed_on(self) -> None:
        while not self._talk.is_over:
            try:
                channel = await self._broker.open_channel(PRINTER, TYPE, user="alice")
            except REFUSED:
                await asyncio.sleep(AGAIN)
                continue
            except TympanError as error:
                self._talk.faults.append(f"open: {error!r}")
                continue
            feed = self._talk.history.feed(channel.id)
            feed.user, feed.printer, feed.type = "alice", str(channel.name), TYPE
            try:
                await self._feed(channel, feed)
            except ChannelAlreadyClosed:
                feed.end = ended(channel.closing)
            except TympanError as error:
                feed.end = type(error).__name__

    async def _feed(self, channel: Channel, feed: Feed) -> None:
        for number in itertools.count():
            await feed.send(number, partial(channel.send, str(number)))
            if self._talk.is_over:
                break
            await asyncio.sleep(self._random.uniform(0.01, 0.03))
        await done(channel.close)
        feed.closed = now()
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
        self._offers: dict[tuple[str, str], Offer[Any]] = {}
        """The last offer of each question to each registration, which is new after a lapse."""
        self._listening = Listening("alice")
        self._one_way = ""

    async def begin(self) -> None:
        """Register for both styles, under one name."""
        two_way = await self._broker.register(PRINTER, TYPE, style=BIDIRECTIONAL)
        one_way = await self._broker.register(PRINTER, TYPE)
        self.name = two_way.id
        self._registrations, self._one_way = [two_way, one_way], one_way.id
        printer = str(Name.parse(PRINTER))
        self._listening = Listening("alice", printer, TYPE, is_two_way=None, since=now())
        self._talk.history.listening[self.name] = self._listening
        self._hearing = [
            asyncio.create_task(self._answer_on(two_way)),
            asyncio.create_task(self._hear_on(one_way)),
        ]

    async def end(self) -> None:
        """Let the last notifications come, then stop."""
        try:
            await until(
                lambda: not any(each.unread for each in self._registrations),
                "the rest",
                self._talk.patience,
            )
        except TimeoutError as error:
            self._talk.faults.append(f"a listener: {error}")
        self._listening.until = now()
        if self._registrations[1].id != self._one_way:  # its lease ran out, and it missed some
            self._listening.until = self._listening.since
        for registration in self._registrations:
            await registration.unregister()
        for task in self._hearing:
            task.cancel()
        for fault in await asyncio.gather(*self._hearing, return_exceptions=True):
            if isinstance(fault, Exception):
                self._talk.faults.append(f"a listener: {fault!r}")

    async def _hear_on(self, registration: Registration[Any]) -> None:
        async for notification in registration:
            assert isinstance(notification, Notification)
            feed = self._talk.history.feed(notification.channel)
            feed.heard.setdefault(self.name, []).append(int(notification.text))

    async def _answer_on(self, registration: Registration[Any]) -> None:
        async for offer in registration:
            assert isinstance(offer, Offer)
            self._talk.weather.hears(self.name, self._talk.asked.get(offer.id, 0.0))
            task = asyncio.create_task(self._answer(offer, registration.id))
            self.working.add(task)
            task.add_done_callback(self.working.discard)

    def _hand(self, offer: Offer[Any], registration: str) -> Hand:
        """This end. Where Redis forgot the question, and it is asked again, another one."""
        hands = self._talk.dialog(offer.id).hands
        known, before = hands.get(registration), self._offers.get((offer.id, registration))
        self._offers[offer.id, registration] = offer
        is_left = before is not None and ended(before.closing) in ("released", "lost")
        if known is None or (not known.responses and is_left):
            known = hands[registration] = Hand(self._broker.user)
        return known

    async def _answer(self, offer: Offer[Any], registration: str) -> None:
        dialog, hand = self._talk.dialog(offer.id), self._hand(offer, registration)
        dialog.over.pop(registration, None)
        try:
            await self._converse(offer, dialog, hand)
        except ResponseTimeout:
            hand.end = HUNG
        except (ChannelAcquired, ChannelAlreadyClosed) as over:
            if self._offers.get((offer.id, registration)) is not offer:
                return  # it was asked again meanwhile, and this end goes on there
            if isinstance(over, ChannelAcquired):
                hand.end, hand.lost_to = dialog.is_told(registration, "lost"), over.by or ""
            else:
                hand.end = dialog.is_told(registration, ended(offer.closing))
        except TympanError as error:
            hand.end = type(error).__name__

    async def _converse(self, offer: Offer[Any], dialog: Dialog, hand: Hand) -> None:
        me = offer.registration.id
        hand.heard.append(dialog.hands_over(me, offer.notification.text))
        if offer.notification.text.startswith("unanswered") and not self._talk.is_over:
            await self._talk.weather.passed()
        for turn in itertools.count():
            body = f"{me} {turn}"
            hand.responses[body] = await dialog.call(me, "respond", partial(offer.respond, body))
            hand.heard.append(
                dialog.hands_over(me, (await offer.follow_up(self._talk.patience)).text)
            )
