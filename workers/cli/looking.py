"""``tympan channels``, ``registrations`` and ``show``: what is open now."""

from __future__ import annotations

import textwrap
from typing import Any

import click
from rich.text import Text

from broker import ALL_USERS, BIDIRECTIONAL, Broker, Name
from broker.inventory import STATES, ChannelFacts, RegistrationFacts, Utterance
from broker.notification_type import describe_type
from broker.rights import short_name
from workers.cli.failures import DONE, Unknown
from workers.cli.options import farm_options, optional_name_argument
from workers.cli.output import Output, age, body_record, body_shown, clock, printable
from workers.cli.running import connect, run


@click.command(short_help="List open channels.")
@optional_name_argument
@farm_options
@click.pass_context
def channels(ctx: click.Context, name: Name | None) -> int:
    r"""List open channels: of the farm, of \\server with its printers, or of \\server\printer."""
    output = Output.of(ctx)

    async def work() -> int:
        async with connect(ctx) as broker:
            found = await broker.channels(name)
            now = await redis_time(broker, found[0].name) if found else 0.0
        if not found:
            output.note(f"no channel is open{where(name)}")
            return DONE
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
        return DONE

    return run(work())


@click.command(short_help="List who listens.")
@optional_name_argument
@farm_options
@click.pass_context
def registrations(ctx: click.Context, name: Name | None) -> int:
    r"""List who listens: on the farm, on \\server with its printers, or on \\server\printer."""
    output = Output.of(ctx)

    async def work() -> int:
        async with connect(ctx) as broker:
            found = await broker.registrations(name)
            now = await redis_time(broker, found[0].name) if found else 0.0
        if not found:
            output.note(f"nobody listens{where(name)}")
            return DONE
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
                    facts.session,
                )
                for facts in found
            ],
        )
        return DONE

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
        async with connect(ctx) as broker:
            found = await broker.show(channel)
            if found is None:
                raise Unknown(
                    f"no channel {channel!r}: there never was one, or it was closed more than "
                    f"{age(broker.settings.keep_closed)}; `tympan channels` lists open ones"
                )
            now = await redis_time(broker, found[0].name)
        facts, said = found
        record = channel_record(facts) | {"conversation": [utterance_record(one) for one in said]}
        output.tell(record, *channel_shown(facts, said, now))
        return DONE

    return run(work())


async def redis_time(broker: Broker, name: Name) -> float:
    """Seconds of the clock by which the facts are dated."""
    seconds, microseconds = await (await broker.server(name)).command("TIME")
    return int(seconds) + int(microseconds) / 1_000_000


def where(name: Name | None) -> str:
    """The place asked about, for a sentence that says that nothing is there."""
    return "" if name is None else f" on {name}"


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


def registration_record(facts: RegistrationFacts) -> dict[str, Any]:
    """A registration for programs."""
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
        "session": facts.session,
        "since": facts.since,
    }


def hears(facts: RegistrationFacts) -> str:
    """What a registration hears, for people."""
    whose = "everybody's" if facts.user_filter is ALL_USERS else "its user's"
    printers = ", all printers" if facts.printers else ""
    return f"{whose}{printers}{', everywhere' if facts.everywhere else ''}"


def stands_on(facts: RegistrationFacts) -> str:
    """The right that a registration would end with, for people."""
    if not facts.needed:
        return "-"
    right = short_name(facts.needed, facts.name)
    return f"{right}, says {facts.source}" if facts.source else f"{right} (granted)"
