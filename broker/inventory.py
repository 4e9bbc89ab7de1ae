"""Inventory: what is open now, for people and for tools. Reads only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from broker._batches import batches
from broker._bodies import read_body
from broker._entries import Entry, by_name, read_range
from broker._keys import EVERYONE, parse_grant_field, parse_subject
from broker._plan import RegistrationPlan
from broker._server import Server
from broker._stored import checked, read_record, stored
from broker.conversation import BIDIRECTIONAL, Style, UserFilter
from broker.errors import TympanError
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

    @property
    def is_asked(self) -> bool:
        """Whether a question was asked on it that is not over."""
        return self.style is BIDIRECTIONAL and self.state not in ("open", "closed")


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
    source: str | None
    """The rights source that says that its user has it; None for the grants in Redis."""
    buffer: int
    session: str
    since: float
    everywhere: bool
    """Whether it is one server's part of a farm-wide registration."""

    @property
    def group(self) -> str:
        """Its consumer group in Redis."""
        return f"{self.type}:{self.user}:{self.id}"


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """One print server, and how much stands there."""

    name: Name
    aliases: tuple[Name, ...]
    sessions: int
    """Processes that use it."""
    registrations: int
    channels: int
    pools: int
    """Registrations of pools, which no process holds."""
    unread: TympanError | None = None
    """Why it could not be read; then nothing is known of what stands there."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A user's rights on a printer or server."""

    name: Name
    user: str
    right: Right


async def together(*reads: Awaitable[Any]) -> list[Any]:
    """What all of these return, asked at once. Where one raises, the others are broken off."""
    tasks = [asyncio.ensure_future(read) for read in reads]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _facts(server: str, channel: str, known: Mapping[bytes, bytes]) -> ChannelFacts:
    with stored(f"channel {channel}"):
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
    known = by_name(flat)
    return _facts(server.name, channel, known) if b"subject" in known else None


async def read_conversation(server: Server, channel: str) -> list[Utterance]:
    """What was said on a bidirectional channel, oldest first."""
    said: list[Utterance] = []
    after = "-"
    while True:
        reply = await server.command(
            "XRANGE", server.keys.log(channel), after, "+", "COUNT", AT_ONCE
        )
        with stored(f"the conversation of channel {channel}"):
            entries = read_range(reply)
            read = [_utterance(entry) for entry in entries]
        for entry, utterance in zip(entries, read, strict=True):
            if entry.reference is not None:
                data = await read_body(server.command, entry.reference)
                said.append(replace(utterance, data=data))
            else:
                said.append(utterance)
        if len(entries) < AT_ONCE:
            return said
        after = f"({entries[-1].id}"


def _utterance(entry: Entry) -> Utterance:
    by = entry.text("by") or entry.text("user")
    return Utterance(
        entry.text("event"), by, float(entry.text("at")) / 1000, entry.fields.get("body")
    )


async def read_channels(server: Server) -> list[ChannelFacts]:
    """The open channels of a server, oldest first."""
    found: list[ChannelFacts] = []
    for channel in await fields_of(server, server.keys.channels):
        facts = await read_channel(server, channel)
        if facts is not None:
            found.append(facts)
    return sorted(found, key=lambda facts: (facts.opened_at, facts.id))


async def read_questions(server: Server) -> list[ChannelFacts]:
    """What was asked on a server and is not closed, oldest first: questions, and their dialogs."""
    subjects = await fields_of(server, server.keys.channels)
    asked = [
        channel for channel, text in subjects.items() if parse_subject(text)[2] is BIDIRECTIONAL
    ]
    found: list[ChannelFacts] = []
    for some in batches(asked):
        known = await together(*(read_channel(server, one) for one in some))
        found += [facts for facts in known if facts is not None and facts.is_asked]
    return sorted(found, key=lambda facts: (facts.opened_at, facts.id))


async def read_registrations(server: Server) -> list[RegistrationFacts]:
    """The registrations of a server, oldest first."""
    found: list[RegistrationFacts] = []
    for registration, text in (await fields_of(server, server.keys.registrations)).items():
        record = read_record(text, f"registration {registration}")
        plan = RegistrationPlan.of_record(server.name, record)
        with stored(f"registration {registration}"):
            checked(record, session=str, everywhere=bool)
            found.append(
                RegistrationFacts(
                    registration,
                    plan.name,
                    plan.type,
                    plan.style,
                    plan.user,
                    plan.user_filter,
                    plan.printers,
                    Right(plan.needed),
                    plan.source or None,
                    record["buffer"],
                    record["session"],
                    record["since"] / 1000,
                    record["everywhere"],
                )
            )
    return sorted(found, key=lambda facts: (facts.since, facts.id))


async def read_grants(server: Server) -> list[Grant]:
    """All grants on a server and its printers."""
    found: list[Grant] = []
    for field, mask in (await fields_of(server, server.keys.grants)).items():
        with stored(f"grant {field!r}"):
            printer, user = parse_grant_field(field)
            found.append(Grant(Name(server.name, printer), user, Right(int(mask))))
    return sorted(found, key=lambda grant: (grant.name, grant.user))


async def count_sessions(server: Server) -> int:
    """How many processes use a server, those that died and were not run down yet among them."""
    return int(await server.command("ZCARD", server.keys.leases))


async def read_server(server: Server, aliases: tuple[str, ...]) -> ServerFacts:
    """How much stands on a server; it needs no session there."""
    return ServerFacts(
        Name(server.name),
        tuple(Name(alias) for alias in aliases),
        await count_sessions(server),
        int(await server.command("HLEN", server.keys.registrations)),
        int(await server.command("HLEN", server.keys.channels)),
        int(await server.command("HLEN", server.keys.pools)),
    )


async def try_server(server: Server, aliases: tuple[str, ...]) -> ServerFacts:
    """The same of one that perhaps cannot be read."""
    try:
        return await read_server(server, aliases)
    except TympanError as error:
        others = tuple(Name(alias) for alias in aliases)
        return ServerFacts(Name(server.name), others, 0, 0, 0, 0, unread=error)


async def read_clock(server: Server) -> float:
    """Seconds of the clock by which the facts of a server are dated."""
    seconds, microseconds = await server.command("TIME")
    return int(seconds) + int(microseconds) / 1_000_000


async def what_stands(server: Server, pools: Collection[str]) -> str:
    """What keeps a server from being forgotten, in words; empty where nothing does.

    Farm-wide registrations follow the directory, and so do these ``pools``, and the sessions that
    hold only such, or nothing.
    """
    registrations = await read_registrations(server)
    following = {*pools, *(facts.id for facts in registrations if facts.everywhere)}
    sessions = [
        await server.command("SMEMBERS", server.keys.held(lease.decode()))
        for lease in await server.command("ZRANGE", server.keys.leases, 0, -1)
    ]
    stands = {
        "session": sum(
            any(one.decode().partition(":")[2] not in following for one in held)
            for held in sessions
        ),
        "registration": sum(not facts.everywhere for facts in registrations),
        "channel": int(await server.command("HLEN", server.keys.channels)),
        "pool": int(await server.command("HLEN", server.keys.pools)) - len(pools),
    }
    return ", ".join(
        f"{count} {what}{'s' * (count > 1)}" for what, count in stands.items() if count
    )


async def fields_of(server: Server, key: str) -> dict[str, str]:
    """All fields of one of a server's hashes. Raises ForeignLayout, RedisError."""
    found: dict[str, str] = {}
    cursor = b"0"
    while True:
        cursor, flat = await server.command("HSCAN", key, cursor, "COUNT", AT_ONCE)
        with stored(key):
            found.update((flat[i].decode(), flat[i + 1].decode()) for i in range(0, len(flat), 2))
        if cursor == b"0":
            return found
