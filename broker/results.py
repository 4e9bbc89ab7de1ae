"""Results: every status as the 32-bit HRESULT that the documents print.

The severity bit decides success (R135). Three codes exist in both severities, so a result is
always a code *and* a severity; test :attr:`Result.succeeded` first, then compare codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

FACILITY_ITF = 4
FACILITY_WIN32 = 7
SEVERITY_ERROR = 0x8000_0000


class Code(IntEnum):
    """``PrintAsyncNotifyError``: the codes of interface facility 4 (documents: prnasnot.h)."""

    CHANNEL_CLOSED_BY_SERVER = 0x01
    CHANNEL_CLOSED_BY_ANOTHER_LISTENER = 0x02
    CHANNEL_CLOSED_BY_SAME_LISTENER = 0x03
    CHANNEL_RELEASED_BY_LISTENER = 0x04
    UNIRECTIONAL_NOTIFICATION_LOST = 0x05
    ASYNC_NOTIFICATION_FAILURE = 0x06
    NO_LISTENERS = 0x07
    CHANNEL_ALREADY_CLOSED = 0x08
    CHANNEL_ALREADY_OPENED = 0x09
    CHANNEL_WAITING_FOR_CLIENT_NOTIFICATION = 0x0A
    CHANNEL_NOT_OPENED = 0x0B
    ASYNC_CALL_ALREADY_PARKED = 0x0C
    NOT_REGISTERED = 0x0D
    ALREADY_UNREGISTERED = 0x0E
    ALREADY_REGISTERED = 0x0F
    CHANNEL_ACQUIRED = 0x10
    ASYNC_CALL_IN_PROGRESS = 0x11
    MAX_NOTIFICATION_SIZE_EXCEEDED = 0x12
    INTERNAL_NOTIFICATION_QUEUE_IS_FULL = 0x13
    INVALID_NOTIFICATION_TYPE = 0x14
    MAX_REGISTRATION_COUNT_EXCEEDED = 0x15
    MAX_CHANNEL_COUNT_EXCEEDED = 0x16
    LOCAL_ONLY_REGISTRATION = 0x17
    REMOTE_ONLY_REGISTRATION = 0x18


SUCCESS_ONLY = frozenset(
    {
        Code.UNIRECTIONAL_NOTIFICATION_LOST,
        Code.NO_LISTENERS,
        Code.LOCAL_ONLY_REGISTRATION,
        Code.REMOTE_ONLY_REGISTRATION,
    }
)
"""Codes that are never an error (R135)."""

SUCCESS_TOO = frozenset(
    {
        Code.CHANNEL_ALREADY_CLOSED,
        Code.NOT_REGISTERED,
        Code.ALREADY_UNREGISTERED,
        Code.CHANNEL_ACQUIRED,
    }
)
"""Codes that the documents give in both severities."""


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one operation: a name for people and an HRESULT for programs."""

    name: str
    hresult: int

    @classmethod
    def success(cls, code: Code) -> Result:
        """The success form, ``0x0004_00NN``; raises ValueError where the documents have none."""
        if code not in SUCCESS_ONLY and code not in SUCCESS_TOO:
            raise ValueError(f"{code.name} has no success form")
        return cls(code.name, FACILITY_ITF << 16 | code)

    @classmethod
    def error(cls, code: Code) -> Result:
        """The error form, ``0x8004_00NN``; raises ValueError where the documents have none."""
        if code in SUCCESS_ONLY:
            raise ValueError(f"{code.name} has no error form")
        return cls(code.name, SEVERITY_ERROR | FACILITY_ITF << 16 | code)

    @classmethod
    def win32(cls, name: str, number: int) -> Result:
        """A Win32 error number as an HRESULT of facility 7."""
        return cls(name, SEVERITY_ERROR | FACILITY_WIN32 << 16 | number)

    @property
    def succeeded(self) -> bool:
        """Whether the severity bit is clear."""
        return not self.hresult & SEVERITY_ERROR

    @property
    def code(self) -> Code | None:
        """The interface code, or None for S_OK and for other facilities."""
        if self.hresult >> 16 & 0x1FFF != FACILITY_ITF:
            return None
        return Code(self.hresult & 0xFFFF)

    def __bool__(self) -> bool:
        return self.succeeded

    def __str__(self) -> str:
        return f"{self.name} (0x{self.hresult:08X})"


S_OK = Result("S_OK", 0)
NO_LISTENERS = Result.success(Code.NO_LISTENERS)
NOTIFICATION_LOST = Result.success(Code.UNIRECTIONAL_NOTIFICATION_LOST)
NOTIFICATION_FAILURE = Result.error(Code.ASYNC_NOTIFICATION_FAILURE)
LOST_THE_RACE = Result.success(Code.CHANNEL_ACQUIRED)
"""What a loser's close reports: success, its data went nowhere (R83)."""
NOT_REGISTERED = Result.success(Code.NOT_REGISTERED)
ALREADY_UNREGISTERED = Result.success(Code.ALREADY_UNREGISTERED)
LOCAL_ONLY_REGISTRATION = Result.success(Code.LOCAL_ONLY_REGISTRATION)
REMOTE_ONLY_REGISTRATION = Result.success(Code.REMOTE_ONLY_REGISTRATION)
"""A farm-wide registration reached one side only, and works there (R137)."""

ACCESS_DENIED = Result.win32("ACCESS_DENIED", 5)
INVALID_HANDLE = Result.win32("INVALID_HANDLE", 6)
OUT_OF_MEMORY = Result.win32("OUT_OF_MEMORY", 14)
INVALID_ARGUMENT = Result.win32("INVALID_ARGUMENT", 87)
INVALID_NAME = Result.win32("INVALID_NAME", 123)
CALL_CANCELLED = Result.win32("CALL_CANCELLED", 1818)
UNEXPECTED = Result("UNEXPECTED", 0x8000_FFFF)
