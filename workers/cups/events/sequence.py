"""The numbers of a subscription's events: which comes next, was here, or is missing. Pure.

cupsd numbers the events of a subscription from 1. It leaves numbers out when a notifier reads too
slowly, and writes them down only now and then: after a crash it gives some of them again, to other
events. So the number of an event counts within an epoch, which ends where numbers go back. Within
what one notifier reads they never do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from workers.cups.cupsd.event import Event

MOST_FILLED = 10_000
"""Events fetched from cupsd that are remembered, should they come from the notifier too."""


class Verdict(Enum):
    """What an event is."""

    NEXT = "next"
    AHEAD = "ahead"
    """Some before it are missing."""
    KNOWN = "known"
    """It was here."""
    RENEWED = "renewed"
    """cupsd lost count, and it is the first of a new epoch."""
    FOREIGN = "foreign"
    """It is of another subscription."""


@dataclass(slots=True)
class Position:
    """How far a subscription was read."""

    subscription: int
    epoch: int = 0
    """When it began, in seconds since 1970."""
    last: int = 0
    run: str = ""
    """The notifier that read the last one."""
    former: str = ""
    """The one before it, which may have kept some until its disk had room again."""
    filled: dict[int, str] = field(default_factory=dict)
    """Marks of events that were fetched, by their numbers in this epoch."""

    def judge(self, event: Event, run: str) -> Verdict:
        """What an event is that this notifier read."""
        if event.subscription != self.subscription:
            return Verdict.FOREIGN
        if event.sequence == self.last + 1:
            return Verdict.NEXT
        if event.sequence > self.last:
            return Verdict.AHEAD
        if run in (self.run, self.former, "") or self.filled.get(event.sequence) == event.mark:
            return Verdict.KNOWN
        return Verdict.RENEWED

    def advance(self, event: Event, run: str) -> None:
        """It is taken, and counts as the last one."""
        if event.sequence <= self.last:
            self.epoch = max(event.seconds, self.epoch + 1)
            self.filled.clear()
        self.last = event.sequence
        if run and run != self.run:
            self.run, self.former = run, self.run

    def fill(self, event: Event) -> None:
        """The same for one that was fetched."""
        self.advance(event, "")
        self.filled[event.sequence] = event.mark
        while len(self.filled) > MOST_FILLED:
            del self.filled[next(iter(self.filled))]

    def missing(self, event: Event) -> range:
        """Numbers between the last one and this."""
        return range(self.last + 1, event.sequence)

    def skip(self, last: int) -> None:
        """Those up to this number will not come."""
        self.last = max(self.last, last)

    def name(self, host: str, event: Event) -> str:
        """What a payload calls the event, once it was taken: the same whenever it is told again."""
        return f"{host}/{self.epoch}/{event.subscription}/{event.sequence}"

    def dump(self) -> str:
        """As text, without what was filled."""
        return json.dumps([self.subscription, self.epoch, self.last, self.run])

    def dump_filled(self) -> str:
        """That, as text."""
        return json.dumps(list(self.filled.items()))

    @classmethod
    def load(cls, text: object, filled: object = None) -> Position | None:
        """From these; None where they are not such texts."""
        try:
            subscription, epoch, last, run = json.loads(str(text))
            position = cls(int(subscription), int(epoch), int(last), str(run))
            position.filled = {int(n): str(mark) for n, mark in json.loads(str(filled or "[]"))}
        except (ValueError, TypeError):
            return None
        return position


def holes(numbers: range, found: Iterable[int]) -> list[range]:
    """Stretches of numbers that are not among these, which are in order."""
    left: list[range] = []
    start = numbers.start
    for number in found:
        if number in numbers:
            left.append(range(start, number))
            start = number + 1
    left.append(range(start, numbers.stop))
    return [hole for hole in left if hole]
