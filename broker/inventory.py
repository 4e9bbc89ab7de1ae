"""Inventory: what is open now, for people and for tools. Reads only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from broker._entries import read_range
from broker._keys import EVERYONE, parse_grant_field, parse_subject
from broker._server import Server
from broker.conversation import Style, UserFilter
from broker.names import Name
from broker.rights import Right

STATES = {
    "open": "open, nothing sent",
    "offered": "asked, unanswered",
    "answered": "owned, the source's turn",
    "asked": "owned, the owner's turn",
    "closed": "closed",
}
AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class ChannelFacts:
    """One channel. Times are seconds of Redis's clock."""

    id: str
    name: Name
    type: UUID
    style: Style
    user: str | None
    state: str
    opened_by: str
    opened_at: float
    owner: str | None
    """User who acquired it."""
    closer: str | None
    """``source``, or the registration that closed it."""
    operations: int
    """How many operations of the source Redis has done."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """One entry of a conversation."""

    event: str
    by: str
    at: float
    data: bytes | None


@dataclass(frozen=True, slots=True)
class RegistrationFacts:
    """One registration."""

    id: str
    name: Name
    type: UUID
    style: Style
    user: str
    user_filter: UserFilter
    printers: bool
    needed: Right
    """The right that it stands on."""
    buffer: int
    session: str
    since: float

    @property
    def group(self) -> str:
        """Its consumer group in Redis."""
        return f"{self.type}:{self.user}:{self.id}"


@dataclass(frozen=True, slots=True)
class Grant:
    """A user's rights on a printer or server."""

    name: Name
    user: str
    right: Right


def _facts(server: str, channel: str, known: Mapping[bytes, bytes]) -> ChannelFacts:
    text = {field.decode(): value.decode(errors="replace") for field, value in known.items()}
    printer, type_, style, user = parse_subject(text["subject"])
    return ChannelFacts(
        channel,
        Name(server, printer),
        type_,
        style,
        None if user == EVERYONE else user,
        text["state"],
        text["by"],
        float(text["at"]) / 1000,
        text.get("owner_user"),
        text.get("closer"),
        int(text["op"]),
    )


async def read_channel(server: Server, channel: str) -> ChannelFacts | None:
    """One channel, open or lately closed; None where Redis knows none of this id."""
    flat = await server.command("HGETALL", server.keys.channel(channel))
    known = dict(zip(flat[::2], flat[1::2], strict=True))
    return _facts(server.name, channel, known) if b"subject" in known else None


async def read_conversation(server: Server, channel: str) -> list[Utterance]:
    """What was said on a bidirectional channel, oldest first."""
    said: list[Utterance] = []
    after = "-"
    while True:
        reply = await server.command(
            "XRANGE", server.keys.log(channel), after, "+", "COUNT", AT_ONCE
        )
        entries = read_range(reply)
        for entry in entries:
            data = entry.fields.get("body")
            if entry.reference is not None:
                data = await server.command("GET", entry.reference, large=True)
            by = entry.text("by") or entry.text("user")
            said.append(Utterance(entry.text("event"), by, float(entry.text("at")) / 1000, data))
        if len(entries) < AT_ONCE:
            return said
        after = f"({entries[-1].id}"


async def read_channels(server: Server) -> list[ChannelFacts]:
    """The open channels of a server, oldest first."""
    found: list[ChannelFacts] = []
    for channel in await _fields(server, server.keys.channels):
        facts = await read_channel(server, channel)
        if facts is not None:
            found.append(facts)
    return sorted(found, key=lambda facts: (facts.opened_at, facts.id))


async def read_registrations(server: Server) -> list[RegistrationFacts]:
    """The registrations of a server, oldest first."""
    found: list[RegistrationFacts] = []
    for registration, text in (await _fields(server, server.keys.registrations)).items():
        record = json.loads(text)
        found.append(
            RegistrationFacts(
                registration,
                Name(server.name, record["printer"]),
                UUID(record["type"]),
                Style.from_word(record["style"]),
                record["user"],
                UserFilter(record["filter"]),
                record["printers"],
                Right(record["needed"]),
                record["buffer"],
                record["session"],
                record["since"] / 1000,
            )
        )
    return sorted(found, key=lambda facts: (facts.since, facts.id))


async def read_grants(server: Server) -> list[Grant]:
    """All grants on a server and its printers."""
    found: list[Grant] = []
    for field, mask in (await _fields(server, server.keys.grants)).items():
        printer, user = parse_grant_field(field)
        found.append(Grant(Name(server.name, printer), user, Right(int(mask))))
    return sorted(found, key=lambda grant: (grant.name, grant.user))


async def _fields(server: Server, key: str) -> dict[str, str]:
    found: dict[str, str] = {}
    cursor = b"0"
    while True:
        cursor, flat = await server.command("HSCAN", key, cursor, "COUNT", AT_ONCE)
        found.update((flat[i].decode(), flat[i + 1].decode()) for i in range(0, len(flat), 2))
        if cursor == b"0":
            return found
