"""Piles: what waits to be told, until something may go out. Pure: the time is given.

An alert comes with a *ticket* of the caller's, who is told through ``settle`` when it is done with
without being told itself: it repeats what was told, or a newer one of its subject took its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from workers.alert import Alert
from workers.relay.allowance import Allowance
from workers.relay.folding import Folding, Judgement, Said

T = TypeVar("T")


@dataclass(slots=True)
class Waiting(Generic[T]):
    """An alert that waits, and what it stands for."""

    alert: Alert
    ticket: T
    due: float
    count: int = 1
    """How many alerts of its subject, this one among them."""
    before: Said | None = None
    """What was told of it last."""


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """What goes out as one message: one alert, or a digest of several."""

    items: tuple[Waiting[T], ...]

    @property
    def is_digest(self) -> bool:
        """Whether it stands for several alerts."""
        return len(self.items) > 1


class Pile(Generic[T]):
    """Alerts that wait.

    Args:
        allowance: how many messages may go out.
        folding: what was told.
        settle: is told each ticket whose alert is done with beside the others.
        patience: seconds that an all-clear waits, for the trouble may come back.
    """

    def __init__(
        self,
        allowance: Allowance,
        folding: Folding,
        settle: Callable[[T], None],
        patience: float = 0.0,
    ) -> None:
        self._allowance = allowance
        self._folding = folding
        self._settle = settle
        self._patience = patience
        self._waiting: dict[str, Waiting[T]] = {}
        self._on_the_way: set[str] = set()
        """Subjects of which nobody knows yet whether they are told."""
        self._not_before = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, alert: Alert, ticket: T, now: float) -> None:
        """An alert came, or came again."""
        self._folding.heard(alert)
        older = self._waiting.get(alert.subject)
        if older is not None and older.alert.order > alert.order:
            older.count += 1
            self._settle(ticket)
            return
        count = 1
        if older is not None:
            del self._waiting[alert.subject]
            count += older.count
            if alert.is_clear and not older.alert.is_clear:
                alert = replace(alert, was_troubled=True)  # it came and went: both are told
            self._settle(older.ticket)
        due = now + self._patience if alert.is_clear else now
        item = Waiting(alert, ticket, due, count)
        if alert.subject in self._on_the_way or self._is_worth_it(item, now):
            self._waiting[alert.subject] = item

    def withdraw(self, ticket: T) -> None:
        """Its caller does not wait any more."""
        for subject, item in self._waiting.items():
            if item.ticket is ticket:
                del self._waiting[subject]
                return

    def next(self, now: float) -> Batch[T] | None:
        """What may go out now; None where nothing waits, or nothing may. It waits no longer.

        As many as may go out do so one by one; where there are more, all of them together.
        """
        if now < self._not_before:
            return None
        ready = [item for item in self._waiting.values() if item.due <= now]
        for item in ready:
            if not self._is_worth_it(item, now):  # something was told since it came
                del self._waiting[item.alert.subject]
        ready = [item for item in ready if item.alert.subject in self._waiting]
        may = self._allowance.count(now)
        if not ready or may == 0:
            return None
        ready.sort(key=lambda item: (-item.alert.severity, item.alert.order))
        if may is None or len(ready) <= may:
            ready = ready[:1]
        for item in ready:
            del self._waiting[item.alert.subject]
            item.before = self._folding.before(item.alert)
            self._on_the_way.add(item.alert.subject)
        return Batch(tuple(ready))

    def next_at(self, now: float) -> float | None:
        """When to ask for the next; None where nothing waits."""
        if not self._waiting:
            return None
        due = min(item.due for item in self._waiting.values())
        return max(due, self._not_before, self._allowance.next_at(now))

    def held_back(self, now: float) -> int:
        """How many wait for nothing but the allowance. After :meth:`next` gave none."""
        if now < self._not_before or self._allowance.count(now) != 0:
            return 0
        return sum(item.due <= now for item in self._waiting.values())

    def told(self, batch: Batch[T], now: float) -> None:
        """It was handed over."""
        self._allowance.spend(now)
        self._on_the_way.clear()
        for item in batch.items:
            self._folding.told(item.alert, now)

    def not_told(self, batch: Batch[T], *, perhaps: bool = False) -> None:
        """It was not handed over; ``perhaps``: nobody knows, and they may have it."""
        self._on_the_way.clear()
        if perhaps:
            for item in batch.items:
                self._folding.perhaps_told(item.alert)

    def rest(self, until: float) -> None:
        """Nothing goes out before."""
        self._not_before = until

    def clear(self) -> list[T]:
        """Nothing waits any more; the tickets of what did."""
        waiting, self._waiting = self._waiting, {}
        self._on_the_way.clear()
        return [item.ticket for item in waiting.values()]

    def _is_worth_it(self, item: Waiting[T], now: float) -> bool:
        judgement = self._folding.judge(item.alert, now)
        if judgement is Judgement.TELL:
            return True
        if judgement is Judgement.REPEAT:
            self._folding.repeated(item.alert)
        self._settle(item.ticket)
        return False
