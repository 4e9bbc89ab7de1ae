"""Errors: what happened, to what, and what to do.

::

    TympanError                      .result  .retryable
    ├── InvalidArgument              the caller's words are off
    │   ├── InvalidName
    │   ├── InvalidType
    │   ├── InvalidStyle
    │   ├── InvalidUrl
    │   └── InvalidSettings
    ├── AccessDenied                 a right or a role is missing
    ├── RightsUnavailable            the rights source failed, or is silent
    ├── ChannelError                 .channel
    │   ├── ChannelAcquired          another listener was first            .by
    │   ├── ChannelAlreadyClosed     .detail says who closed it
    │   ├── ChannelAlreadyOpened
    │   ├── ChannelNotOpened
    │   ├── WaitingForResponse       the source must not speak twice
    │   ├── CallInProgress           the owner must not speak twice
    │   ├── MaxChannelCountExceeded
    │   ├── NotYours                 fenced: another process or owner has it
    │   ├── ResponseTimeout
    │   └── ContractViolation        a handle used after it was dropped
    ├── NotificationError
    │   ├── NotificationTooLarge
    │   ├── InvalidNotificationType
    │   ├── NotificationFailure      listeners exist, none got it
    │   ├── QueueFull                a lossless send found no room in time
    │   ├── PayloadInvalid           bytes that their type's schema refuses
    │   └── BodyGone                 a large body outlived its time in Redis
    ├── RegistrationError
    │   ├── AlreadyRegistered
    │   ├── NotRegistered
    │   ├── AlreadyUnregistered
    │   ├── MaxRegistrationCountExceeded
    │   ├── CallAlreadyParked        one fetch at a time
    │   └── RegistrationEnded        unregistered, revoked, or its lease ran out
    ├── PoolError                    .pool
    │   ├── NoSuchPool               never created, or deleted
    │   ├── NotInHand                fenced: it went to another replica
    │   ├── NoSuchLetter             replayed, dropped, or never there             .letter
    │   └── NotReplayed              a dead letter that has nowhere to go  .letter
    ├── DirectoryError               names of servers
    │   ├── AliasTaken               it stands for another server          .alias  .server
    │   ├── NotInDirectory
    │   └── ServerInUse              not to be forgotten: something stands there
    ├── OutcomeUnknown               ask again: the same number settles it
    ├── NotDurable                   done, but not yet as safe as was asked    .outcome
    ├── SessionLapsed                this process was declared dead
    ├── BrokerClosed
    ├── ExtensionInvalid             what another package plugs in has a fault  .distribution
    └── RedisError
        ├── RedisUnreachable
        │   ├── SentinelsDisagree    no primary that most of them name
        │   └── ClusterIncomplete    slots that have no owner, a silent one, or two
        ├── RedisRefused             credentials or ACL
        │   └── CertificateRefused   TLS: its certificate is not to be trusted
        ├── RedisTooOld
        ├── RedisReadOnly
        ├── RedisFull
        ├── DurabilityUnavailable
        └── ForeignLayout            keys of another program or a newer Tympan
"""

from __future__ import annotations

from typing import ClassVar

from broker import results
from broker.results import Code, Result


class TympanError(Exception):
    """The root: ``result`` is the HRESULT, ``retryable`` that the same call may succeed later."""

    result: Result = results.UNEXPECTED
    retryable: ClassVar[bool] = False


class InvalidArgument(TympanError):
    """An argument that no state of the broker could make right."""

    result = results.INVALID_ARGUMENT


class InvalidName(InvalidArgument):
    r"""A printer or server name that is not ``\\server`` or ``\\server\printer`` (R20)."""

    result = results.INVALID_NAME


class InvalidType(InvalidArgument):
    """A notification type that is no GUID and no known alias, or one that is reserved."""


class InvalidStyle(InvalidArgument):
    """A conversation style that this type of notification, or this message, has not (R129)."""


class InvalidUrl(InvalidArgument):
    """A Redis URL that cannot be read."""


class InvalidSettings(InvalidArgument):
    """A setting out of its range; the message names the setting."""


class AccessDenied(TympanError):
    """The user lacks administer rights there, or the client its role (R1, R9, R17, R18)."""

    result = results.ACCESS_DENIED


class RightsUnavailable(TympanError):
    """The rights source that was asked failed, or did not answer in time; nothing was done."""

    result = Result.win32("RIGHTS_UNAVAILABLE", 1311)
    retryable = True


class ChannelError(TympanError):
    """Something about one channel; ``channel`` is its id, or None before it has one."""

    def __init__(self, message: str, channel: str | None = None) -> None:
        super().__init__(message)
        self.channel = channel


class ChannelAcquired(ChannelError):
    """Another listener answered first; what was sent reached nobody (R82)."""

    result = Result.error(Code.CHANNEL_ACQUIRED)

    def __init__(self, message: str, channel: str | None = None, by: str | None = None) -> None:
        super().__init__(message, channel)
        self.by = by


class ChannelAlreadyClosed(ChannelError):
    """The channel was closed before the call; ``detail`` says by whom, where it is known (D7)."""

    result = Result.error(Code.CHANNEL_ALREADY_CLOSED)

    def __init__(
        self, message: str, channel: str | None = None, detail: Result | None = None
    ) -> None:
        super().__init__(message, channel)
        self.detail = detail


class ChannelAlreadyOpened(ChannelError):
    """This channel object was opened before (R8)."""

    result = Result.error(Code.CHANNEL_ALREADY_OPENED)


class ChannelNotOpened(ChannelError):
    """The channel is not open yet, or nothing was sent on it that could be closed (R100)."""

    result = Result.error(Code.CHANNEL_NOT_OPENED)


class WaitingForResponse(ChannelError):
    """The last notification has not been answered; one at a time (R87)."""

    result = Result.error(Code.CHANNEL_WAITING_FOR_CLIENT_NOTIFICATION)
    retryable = True


class CallInProgress(ChannelError):
    """The owner's last response has not been taken up by the source (R88)."""

    result = Result.error(Code.ASYNC_CALL_IN_PROGRESS)
    retryable = True


class MaxChannelCountExceeded(ChannelError):
    """The server has as many open channels as it may (R7)."""

    result = Result.error(Code.MAX_CHANNEL_COUNT_EXCEEDED)
    retryable = True


class NotYours(ChannelError):
    """Another process or owner holds it: a stale token or session is fenced off (D14, D15)."""

    result = results.ACCESS_DENIED


class ResponseTimeout(ChannelError):
    """Nobody answered in time; the channel stays open (R128)."""

    result = Result.win32("TIMEOUT", 1460)
    retryable = True


class ContractViolation(ChannelError):
    """A call on a handle whose reference is gone; it changed nothing (R109, R111, R112)."""

    result = results.INVALID_HANDLE


class NotificationError(TympanError):
    """Something about one notification or response."""


class NotificationTooLarge(NotificationError):
    """The payload exceeds the limit (R91)."""

    result = Result.error(Code.MAX_NOTIFICATION_SIZE_EXCEEDED)


class InvalidNotificationType(NotificationError):
    """The payload's type is not the channel's type (R90)."""

    result = Result.error(Code.INVALID_NOTIFICATION_TYPE)


class NotificationFailure(NotificationError):
    """Listeners exist, and none of them had room (R59)."""

    result = results.NOTIFICATION_FAILURE
    retryable = True


class QueueFull(NotificationError):
    """A lossless send found a listener without room until its time was up; nothing was sent."""

    result = Result.error(Code.INTERNAL_NOTIFICATION_QUEUE_IS_FULL)
    retryable = True


class PayloadInvalid(NotificationError):
    """The bytes do not fit the schema that their type names; ``data`` holds them unchanged."""

    result = results.INVALID_ARGUMENT

    def __init__(self, message: str, data: bytes) -> None:
        super().__init__(message)
        self.data = data


class BodyGone(NotificationError):
    """A body kept by reference is no longer in Redis."""

    result = Result.win32("BODY_GONE", 1168)


class RegistrationError(TympanError):
    """Something about one registration; ``registration`` is its id, or None before it has one."""

    def __init__(self, message: str, registration: str | None = None) -> None:
        super().__init__(message)
        self.registration = registration


class AlreadyRegistered(RegistrationError):
    """This registration object stands already (R23)."""

    result = Result.error(Code.ALREADY_REGISTERED)


class NotRegistered(RegistrationError):
    """This registration object never was registered (R37)."""

    result = Result.error(Code.NOT_REGISTERED)


class AlreadyUnregistered(RegistrationError):
    """This registration object is not registered any more (R37)."""

    result = Result.error(Code.ALREADY_UNREGISTERED)


class MaxRegistrationCountExceeded(RegistrationError):
    """The name has as many registrations for this type as it may (R24)."""

    result = Result.error(Code.MAX_REGISTRATION_COUNT_EXCEEDED)
    retryable = True


class CallAlreadyParked(RegistrationError):
    """Another fetch waits on the same object; it goes on waiting (R63, R73)."""

    result = Result.error(Code.ASYNC_CALL_ALREADY_PARKED)


class RegistrationEnded(RegistrationError):
    """The registration ended while, or before, something waited on it (R31, R32)."""

    result = results.CALL_CANCELLED


class PoolError(TympanError):
    """Something about a pool; ``pool`` is its name."""

    def __init__(self, message: str, pool: str) -> None:
        super().__init__(message)
        self.pool = pool


class NoSuchPool(PoolError):
    """There is no such pool: it was never created, or it was deleted."""


class NotInHand(PoolError):
    """What was to be finished or handed back is not in this replica's hands any more."""

    result = results.ACCESS_DENIED


class NoSuchLetter(PoolError):
    """There is no dead letter of this id; ``letter`` is the id, and ``pool`` is empty."""

    def __init__(self, message: str, letter: str) -> None:
        super().__init__(message, "")
        self.letter = letter


class NotReplayed(PoolError):
    """A dead letter stays where it is; ``letter`` is its id."""

    def __init__(self, message: str, pool: str, letter: str) -> None:
        super().__init__(message, pool)
        self.letter = letter


class DirectoryError(TympanError):
    """Something about the names of servers (D2)."""


class AliasTaken(DirectoryError):
    """The name stands for another server, or is one; ``server`` is the one that it stands for."""

    result = Result.win32("ALIAS_TAKEN", 52)

    def __init__(self, message: str, alias: str, server: str) -> None:
        super().__init__(message)
        self.alias = alias
        self.server = server


class NotInDirectory(DirectoryError):
    """No server of the farm, or no alias, has that name."""

    result = Result.win32("NOT_IN_DIRECTORY", 53)


class ServerInUse(DirectoryError):
    """A server is not forgotten while processes, registrations or channels stand there."""

    result = Result.win32("SERVER_IN_USE", 170)
    retryable = True


class OutcomeUnknown(TympanError):
    """Redis did not answer in time: it may or may not have happened.

    Calling the same method again settles it: it asks with the same number and returns the first
    answer. Nothing happens twice.
    """

    result = Result.win32("OUTCOME_UNKNOWN", 1726)
    retryable = True


class NotDurable(TympanError):
    """It happened, but fewer replicas or disks hold it than the durability asks for.

    ``outcome`` is the result that the call would have returned.
    """

    retryable = True

    def __init__(self, message: str, outcome: Result) -> None:
        super().__init__(message)
        self.outcome = outcome


class SessionLapsed(TympanError):
    """This process did not renew its lease in time; what it held has been ended (D14)."""

    result = results.CALL_CANCELLED


class BrokerClosed(TympanError):
    """The broker object was closed, or never entered."""

    result = results.INVALID_HANDLE


class ExtensionInvalid(TympanError):
    """An entry point of another package that was asked for and cannot be used.

    ``distribution`` is that package with its version, ``extension`` the entry point's name.
    """

    result = Result.win32("EXTENSION_INVALID", 1154)

    def __init__(self, message: str, distribution: str, extension: str) -> None:
        super().__init__(message)
        self.distribution = distribution
        self.extension = extension


class RedisError(TympanError):
    """Something about the Redis behind the broker."""


class RedisUnreachable(RedisError):
    """No connection, or none that answers."""

    result = Result.win32("REDIS_UNREACHABLE", 1722)
    retryable = True


class SentinelsDisagree(RedisUnreachable):
    """Sentinels name no primary, or several; for a moment that is a failover."""


class ClusterIncomplete(RedisUnreachable):
    """Slots of the Cluster have no owner that answers: servers there wait, the others work."""

    result = Result.win32("CLUSTER_INCOMPLETE", 1722)


class RedisRefused(RedisError):
    """Redis refuses the credentials, or its ACL a command or key."""

    result = results.ACCESS_DENIED
    is_forbidden: bool = False
    """Whether it was its ACL: the connection stands, and other calls may be allowed."""


class CertificateRefused(RedisRefused):
    """What answers over TLS has a certificate that cannot be trusted: nothing was sent to it."""

    result = Result("CERTIFICATE_REFUSED", 0x800B010A)


class RedisTooOld(RedisError):
    """Tympan needs Redis 6.2 or later."""

    result = Result.win32("REDIS_TOO_OLD", 1150)


class RedisReadOnly(RedisError):
    """The server is a replica, or cannot persist and therefore refuses writes."""

    result = Result.win32("REDIS_READ_ONLY", 19)
    retryable = True


class RedisFull(RedisError):
    """Redis is out of memory; nothing was written."""

    result = results.OUT_OF_MEMORY
    retryable = True


WRITES_NOTHING = (RedisFull, RedisReadOnly)
"""Redis takes no writes for now: nothing was done, and the same call may succeed later."""


class DurabilityUnavailable(RedisError):
    """This Redis cannot give the durability that the settings ask for."""

    result = Result.win32("DURABILITY_UNAVAILABLE", 50)


class ForeignLayout(RedisError):
    """The keys under this namespace are not ours, or of a layout that this version cannot read."""

    result = Result.win32("FOREIGN_LAYOUT", 1306)
