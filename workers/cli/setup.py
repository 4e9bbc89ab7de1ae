"""``tympan setup``: have a farm what a file says, before anything runs on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from broker import Broker, Name
from broker.errors import NotInDirectory, RedisUnreachable
from broker.names import parse_pool, parse_server
from broker.results import S_OK
from workers.cli.doctor import diagnosis
from workers.cli.failures import DONE
from workers.cli.line import farm_options, verbatim
from workers.cli.options import parse_seconds
from workers.cli.output import Output, result_record
from workers.cli.pools import create_everywhere, tell_created
from workers.cli.rights import tell_rights
from workers.cli.running import connect, run
from workers.cli.servers import tell_alias
from workers.doctor.findings import ACCEPTABLE, Severity
from workers.wanted import Wanted, WantedPool

PAUSE = 1.0
"""Seconds between two tries to reach Redis."""


@click.command(
    short_help="Prepare a farm: check Redis, give rights, make pools.",
    epilog=verbatim(
        r"""
Example, farm.toml:
  [doctor]                     # refuse a Redis that can lose data silently
  accept = ["fsync"]           # but for this
  [[grants]]
  name = '\\print01'
  user = "helpdesk"
  right = "administer"
  [[pools]]
  pool = "help-desk"
  name = '\\print01'           # or: everywhere = true
  type = "sample-ui"
  user = "helpdesk"
  all_users = true             # and bidirectional, printers, buffer = 50000

tympan setup farm.toml --wait 60

Exit status: 0 all of it is there, 1 this Redis can lose data silently, 2 FILE is wrong, 3 refused,
5 Redis unreachable.
"""
    ),
)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option(
    "--wait",
    "patience",
    type=parse_seconds,
    default="0",
    metavar="SECONDS",
    help="How long Redis may take to answer; default not at all.",
)
@farm_options
@click.pass_context
def setup(ctx: click.Context, file: Path, patience: float) -> int:
    """Have the farm what FILE says: TOML, or JSON where its name ends so.

    Nothing is done where Redis does not pass. What is there already stays as it is, and what FILE
    does not name is left alone: the same file may be given again.
    """
    output = Output.of(ctx)
    wanted = Wanted.read(file)

    async def work() -> int:
        await _reached(ctx, output, patience)
        if wanted.doctor is not None:
            told, shown, ended = await diagnosis(
                ctx, wanted.doctor.durability, wanted.doctor.accept
            )
            output.tell(told, *shown)
            if ended != DONE:
                output.note(_refusal(told["findings"]))
                return ended
        async with connect(ctx) as broker:
            return await _provide(output, broker, wanted)

    return run(work())


async def _reached(ctx: click.Context, output: Output, patience: float) -> None:
    """Return when Redis answers. Raises RedisUnreachable when it did not in time."""
    until = time.monotonic() + patience
    is_told = False
    while True:
        try:
            async with connect(ctx):
                return
        except RedisUnreachable as error:
            if time.monotonic() >= until:
                raise
            if not is_told:
                output.note(f"{error}; waiting for up to {patience:g} s")
            is_told = True
        await asyncio.sleep(PAUSE)


def _refusal(findings: Iterable[dict[str, Any]]) -> str:
    """The last line of a set-up that Redis does not pass: all of it in a sentence each."""
    said = ["nothing was set up"]
    for one in findings:
        if one["severity"] in (Severity.LOSES, Severity.REFUSES):
            mended = " and ".join(f"`{command}`" for command in one["mend"]) or one["advice"]
            accepted = f", or accept {one['check']}" if one["check"] in ACCEPTABLE else ""
            said.append(f"{one['check']}: {one['what']}: {mended or one['why']}{accepted}")
    return "; ".join(said)


async def _provide(output: Output, broker: Broker, wanted: Wanted) -> int:
    """Have all of it. Raises what refuses one thing; what stands before it in the file is there."""
    for server in wanted.servers:
        own = (await broker.server(Name(parse_server(server.name)))).name
        output.tell({**result_record(S_OK), "name": str(Name(own))}, Text(f"{Name(own)} is known"))
        for alias in map(parse_server, server.aliases):
            tell_alias(output, alias, await broker.add_alias(alias, own))
    for grant in wanted.grants:
        name = Name.parse(grant.name)
        tell_rights(output, name, grant.user, await broker.grant(name, grant.user, grant.mask))
    status = DONE
    for pool in wanted.pools:
        status = max(status, await _create(output, broker, pool))
    return status


async def _create(output: Output, broker: Broker, wanted: WantedPool) -> int:
    pool = parse_pool(wanted.pool)
    if not wanted.everywhere:
        tell_created(output, pool, wanted.on(), await broker.pools.create(pool, wanted.on()))
        return DONE
    if not await broker.servers():
        raise NotInDirectory(
            f"pool {pool} is to listen everywhere, and no print server is known: name at least one "
            "under servers"
        )
    return await create_everywhere(output, broker, pool, wanted.on)
