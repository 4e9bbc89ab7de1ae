"""Keys: every name that Tympan uses in Redis is made here, and nowhere else.

Below, ``{s}`` is ``<namespace>:{<server>}``: the server's name is the hash tag, so that all keys
of one server live in one slot and change together. ``docs/keys.md`` lists type, owner and
lifetime of each key; a test holds that page against :data:`CATALOGUE`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from broker._stored import stored
from broker.conversation import Style, UserFilter
from broker.names import Name

LAYOUT = "2"
"""Version of the keys and of what they hold; another one is refused (ForeignLayout)."""

EVERYONE = "*"
"""Audience of all-users channels; as a user: the target of such a channel."""
ADMINISTRATORS = "+"
"""Audience of the administrators' copy of per-user channels."""
POOL = "~"
"""How a pool's registration begins, and no other's."""
ANY_PRINTER = "\\*"
"""In the place of a printer: all printers of the server. No printer's name holds a backslash."""
IDENTITY = "*"
"""In the directory, which is no server's name: which directory it is. An emptied Redis makes
another one, so that a server that Redis lost is not taken for one that was forgotten."""


class KeyFact(NamedTuple):
    """One line of the catalogue: pattern, type, owner, lifetime."""

    pattern: str
    kind: str
    owner: str
    ends: str


CATALOGUE = (
    KeyFact("<namespace>:servers", "hash", "the farm", "never"),
    KeyFact("{s}:meta", "hash", "the server", "never"),
    KeyFact("{s}:leases", "zset", "every session", "last session"),
    KeyFact("{s}:streams", "hash", "the server", "last stream"),
    KeyFact("{s}:opened", "string", "sources", "never"),
    KeyFact("{s}:channels", "hash", "sources", "last open channel"),
    KeyFact("{s}:grants", "hash", "administrators", "last grant"),
    KeyFact("{s}:counts", "hash", "listeners", "last registration"),
    KeyFact("{s}:registrations", "hash", "listeners", "last registration"),
    KeyFact("{s}:pools", "hash", "pools", "last pool"),
    KeyFact(
        "{s}:stream:<audience>", "stream", "its groups", "last group; board: last question too"
    ),
    KeyFact("{s}:room:<audience>", "zset", "its registrations", "last registration"),
    KeyFact("{s}:channel:<id>", "hash", "the source", "keep_closed after the close"),
    KeyFact("{s}:channel:<id>:log", "stream", "the source", "keep_closed after the close"),
    KeyFact("{s}:to:<session>", "stream", "the session", "the session"),
    KeyFact("{s}:held:<session>", "set", "the session", "last thing held"),
    KeyFact(
        "{s}:body:<id>",
        "string",
        "the sender",
        "keep_body; open question: its end; for a pool: keep_pooled",
    ),
    KeyFact("{s}:idle:<pool>", "zset", "its replicas", "last idle replica"),
    KeyFact("{s}:returned:<pool>|<audience>", "zset", "the pool", "last thing handed back"),
    KeyFact("{s}:held:<pool>", "set", "the pool", "last dialog that waits for a replica"),
    KeyFact("{s}:dead", "stream", "the pools", "never"),
    KeyFact("{s}:letter:<id>", "string", "the operator", "keep_closed after it went"),
)
"""``<audience>`` is ``<printer>|<type GUID>|<uni or bi>|<=user, *, + or pool>``; ``<pool>`` is
``~<name>.<digest>``: a pool's registration."""


@dataclass(frozen=True, slots=True)
class Audience:
    """Those for whom one stream is: scope, type, style and user."""

    printer: str
    """Folded printer, empty for the server itself, ANY_PRINTER for all its printers."""
    type: UUID
    style: Style
    whom: str
    """``=alice``, EVERYONE or ADMINISTRATORS; or a pool's registration, for its own stream."""
    field: str = dataclasses.field(init=False, repr=False, compare=False)
    """The audience as one text: suffix of its keys, field in ``streams``."""

    def __post_init__(self) -> None:
        """Every key needs the text, so it is made once."""
        field = f"{self.printer}|{self.type}|{self.style.word}|{self.whom}"
        object.__setattr__(self, "field", field)


def subject(name: Name, type_: UUID, style: Style, user: str) -> str:
    """A channel in the index: ``printer|type|style|user``."""
    return f"{name.printer}|{type_}|{style.word}|{user}"


def parse_subject(text: str) -> tuple[str, UUID, Style, str]:
    """The inverse of :func:`subject`: printer, type, style, user. Only a printer may hold bars.

    Raises ForeignLayout.
    """
    with stored("what a channel is about"):
        printer, type_, style, user = text.rsplit("|", 3)
        return printer, UUID(type_), Style.from_word(style), user


@lru_cache(maxsize=1024)
def channel_audiences(name: Name, type_: UUID, style: Style, user: str) -> tuple[Audience, ...]:
    """Where a channel's notifications go (the user truth table, R41 to R46).

    ``user`` is the folded target, or EVERYONE. A printer's channel also speaks to those who
    registered for all printers of the server (D1).
    """
    whom = (EVERYONE,) if user == EVERYONE else ("=" + user, ADMINISTRATORS)
    scopes = (name.printer, ANY_PRINTER) if name.printer else ("",)
    return tuple(Audience(scope, type_, style, who) for scope in scopes for who in whom)


def registration_audiences(
    name: Name, type_: UUID, style: Style, user: str, user_filter: UserFilter, *, printers: bool
) -> tuple[Audience, ...]:
    """Which streams a registration listens to; never two that carry the same notification."""
    own = ADMINISTRATORS if user_filter is UserFilter.ALL_USERS else "=" + user
    scopes = (name.printer, ANY_PRINTER) if printers else (name.printer,)
    return tuple(Audience(scope, type_, style, who) for scope in scopes for who in (own, EVERYONE))


def group_name(type_: UUID, user: str, registration: str) -> str:
    """The consumer group of a registration: ``<type GUID>:<user>:<id>``."""
    return f"{type_}:{user}:{registration}"


class Keys:
    """The keys of one server."""

    __slots__ = (
        "_prefix", "channels", "counts", "dead", "grants", "leases", "meta", "opened", "pools",
        "registrations", "streams",
    )  # fmt: skip

    def __init__(self, namespace: str, server: str) -> None:
        self._prefix = f"{namespace}:{{{server}}}:"
        self.meta = self._prefix + "meta"
        self.leases = self._prefix + "leases"
        self.streams = self._prefix + "streams"
        self.opened = self._prefix + "opened"
        self.channels = self._prefix + "channels"
        self.grants = self._prefix + "grants"
        self.counts = self._prefix + "counts"
        self.registrations = self._prefix + "registrations"
        self.pools = self._prefix + "pools"
        self.dead = self._prefix + "dead"

    def stream(self, audience: Audience) -> str:
        """The stream of an audience; of a bidirectional one its board of open questions."""
        return f"{self._prefix}stream:{audience.field}"

    def room(self, audience: Audience) -> str:
        """The room of that stream: registration's group, last number that it has room for."""
        return f"{self._prefix}room:{audience.field}"

    def channel(self, channel: str) -> str:
        """State of one channel."""
        return f"{self._prefix}channel:{channel}"

    def log(self, channel: str) -> str:
        """The conversation on one bidirectional channel."""
        return f"{self._prefix}channel:{channel}:log"

    def inbox(self, session: str) -> str:
        """What concerns one process: responses, follow-ups, closed, ended."""
        return f"{self._prefix}to:{session}"

    def held(self, session: str) -> str:
        """What must be ended when that process dies; a pool's: dialogs that wait for a replica."""
        return f"{self._prefix}held:{session}"

    def idle(self, pool: str) -> str:
        """A pool's replicas that wait for work."""
        return f"{self._prefix}idle:{pool}"

    def returned(self, pool: str, audience: Audience) -> str:
        """What was handed back of one of a pool's streams, and when it is due."""
        return f"{self._prefix}returned:{pool}|{audience.field}"

    def receipt(self, letter: str) -> str:
        """By which call a dead letter went."""
        return f"{self._prefix}letter:{letter}"

    def body(self, body: str) -> str:
        """One large payload."""
        return f"{self._prefix}body:{body}"


def inbox_field(session: str) -> str:
    """A session's inbox in the ``streams`` hash."""
    return f"to:{session}"


def grant_field(printer: str, user: str) -> str:
    """A user's rights on a printer (or, with an empty printer, on the server) in ``grants``."""
    return f"{printer}|{user}"


def parse_grant_field(field: str) -> tuple[str, str]:
    """The inverse of :func:`grant_field`: printer, user."""
    printer, _, user = field.rpartition("|")
    return printer, user


def directory(namespace: str) -> str:
    """The directory: names, and the servers that they stand for; the one key of no server."""
    return f"{namespace}:servers"
