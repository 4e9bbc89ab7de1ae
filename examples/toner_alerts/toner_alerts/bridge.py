"""From a log that something else writes, alerts for a user."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TextIO

import click

from broker import Broker, Name, TympanError
from broker.errors import InvalidName
from broker.names import parse_user
from toner_alerts.notification import TonerLow

LOOK_EVERY_S = 0.2


class TonerLog:
    """Follows lines of PRINTER COLOUR LEVEL, as ``tail -f`` does, from the end of the log on."""

    description = "Tell a user when toner runs low, from a log with lines of PRINTER COLOUR LEVEL."
    options = (
        click.Argument(["log"], type=click.Path(exists=True, dir_okay=False, path_type=Path)),
        click.Option(
            ["--user"], required=True, type=parse_user, metavar="USER", help="Whom to tell."
        ),
        click.Option(
            ["--below"],
            type=click.IntRange(1, 101),
            default=20,
            show_default=True,
            help="Tell of levels below this, in per cent.",
        ),
    )

    async def run(self, broker: Broker, server: Name, *, log: Path, user: str, below: int) -> None:
        """Until it is cancelled."""
        with _opened(log) as lines:
            click.echo(f"following {log}", err=True)
            async for line in _followed(lines):
                try:
                    printer, alert = _read(line, server)
                    if alert.level < below:
                        await _tell(broker, printer, user, alert)
                except (ValueError, InvalidName) as error:
                    click.echo(f"not understood: {line!r}: {error}", err=True)
                except TympanError as error:
                    if not error.retryable:
                        raise
                    click.echo(f"nobody was told of {line!r}: {error}", err=True)


def _opened(log: Path) -> TextIO:
    lines = log.open(encoding="utf-8", errors="replace")
    lines.seek(0, os.SEEK_END)
    return lines


async def _followed(lines: TextIO) -> AsyncIterator[str]:
    line = ""
    while True:
        line += lines.readline()
        if line.endswith("\n"):
            yield line.strip()
            line = ""
        else:
            await asyncio.sleep(LOOK_EVERY_S)


def _read(line: str, server: Name) -> tuple[Name, TonerLow]:
    """Raises ValueError or InvalidName where the line is no report of a level."""
    printer, colour, level = line.rsplit(maxsplit=2)
    alert = TonerLow.model_validate({"colour": colour, "level": level})
    return Name.parse(rf"{server}\{printer}"), alert


async def _tell(broker: Broker, printer: Name, user: str, alert: TonerLow) -> None:
    async with await broker.open_channel(printer, TonerLow, user=user) as channel:
        result = await channel.send(alert)
    click.echo(f"{printer}: {alert.colour} at {alert.level} %, {result.name}", err=True)
