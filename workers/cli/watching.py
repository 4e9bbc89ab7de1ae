"""``tympan workers`` and ``tympan top``: what stands on a farm and what is not finished."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import click

from broker import Broker
from broker.errors import OutcomeUnknown, RedisError
from broker.survey import Survey
from workers.cli.failures import DONE, error_record, sentence, status_of
from workers.cli.line import farm_options, verbatim
from workers.cli.looking import channel_record, registration_record
from workers.cli.options import parse_seconds
from workers.cli.output import Output, clock, on_one_line, span
from workers.cli.pools import pool_record
from workers.cli.running import connect, run
from workers.cli.terminal import Screen, keys, logging_aside
from workers.cli.view import NOTHING, Line, Tone, View, screen, view_of

EVERY = 1.0
LATE = 2.0
"""Seconds that an answer may be late before the screen says so."""
LEAST_EVERY = 0.1


@click.command(
    "workers",
    short_help="Show servers, pools, open questions, listeners and dead letters.",
    epilog=verbatim(
        """
Examples:
  tympan workers
  tympan workers --json
  tympan top          # the same, again and again
"""
    ),
)
@farm_options
@click.pass_context
def list_workers(ctx: click.Context) -> int:
    """Show what stands on the farm, and what is not finished.

    Pools with their backlog and replicas, open questions with their age, who listens, dead letters,
    and servers. With --json each server is one object. `tympan top` shows the same live.
    """
    output = Output.of(ctx)

    async def work() -> int:
        async with connect(ctx, looks=True) as broker:
            found = await broker.survey()
        if not found:
            output.note("no print server is known")
            return DONE
        if output.as_json:
            output.table([survey_record(survey) for survey in found], (), ())
        else:
            print_view(output, view_of(found))
        return next((status_of(one.unread) for one in found if one.unread is not None), DONE)

    return run(work())


def print_view(output: Output, view: View) -> None:
    """All of it, one table for each section that has rows."""
    for section in (section for section in view.sections if section.rows):
        heads = [column.head for column in section.columns]
        output.table((), heads, [row.cells for row in section.rows])
        output.tell({}, "")
    output.tell({}, " · ".join(view.totals))
    for trouble in view.troubles:
        output.note(trouble, "red")


def survey_record(survey: Survey) -> dict[str, Any]:
    """A server and what stands there, for programs."""
    names = {
        "name": str(survey.name),
        "aliases": [str(alias) for alias in survey.server.aliases],
    }
    if survey.unread is not None:
        return {**names, **error_record(survey.unread)}
    return {
        **names,
        "at": survey.now,
        "processes": survey.server.sessions,
        "channels": survey.server.channels,
        "pools": [pool_record(facts) for facts in survey.pools],
        "questions": [
            {**channel_record(facts), "age": round(survey.now - facts.opened_at, 3)}
            for facts in survey.questions
        ],
        "registrations": [registration_record(facts) for facts in survey.registrations],
        "dead_letters": survey.letters,
    }


@click.command(short_help="Watch the farm live.")
@click.option(
    "--every",
    type=parse_seconds,
    default=EVERY,
    metavar="SECONDS",
    help=f"How often to look; default {EVERY:g}.",
)
@farm_options
@click.pass_context
def top(ctx: click.Context, every: float) -> int:
    """Watch what `tympan workers` shows, live, until q or Ctrl-C.

    What wants attention comes first: pools that nobody serves, then the largest backlog, and the
    oldest questions. A narrow terminal shows fewer columns. Where Redis goes away, what was seen
    last stays, and the first lines say since when.
    """
    output = Output.of(ctx)
    if not output.is_live or output.console.is_dumb_terminal:
        raise click.UsageError(
            "it draws on a terminal, and here is none; `tympan workers` prints the same once"
        )
    if every < LEAST_EVERY:
        raise click.BadParameter(f"{every:g} is too often: write {LEAST_EVERY:g} or more")

    async def work() -> int:
        async with connect(ctx, looks=True) as broker:
            await Watch(broker, output, every).until_quit()
        return DONE

    return run(work(), interrupted=DONE)


class Watch:
    """Looks again and again, and draws what it saw last."""

    def __init__(self, broker: Broker, output: Output, every: float) -> None:
        self._broker = broker
        self._output = output
        self._every = every
        self._view = NOTHING
        self._seen = asyncio.get_running_loop().time()
        self._trouble = ""
        self._remark = ""
        self._stirred = asyncio.Event()
        self._quit = False

    async def until_quit(self) -> None:
        """Draw until q is pressed."""
        loop = asyncio.get_running_loop()
        looking = asyncio.create_task(self._look())
        with logging_aside(self._remarked), Screen(self._output) as drawn, keys(self._pressed):
            loop.add_signal_handler(signal.SIGWINCH, self._stirred.set)
            try:
                while not (self._quit or looking.done()):
                    age = loop.time() - self._seen
                    head = heading(self._view, age, self._every, self._trouble, self._remark)
                    drawn.draw(screen(head, self._view, *drawn.size))
                    await self._stir()
            finally:
                loop.remove_signal_handler(signal.SIGWINCH)
                looking.cancel()
                await asyncio.wait({looking})
        if not looking.cancelled():
            looking.result()

    async def _stir(self) -> None:
        """Something is new, or a second is over: ages are shown."""
        try:
            async with asyncio.timeout(min(self._every, EVERY)):
                await self._stirred.wait()
        except TimeoutError:
            return
        self._stirred.clear()

    async def _look(self) -> None:
        while True:
            try:
                surveys = await self._broker.survey()
                unread = [survey.unread for survey in surveys if survey.unread is not None]
                if unread and len(unread) == len(surveys):
                    raise unread[0]
            except (RedisError, OutcomeUnknown) as error:
                self._trouble = sentence(error)
            else:
                self._view, self._trouble, self._remark = view_of(surveys), "", ""
                self._seen = asyncio.get_running_loop().time()
            self._stirred.set()
            await asyncio.sleep(self._every)

    def _pressed(self, key: str) -> None:
        self._quit |= key in ("q", "Q", "")
        self._stirred.set()

    def _remarked(self, remark: str) -> None:
        self._remark = remark


def heading(view: View, age: float, every: float, trouble: str, remark: str) -> list[Line]:
    """The first lines of the screen; ``age``: seconds since the last look that succeeded."""
    at = clock(view.at) if view.at else "nothing seen yet"
    lines = [Line(f"tympan top   {at}   every {every:g} s   q ends", Tone.QUIET)]
    if trouble or age > every + LATE:
        why = f": {on_one_line(trouble)}" if trouble else ""
        lines.append(Line(f"Redis has not answered for {span(age)}{why}", Tone.ALARM))
    if remark:
        lines.append(Line(on_one_line(remark), Tone.WARNING))
    return lines
