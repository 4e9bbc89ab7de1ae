"""Hearing: the registrations of a desk, what comes by them, and answers that go back."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from broker import (
    ALL_USERS,
    BIDIRECTIONAL,
    PER_USER,
    UNIDIRECTIONAL,
    Broker,
    FarmRegistration,
    Name,
    Notification,
    Offer,
    Payload,
    Registration,
    Style,
    inventory,
)
from broker.async_ui import AsyncUIReply
from broker.errors import (
    BodyGone,
    ChannelAcquired,
    ChannelAlreadyClosed,
    OutcomeUnknown,
    PayloadInvalid,
    RedisError,
    SessionLapsed,
    TympanError,
)
from broker.results import S_OK
from workers.alert import Alert, Severity, alert_of, kind_of
from workers.cli.answering import settled
from workers.cli.desk_answers import answer_words, body_of, reason_words
from workers.cli.failures import sentence
from workers.cli.output import span
from workers.cups.types import JobQuestion, JobStatus, PrinterChanged, PrinterStatus, ServerStatus
from workers.desk.desk import Change, Desk, State
from workers.desk.hand import Answer
from workers.desk.question import Asked, asked_of

BUFFER = 1000
"""Notifications of each audience that may be unread."""
ANEW = 10.0
"""Seconds before a registration that ended is made anew."""
CUT_OFF = (
    "not answered: this desk was cut off from Redis for too long; where the question still stands, "
    "answer once more"
)
LOOK_EVERY = 1.0
"""Seconds between looks whether Redis answers."""
LATE = 2.0
"""Seconds that such an answer may be late before the desk says so."""
Standing = Registration[Any] | FarmRegistration[Any]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be heard at one name, or on the whole farm."""

    name: Name | None
    type: type[Payload] | UUID
    style: Style
    all_users: bool

    @property
    def guid(self) -> UUID:
        """Its type's."""
        return self.type if isinstance(self.type, UUID) else self.type.notification_type

    def __str__(self) -> str:
        where = "everywhere" if self.name is None else f"on {self.name}"
        return f"{kind_of(self.guid)} ({self.style.word}) {where}"


class Watcher(Protocol):
    """Who is told what changed on the desk."""

    def registered(self, wishes: tuple[Wish, ...], reached: tuple[str, ...]) -> None:
        """It can be reached from now on."""

    def alerted(self, alert: Alert, change: Change) -> None:
        """An alert changed what is the matter."""

    def forgotten(self, name: Name) -> None:
        """A printer was deleted, with what was the matter there."""

    def asked(self, id_: str, asked: Asked) -> None:
        """A question came, or goes on."""

    def over(self, id_: str, asked: Asked, words: str) -> None:
        """A question is over."""

    def remarked(self, text: str) -> None:
        """Something is to be said."""


class Hearing:
    """Hears for a desk until it is cancelled.

    Args:
        broker: open; the caller closes it.
        desk: where it goes.
        wishes: what is to be heard.
        watcher: who is told of changes.
        least: alerts below it count as well.
    """

    def __init__(
        self,
        broker: Broker,
        desk: Desk,
        wishes: tuple[Wish, ...],
        watcher: Watcher,
        least: Severity = Severity.REPORT,
    ) -> None:
        self._broker = broker
        self._desk = desk
        self._wishes = wishes
        self._watcher = watcher
        self._least = least
        self._standing: dict[Wish, Standing] = {}
        self._ended: dict[Wish, str] = {}
        """Why one does not stand now."""
        self._offers: dict[str, Offer[Any]] = {}
        self._asked: dict[str, Notification[Any]] = {}
        """The last thing that was asked on each."""
        self._given: dict[str, str] = {}
        """Labels of answers that ended their dialog."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count()
        self._heard_at = time.monotonic()
        self._is_away = False
        self._why_away = ""
        self._fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def reached(self) -> tuple[str, ...]:
        """Where something is heard now; nowhere until all of it is."""
        if not self._tasks:
            return ()
        found = {str(wish.name) for wish in self._standing if wish.name is not None}
        for standing in self._standing.values():
            if isinstance(standing, FarmRegistration):
                found |= {str(Name(server)) for server in standing.reached}
        return tuple(sorted(found))

    @property
    def troubles(self) -> tuple[str, ...]:
        """What is not heard, and why."""
        away = []
        if self._is_away:
            silent = span(time.monotonic() - self._heard_at)
            why = f": {self._why_away}" if self._why_away else ""
            away.append(f"Redis has not answered for {silent}; this was seen before{why}")
        missing = {
            str(Name(server)): sentence(error)
            for standing in self._standing.values()
            if isinstance(standing, FarmRegistration)
            for server, error in standing.missing.items()
        }
        ended = [f"{wish} is not heard: {why}" for wish, why in self._ended.items()]
        return (*away, *ended, *(f"{name} is not heard: {why}" for name, why in missing.items()))

    async def until_cancelled(self) -> None:
        """Register, and hear. Raises what keeps it from being registered at first."""
        try:
            for wish in self._wishes:
                self._standing[wish] = await self._register(wish)
            for wish in self._wishes:
                self._run(self._keep_hearing(wish))
            self._run(self._keep_looking())
            self._watcher.registered(self._wishes, self.reached)
            await self._fault
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.gather(
                *(one.unregister() for one in self._standing.values()), return_exceptions=True
            )

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None and not self._fault.done():
            self._fault.set_exception(task.exception() or AssertionError())

    async def _register(self, wish: Wish) -> Standing:
        how: dict[str, Any] = {
            "user_filter": ALL_USERS if wish.all_users else PER_USER,
            "style": wish.style,
            "buffer": BUFFER,
        }
        if wish.name is None:
            return await self._broker.register_everywhere(wish.type, printers=True, **how)
        printers = not wish.name.printer
        return await self._broker.register(wish.name, wish.type, printers=printers, **how)

    async def _keep_hearing(self, wish: Wish) -> None:
        while True:
            try:
                if wish not in self._standing:
                    self._standing[wish] = await self._register(wish)
                    del self._ended[wish]
                await self._hear(self._standing[wish])
            except TympanError as error:  # it ended, as with the right that it stood on
                self._standing.pop(wish, None)
                self._ended[wish] = sentence(error)
                self._watcher.remarked(f"{wish} is not heard: {sentence(error)}")
            await asyncio.sleep(ANEW)

    async def _keep_looking(self) -> None:
        """Whether Redis answers: what is heard does not say, where nothing is to be heard."""
        loop = asyncio.get_running_loop()
        while True:
            timer = loop.call_later(LATE, self._away, "")
            try:
                await self._broker.servers()
            except (RedisError, OutcomeUnknown) as error:
                if error.retryable:
                    self._away(sentence(error))
                else:  # it answered
                    self._back()
            else:
                self._back()
            finally:
                timer.cancel()
            await asyncio.sleep(LOOK_EVERY)

    def _away(self, why: str) -> None:
        was_away, self._is_away = self._is_away, True
        self._why_away = why or self._why_away
        if not was_away:
            self._watcher.remarked("Redis does not answer: answers wait for it")

    def _back(self) -> None:
        was_away, self._is_away, self._why_away = self._is_away, False, ""
        self._heard_at = time.monotonic()
        if was_away:
            self._watcher.remarked("Redis answers again")

    async def _hear(self, standing: Standing) -> None:
        while True:
            item = await standing.fetch()
            if isinstance(item, Offer):
                self._run(self._follow(item))
            elif item is not None:
                self._take(item)

    def _take(self, told: Notification[Any]) -> None:
        if told.model is PrinterChanged:
            self._changed(told)
            return
        alert = alert_of(told, str(next(self._numbers)), self._least)  # it comes only once
        if alert is None:
            return
        change = self._desk.hear(alert, time.time())
        if change is not Change.NONE:
            self._watcher.alerted(alert, change)

    def _changed(self, told: Notification[Any]) -> None:
        """Of changes of printers it is only worth knowing that one is gone."""
        try:
            is_gone = told.decode(PrinterChanged).what == "deleted"
        except (PayloadInvalid, BodyGone):
            return
        if is_gone and self._desk.forget(told.name):
            self._watcher.forgotten(told.name)

    # Questions ----------------------------------------------------------------------------------

    async def _follow(self, offer: Offer[Any]) -> None:
        """One question, and the dialog that follows where our answer is the first."""
        id_ = offer.id
        if id_ in self._offers and self._offers[id_].closing is None:
            return  # it came by another registration, too
        self._offers[id_], self._asked[id_] = offer, offer.notification
        asked = asked_of(offer.notification)
        self._desk.ask(id_, asked)
        self._watcher.asked(id_, asked)
        while (more := await offer.next_told()) is not None:
            self._asked[id_] = more
            asked = asked_of(more)
            self._desk.ask_on(id_, asked)
            self._watcher.asked(id_, asked)
        words = await self._words_about(offer)
        if self._offers.get(id_) is offer:
            del self._offers[id_], self._asked[id_]
            self._given.pop(id_, None)
        self._over(id_, asked, words)

    def _over(self, id_: str, asked: Asked, words: str) -> None:
        if self._desk.over(id_, words, time.time()):
            self._watcher.over(id_, asked, words)

    async def _words_about(self, offer: Offer[Any]) -> str:
        """What became of a question that is over."""
        closing = offer.closing
        assert closing is not None
        if closing.acquired:
            return await self._words_about_the_first(offer, closing.by)
        if closing.by is None:
            return "over: whoever asked is gone"
        if closing.by == offer.registration.id:
            return f"you were first: {self._given.pop(offer.id, 'closed')}"
        by = "whoever asked" if closing.by == "source" else closing.by
        return reason_words(closing.reason.data, offer, by)

    async def _words_about_the_first(self, offer: Offer[Any], by: str | None) -> str:
        """``alice was first: continue``, as far as the conversation can still be read."""
        who = by or "somebody"
        try:
            said = await inventory.read_conversation(offer.registration.server, offer.id)
        except TympanError:  # this credential may not, or Redis is away; the rest is known
            return f"{who} was first"
        first = next((one for one in said if one.event in ("response", "closed")), None)
        if first is None or first.data is None:
            return f"{who} was first"
        return f"{first.by or who} was first: {answer_words(first.data, offer)}"

    # Answering ----------------------------------------------------------------------------------

    def answer(self, answer: Answer) -> None:
        """Give an answer; the desk shows what becomes of it."""
        offer, question = self._offers.get(answer.id), self._asked.get(answer.id)
        if offer is None or question is None:
            self._watcher.remarked("the question is over")
            return
        try:
            body = body_of(question, answer)
        except PayloadInvalid as error:
            self._watcher.remarked(f"not answered: {error}")
            return
        self._desk.answering(answer.id, answer.label)
        if isinstance(body, AsyncUIReply):
            self._given[answer.id] = answer.label
        self._run(self._give(offer, answer, body))

    async def _give(self, offer: Offer[Any], answer: Answer, body: bytes | Payload) -> None:
        ends = isinstance(body, AsyncUIReply)
        give = offer.close if ends else offer.respond
        try:
            result = await settled(lambda: give(body), self._watcher.remarked)
        except ChannelAcquired as error:
            await self._lost(offer, error.by)
        except ChannelAlreadyClosed:
            pass  # whoever follows it says so
        except SessionLapsed:
            self._desk.reopen(answer.id)  # it is asked again, or is over
            self._watcher.remarked(CUT_OFF)
        except TympanError as error:
            self._desk.reopen(answer.id)
            self._watcher.remarked(f"not answered: {sentence(error)}")
        else:
            if result != S_OK:
                await self._lost(offer, None)
            else:
                self._desk.answered(answer.id, answer.label)
                self._watcher.remarked(f"you were first: {answer.label}")

    async def _lost(self, offer: Offer[Any], by: str | None) -> None:
        entry = self._desk.find(offer.id)
        words = await self._words_about_the_first(offer, by)
        self._watcher.remarked(words)
        if entry is not None and entry.state is not State.OVER:
            self._over(offer.id, entry.asked, words)


def usual_wishes(name: Name | None, *, all_users: bool) -> tuple[Wish, ...]:
    """What a desk hears of CUPS hosts; jobs are one's own."""
    alerts = (PrinterStatus, ServerStatus, JobStatus, PrinterChanged)
    return (
        *(Wish(name, kind, UNIDIRECTIONAL, all_users=False) for kind in alerts),
        Wish(name, JobQuestion, BIDIRECTIONAL, all_users),
    )
