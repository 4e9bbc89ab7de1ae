"""The command line ``tympan``: one module for each command, or for a few that belong together.

:mod:`~workers.cli.options` reads what is typed, :mod:`~workers.cli.output` writes, and
:mod:`~workers.cli.failures` says what went wrong and with which exit status.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import metadata

import click

from broker import TympanError
from workers.cli import failures
from workers.cli.dead import dead
from workers.cli.doctor import doctor
from workers.cli.extensions import bridge_group, extensions, list_bridges
from workers.cli.listen import listen
from workers.cli.looking import channels, registrations, show
from workers.cli.options import CommandLine, farm_options, in_json, verbatim
from workers.cli.output import OutputClosed
from workers.cli.pools import pool
from workers.cli.printers import printer
from workers.cli.rights import grant, grants, revoke
from workers.cli.send import send
from workers.cli.servers import server, servers
from workers.cli.up import up
from workers.cli.watching import list_workers, top
from workers.cli.worker import reaper, worker
from workers.embedded import EmbeddedRedisError

PROGRAM = "tympan"
INTERRUPTED = 130


def _version() -> str:
    try:
        return metadata.version(PROGRAM)
    except metadata.PackageNotFoundError:
        return "(not installed: run from a checkout)"


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"{PROGRAM} {_version()}")
        ctx.exit()


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=verbatim(
        r"""
Examples:
  tympan up                                         # a private Redis to try things on
  export TYMPAN_URL=redis://127.0.0.1:6379/0        # or the Redis of the farm
  tympan listen '\\print01\laser-3' --type asyncui --as alice --ask
  tympan send   '\\print01\laser-3' --type asyncui --user alice --style bi --text 'Load A4?'
  tympan channels

Names hold backslashes: put them in single quotes. TYPE is a GUID, or one of asyncui,
printer-configuration, port-monitor, sample-ui, or what `tympan extensions` lists.

Exit status: 0 done (a notification that nobody heard, and a race that was lost, too), 1 this Redis
can lose data silently (tympan doctor), 2 wrong usage, 3 refused or failed, 4 no response in time,
5 Redis unreachable.
"""
    ),
)
@farm_options
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version.",
)
def tympan() -> None:
    """Print notification channels for whole farms, on Redis."""


for _command in (
    *(up, send, listen, channels, registrations, show, grant, revoke, grants, printer, doctor),
    *(servers, server, extensions, list_bridges, bridge_group, worker, reaper),
    *(pool, dead, list_workers, top),
):
    tympan.add_command(_command)


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    words = list(sys.argv[1:] if args is None else args) or ["--help"]
    line = CommandLine()
    try:
        status = tympan.main(words, prog_name=PROGRAM, obj=line, standalone_mode=False)
        sys.stdout.flush()
    except (click.ClickException, TympanError, EmbeddedRedisError) as error:
        as_json = line.as_json or in_json(error, words)
        return failures.report(error, as_json=as_json, command=line.command)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except (OutputClosed, BrokenPipeError):
        # They have seen enough. Python must not try to flush the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return failures.DONE
    return int(status or 0)
