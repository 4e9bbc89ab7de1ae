"""``tympan dead``: what pools could not handle, and what becomes of it."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click
from rich.text import Text

from broker import Broker, Name
from broker.dead_letter import DeadLetter
from broker.errors import InvalidArgument, NoSuchLetter, PoolError, TympanError
from broker.notification_type import describe_type
from broker.results import S_OK
from workers.cli.failures import DONE, FAILED, error_record
from workers.cli.line import farm_options, verbatim
from workers.cli.looking import on_each, tell_missing, where
from workers.cli.options import optional_name_argument, parse_name
from workers.cli.output import (
    Output,
    age,
    body_record,
    body_shown,
    counted,
    on_one_line,
    printable,
    result_record,
)
from workers.cli.pools import pool_option
from workers.cli.running import agreed, connect, run

LISTED = 100
COLUMNS = ("LETTER", "NAME", "POOL", "TYPE", "STYLE", "TIMES", "BURIED", "REASON")


@click.group(
    short_help="What pools could not handle: list, show, replay, drop.",
    epilog=verbatim(
        r"""
Examples:
  tympan dead list '\\print01' --pool helpdesk
  tympan dead show 1795244161373-0
  tympan dead replay 1795244161373-0 1795244161380-0
  tympan dead replay --all --pool helpdesk
  tympan dead drop --all --on '\\print01' --yes
"""
    ),
)
def dead() -> None:
    """What the workers of a pool could not handle, put aside so that its neighbours go on.

    A letter stays until it is replayed or dropped, or its server has 10,000 newer ones.
    """


letter_argument = click.argument("letter", metavar="LETTER")
letters_argument = click.argument("letters", nargs=-1, metavar="[LETTER]...")
on_option = click.option(
    "--on",
    "name",
    type=parse_name,
    metavar="NAME",
    help=r"Of this \\server or \\server\printer only. Letters are numbered by each server.",
)
all_option = click.option("--all", "every", is_flag=True, help="In place of LETTER: all there are.")


@dead.command("list", short_help="List dead letters, the newest first.")
@optional_name_argument
@pool_option
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    default=LISTED,
    help=f"At most so many of each server; default {LISTED}.",
)
@farm_options
@click.pass_context
def list_letters(ctx: click.Context, name: Name | None, pool: str | None, limit: int) -> int:
    r"""List dead letters: of the farm, of \\server with its printers, or of \\server\printer."""
    output = Output.of(ctx)

    async def work() -> int:
        async with connect(ctx, looks=True) as broker:

            async def on_server(name: Name) -> list[DeadLetter]:
                return await broker.dead_letters.on_server(name, pool=pool, limit=limit)

            found, missing = await on_each(broker, name, on_server)
            servers = {letter.name.of_server for letter in found}
            now = {server: await broker.clock(server) for server in servers}
        if not found:
            output.note(nothing(name, pool, missing))
            return tell_missing(output, missing)
        output.table(
            [letter_record(letter) for letter in found],
            COLUMNS,
            [
                (
                    letter.id,
                    str(letter.name),
                    letter.pool,
                    describe_type(letter.type),
                    letter.style.word,
                    str(letter.times),
                    age(now[letter.name.of_server] - letter.buried_at),
                    on_one_line(letter.reason),
                )
                for letter in found
            ],
        )
        return tell_missing(output, missing)

    return run(work())


@dead.command(short_help="Show one dead letter with its body.")
@letter_argument
@on_option
@farm_options
@click.pass_context
def show(ctx: click.Context, letter: str, name: Name | None) -> int:
    """Show LETTER: whence it came, what went wrong, and its body.

    LETTER is the id that `tympan dead list` prints.
    """
    output = Output.of(ctx)

    async def work() -> int:
        async with connect(ctx, looks=True) as broker:
            found = await find_letter(broker, letter, name)
            now = await broker.clock(found.name)
        output.tell(letter_record(found) | body_record(found.data), *letter_shown(found, now))
        return DONE

    return run(work())


@dead.command(short_help="Hand dead letters to their pools again.")
@letters_argument
@all_option
@pool_option
@on_option
@farm_options
@click.pass_context
def replay(
    ctx: click.Context,
    *,
    letters: tuple[str, ...],
    every: bool,
    pool: str | None,
    name: Name | None,
) -> int:
    """Hand each LETTER to the pool that put it aside, and to nobody else.

    With --all the oldest come first. Deliveries are counted anew. A question can be handed out as
    long as it is open, a dialog cannot. What cannot be replayed stays a letter, with the reason;
    then the exit status is 3.
    """
    asked = Asked.of(letters, every=every, pool=pool, name=name)
    output = Output.of(ctx)

    async def work() -> int:
        async with connect(ctx) as broker:
            found, missing = await asked.find(output, broker)
            for unknown in missing:
                tell(output, "replayed", unknown.letter, None, unknown)
            status = FAILED if missing else DONE
            for letter in found:
                try:
                    await broker.dead_letters.replay(letter.name, letter.id)
                except PoolError as error:
                    status = FAILED
                    tell(output, "replayed", letter.id, letter, error)
                else:
                    tell(output, "replayed", letter.id, letter)
        return status

    return run(work())


@dead.command(short_help="Forget dead letters.")
@letters_argument
@all_option
@pool_option
@on_option
@click.option("--yes", is_flag=True, help="With --all: drop them without asking.")
@farm_options
@click.pass_context
def drop(
    ctx: click.Context,
    *,
    letters: tuple[str, ...],
    every: bool,
    pool: str | None,
    name: Name | None,
    yes: bool,
) -> int:
    """Forget each LETTER, and what it holds.

    One that is not there is none to forget: that is said, and is no failure.
    """
    asked = Asked.of(letters, every=every, pool=pool, name=name)
    output = Output.of(ctx)
    found: list[DeadLetter] = []

    async def look() -> int:
        async with connect(ctx) as broker:
            letters, missing = await asked.find(output, broker)
        found.extend(letters)
        for unknown in missing:
            tell(output, "dropped", unknown.letter, None, unknown)
        return DONE

    async def work() -> int:
        async with connect(ctx) as broker:
            for letter in found:
                was_there = await broker.dead_letters.drop(letter.name, letter.id)
                gone = None if was_there else NoSuchLetter("it was not there any more", letter.id)
                tell(output, "dropped", letter.id, letter, gone)
        return DONE

    status = run(look())
    if status != DONE or not found:
        return status
    if every and not yes and not agreed(*asked.sentence(found)):
        output.note("nothing was dropped")
        return FAILED
    return run(work())


@dataclass(frozen=True)
class Asked:
    """Which letters a command line names."""

    letters: tuple[str, ...]
    pool: str | None
    name: Name | None

    @classmethod
    def of(
        cls, letters: tuple[str, ...], *, every: bool, pool: str | None, name: Name | None
    ) -> Asked:
        """Raises UsageError where it names none, or both some and all."""
        if every is bool(letters):
            raise click.UsageError("say which letters: LETTER..., or --all in their place")
        if pool is not None and not every:
            raise click.UsageError("--pool goes with --all")
        return cls(letters, pool, name)

    def sentence(self, found: list[DeadLetter]) -> tuple[str, str]:
        """What there is to forget, and what to do with it, for people."""
        of = f" of pool {self.pool}" if self.pool is not None else ""
        each = "it" if len(found) == 1 else "them all"
        return f"{counted(len(found), 'dead letter')}{of}{where(self.name)}", f"forget {each}"

    async def find(
        self, output: Output, broker: Broker
    ) -> tuple[list[DeadLetter], list[NoSuchLetter]]:
        """Those there are, the oldest first or as they were named; and those there are not."""
        if not self.letters:
            found = await find_letters(broker, self.name, self.pool, None)
            if not found:
                output.note(nothing(self.name, self.pool))
            return sorted(found, key=when), []
        letters: list[DeadLetter] = []
        missing: list[NoSuchLetter] = []
        for letter in dict.fromkeys(self.letters):
            try:
                letters.append(await find_letter(broker, letter, self.name))
            except NoSuchLetter as error:
                missing.append(error)
        return letters, missing


async def find_letters(
    broker: Broker, name: Name | None, pool: str | None, limit: int | None
) -> list[DeadLetter]:
    """Letters of the farm, of one server, or for one printer; of each server the newest first."""
    names = [Name(server) for server in await broker.servers()] if name is None else [name]
    each = await asyncio.gather(
        *(broker.dead_letters.on_server(one, pool=pool, limit=limit) for one in names)
    )
    return [letter for found in each for letter in found]


async def find_letter(broker: Broker, letter: str, name: Name | None) -> DeadLetter:
    """The letter of this id. Raises NoSuchLetter; InvalidArgument where several servers have it."""
    names = [Name(server) for server in await broker.servers()] if name is None else [name]

    async def on(name: Name) -> DeadLetter | None:
        try:
            found = await broker.dead_letters.get(name, letter)
        except NoSuchLetter:
            return None
        return found

    each = await asyncio.gather(*(on(one) for one in names))
    found = [one for one in each if one is not None]
    if not found:
        raise NoSuchLetter(
            f"there is no dead letter {letter}{where(name)}: `tympan dead list` shows those there "
            "are",
            letter,
        )
    if len(found) > 1:
        servers = " and ".join(str(one.name.of_server) for one in found)
        raise InvalidArgument(f"{servers} have a dead letter {letter} each: say --on which")
    return found[0]


def when(letter: DeadLetter) -> tuple[int, ...]:
    """By this letters are in the order in which they were put aside."""
    return tuple(int(part) for part in letter.id.split("-"))


def nothing(
    name: Name | None, pool: str | None, missing: Mapping[Name, TympanError] | None = None
) -> str:
    """That there is no letter, for people."""
    return f"no dead letter{'' if pool is None else f' of pool {pool}'}{where(name, missing)}"


def tell(
    output: Output,
    done: str,
    letter_id: str,
    letter: DeadLetter | None,
    error: PoolError | None = None,
) -> None:
    """What happened to a letter; ``done`` is the word for what was asked."""
    record = {
        "letter": letter_id,
        "name": None if letter is None else str(letter.name),
        "pool": None if letter is None else letter.pool,
        done: error is None,
        **(result_record(S_OK) if error is None else error_record(error)),
    }
    if error is not None:
        output.tell(record, Text(f"{letter_id}  not {done}: {printable(str(error))}", "yellow"))
    elif letter is not None:
        words = f"{letter.name}, pool {letter.pool}: {done}"
        output.tell(record, Text(f"{letter_id}  {words}", "green"))


def letter_record(letter: DeadLetter) -> dict[str, Any]:
    """A letter for programs, without its body."""
    return {
        "letter": letter.id,
        "name": str(letter.name),
        "pool": letter.pool,
        "registration": letter.registration,
        "type": str(letter.type),
        "style": letter.style.word,
        "user": letter.user,
        "channel": letter.channel,
        "at": letter.at,
        "buried_at": letter.buried_at,
        "times": letter.times,
        "reason": letter.reason,
        "dialog": letter.is_dialog,
    }


def letter_shown(letter: DeadLetter, now: float) -> list[Text]:
    """A letter for people."""
    kind = ", a dialog" if letter.is_dialog else ""
    gone = letter.data is None and letter.reference is not None
    body = "(gone: it was kept apart)" if gone else body_shown(letter.data, letter.type)
    return [
        Text.assemble(("Letter ", "bold"), (letter.id, "bold cyan")),
        Text(f"  on      {letter.name}, {describe_type(letter.type)}, {letter.style.word}{kind}"),
        Text(f"  for     {printable(letter.user or 'all users')}, channel {letter.channel}"),
        Text(f"  pool    {letter.pool}, delivered {counted(letter.times, 'time')}"),
        Text(f"  sent    {age(now - letter.at)}"),
        Text(f"  buried  {age(now - letter.buried_at)}"),
        Text("  reason", "bold"),
        Text(textwrap.indent(printable(letter.reason), "    ")),
        Text("  body", "bold"),
        Text(textwrap.indent(body, "    ")),
    ]
