"""``tympan desk``: open questions and alerts, live, and answers by a key."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from datetime import UTC, datetime
from typing import Any

import click
from rich.text import Text

from broker import BIDIRECTIONAL, UNIDIRECTIONAL, Broker, Name
from broker.names import parse_user
from workers.alert import Alert, Severity, kind_of
from workers.cli.desk_hearing import Hearing, Wish, usual_wishes
from workers.cli.desk_view import Surroundings, desk_lines
from workers.cli.failures import DONE
from workers.cli.line import farm_options, verbatim
from workers.cli.options import Kind, login_name, parse_name
from workers.cli.output import Output, clock, counted, printable
from workers.cli.running import connect, run
from workers.cli.terminal import Screen, keys, logging_aside
from workers.desk.desk import Change, Desk
from workers.desk.hand import Answer, Hand, Quit
from workers.desk.keyboard import Keyboard
from workers.desk.question import Asked

EVERY = 1.0
"""Seconds after which ages are shown anew."""
REMARK_FOR = 15.0
"""Seconds that a remark stays."""
SHOWN = 3
"""Servers that are named; more of them are counted."""
ESCAPE_WAIT = 0.05
"""Seconds within which what belongs to an Escape follows it."""


@click.command(
    short_help="Show open questions and alerts live, and answer.",
    epilog=verbatim(
        r"""
Examples:
  tympan desk                                  # the whole farm, what concerns you
  tympan desk --all-users --as helpdesk        # everybody's questions; helpdesk needs the grant
  tympan desk '\\print01' '\\print02\laser-1' --type asyncui
  tympan desk --json | jq 'select(.event == "alert")'

Keys: arrows or a question's number choose; c continues, x cancels, h holds, n takes a note along;
Enter shows all of a question, and then a number is a choice; a answers with a text; d puts news
away; q ends. Who is late is told who was first, and with what.
"""
    ),
)
@click.argument("names", type=parse_name, metavar="[NAME]...", nargs=-1)
@click.option(
    "--everywhere",
    is_flag=True,
    help="The whole farm, and servers that are added later; the default without NAME.",
)
@click.option(
    "--type",
    "kinds",
    multiple=True,
    type=Kind.parse,
    metavar="TYPE",
    help="Hear questions and alerts of this type, too; may be repeated.",
)
@click.option("--as", "user", type=parse_user, metavar="USER", help="Whose desk; default yours.")
@click.option(
    "--all-users", is_flag=True, help="Everybody's questions, not only yours; needs a grant there."
)
@click.option(
    "--least",
    type=click.Choice([each.word for each in Severity]),
    default=Severity.REPORT.word,
    show_default=True,
    help="What is less bad counts as well.",
)
@farm_options
@click.pass_context
def desk(
    ctx: click.Context,
    *,
    names: tuple[Name, ...],
    everywhere: bool,
    kinds: tuple[Kind, ...],
    user: str | None,
    all_users: bool,
    least: str,
) -> int:
    r"""Show open questions and alerts of the farm, or of NAMEs, live, and answer by a key.

    It hears what CUPS hosts tell: printers and servers, one's own jobs, and questions about jobs,
    one's own or with --all-users everybody's. Without a terminal it prints lines, with --json
    objects, and answers nothing.
    """
    if everywhere and names:
        raise click.UsageError("say where: NAMEs, or --everywhere in their place")
    output = Output.of(ctx)
    is_live = output.is_live and not output.console.is_dumb_terminal
    is_live = is_live and sys.stdin is not None and sys.stdin.isatty()
    who = user or login_name() or "tympan"
    wishes = _wishes(names, kinds, all_users=all_users)

    async def work() -> int:
        async with connect(ctx, who) as broker:
            if is_live:
                whose = "everybody" if all_users else who
                await Live(broker, output, wishes, Severity.of(least)).until_quit(who, whose)
            else:
                told = Told(output, who)
                hearing = Hearing(broker, Desk(), wishes, told, Severity.of(least))
                await hearing.until_cancelled()
        return DONE

    return run(work(), interrupted=DONE)


def _wishes(
    names: tuple[Name, ...], kinds: tuple[Kind, ...], *, all_users: bool
) -> tuple[Wish, ...]:
    """What is heard where; a printer of a server that is named, too, is that server's."""
    covered = [
        name
        for name in dict.fromkeys(names)
        if not any(other != name and other.covers(name) for other in names)
    ]
    wishes: dict[Any, Wish] = {}
    for name in covered or (None,):
        more = [
            Wish(name, kind.model or kind.guid, style, all_users)
            for kind in kinds
            for style in (UNIDIRECTIONAL, BIDIRECTIONAL)
        ]
        for wish in (*usual_wishes(name, all_users=all_users), *more):
            wishes.setdefault((name, wish.guid, wish.style), wish)
    return tuple(wishes.values())


class Live:
    """A desk on a terminal."""

    def __init__(
        self, broker: Broker, output: Output, wishes: tuple[Wish, ...], least: Severity
    ) -> None:
        self._output = output
        self._desk = Desk()
        self._hand = Hand(self._desk)
        self._hearing = Hearing(broker, self._desk, wishes, self, least)
        self._keyboard = Keyboard()
        self._remark, self._remark_at = "", 0.0
        self._stirred = asyncio.Event()
        self._is_over = False

    async def until_quit(self, who: str, whose: str) -> None:
        """Draw until q is pressed. Raises what keeps it from hearing."""
        loop = asyncio.get_running_loop()
        hearing = asyncio.create_task(self._hearing.until_cancelled())
        hearing.add_done_callback(lambda _: self._stirred.set())
        with logging_aside(self.remarked), Screen(self._output) as drawn, keys(self._pressed):
            loop.add_signal_handler(signal.SIGWINCH, self._stirred.set)
            try:
                while not (self._is_over or hearing.done()):
                    now = time.time()
                    self._desk.tidy(now)
                    around = Surroundings(
                        self._who(who, whose), self._hearing.troubles, self._remark_of(now)
                    )
                    drawn.draw(desk_lines(self._desk, self._hand, around, now, *drawn.size))
                    await self._stir()
            finally:
                loop.remove_signal_handler(signal.SIGWINCH)
                hearing.cancel()
                await asyncio.wait({hearing})
        if not hearing.cancelled():
            hearing.result()

    def _who(self, who: str, whose: str) -> str:
        theirs = "everybody's questions" if whose != who else "own questions"
        reached = self._hearing.reached
        where = ", ".join(reached) if len(reached) <= SHOWN else counted(len(reached), "server")
        return f"{printable(who)}: {theirs}   on {where or 'no server yet'}"

    def _remark_of(self, now: float) -> str:
        return self._remark if now - self._remark_at < REMARK_FOR else ""

    async def _stir(self) -> None:
        try:
            async with asyncio.timeout(EVERY):
                await self._stirred.wait()
        except TimeoutError:
            return
        self._stirred.clear()

    def _pressed(self, character: str) -> None:
        if not character:  # the terminal is gone
            self._do("")
            return
        key = self._keyboard.press(character)
        if key is not None:
            self._do(key)
        elif self._keyboard.is_waiting:
            asyncio.get_running_loop().call_later(ESCAPE_WAIT, self._flush)

    def _flush(self) -> None:
        key = self._keyboard.flush()
        if key is not None:
            self._do(key)

    def _do(self, key: str) -> None:
        self._remark = ""
        match self._hand.press(key):
            case Quit():
                self._is_over = True
            case Answer() as answer:
                self._hearing.answer(answer)
        self._stirred.set()

    # Being told -------------------------------------------------------------------------------

    def registered(self, wishes: tuple[Wish, ...], reached: tuple[str, ...]) -> None:  # noqa: ARG002
        """See :class:`workers.cli.desk_hearing.Watcher`."""
        self._stirred.set()

    def alerted(self, alert: Alert, change: Change) -> None:  # noqa: ARG002
        """See :class:`workers.cli.desk_hearing.Watcher`."""
        self._stirred.set()

    def forgotten(self, name: Name) -> None:  # noqa: ARG002
        """See :class:`workers.cli.desk_hearing.Watcher`."""
        self._stirred.set()

    def asked(self, id_: str, asked: Asked) -> None:  # noqa: ARG002
        """See :class:`workers.cli.desk_hearing.Watcher`."""
        self._stirred.set()

    def over(self, id_: str, asked: Asked, words: str) -> None:  # noqa: ARG002
        """See :class:`workers.cli.desk_hearing.Watcher`."""
        self._stirred.set()

    def remarked(self, text: str) -> None:
        """See :class:`workers.cli.desk_hearing.Watcher`."""
        self._remark, self._remark_at = text, time.time()
        self._stirred.set()


class Told:
    """A desk without a terminal: lines, or objects."""

    def __init__(self, output: Output, user: str) -> None:
        self._output = output
        self._user = user

    def registered(self, wishes: tuple[Wish, ...], reached: tuple[str, ...]) -> None:
        """See :class:`workers.cli.desk_hearing.Watcher`."""
        record = {
            "event": "registered",
            "user": self._user,
            "names": list(reached),
            "types": sorted({kind_of(wish.guid) for wish in wishes}),
        }
        where = ", ".join(reached) or "no server yet"
        self._tell(record, f"{self._user} listens on {where} (Ctrl-C ends)", "dim")

    def alerted(self, alert: Alert, change: Change) -> None:
        """See :class:`workers.cli.desk_hearing.Watcher`."""
        record = {
            "event": "cleared" if change is Change.CLEARED else "alert",
            "change": change.value,
            "name": str(alert.name),
            "kind": alert.kind,
            "severity": alert.severity.word,
            "headline": alert.headline,
            "lines": list(alert.lines),
            "at": alert.at.isoformat(),
        }
        if change is Change.REPEATED and not self._output.as_json:
            return
        at = clock(alert.at.timestamp())
        what = "all clear" if change is Change.CLEARED else alert.headline
        tone = "yellow" if alert.severity is Severity.WARNING else "red"
        style = "green" if change is Change.CLEARED else tone if alert.severity else ""
        self._tell(record, f"{at}  {alert.name}: {what}", style)

    def forgotten(self, name: Name) -> None:
        """See :class:`workers.cli.desk_hearing.Watcher`."""
        line = f"{clock(time.time())}  {name}: the printer was deleted"
        self._tell({"event": "forgotten", "name": str(name)}, line, "dim")

    def asked(self, id_: str, asked: Asked) -> None:
        """See :class:`workers.cli.desk_hearing.Watcher`."""
        until = None
        if asked.until is not None:
            until = datetime.fromtimestamp(asked.until, UTC).isoformat()
        record = {
            "event": "question",
            "channel": id_,
            "name": str(asked.name),
            "kind": asked.kind,
            "owner": asked.owner,
            "text": asked.text,
            "lines": list(asked.lines),
            "choices": [choice.label for choice in asked.choices],
            "until": until,
            "otherwise": asked.otherwise or None,
            "again": asked.again,
        }
        whom = asked.owner or "all users"
        choices = ", ".join(choice.label for choice in asked.choices) or "any text"
        line = f"{clock(asked.at)}  {asked.name} asks {whom}: {asked.text} ({choices})"
        self._tell(record, line, "cyan")

    def over(self, id_: str, asked: Asked, words: str) -> None:
        """See :class:`workers.cli.desk_hearing.Watcher`."""
        record = {"event": "over", "channel": id_, "name": str(asked.name), "words": words}
        now = clock(time.time())
        self._tell(record, f"{now}  {asked.name}: {words} (“{asked.text}”)", "dim")

    def remarked(self, text: str) -> None:
        """See :class:`workers.cli.desk_hearing.Watcher`."""
        self._output.note(text, "yellow")

    def _tell(self, record: dict[str, Any], line: str, style: str) -> None:
        self._output.tell(record, Text(printable(line), style))
