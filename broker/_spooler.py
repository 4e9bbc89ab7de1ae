"""The documents' functions (section 2.1), for one client."""

# ruff: noqa: N802 (the documents' names)

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID
from weakref import WeakSet

from broker import results
from broker._hresult import E_HANDLE, E_INVALIDARG, E_POINTER, HRESULT, SUCCEEDED
from broker._interfaces import IPrintAsyncNotifyCallback, IPrintAsyncNotifyChannel, log_violation
from broker._pointer import Ear, Loan, Pointer, attempt
from broker.conversation import BIDIRECTIONAL, Style, UserFilter
from broker.errors import ContractViolation
from broker.results import Result
from broker.sync import Broker, Registration

T = TypeVar("T")

log = logging.getLogger("tympan")


class Handle:
    """What RegisterForPrintAsyncNotifications gives: only it undoes the registration (R26)."""

    def __init__(self, spooler: Spooler, registration: Registration[Any], loan: Loan) -> None:
        self.spooler = spooler
        self.registration = registration
        self.loan = loan

    def __repr__(self) -> str:
        return f"<Handle of {self.registration.name} {self.registration.id}>"


class Spooler:
    """The functions of prnasnot.h, for one client.

    It closes the broker that it was given: enter it, or give it an open one and close it.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._lock = threading.Lock()
        self._handles: set[Handle] = set()
        self._ears: WeakSet[Ear] = WeakSet()
        self.violations: deque[ContractViolation] = deque(maxlen=1000)
        """The latest calls that the rules forbid; they did nothing. Each is logged too."""

    @classmethod
    def connect(
        cls,
        url: str | None = None,
        *,
        user: str | None = None,
        server: str | None = None,
        **options: Any,
    ) -> Self:
        """Arguments and errors as of :meth:`broker.Broker.connect`; enter it to connect."""
        return cls(Broker.connect(url, user=user, server=server, **options))

    def start(self) -> Self:
        """Connect; raises as :meth:`broker.Broker.start`."""
        self._broker.start()
        return self

    def close(self) -> None:
        """End everything that is held here, and give back every callback.

        No callback begins any more; those that run are waited for, except by themselves.
        """
        with self._lock:
            leaked, ears = list(self._handles), list(self._ears)
            self._handles.clear()
        for handle in leaked:
            log.warning("%r was not unregistered", handle)
        try:
            self._broker.close()
        finally:
            for ear in ears:
                ear.end()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def CreatePrintAsyncNotifyChannel(
        self,
        name: str | None,
        type: UUID | str,
        user_filter: UserFilter,
        style: Style,
        callback: IPrintAsyncNotifyCallback | None = None,
        *,
        user: str | None = None,
    ) -> tuple[HRESULT, IPrintAsyncNotifyChannel | None]:
        """Open a channel, whether or not anyone listens.

        ``callback`` may be None (R11), and is ignored for a unidirectional channel (R10). ``user``
        is whom a per-user channel is for, where a spooler would impersonate that user.
        """
        if not isinstance(callback, IPrintAsyncNotifyCallback | None):
            return E_INVALIDARG, None
        ear = Ear(callback, self._violated) if callback and style == BIDIRECTIONAL else None
        status, end = self._made(
            lambda: self._broker.open_channel(
                name, type, user=user, user_filter=user_filter, style=style, callback=ear
            )
        )
        if end is None:
            return status, None
        if ear is None:
            return status, Pointer(end, self._violated)
        with self._lock:
            self._ears.add(ear)
        return status, ear.pointer(end)

    def RegisterForPrintAsyncNotifications(
        self,
        name: str | None,
        type: UUID | str,
        user_filter: UserFilter,
        style: Style,
        callback: IPrintAsyncNotifyCallback | None,
        *,
        user: str | None = None,
    ) -> tuple[HRESULT, Handle | None]:
        """Listen, as ``user``, by default this client's. The callback is needed (R13)."""
        if not isinstance(callback, IPrintAsyncNotifyCallback):
            return (E_POINTER if callback is None else E_INVALIDARG), None
        loan = Loan(callback)
        ear = Ear(callback, self._violated, loan)
        status, registration = self._made(
            lambda: self._broker.listen(
                name, type, ear, user=user, user_filter=user_filter, style=style
            )
        )
        if registration is None:
            loan.end()
            return status, None
        handle = Handle(self, registration, loan)
        with self._lock:
            self._ears.add(ear)
            self._handles.add(handle)
        return status, handle

    def UnRegisterForPrintAsyncNotifications(self, handle: Handle | None) -> HRESULT:
        """End a registration; dialogs that it was shown go on. Waits for no callback (R30)."""
        if not isinstance(handle, Handle):
            self._violated(ContractViolation(f"{handle!r} is no registration's handle"))
            return E_HANDLE
        with self._lock:
            stands = handle in self._handles
            self._handles.discard(handle)
        if not stands and handle.spooler is self:
            self._violated(ContractViolation(f"{handle!r} was unregistered before"))
            return HRESULT(results.ALREADY_UNREGISTERED.hresult)
        if not stands:
            self._violated(ContractViolation(f"{handle!r} is another client's"))
            return HRESULT(results.NOT_REGISTERED.hresult)
        status, _ = attempt(self._violated, handle.registration.unregister)
        if SUCCEEDED(status):
            handle.loan.end()
        else:
            with self._lock:
                self._handles.add(handle)
        return status

    def _made(self, make: Callable[[], T]) -> tuple[HRESULT, T | None]:
        made: list[T] = []

        def work() -> Result:
            made.append(make())
            return results.S_OK

        status, _ = attempt(self._violated, work)
        return status, made[0] if made else None

    def _violated(self, violation: ContractViolation) -> None:
        log_violation(violation)
        self.violations.append(violation)
