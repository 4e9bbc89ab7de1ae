"""Options of relays: what all of them take, each also from the environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from broker.names import parse_pool, parse_user
from workers.alert import Severity
from workers.cli.options import Kind, parse_name, parse_seconds
from workers.cli.service import service_options
from workers.relay.relay import TRIES

C = TypeVar("C", bound=Callable[..., Any])


def option_of(prefix: str) -> Callable[..., Callable[[C], C]]:
    """Options that may be given in the environment, too: ``--most`` as PREFIX_MOST."""

    def option(*words: str, **how: Any) -> Callable[[C], C]:
        name = words[0].removeprefix("--").replace("-", "_").upper()
        return click.option(*words, envvar=f"{prefix}_{name}", show_envvar=True, **how)

    return option


def relay_options(prefix: str, pool: str, most: int, burst: int) -> Callable[[C], C]:
    """What all relays take."""
    option = option_of(prefix)
    options = (
        option(
            "--on",
            "names",
            multiple=True,
            type=parse_name,
            metavar="NAME",
            help=r"A \\server with its printers, or a \\server\printer; may be repeated. Default: "
            "every print server of the farm, and those added later.",
        ),
        option(
            "--type",
            "kinds",
            multiple=True,
            type=Kind.parse,
            metavar="TYPE",
            help="What to tell of, in the place of cups-printer and cups-server; may be repeated.",
        ),
        option(
            "--least",
            type=click.Choice([each.word for each in Severity]),
            default=Severity.WARNING.word,
            show_default=True,
            help="What is less bad counts as well. Types without severities are always told.",
        ),
        option(
            "--questions", is_flag=True, help="Tell of open questions, too; others answer them."
        ),
        option(
            "--all-users",
            is_flag=True,
            help="Hear what is for others, too, such as their jobs and questions; needs a grant.",
        ),
        option(
            "--as",
            "user",
            type=parse_user,
            metavar="USER",
            help="Who listens; default who you are.",
        ),
        option(
            "--pool",
            type=parse_pool,
            default=pool,
            show_default=True,
            metavar="POOL",
            help="Replicas of one pool share what comes. A relay to somebody else needs another.",
        ),
        option(
            "--most",
            type=click.IntRange(0),
            default=most,
            show_default=True,
            metavar="N",
            help="Messages in any hour, of each replica; the rest is told in digests. 0: no limit.",
        ),
        option(
            "--burst",
            type=click.IntRange(1),
            default=burst,
            show_default=True,
            metavar="N",
            help="How many of these may go out at once.",
        ),
        option(
            "--window",
            type=parse_seconds,
            default="3600",
            show_default=True,
            metavar="SECONDS",
            help="The same printer's same reasons are not told again within it, but counted.",
        ),
        option(
            "--settle",
            type=parse_seconds,
            default="60",
            show_default=True,
            metavar="SECONDS",
            help="An all-clear waits so long, for the trouble may come back.",
        ),
        option(
            "--timeout",
            type=parse_seconds,
            default="30",
            show_default=True,
            metavar="SECONDS",
            help="What the other side may take for one message.",
        ),
        option(
            "--tries",
            type=click.IntRange(1),
            default=TRIES,
            show_default=True,
            metavar="N",
            help="Deliveries of an alert before it is put aside as a dead letter.",
        ),
        option(
            "--in-hand",
            type=click.IntRange(1, 10_000),
            default=1000,
            show_default=True,
            metavar="N",
            help="Alerts that may wait here to be told; the rest waits in the pool.",
        ),
        option(
            "--drain",
            type=parse_seconds,
            default="30",
            show_default=True,
            metavar="SECONDS",
            help="How long what is on its way may take when the relay is told to stop.",
        ),
    )

    def decorate(command: C) -> C:
        command = service_options(command)
        for one in reversed(options):
            command = one(command)
        return command

    return decorate
