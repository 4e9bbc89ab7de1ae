"""``tympan servers`` and ``tympan server``: the print servers of a farm, and their names."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from broker import Name
from broker.inventory import ServerFacts
from broker.results import S_OK
from workers.cli.failures import DONE, error_record, status_of
from workers.cli.line import farm_options, verbatim
from workers.cli.looking import tell_missing
from workers.cli.options import parse_server
from workers.cli.output import Output, result_record
from workers.cli.running import connect, run


@click.command(short_help="List print servers.")
@farm_options
@click.pass_context
def servers(ctx: click.Context) -> int:
    """List the print servers of the farm, their aliases, and how much stands there.

    A server comes into the list when something is opened there, or listens there.
    """
    output = Output.of(ctx)

    async def work() -> int:
        async with connect(ctx, looks=True) as broker:
            found = await broker.overview()
        missing = {facts.name: facts.unread for facts in found if facts.unread is not None}
        if not found:
            output.note("no print server is known")
            return DONE
        output.table(
            [server_record(facts) for facts in found],
            ("SERVER", "ALIASES", "PROCESSES", "REGISTRATIONS", "POOLS", "CHANNELS"),
            [
                (
                    str(facts.name),
                    ", ".join(str(alias) for alias in facts.aliases) or "-",
                    *(("?",) * 4 if facts.unread is not None else figures(facts)),
                )
                for facts in found
            ],
        )
        if output.as_json:
            return next(map(status_of, missing.values()), DONE)
        return tell_missing(output, missing)

    return run(work())


@click.group(
    short_help="Name print servers, or forget them.",
    epilog=verbatim(
        r"""
Examples:
  tympan server alias   '\\print01.farm.example' '\\print01'
  tympan server alias   '\\10.1.2.3' '\\print01'
  tympan server unalias '\\10.1.2.3'
  tympan server forget  '\\print07'
"""
    ),
)
def server() -> None:
    r"""Say by which names a print server is known, or that it is gone.

    Names are \\server, or server without the backslashes.
    """


@server.command(short_help="Have a name stand for a server.")
@click.argument("alias", type=parse_server, metavar="ALIAS")
@click.argument("server", type=parse_server, metavar="SERVER")
@farm_options
@click.pass_context
def alias(ctx: click.Context, alias: str, server: str) -> int:
    r"""Have ALIAS stand for SERVER: a DNS name, a short name or an address of the same host.

    \\ALIAS\laser-3 and \\SERVER\laser-3 are one printer from then on, in all processes within a
    few seconds. A name that is a server of the farm itself is refused: forget it first.
    """
    output = Output.of(ctx)

    async def work() -> int:
        async with connect(ctx) as broker:
            canonical = await broker.add_alias(alias, server)
        tell_alias(output, alias, canonical)
        return DONE

    return run(work())


@server.command(short_help="Take an alias away.")
@click.argument("alias", type=parse_server, metavar="ALIAS")
@farm_options
@click.pass_context
def unalias(ctx: click.Context, alias: str) -> int:
    """Take ALIAS away from the server that it stands for."""
    output = Output.of(ctx)

    async def work() -> int:
        async with connect(ctx) as broker:
            canonical = await broker.remove_alias(alias)
        output.tell(
            alias_record(alias, canonical),
            Text(f"{Name(alias)} stands for {Name(canonical)} no more"),
        )
        return DONE

    return run(work())


@server.command(short_help="Remove a server that is gone.")
@click.argument("server", type=parse_server, metavar="SERVER")
@farm_options
@click.pass_context
def forget(ctx: click.Context, server: str) -> int:
    """Remove SERVER and its aliases from the farm.

    It is refused while processes, registrations, pools or channels stand there; farm-wide listeners
    leave it by themselves. Rights that were granted there stay, should it come back.
    """
    output = Output.of(ctx)

    async def work() -> int:
        async with connect(ctx) as broker:
            aliases = [str(Name(alias)) for alias in await broker.forget_server(server)]
        with_these = f", and with it {', '.join(aliases)}" if aliases else ""
        output.tell(
            {**result_record(S_OK), "name": str(Name(server)), "aliases": aliases},
            Text(f"{Name(server)} is forgotten{with_these}"),
        )
        return DONE

    return run(work())


def figures(facts: ServerFacts) -> tuple[str, ...]:
    """How much stands there, as the columns have it."""
    counts = (facts.sessions, facts.registrations, facts.pools, facts.channels)
    return tuple(map(str, counts))


def server_record(facts: ServerFacts) -> dict[str, Any]:
    """A server for programs."""
    names = {"name": str(facts.name), "aliases": [str(alias) for alias in facts.aliases]}
    if facts.unread is not None:
        return {**names, **error_record(facts.unread)}
    return {
        **names,
        "processes": facts.sessions,
        "registrations": facts.registrations,
        "pools": facts.pools,
        "channels": facts.channels,
    }


def tell_alias(output: Output, alias: str, server: str) -> None:
    """An alias is there."""
    output.tell(alias_record(alias, server), Text(f"{Name(alias)} stands for {Name(server)}"))


def alias_record(alias: str, server: str) -> dict[str, Any]:
    """An alias that came or went, for programs."""
    return {**result_record(S_OK), "alias": str(Name(alias)), "name": str(Name(server))}
