"""Histories: what clients did, what they were handed and what they were told, as they saw it.

A success is what a call returned. One that is done, but not as safe as the durability asks for
(NotDurable), is noted as ``False``. Times are seconds of :func:`~workers.proof.patience.now`, which
all processes of one host share, so the parts of several processes make one history.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import TypeAdapter

from broker.notification import Closing
from workers.proof.patience import done, now, reaches_all

T = TypeVar("T")

SOURCE = "source"
"""The source's end of a channel; a listener's is its registration."""
HUNG = "hung"
"""How an end ended that nobody told anything."""
LEFT = "left"
"""A question stays open, as everybody was told that somebody else had answered it."""
DIED = "died"
"""Its own process was killed."""


@dataclass(slots=True)
class Call:
    """One call at one end of a channel."""

    end: str
    what: str
    """``send``, ``respond``, ``close`` or ``release``."""
    begun: float
    ended: float = 0.0
    """When it succeeded; 0.0 where it did not."""


@dataclass(slots=True)
class Handing:
    """Something that an application was handed."""

    end: str
    body: str
    at: float


@dataclass(slots=True)
class Known:
    """What Redis holds of a channel in the end."""

    state: str
    owner: str = ""
    """The registration that acquired it."""
    owner_user: str = ""
    drops: int = 0
    """How often it counted that a handle's implicit reference was dropped."""
    dropped: set[str] = field(default_factory=set)
    """The handles whose reference was."""
    responses: int = 0
    """Responses in its conversation."""


@dataclass
class Listening:
    """One registration, as its listener made it."""

    user: str
    printer: str = ""
    type: str = ""
    is_two_way: bool | None = False
    """None: one registration for each style, under one name."""
    all_users: bool = False
    printers: bool = False
    """Whether it hears all printers of its server; ``printer`` is that server then."""
    since: float = 0.0
    """When it stood."""
    until: float = float("inf")
    """When its end began, by its own will or another's."""
    denied: float = float("inf")
    """When the right that it stands on had been taken away."""


@dataclass
class Hand:
    """One listener's end of one dialog."""

    user: str = ""
    responses: dict[str, bool] = field(default_factory=dict)
    """What it said that was done; whether it was as safe as was asked."""
    heard: list[str] = field(default_factory=list)
    end: str = ""
    """How it ended: ``lost``, ``released``, ``declined``, ``closed <reason>``, an error's name,
    HUNG or DIED."""
    lost_to: str = ""
    """The user who was first, as it was told."""
    has_let_go: bool = False
    """Whether it dropped its own handle: by closing, declining or releasing."""


@dataclass
class Dialog:
    """One bidirectional channel, as all ends saw it."""

    sends: dict[str, bool] = field(default_factory=dict)
    """Question and follow-ups of the source that were done; whether as safe as was asked."""
    heard: list[tuple[str, str]] = field(default_factory=list)
    """Responses: registration, and what it said."""
    close: dict[str, bool] = field(default_factory=dict)
    """The source's own close, likewise."""
    end: str = ""
    hands: dict[str, Hand] = field(default_factory=dict)
    log: set[str] = field(default_factory=set)
    """What Redis knows in the end of all that was said."""
    user: str = ""
    """Whom it is for; empty for all users."""
    printer: str = ""
    type: str = ""
    responders: int = 0
    """How many listeners have to be offered it; 0 where that is not known."""
    calls: list[Call] = field(default_factory=list, repr=False)
    handed: list[Handing] = field(default_factory=list, repr=False)
    over: dict[str, float] = field(default_factory=dict, repr=False)
    """When each end was told that it is over, or when its own close had succeeded."""
    known: Known | None = None

    @property
    def is_left_by_all(self) -> bool:
        """Whether nobody is left who heard the question, and could answer it."""
        return bool(self.hands) and all(hand.end for hand in self.hands.values())

    @property
    def owners(self) -> set[str]:
        """Registrations that acquired it, by the word of the source, of theirs, or of Redis."""
        found = {registration for registration, _ in self.heard}
        found |= {name for name, hand in self.hands.items() if safe(hand.responses)}
        return found | ({self.known.owner} if self.known and self.known.owner else set())

    async def call(self, end: str, what: str, call: Callable[[], Awaitable[object]]) -> bool:
        """Make a call until it is settled, and note it; whether it is as safe as was asked."""
        noted = Call(end, what, now())
        self.calls.append(noted)
        is_safe = await done(call)
        noted.ended = now()
        if what == "close":
            self.over.setdefault(end, noted.ended)
        return is_safe

    def hands_over(self, end: str, body: str) -> str:
        """Note what an application was handed; returns it."""
        self.handed.append(Handing(end, body, now()))
        return body

    def is_told(self, end: str, how: str) -> str:
        """Note that an end was told that it is over; returns how."""
        self.over.setdefault(end, now())
        return how

    def merge(self, other: Dialog) -> None:
        """Add what another process saw of it."""
        for name in ("sends", "close", "hands", "over"):
            getattr(self, name).update(getattr(other, name))
        for name in ("heard", "calls", "handed"):
            getattr(self, name).extend(getattr(other, name))
        self.log |= other.log
        self.responders = max(self.responders, other.responders)
        for name in ("end", "user", "printer", "type", "known"):
            setattr(self, name, getattr(self, name) or getattr(other, name))


@dataclass
class Feed:
    """One unidirectional channel, as its source saw it, and what each listener heard of it."""

    sends: dict[int, bool] = field(default_factory=dict)
    end: str = ""
    heard: dict[str, list[int]] = field(default_factory=dict)
    known: int = 0
    """How many of the sends Redis knows in the end."""
    user: str = ""
    """Whom it is for; empty for all users."""
    printer: str = ""
    type: str = ""
    begun: dict[int, float] = field(default_factory=dict)
    """When each send began, and when it was answered."""
    answered: dict[int, float] = field(default_factory=dict)
    closed: float = float("inf")
    """When its source's close had succeeded."""

    async def send(self, number: int, call: Callable[[], Awaitable[object]]) -> None:
        """Send one notification until that is settled, and note whether it reached all."""
        self.begun[number] = now()
        self.sends[number] = await reaches_all(call)
        self.answered[number] = now()


@dataclass
class Work:
    """What was sent to a pool, and what became of it."""

    channels: set[str] = field(default_factory=set)
    """By which it was sent."""
    sends: dict[str, bool] = field(default_factory=dict)
    handled: dict[str, list[str]] = field(default_factory=dict)
    """For each text the replicas that were given it, in turn."""
    finished: dict[str, list[str]] = field(default_factory=dict)
    """Those of them that Redis let finish it."""
    died: set[str] = field(default_factory=set)
    """Replicas that were killed: the last that they finished they may not have told of."""
    left: int = 0
    """What Redis still holds for it in the end."""


@dataclass(slots=True)
class Attempt:
    """Somebody wanted what stands on a right: to listen, or to speak, for all users."""

    what: str
    has_right: bool
    is_admitted: bool


@dataclass
class History:
    """All that was seen in one play."""

    dialogs: dict[str, Dialog] = field(default_factory=dict)
    feeds: dict[str, Feed] = field(default_factory=dict)
    works: dict[str, Work] = field(default_factory=dict)
    """By pool."""
    listening: dict[str, Listening] = field(default_factory=dict)
    """By registration."""
    attempts: list[Attempt] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Calls that failed, or did not end, where nothing gave them a reason to."""
    keys: dict[str, int] | None = None
    """All keys in the end with their times to live in ms, -1 for none; None: nobody looked."""
    may_forget: bool = False
    """Whether Redis may have forgotten successes: a failover at durability ``memory``."""

    def dialog(self, channel: str) -> Dialog:
        """The record of a bidirectional channel."""
        return self.dialogs.setdefault(channel, Dialog())

    def feed(self, channel: str) -> Feed:
        """The record of a unidirectional channel."""
        return self.feeds.setdefault(channel, Feed())

    def merge(self, other: History) -> None:
        """Add what another process saw."""
        for channel, dialog in other.dialogs.items():
            self.dialog(channel).merge(dialog)
        self.feeds.update(other.feeds)
        self.works.update(other.works)
        self.listening.update(other.listening)
        self.attempts += other.attempts
        self.faults += other.faults
        self.may_forget |= other.may_forget

    def record(self) -> Any:
        """The same as what JSON can say."""
        return _RECORD.dump_python(self, mode="json")

    @classmethod
    def of_record(cls, record: Any) -> History:
        """The inverse; raises ValueError."""
        return _RECORD.validate_python(record)


_RECORD = TypeAdapter(History)


def safe(successes: Mapping[T, bool]) -> set[T]:
    """Those that are as safe as the durability asks for."""
    return {what for what, is_safe in successes.items() if is_safe}


def texts_heard(dialog: Dialog) -> set[str]:
    """What listeners heard of a dialog."""
    return set(itertools.chain(*(hand.heard for hand in dialog.hands.values())))


def is_meant_for(channel: Dialog | Feed, listening: Listening, *, at: float | None = None) -> bool:
    """Whether the rules of matching let a listener see what is sent on a channel (R38 to R46).

    ``at``: when the send began; who had been denied the right by then may not.
    """
    if at is not None and at > listening.denied:
        return False
    is_of_style = listening.is_two_way in (None, isinstance(channel, Dialog))
    if not is_of_style or channel.type != listening.type:
        return False
    server, _, _ = channel.printer[2:].partition("\\")
    is_there = channel.printer == listening.printer or (
        listening.printers and listening.printer == "\\\\" + server
    )
    is_his = not channel.user or listening.all_users or listening.user == channel.user
    return is_there and is_his


def ended(closing: Closing | None) -> str:
    """How an end was told that its channel is over."""
    if closing is None:
        return "error"
    if closing.acquired:
        return "lost"
    if closing.reason.is_release:
        return "released"
    return f"closed {closing.reason.text}"


def hands_of(history: History) -> Iterator[tuple[str, Dialog, str, Hand]]:
    """Each listener's end: channel, dialog, registration, hand."""
    for channel, dialog in history.dialogs.items():
        for registration, hand in dialog.hands.items():
            yield channel, dialog, registration, hand
