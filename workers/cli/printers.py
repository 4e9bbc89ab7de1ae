"""``tympan printer``: what becomes of printers."""

from __future__ import annotations

import click
from rich.text import Text

from broker import Name
from broker.deletion import Deletion
from broker.results import S_OK
from workers.cli.failures import DONE
from workers.cli.line import farm_options, verbatim
from workers.cli.options import name_argument
from workers.cli.output import Output, printable, result_record
from workers.cli.running import connect, run


@click.group(short_help="Delete a printer.")
def printer() -> None:
    """What becomes of printers."""


@printer.command(
    short_help="Tell everybody that a printer is gone.",
    epilog=verbatim(
        r"""
Example:
  tympan printer delete '\\print01\laser-3'
"""
    ),
)
@name_argument
@farm_options
@click.pass_context
def delete(ctx: click.Context, name: Name) -> int:
    r"""Delete the printer NAME, \\server\printer, from the farm.

    Its channels are closed, and both ends are told NOTIFICATION_RELEASE. So are those who listen
    to it one way; they stay registered. What was granted on it is revoked, with what stood on it.
    Registrations for questions, and for all printers of the server, go on; they are told nothing,
    and not counted.

    Doing it again does no harm, and a printer of that name may come again at once. As with `tympan
    grant`, whoever holds credentials of the farm that may give rights may do it.
    """
    output = Output.of(ctx)

    async def work() -> int:
        async with connect(ctx) as broker:
            deletion = await broker.delete_printer(name)
        output.tell(
            {
                **result_record(S_OK),
                "name": str(deletion.name),
                "channels": deletion.channels,
                "told": deletion.told,
                "ended": deletion.ended,
                "grants": deletion.grants,
            },
            Text(printable(shown(deletion))),
        )
        return DONE

    return run(work())


def shown(deletion: Deletion) -> str:
    """What a deletion ended, for people."""
    parts = [
        f"{count} {what}{'s' * (count > 1)} {done}"
        for count, what, done in (
            (deletion.channels, "channel", "closed"),
            (deletion.told, "listener", "told"),
            (deletion.ended, "registration", "ended"),
            (deletion.grants, "grant", "removed"),
        )
        if count
    ]
    return f"{deletion.name} is deleted: {', '.join(parts) or 'nothing was open on it'}"
