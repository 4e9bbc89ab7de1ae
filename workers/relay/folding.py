"""Folding: what was told of each subject, and whether an alert has to be. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import TypeVar

from workers.alert import Alert

V = TypeVar("V")
MOST = 10_000
"""Subjects, and ids, that are remembered; the longest untouched ones are forgotten."""


class Judgement(Enum):
    """What becomes of an alert."""

    TELL = "tell"
    REPEAT = "repeat"
    """The same was told lately: it is counted."""
    NOTHING = "nothing"
    """There is nothing to tell: all is as well as it was, or a newer one was told, or came."""


@dataclass(slots=True)
class Said:
    """What was told of a subject last."""

    condition: str
    order: float
    """The alert's."""
    at: float
    """When it was told, by the caller's clock."""
    since: datetime
    """When the trouble that was told began."""
    repeats: int = 0


class Folding:
    """What is remembered of what was told.

    Args:
        window: seconds within which the same condition of a subject is not told again.
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._said: OrderedDict[str, Said] = OrderedDict()
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._newest: OrderedDict[str, float] = OrderedDict()
        self._perhaps: OrderedDict[str, None] = OrderedDict()

    def heard(self, alert: Alert) -> None:
        """It came: what is older than the newest of its subject is not told any more."""
        newest = max(alert.order, self._newest.get(alert.subject, alert.order))
        _put(self._newest, alert.subject, newest)

    def perhaps_told(self, alert: Alert) -> None:
        """Nobody knows whether they took it: what comes next of its subject is told."""
        _put(self._perhaps, alert.subject, None)

    def judge(self, alert: Alert, now: float) -> Judgement:
        """What is to become of it."""
        known = self._said.get(alert.subject)
        if alert.id in self._ids or (known is not None and alert.order < known.order):
            return Judgement.NOTHING
        if alert.order < self._newest.get(alert.subject, alert.order):
            return Judgement.NOTHING
        if alert.subject in self._perhaps:
            return Judgement.TELL
        if alert.is_clear:
            # Of trouble that came since, another replica may have told, or nobody.
            was_told = known is not None and known.condition
            return Judgement.TELL if was_told or alert.was_troubled else Judgement.NOTHING
        if known is None or known.condition != alert.condition:
            return Judgement.TELL
        return Judgement.REPEAT if now - known.at < self._window else Judgement.TELL

    def repeated(self, alert: Alert) -> None:
        """It was folded into what was told."""
        known = self._said[alert.subject]
        known.repeats += 1
        known.order = alert.order
        _put(self._ids, alert.id, None)

    def told(self, alert: Alert, now: float) -> None:
        """It was handed over."""
        known = self._said.get(alert.subject)
        goes_on = known is not None and known.condition and not alert.is_clear
        since = known.since if known is not None and goes_on else alert.at
        _put(self._said, alert.subject, Said(alert.condition, alert.order, now, since))
        self._perhaps.pop(alert.subject, None)
        _put(self._ids, alert.id, None)

    def before(self, alert: Alert) -> Said | None:
        """What was told of its subject last, if anything was."""
        return self._said.get(alert.subject)


def _put(memory: OrderedDict[str, V], key: str, value: V) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > MOST:
        memory.popitem(last=False)
