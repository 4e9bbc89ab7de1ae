"""The documents' interfaces (section 2), and a data object that is ready for use.

A component derives its callbacks, and where it likes its data objects, from these classes. They
count references as COM does: an object begins with its maker's one.
"""

# ruff: noqa: N802 (the documents' names)

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self
from uuid import UUID

from broker._hresult import (
    E_HANDLE,
    E_INVALIDARG,
    E_NOINTERFACE,
    E_POINTER,
    E_UNEXPECTED,
    FAILED,
    HRESULT,
    S_OK,
)
from broker.errors import BodyGone, ContractViolation
from broker.notification import Data, Notification
from broker.notification_type import NOTIFICATION_RELEASE, parse_type

log = logging.getLogger("tympan")

Report = Callable[[ContractViolation], None]
Acquired = tuple[int, bytes | None, int, UUID | None]
"""What AcquireData gives: status, bytes, size in bytes, type."""

_counting = threading.Lock()


def log_violation(violation: ContractViolation) -> None:
    """Say what a caller did against the rules of Release."""
    log.error("contract violation: %s", violation)


def call_out(method: Callable[..., Any], *args: object) -> Any:
    """Call the component's own code. Where it raises, that is logged and is its E_UNEXPECTED.

    SystemExit too: in a callback it would stop the broker's event loop.
    """
    try:
        return method(*args)
    except (Exception, SystemExit):
        log.exception("%r failed", method)
        return E_UNEXPECTED


class IUnknown:
    """Reference counting, and asking for interfaces."""

    IID: ClassVar[UUID] = UUID("00000000-0000-0000-c000-000000000046")
    _references = 1
    _pinned = 0
    _report: Report = staticmethod(log_violation)

    @property
    def references(self) -> int:
        """References that are held now; at 0 the object is gone."""
        return self._references

    def QueryInterface(self, riid: UUID | None) -> tuple[HRESULT, Self | None]:
        """This object, with one reference more, where it has that interface."""
        if not isinstance(riid, UUID):
            return (E_POINTER if riid is None else E_INVALIDARG), None
        if all(vars(kind).get("IID") != riid for kind in type(self).__mro__):
            return E_NOINTERFACE, None
        return (S_OK, self) if self.AddRef() else (E_HANDLE, None)

    def AddRef(self) -> int:
        """One reference more; returns how many there are."""
        with _counting:
            if self._references:
                self._references += 1
                return self._references
        self._violated("AddRef")
        return 0

    def Release(self) -> int:
        """One reference less; returns how many are left."""
        with _counting:
            if self._references > self._pinned:
                self._references -= 1
                return self._references
        self._violated("Release")
        return self._references

    def _violated(self, call: str) -> None:
        self._report(
            ContractViolation(
                f"{type(self).__name__}: {call} without a reference; nothing was done"
            )
        )


class IPrintAsyncNotifyDataObject(IUnknown, ABC):
    """A typed byte blob: a notification, a response, or the reason for a close."""

    IID = UUID("77cf513e-5d49-4789-9f30-d0822b335c0d")

    @abstractmethod
    def AcquireData(self) -> Acquired:
        """Status, bytes, size and type; valid until :meth:`ReleaseData`."""

    @abstractmethod
    def ReleaseData(self) -> int:
        """The caller of AcquireData is done."""


class IPrintAsyncNotifyChannel(IUnknown, ABC):
    """One end of a channel. :meth:`Release` does not follow COM: docs/interfaces.md."""

    IID = UUID("4a5031b1-1f3f-4db0-a462-4530ed8b0451")

    @abstractmethod
    def SendNotification(self, data: IPrintAsyncNotifyDataObject | None) -> HRESULT:
        """Notify, or respond."""

    @abstractmethod
    def CloseChannel(self, data: IPrintAsyncNotifyDataObject | None = None) -> HRESULT:
        """Close, with a reason or without."""


class IPrintAsyncNotifyCallback(IUnknown, ABC):
    """What a component is told.

    Calls come on a thread that is not the component's, one at a time for each channel and each
    unidirectional registration, ChannelClosed last (D22). They may call everything here, and wait
    as long as they like. What they return changes nothing: a failure is logged, and so is an
    exception, which counts as E_UNEXPECTED; None is S_OK.
    """

    IID = UUID("7def34c1-9d92-4c99-b3b3-db94a9d4191b")

    @abstractmethod
    def OnEventNotify(
        self, channel: IPrintAsyncNotifyChannel | None, data: IPrintAsyncNotifyDataObject
    ) -> int | None:
        """Data arrived; ``channel`` is None on a unidirectional registration (R51).

        A component that returns INTERNAL_NOTIFICATION_QUEUE_IS_FULL has dropped the notification.
        One that rather takes its time returns later: its buffer fills, and senders are told.
        """

    @abstractmethod
    def ChannelClosed(
        self, channel: IPrintAsyncNotifyChannel, data: IPrintAsyncNotifyDataObject
    ) -> int | None:
        """The other end closed or died, or another listener was first. The channel is gone."""


class DataObject(IPrintAsyncNotifyDataObject):
    """Bytes of a type. ``DataObject(NOTIFICATION_RELEASE)`` is the empty one (R120)."""

    def __init__(self, type: UUID | str, data: bytes = b"") -> None:
        self._data = Data(type if isinstance(type, UUID) else parse_type(type), data)

    def AcquireData(self) -> Acquired:
        """As the interface has it; E_HANDLE once the last reference was released."""
        with _counting:
            if self._references:
                acquired = self._acquire()
                if not FAILED(acquired[0]):
                    self._references += 1
                    self._pinned += 1
                return acquired
        self._violated("AcquireData")
        return E_HANDLE, None, 0, None

    def ReleaseData(self) -> HRESULT:
        """As the interface has it; E_HANDLE without an AcquireData before."""
        with _counting:
            if self._pinned:
                self._references -= 1
                self._pinned -= 1
                return S_OK
        self._violated("ReleaseData")
        return E_HANDLE

    def _acquire(self) -> Acquired:
        if self._data.type == NOTIFICATION_RELEASE:
            return S_OK, None, 0, NOTIFICATION_RELEASE
        return S_OK, self._data.body, len(self._data.body), self._data.type


class ArrivedData(DataObject):
    """What the other end sent."""

    def __init__(self, notification: Notification[Any], report: Report) -> None:
        self._notification = notification
        self._report = report

    def _acquire(self) -> Acquired:
        try:
            size = len(self._notification.body)
        except BodyGone as error:
            log.warning("%s", error)
            return HRESULT(error.result.hresult), None, 0, None
        return S_OK, self._notification.data, size, self._notification.type


def read(source: IPrintAsyncNotifyDataObject | None) -> tuple[HRESULT, Data | None]:
    """A copy of what a data object holds; its references are afterwards what they were before."""
    if not isinstance(source, IPrintAsyncNotifyDataObject):
        return (E_POINTER if source is None else E_INVALIDARG), None
    acquired = call_out(source.AcquireData)
    match acquired:
        case int(status), data, size, type_:
            pass
        case int(status):
            return HRESULT(status if FAILED(status) else E_UNEXPECTED), None
        case _:
            log.error("%r gave no (HRESULT, bytes, size, type)", source.AcquireData)
            return E_UNEXPECTED, None
    if FAILED(status):
        return HRESULT(status), None
    try:
        return _copied(data, size, type_)
    finally:
        call_out(source.ReleaseData)


def _copied(data: object, size: object, type_: object) -> tuple[HRESULT, Data | None]:
    if type_ == NOTIFICATION_RELEASE:
        return S_OK, Data(NOTIFICATION_RELEASE)
    if data is None:
        data = b""
    if not isinstance(data, bytes | bytearray | memoryview) or not isinstance(type_, UUID):
        return E_INVALIDARG, None
    copy = bytes(data)
    if not isinstance(size, int) or not 0 <= size <= len(copy):
        return E_INVALIDARG, None
    return S_OK, Data(type_, copy[:size])
