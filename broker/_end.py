"""What both ends of a channel share: numbered operations, references, and what they are told.

Operations of one end are numbered and follow one another. Redis keeps the last number and its
answer, so an operation whose answer was lost is asked for again and gets the first answer.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

from broker import results
from broker._calls import NO_BODY, Stowed
from broker._entries import Entry
from broker._outcomes import CLOSED, NUMBERED, closer_detail, refusal
from broker._scripts import Call
from broker._server import Server
from broker.conversation import Style
from broker.errors import (
    ChannelAlreadyClosed,
    ContractViolation,
    NotDurable,
    OutcomeUnknown,
    SessionLapsed,
    TympanError,
)
from broker.names import Name
from broker.notification import Body, Closing, Data, Notification, Place, encode
from broker.notification_type import NOTIFICATION_RELEASE
from broker.results import Result

N = TypeVar("N", bound=Notification[Any])

DIED = "is over: its other end is gone"
FORGOTTEN = "is over: Redis forgot what was done on it"
LAPSED = "is over: this process's lease ran out, or Redis forgot this process"
"""How a channel ended that nobody closed."""

inside_closed: ContextVar[object | None] = ContextVar("inside_closed", default=None)
"""The end whose ChannelClosed callback runs in this context."""


class Answer(NamedTuple):
    """What Redis answered to one operation."""

    word: str
    detail: str
    held: bool
    """Whether replicas or disk hold it, as the settings ask."""


class End(ABC, Generic[N]):
    """One end of a channel."""

    def __init__(self, server: Server, channel: str, name: Name, type_: UUID) -> None:
        self._id = channel
        self._name = name
        self._type = type_
        self.closing: Closing | None = None
        """How the channel ended for this end, once it was told."""
        self._unclosed = DIED
        """How it ended, where nobody closed it."""
        self._server = server
        self._op = 0
        self._lock = asyncio.Lock()
        self._unsettled: tuple[object, int, Callable[[int], Call]] | None = None
        self._was_told = False
        self._is_dead = False
        self._references = 0
        self._heard = 0
        """Number of the last thing that the other end said."""
        self._arrived: deque[N] = deque()
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def id(self) -> str:
        """The channel's id."""
        return self._id

    @property
    def name(self) -> Name:
        """The printer or server that the channel is bound to."""
        return self._name

    @property
    def type(self) -> UUID:
        """The channel's one notification type (R4)."""
        return self._type

    @property
    def was_told(self) -> bool:
        """Whether the other end's close, or another's win, reached this end."""
        return self._was_told

    # References (section 6 of the documents' rules) ---------------------------------------------

    @property
    def references(self) -> int:
        """Explicit references: they are this process's own, beside the implicit one."""
        return self._references

    def add_ref(self) -> int:
        """One explicit reference more; needs exactly one release more (R107).

        Raises ContractViolation on a handle whose ChannelClosed has returned (R112).
        """
        self._refuse_dead("add_ref")
        self._references += 1
        return self._references

    async def release(self) -> Result:
        """Drop an explicit reference, or else the implicit one.

        The implicit one is dropped once, by whichever comes first: a close that succeeded, the
        other end's close, or this call where the reference is the caller's. One release after
        one's own close is allowed and changes nothing (C13). Raises ContractViolation, without
        side effects, where it is not the caller's to drop (R109, R111, R112, R114).
        """
        if self._references:
            self._references -= 1
            return results.S_OK
        self._not_inside_closed("release")
        self._refuse_dead("release")
        if self._was_told and self.closing is not None and not self.closing.acquired:
            raise ContractViolation(
                f"channel {self.id}: the broker dropped this reference when it told of the close",
                self.id,
            )
        return await self._end_by(
            self._operate("release", lambda op: self._close_call(op, "release", NO_BODY))
        )

    def closed_returned(self) -> None:
        """Its ChannelClosed callback has returned: the reference is dropped, the handle dead."""
        self._is_dead = True

    def _refuse_dead(self, call: str) -> None:
        if self._is_dead:
            raise ContractViolation(
                f"channel {self.id}: {call} on a handle whose ChannelClosed has returned; nothing "
                "was done",
                self.id,
            )

    def _not_inside_closed(self, call: str) -> None:
        if inside_closed.get() is self:
            raise ContractViolation(
                f"channel {self.id}: {call} inside its ChannelClosed callback; nothing was done",
                self.id,
            )

    # Operations ---------------------------------------------------------------------------------

    def _encode(self, body: Body, *, ends: bool = False) -> bytes:
        return encode(body, self._type, self._end_place if ends else self._place)

    @cached_property
    def _place(self) -> Place:
        return Place(self.style, self._server.settings.max_payload, is_reason=False)

    @cached_property
    def _end_place(self) -> Place:
        return Place(self.style, self._server.settings.max_payload, is_reason=True)

    def _encode_reason(self, reason: Body | None) -> bytes | None:
        if reason is None or self._is_silent(reason):
            return None
        return self._encode(reason, ends=True)

    @staticmethod
    def _is_silent(reason: Body | None) -> bool:
        """Whether a close with this reason says nothing to the other end."""
        return reason is None or (isinstance(reason, Data) and reason.type == NOTIFICATION_RELEASE)

    async def _operate(
        self, what: object, make: Callable[[int], Call], *, durable: bool = False, many: int = 1
    ) -> Answer:
        """Run one numbered operation, or so many together. One call at a time.

        An earlier one whose outcome is unknown is settled first; if it is the same one, its first
        answer is this one's.
        """
        async with self._lock:
            if self._unsettled is not None:
                unsettled, op, call = self._unsettled
                answer = await self._led(unsettled, op, call, durable)
                if unsettled == what:
                    return answer
            return await self._led(what, self._op + many, make, durable)

    async def _settle(self, what: str) -> tuple[Any, Answer] | None:
        """The last operation and its answer, where it is such a one and its outcome unknown."""
        if self._unsettled is None:
            return None
        async with self._lock:
            if self._unsettled is None or not self._is_of(what, self._unsettled[0]):
                return None
            unsettled, op, call = self._unsettled
            return unsettled, await self._led(unsettled, op, call, durable=True)

    @staticmethod
    def _is_of(kind: str, what: object) -> bool:
        return isinstance(what, tuple) and what[0] == kind

    async def _led(
        self, what: object, op: int, make: Callable[[int], Call], durable: bool
    ) -> Answer:
        """The same, once more where the answer says that what this end knew is out of date."""
        answer = await self._numbered(what, op, make, durable)
        while answer.word in ("MOVED", "POOLS"):
            if answer.word == "MOVED":
                await self.confirm()  # another replica of its owner, or another owner than its own
                self._moved(answer.detail)
            else:
                await self._server.list_pools(answer.detail)
            answer = await self._numbered(what, op, make, durable)
        return answer

    async def _numbered(
        self, what: object, op: int, make: Callable[[int], Call], durable: bool
    ) -> Answer:
        self._unsettled = (what, op, make)
        try:
            (word, *rest), held = await self._server.ask_durably(lambda: make(op), durable=durable)
        except (OutcomeUnknown, asyncio.CancelledError):
            raise
        except BaseException:
            self._unsettled = None
            raise
        self._unsettled = None
        if word in NUMBERED or (word == "ACQUIRED" and self._is_close(what)):
            self._op = op
        if word == "GAP":
            await self._abandon()
        if word in ("NOT_OFFERED", "GONE"):
            self._forgotten()
        detail = rest[0].decode() if rest and isinstance(rest[0], bytes) else ""
        return Answer(word, detail, held)

    @classmethod
    def _is_close(cls, what: object) -> bool:
        return what == "release" or cls._is_of("close", what)

    async def _with_body(
        self, what: str, data: bytes | None, make: Callable[[int, Stowed], Call]
    ) -> Answer:
        """An operation that carries a body, put where it belongs first."""
        settles = self._unsettled is not None and self._unsettled[0] == (what, data)
        stowed = NO_BODY if settles else await self._server.stow(data)
        answer = await self._carry((what, data), data, stowed, make)
        if answer.word not in NUMBERED:
            await self._server.discard(stowed)
        return answer

    async def _carry(
        self,
        what: object,
        data: bytes | None,
        stowed: Stowed,
        make: Callable[[int, Stowed], Call],
        many: int = 1,
    ) -> Answer:
        """An operation whose body is in place; where it ended there, it is put there again."""
        while True:
            answer = await self._operate(what, lambda op: make(op, stowed), durable=True, many=many)
            if answer.word != "NO_BODY" or data is None or stowed.key is None:
                return answer
            await self._server.store(stowed.key, data)

    async def close(self, reason: Body | None = None) -> Result:
        """Close the channel, with or without a reason; or, for a listener, decline.

        Returns S_OK, or for a listener that lost the race CHANNEL_ACQUIRED with success severity
        (R83). Raises ChannelAlreadyClosed, ChannelNotOpened before anything was sent (R100),
        InvalidNotificationType, NotificationTooLarge, ContractViolation inside ChannelClosed.
        """
        self._not_inside_closed("close")
        data = self._encode_reason(reason)
        self._refuse_when_told()
        return await self._end_by(
            self._with_body("close", data, lambda op, stowed: self._close_call(op, "close", stowed))
        )

    async def _end_by(self, operation: Awaitable[Answer]) -> Result:
        """This end is over when the operation succeeds."""
        answer = await operation
        if answer.word not in CLOSED:
            raise self._refusal(answer)
        self._end_here()
        return self._durable(answer, CLOSED[answer.word])

    def _refusal(self, answer: Answer) -> TympanError:
        return refusal(answer.word, channel=self.id, detail=answer.detail, me=self._me)

    def _durable(self, answer: Answer, result: Result) -> Result:
        """The result, or NotDurable where it is done but not as safe as the settings ask."""
        if answer.held:
            return result
        settings = self._server.settings
        raise NotDurable(
            f"channel {self.id}: done ({result.name}), but not held by what "
            f"durability={settings.durability} asks for within {settings.durability_timeout:g} s",
            result,
        )

    def _refuse_when_told(self) -> None:
        if self.closing is not None and (self._is_dead or not self.closing.acquired):
            raise self._is_over()

    def _is_over(self) -> ChannelAlreadyClosed:
        """The error for a channel of whose end this end was told."""
        by = self.closing.by if self.closing is not None else None
        who = {None: self._unclosed, self._me: "was closed here before"}
        return ChannelAlreadyClosed(
            f"channel {self.id} {who.get(by, f'was closed by {by}')}",
            self.id,
            None if by is None else closer_detail(by, self._me),
        )

    # What is told -------------------------------------------------------------------------------

    def told(self, entry: Entry) -> None:
        """An entry of the inbox that concerns this end."""
        if entry.text("event") == "closed":
            self._closed(self._closing(entry))
        elif self.closing is None:
            self._hear(entry)

    def _is_repeated(self, entry: Entry) -> bool:
        """Whether the other end said this before: to a Redis that forgot it, and was asked again.

        Each end numbers what it does on a channel (D24).
        """
        number = int(entry.text("op") or 0)
        if 0 < number <= self._heard:
            return True
        self._heard = max(self._heard, number)
        return False

    def peer_died(self, how: str = LAPSED) -> None:
        """The lease, or what Redis knew of the channel, is gone: NOTIFICATION_RELEASE."""
        if self.closing is None:
            self._unclosed = how
        self._closed(Closing(self.id, self._release_notice(), None))

    def _release_notice(self) -> Notification[Any]:
        return Notification(NOTIFICATION_RELEASE, None, self.id, self.name, None, 0.0)

    def _closing(self, entry: Entry) -> Closing:
        reason: Notification[Any] = self._release_notice()
        if "body" in entry.fields or "ref" in entry.fields:
            reason = self._notification(entry)
        return Closing(self.id, reason, entry.text("by") or entry.text("user") or None)

    def _closed(self, closing: Closing) -> None:
        if self.closing is None:
            self.closing = closing
            self._was_told = True
            self._arrived.clear()
            self._over()
            self._wake()

    def broker_closed(self) -> None:
        """The broker object was closed under this end; whoever waits is woken."""
        self._end_here()

    def _end_here(self) -> None:
        """This end closed, declined or let go."""
        if self.closing is None:
            self.closing = Closing(self.id, self._release_notice(), self._me)
        self._arrived.clear()
        self._over()
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _await(self, ready: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until something that was told makes ``ready`` true; False after the timeout."""
        loop = asyncio.get_running_loop()
        due = None if timeout is None else loop.time() + timeout
        while not ready():
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiters.add(waiter)
            try:
                if due is None:
                    await waiter
                else:
                    async with asyncio.timeout_at(due):
                        await waiter
            except TimeoutError:
                return ready()
            finally:
                self._waiters.discard(waiter)
        return True

    async def next_told(self) -> N | None:
        """What the other end says next; None when the channel is over."""
        await self._await(lambda: bool(self._arrived) or self.closing is not None, None)
        return self._next() if self._arrived else None

    def _next(self) -> N:
        """The oldest thing that was said; presented, as of now."""
        return self._arrived.popleft()

    async def wait_closed(self, timeout: float | None = None) -> Closing | None:
        """How the channel ended, as this end is told; None after the timeout (seconds)."""
        await self._await(lambda: self.closing is not None, timeout)
        return self.closing

    async def confirm(self) -> None:
        """After a new epoch: does Redis still know what this end knows?"""
        await self._known(self._confirm_call)

    async def _known(self, make: Callable[[], Call]) -> list[Any]:
        """What Redis says after OK; nothing where this end is over, or it forgot: then it is."""
        try:
            word, *rest = await self._server.ask(make)
        except SessionLapsed:
            return []
        if word != "OK":
            await self._abandon()
            return []
        return rest

    async def _abandon(self) -> None:
        """Redis forgot: end the channel on both sides, and never resurrect it."""
        await self._end_forgotten()
        self.peer_died(FORGOTTEN)

    def _forgotten(self) -> None:
        """Redis does not know what this end was told first."""
        self.peer_died(FORGOTTEN)

    @property
    @abstractmethod
    def style(self) -> Style:
        """The channel's conversation style."""

    @property
    @abstractmethod
    def _me(self) -> str:
        """``source``, or the listener's registration."""

    @property
    @abstractmethod
    def other_session(self) -> str:
        """Session of the other end, as far as there is one that this end knows of; or a pool."""

    @abstractmethod
    def _hear(self, entry: Entry) -> None:
        """The other end spoke."""

    @abstractmethod
    def _notification(self, entry: Entry) -> Notification[Any]:
        """What the other end said, as this end reads it."""

    @abstractmethod
    def _close_call(self, op: int, kind: str, reason: Stowed) -> Call:
        """Close, release."""

    @abstractmethod
    def _moved(self, session: str) -> None:
        """The other end lives in another session now."""

    @abstractmethod
    def _confirm_call(self) -> Call:
        """What this end knows."""

    @abstractmethod
    def _end_forgotten(self) -> Awaitable[object]:
        """Close the channel in Redis, whatever is left of it."""

    @abstractmethod
    def _over(self) -> None:
        """The server need not keep this end any more."""
