"""Registrations: what a listener hears, and where it takes what came."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextvars import copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self
from uuid import UUID

from broker._backlog import Backlog
from broker._entries import Entry, Sent
from broker._keys import EVERYONE
from broker._outcomes import PRINTER_DELETED
from broker._plan import RegistrationPlan
from broker._room import Room
from broker._server import Server, new_id
from broker.conversation import ALL_USERS, BIDIRECTIONAL, Style, UserFilter
from broker.errors import (
    AlreadyRegistered,
    AlreadyUnregistered,
    CallAlreadyParked,
    InvalidArgument,
    NotRegistered,
    OutcomeUnknown,
    RegistrationEnded,
    TympanError,
)
from broker.names import Name, name_of
from broker.notification import Notification, P
from broker.notification_type import NOTIFICATION_RELEASE, check_style
from broker.offer import Offer
from broker.results import ALREADY_UNREGISTERED, NOT_REGISTERED, S_OK, Result
from broker.rights import to_administer, to_listen

if TYPE_CHECKING:
    from broker._dispatch import Dispatcher
    from broker._end import End
    from broker.settings import Settings


MAX_BUFFER = 1_000_000
UNREGISTERED = "it was unregistered"
REMEMBERED = 10_000
"""Channels that a registration remembers it heard of: as many as may be open by default. So a Redis
that forgot what was said on them does not say it to the same registration again (R72, D13)."""


def needed_by(settings: Settings, name: Name, user_filter: UserFilter) -> int:
    """Mask of the right that a listener for a name stands on (R17 to R19); 0 for none."""
    if user_filter is ALL_USERS:
        return int(to_administer(name, strict=settings.strict_rights))
    return int(to_listen(name)) if settings.require_use else 0


Hand = Callable[[Notification[P]], Coroutine[Any, Any, None] | None]


class Registration(Generic[P]):
    """One registration object: register, take what comes, unregister; then perhaps again (R36).

    Iterate over it, or :meth:`fetch` one by one. A unidirectional one yields notifications, a
    bidirectional one offers.
    """

    def __init__(
        self, server: Server, name: Name, model: type[P] | None, *, everywhere: bool = False
    ) -> None:
        self.server = server
        self._name = name
        self.model: type[P] | None = model
        self.everywhere = everywhere
        """Whether it is one server's part of a farm-wide registration."""
        self.on_news: Callable[[], None] | None = None
        """Called when something came, or when it ended."""
        self.id = ""
        self.buffer = server.settings.buffer
        self.rooms: list[Room] = []
        self._plan: RegistrationPlan | None = None
        self._state = "new"
        self._cause: TympanError | None = None
        self._why = ""
        self._fetcher: asyncio.Future[None] | None = None
        self._leaving: tuple[str, RegistrationPlan] | None = None
        self._is_fetching = False
        self._backlog: Backlog[P] = Backlog()
        self._new_offers: deque[Offer[P]] = deque()
        self._offers: dict[str, Offer[P]] = {}
        self._seen: dict[str, None] = {}
        self._heard: dict[str, int] = {}
        """The last thing that each source said, by channel; the latest last."""
        self._dispatcher: Dispatcher | None = None
        self._hand: Hand[P] | None = None
        """Takes what comes, while :meth:`hand_to` waits."""
        self._unfinished: Coroutine[Any, Any, None] | None = None
        """What is left to do for the notification that was handed over."""

    @property
    def name(self) -> Name:
        """The printer or server that it listens to."""
        return self._name

    @property
    def plan(self) -> RegistrationPlan:
        """What it is registered for; raises NotRegistered before the first time."""
        if self._plan is None:
            raise NotRegistered("this registration object was never registered")
        return self._plan

    @property
    def has_plan(self) -> bool:
        """Whether it was registered, or tried to be."""
        return self._plan is not None

    @property
    def is_registered(self) -> bool:
        """Whether it stands now."""
        return self._state == "registered"

    @property
    def was_unregistered(self) -> bool:
        """Whether its own listener ended it."""
        return self._state == "ended" and self._why == UNREGISTERED

    @property
    def has_ended(self) -> bool:
        """Whether it stands no more, and is not made again."""
        return self._state == "ended"

    @property
    def ending(self) -> RegistrationEnded:
        """Why it ended, once it has."""
        return RegistrationEnded(
            f"registration {self.id} for {self.name} ended: {self._why}", self.id
        )

    @property
    def unread(self) -> int:
        """What waits here to be fetched."""
        return len(self._backlog) + len(self._new_offers)

    @property
    def denied(self) -> int:
        """Notifications that this registration missed because its buffer was full."""
        return sum(place.denied for place in self.rooms)

    # Life ---------------------------------------------------------------------------------------

    async def register(
        self,
        type_: UUID,
        *,
        name: Name | None = None,
        user: str,
        user_filter: UserFilter,
        style: Style,
        printers: bool = False,
        buffer: int | None = None,
    ) -> None:
        """Register as ``user``, who stays the user whatever becomes of the connection (R14).

        ``name``: another printer of the same server, or that server, than the object was made for.

        Raises AlreadyRegistered (R23), AccessDenied (R17 to R19), RightsUnavailable,
        MaxRegistrationCountExceeded, InvalidStyle (R129).
        After a failure nothing is delivered here (R25).
        """
        if self._state == "registered":
            raise AlreadyRegistered(f"registration {self.id} stands already", self.id)
        check_style(type_, style)
        if name is not None and name.server != self.server.name:
            raise InvalidArgument(f"this registration object is for {self.server.name}, not {name}")
        self._name = name or self._name
        if printers and self.name.printer:
            raise InvalidArgument(
                f"printers=True hears all printers of a server; {self.name} is a printer"
            )
        needed = needed_by(self.server.settings, self.name, user_filter)
        source = self.server.listening.standing.source if needed else ""
        self._plan = RegistrationPlan(
            self.name, type_, style, user, user_filter, printers, needed, source
        )
        self.buffer = self.server.settings.buffer if buffer is None else buffer
        if type(self.buffer) is not int or not 1 <= self.buffer <= MAX_BUFFER:
            raise InvalidArgument(
                f"buffer={self.buffer!r}: a registration holds 1 to {MAX_BUFFER:,} notifications"
            )
        self._backlog.clear()
        self._state = "registering"
        try:
            await self._join()
        except BaseException:
            self._state = "new"
            raise
        self._state = "registered"

    async def _join(self) -> None:
        self.id = new_id()
        self.rooms = []
        self._new_offers.clear()
        self._offers = {}
        self._seen = {}
        self.server.beginning.add(self.id)
        try:
            await self.server.listening.join(self)
        except (OutcomeUnknown, asyncio.CancelledError):
            self.server.listening.doubtful[self.id] = self.plan
            self.server.spawn(self.server.listening.settle_doubts())
            raise
        finally:
            self.server.beginning.discard(self.id)
            if self.id not in self.server.listening.registrations:
                await self.server.listening.leave(self)

    def take_another_id(self) -> None:
        """While it joins: the one before is that of a session that is over."""
        self.id = self.server.another_id(self.id)

    def record(self, session: str) -> dict[str, Any]:
        """What Redis keeps of it."""
        return {
            **self.plan.record(),
            "buffer": self.buffer,
            "session": session,
            "everywhere": self.everywhere,
        }

    async def unregister(self) -> Result:
        """End the registration; returns at once, also while a fetch waits (R30).

        The waiting fetch ends with RegistrationEnded (R31). Undelivered notifications are dropped
        (R33); dialogs that were handed out go on (R34). Returns S_OK; ALREADY_UNREGISTERED or
        NOT_REGISTERED with success severity where there was nothing to end (R28, R29).
        """
        if self._leaving is not None:
            return await self._leave(*self._leaving)
        if self._state == "new":
            return NOT_REGISTERED
        if self._state in ("ended", "parting"):
            self.ended(self._why, self._cause)
            return ALREADY_UNREGISTERED
        self.ended(UNREGISTERED)
        return await self._leave(self.id, self.plan)

    async def _leave(self, made: str, plan: RegistrationPlan) -> Result:
        """Until Redis answered, another call asks the same again."""
        self._leaving = (made, plan)
        await self.server.listening.leave(self)
        await self.server.listening.end(made, plan)
        self._leaving = None
        return S_OK

    def ended(self, why: str, cause: TympanError | None = None) -> None:
        """It stands no more: unregistered, revoked, or not to be renewed."""
        self._state, self._why, self._cause = "ended", why, cause
        self._backlog.clear()
        for offer in list(self._new_offers):
            self._offers.pop(offer.id, None)
        self._new_offers.clear()
        self._wake()

    def part(self, why: str, cause: TympanError | None = None) -> None:
        """It was ended by another's will; a release that waits here is handed out before.

        One whose right went with its printer is always told of that first.
        """
        if self._state == "ended":
            return
        if why == PRINTER_DELETED and self.plan.style is not BIDIRECTIONAL:
            self._backlog.release(self._release_notice(0.0))
        if not self._backlog.ends_with_release:
            self.ended(why, cause)
            return
        self._state, self._why, self._cause = "parting", why, cause
        self._backlog.leave_rooms()
        self._wake()

    def broker_closed(self) -> None:
        """The broker object was closed under it; whoever waits is woken."""
        self.ended(self._why or "its broker was closed")
        for offer in list(self._offers.values()):
            offer.broker_closed()

    def session_lapsed(self) -> None:
        """Its process was declared dead: what was open here is over; it will register again.

        Notifications that were accepted before, and are here, stay to be fetched.
        """
        self._begin_again(list(self._offers.values()))

    def lost(self) -> None:
        """Redis lost it: it will register again. Dialogs go on, questions are offered anew."""
        self._begin_again(
            [each for each in self._offers.values() if not (each.is_mine or each.is_answering)]
        )

    def _begin_again(self, over: list[Offer[P]]) -> None:
        """It will register again; these offers are over."""
        if self._state != "ended":
            self._state = "registering"
        self._backlog.leave_rooms()
        for offer in over:
            offer.peer_died()
        self._new_offers.clear()
        self._offers = {}

    async def renew(self) -> None:
        """Register anew, as the same user, under a new id; fetches wait meanwhile."""
        if self._state == "ended":
            return
        self._state = "registering"
        await self._join()
        if self._state == "ended":  # its listener lost interest while it was made
            await self._leave(self.id, self.plan)
        else:
            self._state = "registered"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._dispatcher is not None:
            await self._dispatcher.close()
        if self._state not in ("new", "ended"):
            await self.unregister()

    # What comes ---------------------------------------------------------------------------------

    def arrived(self, place: Room, entry: Entry) -> None:
        """A unidirectional notification was accepted; or its printer was deleted (R65)."""
        if self._state not in ("registering", "registered"):
            return
        if entry.is_release:
            if self._backlog.hear_of(entry.text("deletion"), place, self.rooms):
                self._backlog.release(self._release_notice(float(entry.text("at") or 0) / 1000))
                self._wake()
            return
        sent = entry.sent
        if self._is_repeated(sent):
            place.taken += 1  # it waits nowhere
            return
        notification: Notification[P] = Notification(
            self.plan.type,
            sent.body,
            sent.channel,
            name_of(self.name.server, sent.printer),
            None if sent.user == EVERYONE else sent.user,
            sent.at,
            self.model,
            trace=sent.trace,
        )
        hand, parked = self._hand, self._fetcher
        if hand is None or parked is None or parked.done() or place.is_half_full:
            self._backlog.add(place, notification)
        else:  # nothing waits before it, and no callback runs
            place.taken += 1
            self.server.listening.taken(place, self)
            self._unfinished = hand(notification)
            if self._unfinished is None:
                return
        self._wake()

    def _is_repeated(self, sent: Sent) -> bool:
        """Whether its source said this before: to a Redis that forgot it, and was asked again.

        A source numbers what it sends on a channel (D24).
        """
        heard = self._heard
        before = heard.pop(sent.channel, 0)
        heard[sent.channel] = max(before, sent.number)
        if len(heard) > REMEMBERED:
            del heard[next(iter(heard))]
        return 0 < sent.number <= before

    def _release_notice(self, at: float) -> Notification[P]:
        return Notification(NOTIFICATION_RELEASE, None, "", self.name, None, at)

    def offered(self, entry: Entry) -> None:
        """A question is open; the same one is offered once (R72)."""
        channel = entry.text("channel")
        if channel in self._seen or self._state not in ("registering", "registered"):
            return
        self._seen[channel] = None
        if len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]
        offer: Offer[P] = Offer(self, entry)
        self._offers[channel] = offer
        self._new_offers.append(offer)
        self._wake()

    def withdrawn(self, entry: Entry) -> None:
        """A question is over. One that nobody has fetched yet is never handed out.

        A fetch that was woken for it has it, although it runs only in the loop's next turn.
        """
        channel = entry.text("channel")
        is_forgotten = entry.text("event") == "forgotten"
        offer = self._offers.get(channel)
        if offer is None or (is_forgotten and offer.is_answering):
            return
        del self._offers[channel]
        if is_forgotten:
            self._seen.pop(channel, None)
        is_handed = self._fetcher is not None and self._fetcher.done()
        if offer in self._new_offers and not is_handed:
            self._new_offers.remove(offer)
        offer.withdrawn(entry)
        if self._state == "ended" and not self._offers:
            self.server.spawn(self.server.listening.leave(self))

    def forget(self, offer: End[Any]) -> None:
        """Redis knows nothing of the question; where it is asked again, it is new here."""
        if self._offers.pop(offer.id, None) is not None:
            self._seen.pop(offer.id, None)
            self.server.listening.look_again(self)

    def open_offers(self) -> set[str]:
        """Channels whose fate still concerns this registration."""
        return set(self._offers)

    def _wake(self) -> None:
        if self._fetcher is not None and not self._fetcher.done():
            self._fetcher.set_result(None)
        if self.on_news is not None:
            self.on_news()

    # Fetching -----------------------------------------------------------------------------------

    async def fetch(self, timeout: float | None = None) -> Notification[P] | Offer[P] | None:
        """The next notification or offer; None after ``timeout`` seconds.

        Where its printer was deleted, a unidirectional one gets a NOTIFICATION_RELEASE (R65). It
        stays registered, and hears of a printer of that name that comes again.

        One fetch at a time: a second raises CallAlreadyParked and leaves the first (R63, R73).
        Raises NotRegistered or AlreadyUnregistered where it does not stand (R37), and
        RegistrationEnded where it ends meanwhile (R31).
        """
        self._park()
        try:
            if not (self.unread or await self._ready(timeout)):
                return None
            if self._new_offers:
                return self._new_offers.popleft()
            return await self._take()
        finally:
            self._is_fetching = False

    async def hand_to(self, hand: Hand[P]) -> None:
        """Hand each notification over as it comes, one at a time, until the registration ends.

        ``hand`` returns what is to be awaited before the next one, or None. It runs in the context
        of this call. Raises as :meth:`fetch`.
        """
        self._park()
        context = copy_context()

        def here(notification: Notification[P]) -> Coroutine[Any, Any, None] | None:
            return context.run(hand, notification)

        self._hand = here
        try:
            while True:
                await self._ready(None)
                waiting, self._unfinished = self._unfinished, None
                if waiting is None:
                    waiting = here(await self._take())
                if waiting is not None:
                    await waiting
                self._refuse_ended()
        finally:
            self._hand = None
            self._is_fetching = False
            if self._unfinished is not None:
                self._unfinished.close()
                self._unfinished = None

    async def fetch_offers(self, timeout: float | None = None) -> list[Offer[P]]:
        """All offers not fetched yet (R71); none after the timeout. Otherwise as :meth:`fetch`."""
        if self.plan.style is not BIDIRECTIONAL:
            raise InvalidArgument(f"registration {self.id} is unidirectional: it gets no offers")
        self._park()
        try:
            if not await self._ready(timeout):
                return []
            offers = list(self._new_offers)
            self._new_offers.clear()
            return offers
        finally:
            self._is_fetching = False

    def _park(self) -> None:
        self._refuse_ended()
        if self._is_fetching:
            raise CallAlreadyParked(
                f"registration {self.id}: a fetch waits already; one at a time", self.id
            )
        self._is_fetching = True

    async def _take(self) -> Notification[P]:
        """The head of the queue. It leaves the queue last: a cancelled fetch loses nothing."""
        notification = self._backlog.head
        place = self._backlog.count_head()
        if place is not None:
            self.server.listening.taken(place, self)
            if place.is_short:
                await self.server.listening.written(place)
                if not self._backlog:  # it ended meanwhile
                    self._refuse_ended()
        self._backlog.pop()
        if self._state == "parting" and not self._backlog:
            self.ended(self._why, self._cause)
        return notification

    async def _ready(self, timeout: float | None) -> bool:
        """Park until something is there; False after the timeout."""
        loop = asyncio.get_running_loop()
        due = None if timeout is None else loop.time() + timeout
        while not (self.unread or self._unfinished):
            self._fetcher = loop.create_future()
            try:
                if due is None:
                    await self._fetcher
                else:
                    async with asyncio.timeout_at(due):
                        await self._fetcher
            except TimeoutError:
                return bool(self.unread)
            finally:
                self._fetcher = None
            if self._state == "ended" and self._unfinished is None:
                raise self.ending from self._cause
        return True

    def _refuse_ended(self) -> None:
        if self._state == "new":
            raise NotRegistered("this registration object is not registered")
        if self._state == "ended":
            if self._why == UNREGISTERED:
                raise AlreadyUnregistered(f"registration {self.id} was unregistered", self.id)
            raise self.ending from self._cause

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._all()

    async def _all(self) -> AsyncIterator[Any]:
        while True:
            try:
                item = await self.fetch()
            except (AlreadyUnregistered, RegistrationEnded):
                if self.was_unregistered:
                    return
                raise
            if item is not None:
                yield item

    # Callbacks ----------------------------------------------------------------------------------

    def dispatch_to(self, make: Callable[[Registration[P]], Dispatcher]) -> None:
        """Hand what comes to a callback, from now on."""
        self._dispatcher = make(self)

    @property
    def callback_references(self) -> int:
        """References that the broker holds on the callback: one, and one for each live channel."""
        return self._dispatcher.references if self._dispatcher is not None else 0
