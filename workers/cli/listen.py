"""``tympan listen``: a listener, for as long as it runs."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click

from broker import (
    ALL_USERS,
    BIDIRECTIONAL,
    PER_USER,
    FarmRegistration,
    Name,
    Payload,
    Registration,
    Style,
)
from broker.names import parse_user
from workers.cli.answering import Always, Answering, Ask, Silence
from workers.cli.failures import DONE, NO_RESPONSE
from workers.cli.line import farm_options, verbatim
from workers.cli.listening import Listening
from workers.cli.options import (
    Kind,
    at_most_one,
    optional_name_argument,
    parse_seconds,
    settle_style,
    style_option,
    type_option,
)
from workers.cli.output import Output
from workers.cli.payloads import check
from workers.cli.running import connect, run


@click.command(
    short_help="Listen, and answer questions.",
    epilog=verbatim(
        r"""
Examples:
  tympan listen '\\print01\laser-3' --type asyncui --as alice
  tympan listen '\\print01\laser-3' --type asyncui --as alice --ask
  tympan listen --everywhere --printers --all-users --type asyncui --as helpdesk --style bi
  tympan listen '\\print01' --printers --all-users --type asyncui --as carol --style bi
  tympan listen '\\print01\laser-3' --type asyncui --as robot --respond yes --count 1 --json
"""
    ),
)
@optional_name_argument
@type_option
@click.option(
    "--as", "user", type=parse_user, required=True, metavar="USER", help="The user who listens."
)
@click.option(
    "--all-users", is_flag=True, help="Hear everybody's notifications; needs a grant there."
)
@click.option(
    "--everywhere",
    is_flag=True,
    help="In place of NAME: listen on every print server of the farm, and on those added later.",
)
@click.option("--printers", is_flag=True, help="With a server's NAME: hear all its printers, too.")
@style_option("--respond, --decline and --ask")
@click.option(
    "--respond",
    metavar="TEXT",
    help="Answer each question with TEXT, as UTF-8; a message box of asyncui with the button that "
    "has this number, where it has one.",
)
@click.option("--decline", is_flag=True, help="Leave each question to the others.")
@click.option(
    "--ask",
    is_flag=True,
    help="Show each question and read the answer, one line (for a message box of asyncui the "
    "number of a button); an empty line declines. The default with --style bi when standard input "
    "is a terminal; otherwise questions are only shown.",
)
@click.option(
    "--count",
    type=click.IntRange(1),
    metavar="N",
    help="End after N notifications; with --style bi after N dialogs came to their end here.",
)
@click.option(
    "--timeout",
    type=parse_seconds,
    metavar="SECONDS",
    help="End after this time of listening; with status 4 where --count was not reached.",
)
@farm_options
@click.pass_context
def listen(
    ctx: click.Context,
    *,
    name: Name | None,
    kind: Kind,
    user: str,
    all_users: bool,
    everywhere: bool,
    printers: bool,
    style: Style | None,
    respond: str | None,
    decline: bool,
    ask: bool,
    count: int | None,
    timeout: float | None,
) -> int:
    r"""Listen on NAME, which is \\server\printer or \\server, or everywhere, until interrupted.

    With --style bi this hears questions. Whoever answers a question first owns the dialog; the
    others are told at once. A question that is only shown stays open for others.
    """
    answering = {"--respond": respond, "--decline": decline, "--ask": ask}
    at_most_one(answering)
    style = settle_style(style, answering)
    if everywhere is (name is not None):
        raise click.UsageError("say where to listen: NAME, or --everywhere in its place")
    if printers and name is not None and name.printer:
        raise click.UsageError(rf"--printers needs a server's name: write '{name.of_server}'")
    output = Output.of(ctx)
    how: Answering = Always(Silence.LEAVE)
    if respond is not None:
        check(respond.encode(errors="surrogateescape"), kind.response_model)
        how = Always(respond)
    elif decline:
        how = Always(Silence.DECLINE)
    elif ask or (style is BIDIRECTIONAL and sys.stdin is not None and sys.stdin.isatty()):
        how = Ask(output, user)

    async def work() -> int:
        async with connect(ctx, user) as broker:
            asked: dict[str, Any] = {
                "user": user,
                "user_filter": ALL_USERS if all_users else PER_USER,
                "style": style,
                "printers": printers,
            }
            registration: Registration[Payload] | FarmRegistration[Payload]
            if name is None:
                registration = await broker.register_everywhere(kind.model or kind.guid, **asked)
            else:
                registration = await broker.register(name, kind.model or kind.guid, **asked)
            async with registration:
                listening = Listening(registration, output, how, count)
                listening.tell_registered()
                try:
                    async with asyncio.timeout(timeout):
                        await listening.until_enough()
                except TimeoutError:
                    output.note(f"{timeout:g} s are over; heard {listening.heard}")
        return DONE if count is None or listening.heard >= count else NO_RESPONSE

    return run(work(), interrupted=DONE)
