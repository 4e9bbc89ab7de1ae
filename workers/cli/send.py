"""``tympan send``: a source, for the time of one notification or one question."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import NamedTuple

import click
from rich.text import Text

from broker import (
    ALL_USERS,
    BIDIRECTIONAL,
    PER_USER,
    UNIDIRECTIONAL,
    Broker,
    Channel,
    Name,
    Result,
    Style,
    inventory,
)
from broker.errors import ChannelAlreadyClosed, ResponseTimeout
from broker.names import parse_user
from broker.notification_type import describe_type
from broker.results import NO_LISTENERS, NOTIFICATION_LOST, S_OK
from workers.cli.failures import DONE, NO_RESPONSE
from workers.cli.line import farm_options, verbatim
from workers.cli.options import (
    Kind,
    at_most_one,
    login_name,
    name_argument,
    parse_seconds,
    settle_style,
    style_option,
    type_option,
)
from workers.cli.output import Output, result_record
from workers.cli.payloads import check, payload_record, payload_shown
from workers.cli.running import connect, run

WORDS = {
    S_OK: "sent",
    NO_LISTENERS: "nobody listens there",
    NOTIFICATION_LOST: "sent, but some listeners had no room and missed it",
}


@click.command(
    short_help="Send a notification, or ask a question.",
    epilog=verbatim(
        r"""
Examples:
  tympan send '\\print01\laser-3' --type asyncui --user alice --text 'Printed.'
  tympan send '\\print01\laser-3' --type asyncui --user alice --style bi --text 'Load A4?'
  tympan send '\\print01' --type printer-configuration --all-users --as admin --file change.xml
  echo -n 'Toner is low' | tympan send '\\print01\laser-3' --type asyncui --user alice -
"""
    ),
)
@name_argument
@click.argument("source", metavar="[-]", required=False)
@type_option
@click.option("--user", type=parse_user, metavar="USER", help="Whom it is for; default the source.")
@click.option(
    "--all-users", is_flag=True, help="For everybody who listens there; the source needs a grant."
)
@style_option("--wait")
@click.option("--text", metavar="TEXT", help="What to send, as UTF-8.")
@click.option(
    "--file",
    "file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="What to send: the bytes of this file. A lone - instead reads standard input.",
)
@click.option(
    "--wait",
    type=parse_seconds,
    metavar="SECONDS",
    help="How long a question waits for its response; default until it is answered.",
)
@click.option(
    "--as", "user_as", type=parse_user, metavar="USER", help="The source; default who you are."
)
@farm_options
@click.pass_context
def send(
    ctx: click.Context,
    *,
    name: Name,
    source: str | None,
    kind: Kind,
    user: str | None,
    all_users: bool,
    style: Style | None,
    text: str | None,
    file: Path | None,
    wait: float | None,
    user_as: str | None,
) -> int:
    r"""Send a notification to NAME, which is \\server\printer or \\server.

    A unidirectional notification reaches those who listen at that instant, or nobody.

    A bidirectional one is a question: it stays open, for those who register later too, until
    somebody answers, --wait is over, or Ctrl-C. Only its source can hear the answer, so this
    command stays until then. Unanswered it takes the question back and ends with status 4.
    """
    if source not in (None, "-"):
        raise click.UsageError(f"unexpected {source!r}: write --text TEXT, --file FILE or -")
    at_most_one({"--text": text, "--file": file, "-": source})
    at_most_one({"--user": user, "--all-users": all_users})
    style = settle_style(style, {"--wait": wait})
    me = user_as or login_name()
    if me is None:
        raise click.UsageError("this host has no name for you: say who sends with --as USER")
    body = _body(text, file, source)
    check(body, kind.model)
    output = Output.of(ctx)

    async def work() -> int:
        async with connect(ctx, me) as broker:
            channel = await broker.open_channel(
                name,
                kind.guid,
                user=user,
                user_filter=ALL_USERS if all_users else PER_USER,
                style=style,
            )
            result = await channel.send(body)
            answer = None
            if style is BIDIRECTIONAL:
                answer = await _answer(broker, channel, result, wait, output)
            else:
                await channel.close()
            _tell(output, channel, result, answer, kind)
            return DONE if answer is not None or style is UNIDIRECTIONAL else NO_RESPONSE

    return run(work())


def _body(text: str | None, file: Path | None, source: str | None) -> bytes:
    if text is not None:
        return text.encode(errors="surrogateescape")
    if source == "-" or (file is not None and str(file) == "-"):
        return sys.stdin.buffer.read()
    if file is None:
        raise click.UsageError("nothing to send: write --text TEXT, --file FILE or -")
    try:
        return file.read_bytes()
    except OSError as error:
        raise click.UsageError(f"{file} cannot be read: {error.strerror}") from None


class Answer(NamedTuple):
    """Who answered, and what."""

    by: str
    data: bytes | None


async def _answer(
    broker: Broker, channel: Channel, result: Result, wait: float | None, output: Output
) -> Answer | None:
    """The response, after which the channel is closed; None where nobody gave one."""
    who = (
        "nobody listens yet, but whoever registers now is asked; " if result == NO_LISTENERS else ""
    )
    until = "Ctrl-C takes the question back" if wait is None else f"for up to {wait:g} s"
    output.note(f"asked {channel.name}, channel {channel.id}; {who}waiting for a response, {until}")
    try:
        response = await channel.response(wait)
    except (ResponseTimeout, asyncio.CancelledError) as error:
        late = await _take_back(broker, channel)
        if late is None:
            why = "interrupted" if isinstance(error, asyncio.CancelledError) else "no response"
            output.note(f"{why}: the question is taken back", "yellow")
        return late
    if not response.is_final:
        with contextlib.suppress(ChannelAlreadyClosed):
            await channel.close()
    return Answer(response.by, response.data)


async def _take_back(broker: Broker, channel: Channel) -> Answer | None:
    """Close the channel; returns an answer that was accepted just before, unheard of so far."""
    with contextlib.suppress(ChannelAlreadyClosed):
        await channel.close()
    server = await broker.server(channel.name)
    facts = await inventory.read_channel(server, channel.id)
    if facts is None or facts.owner is None:
        return None
    said = await inventory.read_conversation(server, channel.id)
    answers = [
        Answer(facts.owner, utterance.data)
        for utterance in said
        if utterance.by != "source" and utterance.data is not None
    ]
    return answers[0] if answers else None


def _tell(
    output: Output, channel: Channel, result: Result, answer: Answer | None, kind: Kind
) -> None:
    model = kind.response_model
    response = None if answer is None else {"by": answer.by, **payload_record(answer.data, model)}
    record = {**result_record(result), "channel": channel.id, "response": response}
    whom = channel.user or "all users"
    words = WORDS[result]
    if answer is not None:
        words = "asked and answered"
    elif channel.style is BIDIRECTIONAL:
        words = "asked, and nobody answered"
    shown = [
        Text(
            f"{result.name}: {words} ({channel.name} for {whom}, "
            f"{describe_type(channel.type)}, channel {channel.id})"
        )
    ]
    if answer is not None:
        said = payload_shown(answer.data, kind.guid, model)
        shown.append(Text.assemble((f"{answer.by} answered: ", "bold green"), said))
    output.tell(record, *shown)
