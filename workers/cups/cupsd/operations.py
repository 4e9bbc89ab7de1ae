"""Operations of IPP that are asked for, and the errors that they end in.

::

    IppError
    ├── Unreachable     no connection, or no whole answer in time
    ├── Misspoken       what answered speaks no IPP
    └── Refused         it said no                     .status
        ├── Forbidden   to this client
        └── NotFound    there is no such thing (any more)
"""

from __future__ import annotations

from enum import IntEnum

from workers.cups.cupsd.ipp import Message, Tag


class Operation(IntEnum):
    """Those that are needed."""

    CANCEL_JOB = 0x0008
    GET_JOB_ATTRIBUTES = 0x0009
    GET_JOBS = 0x000A
    GET_PRINTER_ATTRIBUTES = 0x000B
    HOLD_JOB = 0x000C
    RELEASE_JOB = 0x000D
    CREATE_PRINTER_SUBSCRIPTION = 0x0016
    GET_SUBSCRIPTIONS = 0x0019
    RENEW_SUBSCRIPTION = 0x001A
    CANCEL_SUBSCRIPTION = 0x001B
    GET_NOTIFICATIONS = 0x001C
    CUPS_GET_PRINTERS = 0x4002


class IppError(Exception):
    """What was asked over IPP did not come to pass."""


class Unreachable(IppError):
    """No connection, none that answers in time, or an answer that breaks off."""


class Misspoken(IppError):
    """What answered speaks no IPP."""


class Refused(IppError):
    """It said no; ``status`` is IPP's status code, or HTTP's where IPP was not reached."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Forbidden(Refused):
    """It takes this client for nobody who may ask that."""


class NotFound(Refused):
    """There is no such printer, job or subscription (any more)."""


FORBIDDEN = frozenset({0x0401, 0x0402, 0x0403, 401, 403, 426})
_NOT_FOUND = frozenset({0x0406, 0x0407})
FIRST_REFUSAL = 0x0400


def refusal(what: str, answer: Message) -> Refused:
    """The error for an answer that says no; ``what``: what was asked."""
    said = answer.first(Tag.OPERATION).one("status-message", str) or "no reason given"
    kind = Refused
    if answer.code in FORBIDDEN:
        kind = Forbidden
    elif answer.code in _NOT_FOUND:
        kind = NotFound
    status = answer.first(Tag.SUBSCRIPTION).one("notify-status-code", int) or answer.code
    return kind(f"{what}: {said} (status {status:#06x})", status)
