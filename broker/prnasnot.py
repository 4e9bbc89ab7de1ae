r"""The documents' interfaces, for components and listeners ported from Windows.

::

    with Spooler.connect("redis://localhost", user="alice") as spooler:
        hr, channel = spooler.CreatePrintAsyncNotifyChannel(
            r"\\print01\laser-3", TYPE, kPerUser, kBiDirectional, MyCallback()
        )
        if SUCCEEDED(hr):
            hr = channel.SendNotification(DataObject(TYPE, b"Continue on A3?"))

A thin layer over :mod:`broker.sync`. Names, order of arguments and statuses are those of
prnasnot.h; what C returns through a pointer comes behind the status. None of the documents'
methods raises. What each status means, who must Release when, and what comes of the races that
the documents leave open: docs/interfaces.md.
"""

# ruff: noqa: N816 (the documents' names)

from __future__ import annotations

from uuid import UUID

from broker._hresult import (
    E_ACCESSDENIED,
    E_HANDLE,
    E_INVALIDARG,
    E_NOINTERFACE,
    E_POINTER,
    E_UNEXPECTED,
    FAILED,
    HRESULT,
    HRESULT_CODE,
    MAKE_HRESULT,
    S_OK,
    SEVERITY_ERROR,
    SEVERITY_SUCCESS,
    SUCCEEDED,
)
from broker._interfaces import (
    DataObject,
    IPrintAsyncNotifyCallback,
    IPrintAsyncNotifyChannel,
    IPrintAsyncNotifyDataObject,
    IUnknown,
)
from broker._spooler import Handle, Spooler
from broker.conversation import (
    ALL_USERS,
    BIDIRECTIONAL,
    PER_USER,
    UNIDIRECTIONAL,
    Style,
    UserFilter,
)
from broker.notification_type import NOTIFICATION_RELEASE, PORT_MONITOR, PRINTER_CONFIGURATION
from broker.results import FACILITY_ITF, FACILITY_WIN32
from broker.results import Code as PrintAsyncNotifyError

PrintAsyncNotificationType = UUID
PrintAsyncNotifyUserFilter = UserFilter
PrintAsyncNotifyConversationStyle = Style
kPerUser, kAllUsers = PER_USER, ALL_USERS
kBiDirectional, kUniDirectional = BIDIRECTIONAL, UNIDIRECTIONAL

PRINT_APP_BIDI_NOTIFY_CHANNEL = PRINTER_CONFIGURATION
PRINT_PORT_MONITOR_NOTIFY_CHANNEL = PORT_MONITOR

IID_IUnknown = IUnknown.IID
IID_IPrintAsyncNotifyChannel = IPrintAsyncNotifyChannel.IID
IID_IPrintAsyncNotifyCallback = IPrintAsyncNotifyCallback.IID
IID_IPrintAsyncNotifyDataObject = IPrintAsyncNotifyDataObject.IID

(
    CHANNEL_CLOSED_BY_SERVER,
    CHANNEL_CLOSED_BY_ANOTHER_LISTENER,
    CHANNEL_CLOSED_BY_SAME_LISTENER,
    CHANNEL_RELEASED_BY_LISTENER,
    UNIRECTIONAL_NOTIFICATION_LOST,
    ASYNC_NOTIFICATION_FAILURE,
    NO_LISTENERS,
    CHANNEL_ALREADY_CLOSED,
    CHANNEL_ALREADY_OPENED,
    CHANNEL_WAITING_FOR_CLIENT_NOTIFICATION,
    CHANNEL_NOT_OPENED,
    ASYNC_CALL_ALREADY_PARKED,
    NOT_REGISTERED,
    ALREADY_UNREGISTERED,
    ALREADY_REGISTERED,
    CHANNEL_ACQUIRED,
    ASYNC_CALL_IN_PROGRESS,
    MAX_NOTIFICATION_SIZE_EXCEEDED,
    INTERNAL_NOTIFICATION_QUEUE_IS_FULL,
    INVALID_NOTIFICATION_TYPE,
    MAX_REGISTRATION_COUNT_EXCEEDED,
    MAX_CHANNEL_COUNT_EXCEEDED,
    LOCAL_ONLY_REGISTRATION,
    REMOTE_ONLY_REGISTRATION,
) = PrintAsyncNotifyError

__all__ = [
    "ALREADY_REGISTERED",
    "ALREADY_UNREGISTERED",
    "ASYNC_CALL_ALREADY_PARKED",
    "ASYNC_CALL_IN_PROGRESS",
    "ASYNC_NOTIFICATION_FAILURE",
    "CHANNEL_ACQUIRED",
    "CHANNEL_ALREADY_CLOSED",
    "CHANNEL_ALREADY_OPENED",
    "CHANNEL_CLOSED_BY_ANOTHER_LISTENER",
    "CHANNEL_CLOSED_BY_SAME_LISTENER",
    "CHANNEL_CLOSED_BY_SERVER",
    "CHANNEL_NOT_OPENED",
    "CHANNEL_RELEASED_BY_LISTENER",
    "CHANNEL_WAITING_FOR_CLIENT_NOTIFICATION",
    "E_ACCESSDENIED",
    "E_HANDLE",
    "E_INVALIDARG",
    "E_NOINTERFACE",
    "E_POINTER",
    "E_UNEXPECTED",
    "FACILITY_ITF",
    "FACILITY_WIN32",
    "FAILED",
    "HRESULT",
    "HRESULT_CODE",
    "INTERNAL_NOTIFICATION_QUEUE_IS_FULL",
    "INVALID_NOTIFICATION_TYPE",
    "LOCAL_ONLY_REGISTRATION",
    "MAKE_HRESULT",
    "MAX_CHANNEL_COUNT_EXCEEDED",
    "MAX_NOTIFICATION_SIZE_EXCEEDED",
    "MAX_REGISTRATION_COUNT_EXCEEDED",
    "NOTIFICATION_RELEASE",
    "NOT_REGISTERED",
    "NO_LISTENERS",
    "PRINT_APP_BIDI_NOTIFY_CHANNEL",
    "PRINT_PORT_MONITOR_NOTIFY_CHANNEL",
    "REMOTE_ONLY_REGISTRATION",
    "SEVERITY_ERROR",
    "SEVERITY_SUCCESS",
    "SUCCEEDED",
    "S_OK",
    "UNIRECTIONAL_NOTIFICATION_LOST",
    "DataObject",
    "Handle",
    "IID_IPrintAsyncNotifyCallback",
    "IID_IPrintAsyncNotifyChannel",
    "IID_IPrintAsyncNotifyDataObject",
    "IID_IUnknown",
    "IPrintAsyncNotifyCallback",
    "IPrintAsyncNotifyChannel",
    "IPrintAsyncNotifyDataObject",
    "IUnknown",
    "PrintAsyncNotificationType",
    "PrintAsyncNotifyConversationStyle",
    "PrintAsyncNotifyError",
    "PrintAsyncNotifyUserFilter",
    "Spooler",
    "kAllUsers",
    "kBiDirectional",
    "kPerUser",
    "kUniDirectional",
]
