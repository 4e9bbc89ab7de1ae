"""Events that are missing: fetched from cupsd while it has them, and reported where it has not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from workers.cups.cupsd.client import Client, IppError, Unreachable
from workers.cups.cupsd.event import Event
from workers.cups.cupsd.ipp import Fault, Group
from workers.cups.events.sequence import Position
from workers.cups.types import ServerStatus

log = logging.getLogger("tympan.cups")

PAUSE = 1.0
PATIENCE = 15.0
"""Seconds that missing events are asked for while cupsd does not answer."""
MOST_HOLES = 8
"""Above as many one report stands for all of them."""


async def fetch(cups: Client, position: Position, first: int) -> list[Event]:
    """Events that cupsd still has, from that number on, in order; none where it cannot be asked."""
    loop = asyncio.get_running_loop()
    due = loop.time() + PATIENCE
    while True:
        try:
            return read(await cups.notifications(position.subscription, first), position, first)
        except Unreachable as error:
            if loop.time() >= due:
                log.warning("missing events cannot be fetched: %s", error)
                return []
            await asyncio.sleep(PAUSE)
        except IppError as error:
            log.warning("missing events cannot be fetched: %s", error)
            return []


def read(groups: Sequence[Group], position: Position, first: int) -> list[Event]:
    """Those of the subscription, from that number on, in order."""
    found: dict[int, Event] = {}
    for group in groups:
        try:
            event = Event.of(group)
        except Fault as fault:
            log.warning("an event of cupsd is not understood, and left out: %s", fault)
            continue
        if event.subscription == position.subscription and event.sequence >= first:
            found[event.sequence] = event
    return [found[number] for number in sorted(found)]


def stopped(host: str, position: Position, number: int, at: datetime) -> ServerStatus:
    """A cupsd that ends in order gives a number to that, and tells nobody."""
    return _status(
        host,
        f"{_place(position)}/{number}",
        at,
        what="stopped",
        text="Scheduler shutting down normally.",
    )


def gone(host: str, position: Position, why: str) -> ServerStatus:
    """Nobody knows how many are lost before a subscription that was made again."""
    return _status(host, f"{_place(position)}/0", datetime.now(UTC), what="events-lost", why=why)


def lost(host: str, position: Position, missing: Sequence[range], why: str) -> list[ServerStatus]:
    """Reports of events that nobody has any more."""
    many = sum(map(len, missing))
    if len(missing) <= MOST_HOLES:
        spans = [(hole.start, hole.stop - 1, len(hole)) for hole in missing]
    else:
        spans = [(missing[0].start, missing[-1].stop - 1, many)]
    return [
        _status(
            host,
            f"{_place(position)}/{first}-{last}",
            datetime.now(UTC),
            what="events-lost",
            first=first,
            last=last,
            count=count,
            why=why,
        )
        for first, last, count in spans
    ]


def _place(position: Position) -> str:
    return f"{position.epoch}/{position.subscription}"


def _status(host: str, event: str, at: datetime, **said: object) -> ServerStatus:
    return ServerStatus.model_validate({"host": host, "event": f"{host}/{event}", "at": at, **said})
