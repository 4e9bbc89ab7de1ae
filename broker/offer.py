"""Offers: the listener's end of a bidirectional channel. The first to respond owns the dialog."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Protocol

from broker import _calls, _trace
from broker._calls import NO_BODY, Handle, Route, Stowed
from broker._end import FORGOTTEN, End
from broker._entries import Entry
from broker._keys import EVERYONE
from broker._plan import RegistrationPlan
from broker._scripts import Call
from broker.conversation import BIDIRECTIONAL, Style
from broker.errors import (
    CallAlreadyParked,
    ChannelAcquired,
    ChannelAlreadyClosed,
    ResponseTimeout,
)
from broker.names import name_of
from broker.notification import Body, Closing, Notification, P
from broker.results import S_OK, Result

if TYPE_CHECKING:
    from broker._server import Server


class Listener(Protocol[P]):
    """Who is offered a question: a registration, or a pool's replica."""

    server: Server
    model: type[P] | None

    @property
    def id(self) -> str:
        """The registration's id."""

    @property
    def plan(self) -> RegistrationPlan:
        """What it listens to."""

    def forget(self, offer: End[Any]) -> None:
        """Redis knows nothing of the question, which is over here."""


class Offer(End[Notification[P]], Generic[P]):
    """A question that this listener may answer: its own handle to the channel.

    The handle comes with its initial notification and stays the same object for the whole dialog
    (R12, R116).
    """

    def __init__(self, registration: Listener[P], entry: Entry) -> None:
        asked, plan = entry.sent, registration.plan
        name = name_of(plan.name.server, asked.printer)
        super().__init__(registration.server, asked.channel, name, plan.type)
        self.registration = registration
        self._target = asked.user
        self._listener = registration.id
        self._session = self._server.session
        self._source = entry.text("source")
        self._asked = entry.reference
        self._token = ""
        self._first_fetched = False
        self._parked = False
        self._answering = asyncio.Lock()
        self._loss: Closing | None = None
        """That another was first, as this end was told, while its own answer is on its way."""
        self.notification: Notification[P] = self._notification(entry)
        """The initial notification; every listener sees the same bytes (R67)."""

    @property
    def payload(self) -> P:
        """The initial notification's validated model; raises PayloadInvalid."""
        return self.notification.payload

    @property
    def style(self) -> Style:
        """Bidirectional: only then is there an offer."""
        return BIDIRECTIONAL

    @property
    def is_mine(self) -> bool:
        """Whether this listener owns the dialog."""
        return bool(self._token)

    @property
    def is_answering(self) -> bool:
        """Whether an answer is on its way: what Redis says to it decides."""
        return self._answering.locked()

    @property
    def is_lost(self) -> bool:
        """Whether this end was told that another listener was first."""
        return self.closing is not None and self.closing.acquired

    @property
    def other_session(self) -> str:
        """See :attr:`broker._end.End.other_session`."""
        return self._source

    @property
    def _me(self) -> str:
        return self._listener

    @cached_property
    def _handle(self) -> Handle:
        """This end, as the scripts are told; most questions are answered by somebody else."""
        return Handle(
            self._listener,
            self.registration.plan.user,
            self._session,
            self._source,
            Route.to_boards(self._server.keys, self.id, self.name, self.type, self._target),
            self._asked,
        )

    # Answering ----------------------------------------------------------------------------------

    async def respond(self, body: Body) -> Result:
        """Answer. The first answer on a channel acquires it (R76); later ones carry the dialog on.

        Raises ChannelAcquired where another listener was first: the data reached nobody (R82).
        Raises ChannelAlreadyClosed, CallInProgress (R88), InvalidNotificationType,
        NotificationTooLarge; a failed answer leaves the channel as it was (R93).
        """
        data = self._encode(body)
        if not self.is_lost:
            self._refuse_when_told()
        async with self._answering:
            self._server.dialogs[self.id, self._me] = self
            if self.is_lost:  # perhaps to somebody whom Redis forgot
                self._loss, self.closing, self._was_told = self.closing, None, False
            try:
                with _trace.sending("respond", self.id, self.type, self.name):
                    answer = await self._with_body("respond", data, self._respond_call)
                if answer.word == "OK":
                    if not self._token:
                        self._server.observer.acquisition_ended(won=True)
                    self._token, self._loss = answer.detail, None
            finally:
                loss, self._loss = self._loss, None
                if loss is not None:
                    self._closed(loss)
                if not self._token and self._unsettled is None:
                    self._over()
        if answer.word == "ACQUIRED":
            self._server.observer.acquisition_ended(won=False)
            self._lost_to(answer.detail)
        if answer.word != "OK":
            raise self._refusal(answer)
        return self._durable(answer, S_OK)

    async def close(self, reason: Body | None = None) -> Result:
        """Close the channel, or decline; see :meth:`End.close`.

        A reason is an answer, too: the first one acquires the channel, and ends it.
        """
        answers = not self.is_mine and not self._is_silent(reason)
        result = await super().close(reason)
        if answers:
            self._server.observer.acquisition_ended(won=result == S_OK)
        return result

    async def decline(self) -> Result:
        """Leave the channel to the others; the source is not told (R79 to R81)."""
        return await self.close()

    async def follow_up(self, timeout: float | None = None) -> Notification[P]:
        """The source's next notification in the dialog.

        Raises ResponseTimeout after ``timeout`` seconds, ChannelAlreadyClosed at the dialog's end.
        """
        if not await self._await(lambda: bool(self._arrived) or self.closing is not None, timeout):
            raise ResponseTimeout(f"channel {self.id}: nothing came in {timeout:g} s", self.id)
        if self._arrived:
            return self._next()
        raise self._is_over()

    async def follow_ups(self) -> AsyncIterator[Notification[P]]:
        """The source's further notifications, until the dialog ends."""
        while True:
            try:
                yield await self.follow_up()
            except ChannelAlreadyClosed:
                return

    async def exchange(self, body: Body = b"") -> tuple[Offer[P] | None, Notification[Any]]:
        """The wire protocol's one call for both directions: answer, then wait for what comes next.

        The first call on a handle ignores ``body`` and returns the initial notification (R75).
        Returns this handle and the next notification, or None and the final data: a
        NOTIFICATION_RELEASE where another listener acquired the channel (R84). One call at a
        time: a second raises CallAlreadyParked and leaves the first.
        """
        self._refuse_dead("exchange")
        if self._parked:
            raise CallAlreadyParked(f"channel {self.id}: a call waits on this handle already")
        self._parked = True
        try:
            first, self._first_fetched = not self._first_fetched, True
            if first and self.closing is None:
                return self, self.notification
            if self.closing is None:
                with contextlib.suppress(ChannelAcquired):
                    await self.respond(body)
            await self._await(lambda: bool(self._arrived) or self.closing is not None, None)
            if self._arrived:
                return self, self._next()
            assert self.closing is not None
            return None, self.closing.reason
        finally:
            self._parked = False

    def _respond_call(self, op: int, stowed: Stowed) -> Call:
        return _calls.respond(
            self._server.keys, self._handle, op, self._server.keep, stowed, _trace.current()
        )

    # Being told ---------------------------------------------------------------------------------

    def withdrawn(self, entry: Entry) -> None:
        """The question is over: acquired (perhaps by us), or closed by its source."""
        event = entry.text("event")
        if event == "forgotten":
            self.peer_died(FORGOTTEN)
        elif event != "acquired":
            self._closed(self._closing(entry))
        elif entry.text("registration") != self._me:
            self._lost_to(entry.text("user"))

    def _lost_to(self, user: str) -> None:
        loss = Closing(self.id, self._release_notice(), user or None, acquired=True)
        if self.is_answering:
            self._loss = loss
        else:
            self._closed(loss)

    def _forgotten(self) -> None:
        super()._forgotten()
        self.registration.forget(self)

    def _hear(self, entry: Entry) -> None:
        if self._is_repeated(entry):
            return
        self._arrived.append(self._notification(entry))
        self._wake()

    def _notification(self, entry: Entry) -> Notification[P]:
        said = entry.sent
        return Notification(
            self.type,
            said.body,
            self.id,
            self.name,
            None if self._target == EVERYONE else self._target,
            said.at,
            self.registration.model,
            trace=said.trace,
        )

    # Ending -------------------------------------------------------------------------------------

    def _close_call(self, op: int, kind: str, reason: Stowed) -> Call:
        return _calls.listener_close(
            self._server.keys, self._handle, op, kind, self._server.keep, reason
        )

    def _moved(self, session: str) -> None:
        raise AssertionError(f"a source does not move, but {self.id} to {session}")

    def _confirm_call(self) -> Call:
        return _calls.confirm(self._server.keys, self.id, self._me, self._op, self._token)

    async def abandon(self) -> None:
        """End the dialog in Redis, if this listener owns it there, whatever this end knows."""
        await self._server.ask(lambda: self._close_call(0, "abandon", NO_BODY))

    async def _end_forgotten(self) -> None:
        await self.abandon()

    def _over(self) -> None:
        key = (self.id, self._me)
        if self._server.dialogs.get(key) is self:  # it may have been asked again since
            del self._server.dialogs[key]

    def __repr__(self) -> str:
        return f"<Offer {self.id} of {self.name} to {self.registration.plan.user}>"
