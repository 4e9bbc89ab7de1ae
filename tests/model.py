"""The rules as a model: what a farm must do, in plain Python, without Redis, processes or time.

It follows the state machines of the documents: bidirectional channels (events 1 to 25),
unidirectional delivery, the user truth table, and the implicit reference as a token that is
dropped once. Each method is one transition; it returns what its caller must see, as the name of a
result or of an error's class, and appends to ``told`` what each end must hear because of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

OK = "S_OK"
NO_LISTENERS = "NO_LISTENERS"
LOST = "UNIRECTIONAL_NOTIFICATION_LOST"
FAILURE = "NotificationFailure"
FULL = "QueueFull"
LOST_THE_RACE = "CHANNEL_ACQUIRED"
ALREADY_UNREGISTERED = "ALREADY_UNREGISTERED"
ACQUIRED = "ChannelAcquired"
CLOSED = "ChannelAlreadyClosed"
NOT_OPENED = "ChannelNotOpened"
WAITING = "WaitingForResponse"
IN_PROGRESS = "CallInProgress"
VIOLATION = "ContractViolation"
DENIED = "AccessDenied"

SOURCE = "source"
SERVER = "server"
RELEASE = "release"
"""In the place of an audience: the printer was deleted, and that waits to be fetched."""


class State(Enum):
    """States of a channel, by the words that Redis has for them."""

    OPEN = "open"
    OFFERED = "offered"
    ANSWERED = "answered"
    """Owned, and the source's turn."""
    ASKED = "asked"
    """Owned, and the owner's turn."""
    CLOSED = "closed"


class Told(NamedTuple):
    """What one end is told."""

    event: str
    """``response``, ``notification``, or ``closed``."""
    data: bytes | None
    """None is NOTIFICATION_RELEASE."""
    acquired: bool = False
    """Closed because another listener was first."""


@dataclass
class Token:
    """The implicit reference of one handle: dropped once, by whatever comes first."""

    dropped: str = ""
    """``closed`` (by its own close), ``released``, or ``told``."""

    def drop(self, how: str) -> None:
        """The first drop counts; the release that may follow one's own close changes nothing."""
        if not self.dropped:
            self.dropped = how

    def release(self, *, is_callers: bool) -> str:
        """What Release answers, and does."""
        if self.dropped == "closed":
            self.dropped = "released"
            return OK
        if self.dropped or not is_callers:
            return VIOLATION
        self.dropped = "released"
        return OK


@dataclass
class Handle:
    """One listener's end of a channel."""

    registration: int
    process: int
    is_handed: bool = False
    """Whether the registration has fetched it."""
    token: Token = field(default_factory=Token)
    has_acted: bool = False
    """Whether Redis knows of it: by an answer, a close or a release."""
    told: list[Told] = field(default_factory=list)

    @property
    def is_gone(self) -> bool:
        """Declined, released or told that it is over."""
        return bool(self.token.dropped)


@dataclass
class Channel:
    """One channel."""

    id: int
    process: int
    user: str | None
    """None for all users."""
    bidirectional: bool
    state: State = State.OPEN
    question: bytes = b""
    sent: str = ""
    """How the last send was answered; empty before the first."""
    owner: int | None = None
    closer: str = ""
    token: Token = field(default_factory=Token)
    handles: dict[int, Handle] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    """What the source is told."""

    @property
    def drops(self) -> int:
        """Implicit references that were dropped, of the ends that Redis knows."""
        handles = self.handles.values()
        return bool(self.token.dropped) + sum(
            handle.has_acted and bool(handle.token.dropped) for handle in handles
        )


@dataclass
class Registration:
    """One registration."""

    id: int
    process: int
    user: str
    all_users: bool
    bidirectional: bool
    buffer: int
    unread: list[tuple[str, int, bytes]] = field(default_factory=list)
    """Audience, channel, bytes; in the order of each channel. A release is of channel 0."""
    is_released: bool = False
    """Whether it heard of a deletion, and of nothing since."""

    @property
    def heads(self) -> list[tuple[int, bytes]]:
        """What may be fetched next: the oldest of some channel; a release behind all before it."""
        first: dict[int, bytes] = {}
        for audience, channel, data in self.unread:
            if audience == RELEASE:
                return list(first.items()) or [(channel, data)]
            first.setdefault(channel, data)
        return list(first.items())


class FarmModel:
    """One printer's channels and registrations, and who administers it."""

    def __init__(self) -> None:
        self.channels: dict[int, Channel] = {}
        self.registrations: dict[int, Registration] = {}
        """Those that stand."""
        self.administrators: set[str] = set()

    # Registrations ---------------------------------------------------------------------------

    def register(self, registration: Registration) -> str:
        """A listener registers; a bidirectional one is offered what is still open (R68, R69)."""
        if registration.all_users and registration.user not in self.administrators:
            return DENIED
        self.registrations[registration.id] = registration
        for channel in self.channels.values():
            if channel.state is State.OFFERED and reaches(channel, registration):
                self._offer(channel, registration)
        return OK

    def unregister(self, registration: int) -> str:
        """What is queued is dropped; handles that were handed out live on (R33, R34)."""
        if self.registrations.pop(registration, None) is None:
            return ALREADY_UNREGISTERED
        for channel in self.channels.values():
            handle = channel.handles.get(registration)
            if handle is not None and not handle.is_handed:
                del channel.handles[registration]
        return OK

    def revoke(self, user: str) -> list[int]:
        """A right is taken away: the registrations that stood on it, which end."""
        self.administrators.discard(user)
        ended = [
            registration.id
            for registration in self.registrations.values()
            if registration.all_users and registration.user == user
        ]
        for registration in ended:
            self.unregister(registration)
        return ended

    def delete_printer(self) -> list[int]:
        """Its channels are closed by the server, its listeners told (R65), its grants removed.

        Returns the registrations that stood on these, and end.
        """
        for channel in self.channels.values():
            if channel.state is not State.CLOSED:
                self._close_by_server(channel)
        for each in self.registrations.values():
            if not each.bidirectional and not each.is_released:
                each.unread.append((RELEASE, 0, b""))
                each.is_released = True
        users, ended = set(self.administrators), []
        for user in users:
            ended += self.revoke(user)
        return ended

    def fetch(self, registration: int, channel: int, data: bytes) -> bool:
        """Take one unidirectional notification; whether it could come next (R55, R62)."""
        found = self.registrations[registration]
        if (channel, data) not in found.heads:
            return False
        del found.unread[[row[1:] for row in found.unread].index((channel, data))]
        return True

    def fetch_offers(self, registration: int) -> set[int]:
        """All open channels that were not handed out yet, each once (R71, R72)."""
        queued = set(self.queued(registration))
        for channel in queued:
            self.channels[channel].handles[registration].is_handed = True
        return queued

    def queued(self, registration: int) -> Iterator[int]:
        """Channels that wait to be fetched."""
        for channel in self.channels.values():
            handle = channel.handles.get(registration)
            if handle is not None and not handle.is_handed:
                yield channel.id

    def unread(self, registration: int) -> int:
        """How much waits to be fetched."""
        return len(self.registrations[registration].unread) + len(list(self.queued(registration)))

    # Channels: the source ----------------------------------------------------------------------

    def open(self, channel: Channel, opener: str) -> str:
        """A source opens a channel, whether or not anyone listens."""
        if channel.user is None and opener not in self.administrators:
            return DENIED
        self.channels[channel.id] = channel
        return OK

    def send(self, channel: int, data: bytes, *, lossless: bool = False) -> str:
        """Events 1, 2, 11 and 20; unidirectional 1 to 4."""
        found = self.channels[channel]
        if found.state is State.CLOSED:
            return CLOSED
        if not found.bidirectional:
            word = self._send_unidirectional(found, data, lossless=lossless)
        elif found.state is State.OPEN:
            found.state, found.question = State.OFFERED, data
            listening = [each for each in self.registrations.values() if reaches(found, each)]
            for each in listening:
                self._offer(found, each)
            word = OK if listening else NO_LISTENERS
        elif found.state is State.ANSWERED:
            found.state = State.ASKED
            self._owner_of(found).told.append(Told("notification", data))
            word = OK
        else:
            return WAITING
        if word != FULL:
            found.sent = word
        return word

    def _send_unidirectional(self, channel: Channel, data: bytes, *, lossless: bool) -> str:
        audience = "*" if channel.user is None else "own"
        listening = [each for each in self.registrations.values() if reaches(channel, each)]
        reached = [
            each
            for each in listening
            if sum(row[0] == audience for row in each.unread) < each.buffer
        ]
        if lossless and len(reached) < len(listening):
            return FULL
        for each in reached:
            each.unread.append((audience, channel.id, data))
            each.is_released = False
        if not listening:
            return NO_LISTENERS
        if not reached:
            return FAILURE
        return OK if len(reached) == len(listening) else LOST

    def close(self, channel: int, reason: bytes | None) -> str:
        """Events 16 to 20: the source closes."""
        found = self.channels[channel]
        if found.state is State.CLOSED:
            return CLOSED
        if found.state is State.OPEN and not found.sent:
            return NOT_OPENED
        self._close_by_source(found, reason)
        found.token.drop("closed")
        return OK

    def release(self, channel: int) -> str:
        """The source releases without an explicit reference outstanding."""
        found = self.channels[channel]
        answer = found.token.release(is_callers=self._is_sources(found))
        if answer == OK and found.state is not State.CLOSED:
            self._close_by_source(found, None)
        return answer

    @staticmethod
    def _is_sources(channel: Channel) -> bool:
        """Whether the reference is the source's to drop, and not with the spooler."""
        if channel.state is State.OFFERED:
            return channel.sent == NO_LISTENERS
        return channel.state in (State.OPEN, State.ANSWERED)

    def _close_by_source(self, channel: Channel, reason: bytes | None) -> None:
        was = channel.state
        channel.state, channel.closer = State.CLOSED, SOURCE
        if was is State.OFFERED:
            for handle in self._waiting(channel):
                handle.token.drop("told")
                handle.told.append(Told("closed", reason))
        elif channel.owner is not None:
            owner = self._owner_of(channel)
            owner.token.drop("told")
            owner.told.append(Told("closed", reason))

    def _close_by_server(self, channel: Channel) -> None:
        self._close_by_source(channel, None)
        channel.closer = SERVER
        channel.token.drop("told")
        channel.told.append(Told("closed", None))

    # Channels: a listener ----------------------------------------------------------------------

    def respond(self, channel: int, registration: int, data: bytes) -> set[str]:
        """Events 6, 9, 12, 13 and 20."""
        found = self.channels[channel]
        handle = found.handles[registration]
        if found.owner not in (None, registration):
            # A loser that has closed or released as well may be told either.
            return {ACQUIRED, CLOSED} if handle.has_acted else {ACQUIRED}
        if found.state is State.CLOSED or handle.is_gone:
            return {CLOSED}
        if found.state is State.ANSWERED:
            return {IN_PROGRESS}
        if found.owner is None:
            self._acquire(found, handle)
        handle.has_acted = True
        found.state = State.ANSWERED
        found.told.append(Told("response", data))
        return {OK}

    def end(self, channel: int, registration: int, reason: bytes | None) -> set[str]:
        """Events 7, 8, 10, 14, 15 and 20: a listener closes, or declines."""
        found = self.channels[channel]
        handle = found.handles[registration]
        if found.owner not in (None, registration):
            first = not handle.has_acted
            handle.has_acted = True
            handle.token.drop("closed")
            return {LOST_THE_RACE} if first else {CLOSED, LOST_THE_RACE}
        if found.state is State.CLOSED or handle.is_gone:
            return {CLOSED}
        if found.owner is None and reason is not None:
            self._acquire(found, handle)
        handle.has_acted = True
        handle.token.drop("closed")
        if found.owner is not None:
            self._close_by_owner(found, reason)
        return {OK}

    def let_go(self, channel: int, registration: int) -> str:
        """A listener releases: a decline, a loser's due, or the owner's end of its turn."""
        found = self.channels[channel]
        handle = found.handles[registration]
        lost = found.owner not in (None, registration)
        is_callers = lost or found.state in (State.OFFERED, State.ASKED)
        answer = handle.token.release(is_callers=is_callers)
        if answer == OK:
            handle.has_acted = True
            if found.owner == registration and found.state is not State.CLOSED:
                self._close_by_owner(found, None)
        return answer

    def _close_by_owner(self, channel: Channel, reason: bytes | None) -> None:
        channel.state, channel.closer = State.CLOSED, str(channel.owner)
        channel.token.drop("told")
        channel.told.append(Told("closed", reason))

    def _acquire(self, channel: Channel, winner: Handle) -> None:
        """One field closes everybody else; what was not handed out is never handed out."""
        channel.owner = winner.registration
        for handle in self._waiting(channel):
            if handle is not winner:
                handle.told.append(Told("closed", None, acquired=True))

    def _waiting(self, channel: Channel) -> list[Handle]:
        """Handles that still compete; those that were not fetched yet vanish."""
        channel.handles = {key: each for key, each in channel.handles.items() if each.is_handed}
        return [each for each in channel.handles.values() if not each.is_gone]

    def _offer(self, channel: Channel, registration: Registration) -> None:
        channel.handles[registration.id] = Handle(registration.id, registration.process)

    @staticmethod
    def _owner_of(channel: Channel) -> Handle:
        assert channel.owner is not None
        return channel.handles[channel.owner]

    # Death -------------------------------------------------------------------------------------

    def die(self, process: int) -> None:
        """Events 21 to 23, unidirectional 11 and 12: a process died and was run down."""
        for each in [r.id for r in self.registrations.values() if r.process == process]:
            self.unregister(each)
        for channel in self.channels.values():
            if channel.state is not State.CLOSED and channel.process == process:
                channel.token.drop("told")
                self._close_by_source(channel, None)
            owner = channel.handles.get(channel.owner) if channel.owner is not None else None
            if channel.state is not State.CLOSED and owner and owner.process == process:
                owner.token.drop("released")
                self._close_by_owner(channel, None)


def reaches(channel: Channel, registration: Registration) -> bool:
    """The user truth table, and the style (R40 to R46)."""
    if channel.bidirectional != registration.bidirectional:
        return False
    return channel.user is None or registration.all_users or registration.user == channel.user
