"""``tympan grant``, ``revoke`` and ``grants``: who administers what."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from broker import Broker, Name, Right
from broker.names import parse_user
from broker.notification_type import describe_type
from broker.pool import PoolFacts
from broker.results import S_OK
from broker.rights import parse_right
from workers.cli.failures import DONE
from workers.cli.line import farm_options, verbatim
from workers.cli.looking import on_each, tell_missing, where
from workers.cli.options import optional_name_argument, parse_name
from workers.cli.output import Output, printable, result_record
from workers.cli.pools import pool_record
from workers.cli.running import connect, run

EPILOG = r"""
RIGHT is administer, use (of a printer), enumerate (of a server), all, or the full name of a
right, such as PRINTER_ACCESS_ADMINISTER.

Example:
  tympan {} '\\print01\laser-3' carol administer
"""


@click.command(short_help="Give a user a right.", epilog=verbatim(EPILOG.format("grant")))
@click.argument("name", type=parse_name, metavar="NAME")
@click.argument("user", type=parse_user, metavar="USER")
@click.argument("right", metavar="RIGHT")
@farm_options
@click.pass_context
def grant(ctx: click.Context, name: Name, user: str, right: str) -> int:
    r"""Give USER a right on NAME, which is \\server\printer or \\server.

    Who administers a name may listen there for all users, and send to all users. Of a server's
    printers it needs each one's own grant, except to listen to all of them (listen --printers).
    """
    output, mask = Output.of(ctx), parse_right(right, name)

    async def work() -> int:
        async with connect(ctx) as broker:
            now = await broker.grant(name, user, mask)
        tell_rights(output, name, user, now)
        return DONE

    return run(work())


@click.command(short_help="Take a right away.", epilog=verbatim(EPILOG.format("revoke")))
@click.argument("name", type=parse_name, metavar="NAME")
@click.argument("user", type=parse_user, metavar="USER")
@click.argument("right", metavar="RIGHT")
@farm_options
@click.pass_context
def revoke(ctx: click.Context, name: Name, user: str, right: str) -> int:
    r"""Take a right on NAME away from USER; registrations and pools that stood on it end."""
    output, mask = Output.of(ctx), parse_right(right, name)

    async def standing(broker: Broker) -> list[PoolFacts]:
        found = await broker.pools.on_server(name)
        return [
            facts
            for facts in found
            if facts.name == name and facts.user == user and facts.needed and not facts.source
        ]

    async def work() -> int:
        async with connect(ctx) as broker:
            before = await standing(broker)
            now = await broker.revoke(name, user, mask)
            left = {facts.id for facts in await standing(broker)} if before else set()
        ended = [facts for facts in before if facts.id not in left]
        output.tell(
            {**_result(name, user, now), "pools_ended": [pool_record(facts) for facts in ended]},
            _shown(name, user, now),
            *(
                Text(
                    f"pool {facts.pool} listens on {facts.name} no more "
                    f"({describe_type(facts.type)}, {facts.style.word}): "
                    f"{facts.waiting:,} waiting and {facts.in_hand:,} in hand before it ended"
                )
                for facts in ended
            ),
        )
        return DONE

    return run(work())


@click.command(short_help="List who may administer what.")
@optional_name_argument
@farm_options
@click.pass_context
def grants(ctx: click.Context, name: Name | None) -> int:
    r"""List grants: of the farm, of \\server with its printers, or of \\server\printer."""
    output = Output.of(ctx)

    async def work() -> int:
        async with connect(ctx, looks=True) as broker:
            found, missing = await on_each(broker, name, broker.grants)
        if not found:
            output.note(f"nobody was granted anything{where(name, missing)}")
            return tell_missing(output, missing)
        output.table(
            [right_record(one.name, one.user, one.right) for one in found],
            ("NAME", "USER", "RIGHTS"),
            [(str(one.name), one.user, ", ".join(words(one.right))) for one in found],
        )
        return tell_missing(output, missing)

    return run(work())


def tell_rights(output: Output, name: Name, user: str, now: Right) -> None:
    """A user has these rights now."""
    output.tell(_result(name, user, now), _shown(name, user, now))


def _result(name: Name, user: str, now: Right) -> dict[str, Any]:
    return {**result_record(S_OK), **right_record(name, user, now)}


def _shown(name: Name, user: str, now: Right) -> Text:
    return Text(f"{printable(user)} now has on {name}: {', '.join(words(now)) or 'no right'}")


def right_record(name: Name, user: str, right: Right) -> dict[str, Any]:
    """A user's rights for programs."""
    return {
        "name": str(name),
        "user": user,
        "rights": words(right),
        "mask": f"0x{int(right):08X}",
    }


def words(right: Right) -> list[str]:
    """The names of rights; a whole ALL_ACCESS mask is one name."""
    for whole in (Right.SERVER_ALL_ACCESS, Right.PRINTER_ALL_ACCESS):
        if right == whole:
            return [str(whole.name)]
    return [str(one.name) for one in right]
