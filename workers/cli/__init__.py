"""The command line ``tympan``: one module for each command, or for a few that belong together.

:mod:`~workers.cli.options` reads what is typed, :mod:`~workers.cli.output` writes, and
:mod:`~workers.cli.failures` says what went wrong and with which exit status.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

import click

from workers.cli.line import CommandLine, OutputClosed, farm_options, in_json, verbatim

PROGRAM = "tympan"
INTERRUPTED = 130


class Known(NamedTuple):
    """A command that was not imported yet."""

    module: str
    attribute: str
    what: str
    """The first sentence of its help."""


COMMANDS = {
    "acl": Known("acl", "acl", "Print the Redis ACL of a role."),
    "bridge": Known("extensions", "bridge_group", "Run a bridge to a print system."),
    "bridges": Known("extensions", "list_bridges", "List bridges to print systems."),
    "channels": Known("looking", "channels", "List open channels."),
    "cups": Known("cups", "cups", "Put Tympan on a CUPS host, and see whether events flow."),
    "dead": Known("dead", "dead", "What pools could not handle: list, show, replay, drop."),
    "desk": Known("desk", "desk", "Show open questions and alerts live, and answer."),
    "doctor": Known("doctor", "doctor", "Say what a success is worth on this Redis."),
    "extensions": Known("extensions", "extensions", "List what other packages plug in."),
    "grant": Known("rights", "grant", "Give a user a right."),
    "grants": Known("rights", "grants", "List who may administer what."),
    "listen": Known("listen", "listen", "Listen, and answer questions."),
    "pool": Known("pools", "pool", "Make, list and delete pools of workers."),
    "printer": Known("printers", "printer", "Delete a printer."),
    "prove": Known("prove", "prove", "Prove on this Redis that the promises hold."),
    "reaper": Known("worker", "reaper", "End what dead processes held, and count the backlog."),
    "registrations": Known("looking", "registrations", "List who listens."),
    "relay": Known("relay", "relay", "Send alerts on by mail or webhook."),
    "revoke": Known("rights", "revoke", "Take a right away."),
    "send": Known("send", "send", "Send a notification, or ask a question."),
    "server": Known("servers", "server", "Name print servers, or forget them."),
    "servers": Known("servers", "servers", "List print servers."),
    "setup": Known("setup", "setup", "Prepare a farm: check Redis, give rights, make pools."),
    "show": Known("looking", "show", "Show one channel and its conversation."),
    "top": Known("watching", "top", "Watch the farm live."),
    "up": Known("up", "up", "Start a private Redis and run until interrupted."),
    "worker": Known("worker", "worker", "Run a worker: one replica of its pool."),
    "workers": Known(
        "watching",
        "list_workers",
        "Show servers, pools, open questions, listeners and dead letters.",
    ),
}
"""A command's module is imported when it is run: help needs none of them, nor the broker."""


class Commands(click.Group):
    """The commands of :data:`COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Their names, in order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """One of them, imported; None where there is none of that name."""
        known = COMMANDS.get(cmd_name)
        if known is None:
            return None
        module = importlib.import_module(f"{__name__}.{known.module}")
        command: click.Command = getattr(module, known.attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """What they do, a sentence each."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].what) for name in sorted(COMMANDS)])


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version(PROGRAM)
    except metadata.PackageNotFoundError:
        return "(not installed: run from a checkout)"


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"{PROGRAM} {_version()}")
        ctx.exit()


@click.group(
    cls=Commands,
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
printer-configuration, port-monitor, sample-ui, cups-printer, cups-job, cups-configuration,
cups-server, cups-question, or what `tympan extensions` lists.

Exit status: 0 done (a notification that nobody heard, and a race that was lost, too), 1 this Redis
can lose data silently (tympan doctor), a promise was broken (tympan prove), or events do not flow
(tympan cups status), 2 wrong usage, 3 refused or failed, 4 no response in time, 5 Redis
unreachable.
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


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    words = list(sys.argv[1:] if args is None else args) or ["--help"]
    line = CommandLine()
    try:
        status = tympan.main(words, prog_name=PROGRAM, obj=line, standalone_mode=False)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except (OutputClosed, BrokenPipeError):
        # They have seen enough. Python must not try to flush the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        from workers.cli import failures

        if not isinstance(error, failures.TOLD):
            raise
        as_json = line.as_json or in_json(error, words)
        return failures.report(error, as_json=as_json, command=line.command)
    return int(status or 0)
