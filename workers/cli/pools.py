"""``tympan pool``: registrations that outlive the processes which serve them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import click
from rich.text import Text

from broker import ALL_USERS, BIDIRECTIONAL, PER_USER, UNIDIRECTIONAL, Broker, Name
from broker.errors import (
    AccessDenied,
    ForeignLayout,
    MaxRegistrationCountExceeded,
    NoSuchPool,
    NotInDirectory,
    TympanError,
)
from broker.names import parse_pool, parse_user
from broker.notification_type import describe_type
from broker.pool import PoolFacts, Subscription
from broker.registration import MAX_BUFFER
from broker.results import S_OK
from workers.cli.failures import DONE, FAILED, error_record
from workers.cli.line import farm_options, verbatim
from workers.cli.looking import (
    found_pools,
    hears,
    on_each,
    registration_record,
    tell_missing,
    where,
)
from workers.cli.options import Kind, optional_name_argument, type_option
from workers.cli.output import Output, age, counted, printable, result_record
from workers.cli.running import agreed, connect, run

ROUNDS = 5
"""How often a pool that listens everywhere is looked for again after it was ended."""
COLUMNS = (
    *("POOL", "NAME", "TYPE", "STYLE", "USER", "HEARS"),
    *("WAITING", "IN HAND", "REPLICAS", "DENIED", "SINCE"),
)


@click.group(
    short_help="Make, list and delete pools of workers.",
    epilog=verbatim(
        r"""
Examples:
  tympan grant '\\print01' desk administer           # for --all-users
  tympan pool create helpdesk '\\print01' --type sample-ui --user desk --all-users --printers
  tympan pool create tickets '\\print01\laser-3' --type port-monitor --buffer 50000
  tympan pool list
  tympan pool delete helpdesk
"""
    ),
)
def pool() -> None:
    """What the replicas of a service share: registrations that outlive them.

    A pool collects also while none of its replicas runs, up to its buffer, and each notification
    and each question is handled by one of them.
    """


pool_argument = click.argument("pool", type=parse_pool, metavar="POOL")
pool_option = click.option("--pool", type=parse_pool, metavar="POOL", help="Of this pool only.")


@pool.command(short_help="Have a pool listen from now on.")
@pool_argument
@optional_name_argument
@type_option
@click.option(
    "--user", type=parse_user, metavar="USER", help="The user who listens; default who you are."
)
@click.option(
    "--all-users", is_flag=True, help="Hear everybody's notifications; needs a grant there."
)
@click.option(
    "--bidirectional",
    is_flag=True,
    help="Hear questions. Their number has no bound: each waits where it was asked.",
)
@click.option("--printers", is_flag=True, help="With a server's NAME: hear all its printers, too.")
@click.option(
    "--everywhere",
    is_flag=True,
    help="In place of NAME: listen on every print server of the farm, and, while a worker or a "
    "reaper runs, on those added later.",
)
@click.option(
    "--buffer",
    type=click.IntRange(1, MAX_BUFFER),
    metavar="N",
    help="How many unfinished notifications it holds; default 10,000.",
)
@farm_options
@click.pass_context
def create(
    ctx: click.Context,
    *,
    pool: str,
    name: Name | None,
    kind: Kind,
    user: str | None,
    all_users: bool,
    bidirectional: bool,
    printers: bool,
    everywhere: bool,
    buffer: int | None,
) -> int:
    r"""Have POOL listen on NAME, which is \\server\printer or \\server, or everywhere.

    It collects from now on. A pool may listen to several names and types: create it for each.
    What is there already stays as it was made. The first replica of a worker does the same.
    """
    if everywhere is (name is not None):
        raise click.UsageError("say where to listen: NAME, or --everywhere in its place")
    if printers and name is not None and name.printer:
        raise click.UsageError(rf"--printers needs a server's name: write '{name.of_server}'")
    output = Output.of(ctx)

    def on(name: Name) -> Subscription:
        return Subscription(
            name,
            kind.model or kind.guid,
            user,
            ALL_USERS if all_users else PER_USER,
            BIDIRECTIONAL if bidirectional else UNIDIRECTIONAL,
            printers,
            buffer,
            everywhere,
        )

    async def work() -> int:
        async with connect(ctx, user) as broker:
            if name is not None:
                tell_created(output, pool, on(name), await broker.pools.create(pool, on(name)))
                return DONE
            return await create_everywhere(output, broker, pool, on)

    return run(work())


async def create_everywhere(
    output: Output, broker: Broker, pool: str, on: Callable[[Name], Subscription]
) -> int:
    """On each server there is; raises what one refuses it with where every one does."""
    refusals: list[TympanError] = []
    servers = [Name(server) for server in await broker.servers()]
    if not servers:
        raise NotInDirectory("no print server is known: there is nothing to listen on yet")
    for server in servers:
        try:
            made = await broker.pools.create(pool, on(server))
        except (AccessDenied, MaxRegistrationCountExceeded, ForeignLayout) as error:
            refusals.append(error)
            if len(refusals) == len(servers):
                raise
            record = {"pool": pool, "name": str(server), **error_record(error)}
            output.tell(record, Text(f"not on {server}: {printable(str(error))}", "yellow"))
        else:
            tell_created(output, pool, on(server), made)
    return FAILED if refusals else DONE


def tell_created(output: Output, pool: str, asked: Subscription, made: bool) -> None:
    """It listens, from now on or since it was made."""
    record = {**result_record(S_OK), "pool": pool, "name": str(asked.name), "created": made}
    words = f"listens on {asked.name}"
    if not made:
        words = f"listened on {asked.name} already, and stays as it was made"
    output.tell(record, Text(f"pool {pool} {words}"))


@pool.command("list", short_help="List pools, and what they have not finished.")
@optional_name_argument
@pool_option
@farm_options
@click.pass_context
def list_pools(ctx: click.Context, name: Name | None, pool: str | None) -> int:
    r"""List pools: of the farm, of \\server with its printers, or of \\server\printer.

    WAITING is what no replica has in hand, DENIED what was missed because the buffer was full.
    """
    output = Output.of(ctx)

    async def work() -> int:
        async with connect(ctx, looks=True) as broker:
            every, missing = await on_each(broker, name, broker.pools.on_server)
            found = [facts for facts in every if pool in (None, facts.pool)]
            now = await broker.clock(found[0].name) if found else 0.0
        if not found:
            which = "" if pool is None else f" {pool}"
            output.note(f"no pool{which} listens{where(name, missing)}")
            return tell_missing(output, missing)
        output.table(
            [pool_record(facts) for facts in found],
            COLUMNS,
            [
                (
                    facts.pool,
                    str(facts.name),
                    describe_type(facts.type),
                    facts.style.word,
                    facts.user,
                    hears(facts),
                    str(facts.waiting),
                    str(facts.in_hand),
                    str(len(facts.replicas)),
                    str(facts.denied),
                    age(now - facts.since),
                )
                for facts in found
            ],
        )
        return tell_missing(output, missing)

    return run(work())


@pool.command(short_help="End a pool, and drop what it has not finished.")
@pool_argument
@optional_name_argument
@click.option("--yes", is_flag=True, help="Drop what is not finished without asking.")
@farm_options
@click.pass_context
def delete(ctx: click.Context, pool: str, name: Name | None, yes: bool) -> int:
    r"""End POOL: on the farm, on \\server with its printers, or for \\server\printer.

    What it collected is dropped, its dialogs that wait for a replica are closed, and those that a
    replica carries go on. Dead letters stay. A replica that runs is told that its pool is gone.
    """
    output = Output.of(ctx)
    found: list[PoolFacts] = []

    async def look() -> int:
        async with connect(ctx) as broker:
            found.extend(await found_pools(broker, name, pool))
        return DONE

    async def work() -> int:
        ended: list[PoolFacts] = []
        async with connect(ctx) as broker:
            there, rounds = found, ROUNDS
            while there and rounds:
                names = sorted({facts.name for facts in there})
                each = await asyncio.gather(*(broker.pools.delete(pool, one) for one in names))
                ended += [facts for some in each for facts in some]
                rounds -= 1
                there = await found_pools(broker, name, pool) if everywhere(there) else []
        for facts in ended:
            output.tell(
                {**result_record(S_OK), **pool_record(facts), "dropped": facts.backlog},
                Text(
                    f"pool {facts.pool} listens on {facts.name} no more "
                    f"({describe_type(facts.type)}, {facts.style.word}): "
                    f"{counted(facts.backlog, 'unfinished thing')} dropped"
                ),
            )
        return DONE

    status = run(look())
    if status != DONE:
        return status
    if not found:
        raise NoSuchPool(
            f"no pool {pool} listens{where(name)}: `tympan pool list` shows those that do", pool
        )
    unfinished = sum(facts.backlog for facts in found)
    has = f"pool {pool} has {counted(unfinished, 'unfinished thing')}"
    if unfinished and not yes and not agreed(has, "drop, and delete the pool"):
        output.note("nothing was deleted")
        return FAILED
    return run(work())


def everywhere(found: Iterable[PoolFacts]) -> bool:
    """Whether somebody may have it listen again on one server, because it does on another."""
    return any(facts.everywhere for facts in found)


def pool_record(facts: PoolFacts) -> dict[str, Any]:
    """One registration of a pool for programs."""
    return {
        **registration_record(facts),
        "waiting": facts.waiting,
        "in_hand": facts.in_hand,
        "backlog": facts.backlog,
        "denied": facts.denied,
        "replicas": list(facts.replicas),
    }
