"""The channel pointer: who may drop the implicit reference, and what is still to be told.

The rules are the core's; here is what the documents' caller has in hand beside it: explicit
references, and which of Close, Release and ChannelClosed was first where they meet.
"""

# ruff: noqa: N802 (the documents' names)

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

from broker._hresult import E_UNEXPECTED, FAILED, HRESULT, S_OK, SUCCEEDED
from broker._interfaces import (
    ArrivedData,
    IPrintAsyncNotifyCallback,
    IPrintAsyncNotifyChannel,
    IPrintAsyncNotifyDataObject,
    Report,
    call_out,
    read,
)
from broker.errors import BrokerClosed, ContractViolation, NotDurable, TympanError
from broker.notification import Body, Notification
from broker.results import LOST_THE_RACE, Code, Result
from broker.sync import Channel, Offer

log = logging.getLogger("tympan")

ACQUIRED = HRESULT(Result.error(Code.CHANNEL_ACQUIRED).hresult)
ALREADY_CLOSED = HRESULT(Result.error(Code.CHANNEL_ALREADY_CLOSED).hresult)

End = Channel | Offer[Any]


def attempt(report: Report, work: Callable[[], Result]) -> tuple[HRESULT, TympanError | None]:
    """What the core says, as a status. What is done, and not held as asked, is done."""
    try:
        return HRESULT(work().hresult), None
    except NotDurable as error:
        log.warning("%s", error)
        return HRESULT(error.outcome.hresult), error
    except TympanError as error:
        if isinstance(error, ContractViolation):
            report(error)
        else:
            log.debug("%s", error)
        return HRESULT(error.result.hresult), error
    except Exception as error:
        log.exception("a call failed")
        return E_UNEXPECTED, TympanError(str(error))


class Loan:
    """One reference on a callback: given back when it ended and no call of it runs."""

    def __init__(self, callback: IPrintAsyncNotifyCallback) -> None:
        self._callback = callback
        self._lock = threading.Lock()
        self._uses = 1
        self.is_ended = False
        call_out(callback.AddRef)

    def begin(self) -> bool:
        """Whether the callback may be called; then :meth:`done` is due."""
        with self._lock:
            self._uses += not self.is_ended
            return not self.is_ended

    def end(self) -> None:
        """No call begins any more."""
        with self._lock:
            if self.is_ended:
                return
            self.is_ended = True
        self.done()

    def done(self) -> None:
        """A call returned."""
        with self._lock:
            self._uses -= 1
            is_last = not self._uses
        if is_last:
            call_out(self._callback.Release)


class Implicit(Enum):
    """What became of the implicit reference."""

    HELD = "there; the core knows whether it is the caller's"
    LOST = "the caller's: a call here said CHANNEL_ACQUIRED, and nothing more is told"
    CLOSED = "dropped by a close here; one Release is allowed and changes nothing (C13)"
    RELEASED = "released"
    GONE = "dropped when the other end closed; ChannelClosed is still to come"
    TOLD = "dropped with ChannelClosed"


class Pointer(IPrintAsyncNotifyChannel):
    """One end's handle."""

    def __init__(self, end: End, report: Report, ear: Ear | None = None) -> None:
        self._end = end
        self._report = report
        self._ear = ear
        self.loan = None if ear is None else Loan(ear.callback)
        self._state = threading.Condition()
        self._calls = 0
        self._is_alone = False
        self._explicit = 0
        self._implicit = Implicit.HELD
        self._telling: int | None = None
        self._is_dead = False

    # References ---------------------------------------------------------------------------------

    @property
    def references(self) -> int:
        """Explicit ones, and the implicit one while it is there."""
        return self._explicit + (self._implicit in (Implicit.HELD, Implicit.LOST))

    def AddRef(self) -> int:
        """One explicit reference more, independent of the implicit one (R107)."""
        with self._state:
            if not self._is_dead:
                self._explicit += 1
                return self.references
        self._violated("AddRef after ChannelClosed has returned")
        return 0

    def Release(self) -> int:
        """Drop an explicit reference, else the implicit one where it is the caller's.

        Returns what is left. Where the rules forbid it nothing is done, and it is reported.
        """
        with self._state:
            if self._explicit:
                self._explicit -= 1
                return self.references
        with self._alone():
            before = self._implicit
            if before is Implicit.HELD:
                status, error = attempt(self._report, self._end.release)
                may = SUCCEEDED(status) or isinstance(error, BrokerClosed)
            else:
                may = before in (Implicit.LOST, Implicit.CLOSED)
            if may:
                self._implicit = Implicit.RELEASED
        if may:
            self.over()
        elif before is not Implicit.HELD:
            self._violated(f"Release of a reference that was {before.value}")
        return self.references

    # Calls --------------------------------------------------------------------------------------

    def SendNotification(self, data: IPrintAsyncNotifyDataObject | None) -> HRESULT:
        """A source notifies, a listener responds."""
        status, body = read(data)
        if body is None:
            return status
        with self._under_way():
            if self._implicit is Implicit.TOLD:
                self._refuse_late("SendNotification")
                return ACQUIRED if self._is_lost else ALREADY_CLOSED
            status, _ = attempt(self._report, lambda: self._say(body))
            self._learn(status)
        return status

    def CloseChannel(self, data: IPrintAsyncNotifyDataObject | None = None) -> HRESULT:
        """Close, or for a listener that nobody was before, decline; with data: answer and close."""
        status, body = (S_OK, None) if data is None else read(data)
        if FAILED(status):
            return status
        with self._under_way():
            if self._implicit is Implicit.HELD:
                status, _ = attempt(self._report, lambda: self._end.close(body))
                self._learn(status)
            elif self._implicit is Implicit.LOST:
                status = HRESULT(LOST_THE_RACE.hresult)
            else:
                self._refuse_late("CloseChannel")
                return ALREADY_CLOSED
            if SUCCEEDED(status):
                with self._state:
                    self._implicit = Implicit.CLOSED
        if SUCCEEDED(status):
            self.over()
        return status

    def _say(self, body: Body) -> Result:
        return self._end.send(body) if isinstance(self._end, Channel) else self._end.respond(body)

    @property
    def _is_lost(self) -> bool:
        return isinstance(self._end, Offer) and self._end.is_lost

    def _learn(self, status: HRESULT) -> None:
        """What a status says of the implicit reference."""
        with self._state:
            if self._implicit is Implicit.HELD and status == ACQUIRED:
                self._implicit = Implicit.LOST
            elif self._implicit is Implicit.HELD and status == ALREADY_CLOSED:
                self._implicit = Implicit.GONE
            elif self._implicit is Implicit.LOST and status == S_OK:  # Redis forgot the winner
                self._implicit = Implicit.HELD

    def _refuse_late(self, call: str) -> None:
        """While ChannelClosed runs on another thread, the caller could not know."""
        if self._is_dead or self._telling == threading.get_ident():
            where = "after" if self._is_dead else "inside"
            self._violated(f"{call} {where} ChannelClosed")

    def _violated(self, call: str) -> None:
        self._report(
            ContractViolation(f"channel {self._end.id}: {call}; nothing was done", self._end.id)
        )

    # One after another --------------------------------------------------------------------------

    @contextlib.contextmanager
    def _under_way(self) -> Iterator[None]:
        """A call. Several may be under way, but none beside :meth:`_alone`."""
        with self._state:
            self._state.wait_for(lambda: not self._is_alone)
            self._calls += 1
        try:
            yield
        finally:
            with self._state:
                self._calls -= 1
                self._state.notify_all()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """The last Release, or the decision what is told: when no call is under way.

        So no call has two outcomes, and callers that never pause do not keep anything from being
        told.
        """
        with self._state:
            self._state.wait_for(lambda: not self._is_alone)
            self._is_alone = True
        try:
            with self._state:
                self._state.wait_for(lambda: not self._calls)
            yield
        finally:
            with self._state:
                self._is_alone = False
                self._state.notify_all()

    # Being told ---------------------------------------------------------------------------------

    def begins_event(self) -> bool:
        """Whether OnEventNotify is to be called: not once this end is over (R104)."""
        with self._alone():
            assert self.loan is not None
            return self._implicit is Implicit.HELD and self.loan.begin()

    def begins_closed(self) -> bool:
        """Whether ChannelClosed is to be called: not where this end finished it, or knows."""
        with self._alone():
            if self._implicit not in (Implicit.HELD, Implicit.GONE):
                return False
            self._implicit = Implicit.TOLD
            self._telling = threading.get_ident()
            return True

    def closed_returned(self) -> None:
        """ChannelClosed returned: no call is allowed any more (R112)."""
        with self._state:
            self._is_dead = True

    def over(self) -> None:
        """This end is over; its reference on the callback is given back."""
        if self._ear is not None and self.loan is not None:
            self._ear.forget(self._end.id)
            self.loan.end()


class Ear:
    """What the core calls, to call a component's callback."""

    def __init__(
        self, callback: IPrintAsyncNotifyCallback, report: Report, loan: Loan | None = None
    ) -> None:
        self.callback = callback
        self._report = report
        self._loan = loan
        self._lock = threading.RLock()
        self._pointers: dict[str, Pointer] = {}

    def pointer(self, end: End) -> Pointer | None:
        """The pointer of this handle: always the same one (R116).

        None where it is over already, or its registration was unregistered before it was shown.
        """
        with self._lock:
            known = self._pointers.get(end.id)
            if known is not None:
                return known
            if self._loan is not None and (self._loan.is_ended or end.closing is not None):
                return None
            made = self._pointers[end.id] = Pointer(end, self._report, self)
            return made

    def forget(self, channel: str) -> None:
        """Nothing more comes for this handle. A source has but one, and keeps it."""
        with self._lock:
            if self._loan is not None:
                self._pointers.pop(channel, None)

    def end(self) -> None:
        """The broker was closed: call nobody any more."""
        if self._loan is not None:
            self._loan.end()
        with self._lock:
            pointers = list(self._pointers.values())
        for pointer in pointers:
            pointer.over()

    def on_event_notify(self, channel: Any, notification: Notification[Any]) -> None:
        """See :class:`broker.callback.Callback`."""
        pointer = None if channel is None else self.pointer(channel)
        loan = self._loan if pointer is None else pointer.loan
        if channel is None:
            begins = loan is not None and loan.begin()
        else:
            begins = pointer is not None and pointer.begins_event()
        if begins and loan is not None:
            self._call(self.callback.OnEventNotify, pointer, notification)
            loan.done()

    def channel_closed(self, channel: Any, reason: Notification[Any]) -> None:
        """See :class:`broker.callback.Callback`."""
        pointer = self.pointer(channel)
        if pointer is not None:
            if pointer.begins_closed():
                self._call(self.callback.ChannelClosed, pointer, reason)
                pointer.closed_returned()
            pointer.over()

    def _call(
        self,
        method: Callable[[Any, ArrivedData], object],
        pointer: Pointer | None,
        notification: Notification[Any],
    ) -> None:
        data = ArrivedData(notification, self._report)
        status = call_out(method, pointer, data)
        data.Release()
        if isinstance(status, int) and FAILED(status):
            log.warning("%r returned %s", method, HRESULT(status))
