"""``tympan channels``, ``registrations`` and ``show``: what is open now."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import click
from rich.text import Text

from broker import ALL_USERS, BIDIRECTIONAL, Broker, Name
from broker.errors import TympanError
from broker.inventory import STATES, ChannelFacts, RegistrationFacts, Utterance
from broker.notification_type import describe_type
from broker.pool import PoolFacts
from broker.rights import short_name
from workers.cli.failures import DONE, Unknown, error_record, sentence, status_of
from workers.cli.line import farm_options
from workers.cli.options import optional_name_argument
from workers.cli.output import (
    Output,
    age,
    body_record,
    body_shown,
    clock,
    counted,
    on_one_line,
    printable,
)
from workers.cli.running import connect, run

F = TypeVar("F")


@click.command(short_help="List open channels.")
@optional_name_argument
@farm_options
@click.pass_context
def channels(ctx: click.Context, name: Name | None) -> int:
    r"""List open channels: of the farm, of \\server with its printers, or of \\server\printer."""
    output = Output.of(ctx)

    async def work() -> int:
        async with connect(ctx, looks=True) as broker:
            found, missing = await on_each(broker, name, broker.channels)
            now = await broker.clock(found[0].name) if found else 0.0
        if not found:
            output.note(f"no channel is open{where(name, missing)}")
            return tell_missing(output, missing)
        output.table(
            [channel_record(facts) for facts in found],
            ("CHANNEL", "NAME", "TYPE", "STYLE", "FOR", "STATE", "OPENED"),
            [
                (
                    facts.id,
                    str(facts.name),
                    describe_type(facts.type),
                    facts.style.word,
                    facts.user or "all users",
                    state_shown(facts),
                    f"{age(now - facts.opened_at)} by {facts.opened_by}",
                )
                for facts in found
            ],
        )
        return tell_missing(output, missing)

    return run(work())


@click.command(short_help="List who listens.")
@optional_name_argument
@farm_options
@click.pass_context
def registrations(ctx: click.Context, name: Name | None) -> int:
    r"""List who listens: on the farm, on \\server with its printers, or on \\server\printer."""
    output = Output.of(ctx)

    async def work() -> int:
        async with connect(ctx, looks=True) as broker:

            async def listening(name: Name) -> list[RegistrationFacts | PoolFacts]:
                return [*await broker.registrations(name), *await broker.pools.on_server(name)]

            found, missing = await on_each(broker, name, listening)
            now = await broker.clock(found[0].name) if found else 0.0
        if not found:
            output.note(f"nobody listens{where(name, missing)}")
            return tell_missing(output, missing)
        output.table(
            [registration_record(facts) for facts in found],
            (
                "REGISTRATION",
                "NAME",
                "TYPE",
                "STYLE",
                "USER",
                "HEARS",
                "STANDS ON",
                "SINCE",
                "PROCESS",
            ),
            [
                (
                    facts.id,
                    str(facts.name),
                    describe_type(facts.type),
                    facts.style.word,
                    facts.user,
                    hears(facts),
                    stands_on(facts),
                    age(now - facts.since),
                    served_by(facts),
                )
                for facts in found
            ],
        )
        return tell_missing(output, missing)

    return run(work())


@click.command(short_help="Show one channel and its conversation.")
@click.argument("channel")
@farm_options
@click.pass_context
def show(ctx: click.Context, channel: str) -> int:
    """Show one channel: its state, and what was said on it.

    CHANNEL is the id that `tympan send` and `tympan channels` print. A closed channel is known
    for ten minutes.
    """
    output = Output.of(ctx)

    async def work() -> int:
        async with connect(ctx, looks=True) as broker:
            found = await broker.show(channel)
            if found is None:
                raise Unknown(
                    f"no channel {channel!r}: there never was one, or it was closed more than "
                    f"{age(broker.settings.keep_closed)}; `tympan channels` lists open ones"
                )
            now = await broker.clock(found[0].name)
        facts, said = found
        record = channel_record(facts) | {"conversation": [utterance_record(one) for one in said]}
        output.tell(record, *channel_shown(facts, said, now))
        return DONE

    return run(work())


async def on_each(
    broker: Broker, name: Name | None, read: Callable[[Name], Awaitable[list[F]]]
) -> tuple[list[F], dict[Name, TympanError]]:
    """What is found on the farm, server by server, and where nothing could be read, and why.

    Where one name is asked for, that raises what keeps it from being read.
    """
    if name is not None:
        return await read(name), {}
    names = [Name(server) for server in await broker.servers()]
    found: list[F] = []
    missing: dict[Name, TympanError] = {}
    each = await asyncio.gather(*(read(one) for one in names), return_exceptions=True)
    for one, some in zip(names, each, strict=True):
        if isinstance(some, TympanError):
            missing[one] = some
        elif isinstance(some, BaseException):
            raise some
        else:
            found += some
    return found, missing


def tell_missing(output: Output, missing: Mapping[Name, TympanError]) -> int:
    """Say which servers could not be read; returns the exit status."""
    for name, error in missing.items():
        if output.as_json:
            output.tell({"name": str(name), **error_record(error)})
        else:
            output.note(f"{name} cannot be read: {on_one_line(sentence(error))}", "red")
    return next((status_of(error) for error in missing.values()), DONE)


async def found_pools(
    broker: Broker, name: Name | None, pool: str | None = None
) -> list[PoolFacts]:
    """The registrations of pools: of the farm, of one server, or for one printer."""
    names = [Name(server) for server in await broker.servers()] if name is None else [name]
    each = await asyncio.gather(*(broker.pools.on_server(one) for one in names))
    return [facts for found in each for facts in found if pool in (None, facts.pool)]


def where(name: Name | None, missing: Mapping[Name, TympanError] | None = None) -> str:
    """The place asked about, for a sentence that says that nothing is there."""
    elsewhere = " on the servers that could be read" if missing else ""
    return elsewhere if name is None else f" on {name}"


# Channels ----------------------------------------------------------------------------------------


def channel_record(facts: ChannelFacts) -> dict[str, Any]:
    """A channel for programs."""
    return {
        "channel": facts.id,
        "name": str(facts.name),
        "type": str(facts.type),
        "style": facts.style.word,
        "user": facts.user,
        "state": facts.state,
        "opened_by": facts.opened_by,
        "opened_at": facts.opened_at,
        "owner": facts.owner,
        "closer": facts.closer,
    }


def state_shown(facts: ChannelFacts) -> str:
    """A channel's state for people."""
    if facts.state == "closed":
        who = {"source": "source", "server": "the server: its printer was deleted"}
        return f"closed by {who.get(facts.closer or '', 'its owner')}"
    if facts.style is not BIDIRECTIONAL:
        return f"open, {facts.operations} sent"
    words = STATES.get(facts.state, facts.state)
    return f"{words}: {facts.owner}" if facts.owner else words


def channel_shown(facts: ChannelFacts, said: list[Utterance], now: float) -> list[Text]:
    """A channel and its conversation for people."""
    lines = [
        Text.assemble(("Channel ", "bold"), (facts.id, "bold cyan")),
        Text(f"  on     {facts.name}, {describe_type(facts.type)}, {facts.style.word}"),
        Text(f"  for    {printable(facts.user or 'all users')}"),
        Text(f"  state  {printable(state_shown(facts))}"),
        Text(f"  opened {age(now - facts.opened_at)} by {printable(facts.opened_by)}"),
    ]
    if facts.owner:
        lines.append(Text(f"  owner  {printable(facts.owner)}, who answered first"))
    if facts.style is not BIDIRECTIONAL:
        lines.append(Text("What was sent on a unidirectional channel is with its listeners."))
    verbs = {"notification": "asked", "response": "answered", "closed": "closed"}
    for one in said:
        head = f"{clock(one.at)}  {printable(one.by)} {verbs.get(one.event, one.event)}"
        lines.append(Text(head, "bold"))
        if one.data is not None:
            lines.append(Text(textwrap.indent(body_shown(one.data, facts.type), "  ")))
    return lines


def utterance_record(said: Utterance) -> dict[str, Any]:
    """One entry of a conversation for programs."""
    body = {} if said.data is None else body_record(said.data)
    return {"event": said.event, "by": said.by, "at": said.at, **body}


# Registrations -----------------------------------------------------------------------------------


def registration_record(facts: RegistrationFacts | PoolFacts) -> dict[str, Any]:
    """A registration for programs; a pool's is held by no session."""
    pool, session = (facts.pool, None) if isinstance(facts, PoolFacts) else (None, facts.session)
    return {
        "registration": facts.id,
        "name": str(facts.name),
        "type": str(facts.type),
        "style": facts.style.word,
        "user": facts.user,
        "all_users": facts.user_filter is ALL_USERS,
        "printers": facts.printers,
        "everywhere": facts.everywhere,
        "right": short_name(facts.needed, facts.name) if facts.needed else None,
        "rights_source": facts.source,
        "buffer": facts.buffer,
        "session": session,
        "pool": pool,
        "since": facts.since,
    }


def served_by(facts: RegistrationFacts | PoolFacts) -> str:
    """The process that holds a registration, or the pool that it is, for people."""
    if not isinstance(facts, PoolFacts):
        return facts.session
    return f"pool {facts.pool} ({counted(len(facts.replicas), 'replica')})"


def hears(facts: RegistrationFacts | PoolFacts) -> str:
    """What a registration hears, for people."""
    whose = "everybody's" if facts.user_filter is ALL_USERS else "its user's"
    printers = ", all printers" if facts.printers else ""
    return f"{whose}{printers}{', everywhere' if facts.everywhere else ''}"


def stands_on(facts: RegistrationFacts | PoolFacts) -> str:
    """The right that a registration would end with, for people."""
    if not facts.needed:
        return "-"
    right = short_name(facts.needed, facts.name)
    return f"{right}, says {facts.source}" if facts.source else f"{right} (granted)"
