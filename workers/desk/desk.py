"""The desk: the questions that are open, what is the matter, and what was answered. Pure.

Times are seconds since 1970, and given.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from broker import Name
from workers.alert import Alert, Severity
from workers.desk.question import Asked

V = TypeVar("V")
LINGERS = 20.0
"""Seconds that a question that is over stays, so that nobody wonders where it is."""
NEWS_FOR = 600.0
"""Seconds that an alert stays that nothing will clear."""
MOST = 1000
"""Alerts, and ids of events, that are kept."""
LATELY = 20
"""Answers that are kept."""


class State(Enum):
    """How a question stands."""

    OPEN = "open"
    ANSWERING = "answering"
    """Our answer is on its way."""
    OURS = "ours"
    """Our answer was the first; the other end has not said more."""
    OVER = "over"


@dataclass(slots=True)
class Entry:
    """One question on the desk."""

    id: str
    """Of its channel."""
    number: int
    """What it is called here; the same for as long as it is here."""
    asked: Asked
    state: State = State.OPEN
    words: str = ""
    """What became of it so far."""
    over_at: float = 0.0
    is_ours: bool = False
    """Whether the dialog is ours, also where it goes on."""

    @property
    def order(self) -> tuple[bool, float, str]:
        """What is due first comes first, then what is never due, by its age; it never moves."""
        until = self.asked.until
        return until is None, self.asked.at if until is None else until, self.id


@dataclass(slots=True)
class Trouble:
    """An alert that stands."""

    alert: Alert
    since: float
    times: int = 1


@dataclass(frozen=True, slots=True)
class Place:
    """What is the matter at one printer or server."""

    name: Name
    severity: Severity
    since: float
    last: float
    times: int
    what: str


@dataclass(frozen=True, slots=True)
class Answered:
    """A question that came to its end."""

    at: float
    name: Name
    text: str
    words: str


class Change(Enum):
    """What an alert changed."""

    NEW = "new"
    CHANGED = "changed"
    REPEATED = "repeated"
    CLEARED = "cleared"
    NONE = "none"


class Desk:
    """What stands on it, and what of it is chosen."""

    def __init__(self) -> None:
        self.chosen: str | None = None
        """The id of a question."""
        self._is_put_down = False
        """Whether only a key chooses one, until nothing stands there."""
        self.lately: deque[Answered] = deque(maxlen=LATELY)
        """The newest first."""
        self._questions: dict[str, Entry] = {}
        self._troubles: OrderedDict[str, Trouble] = OrderedDict()
        self._orders: OrderedDict[str, float] = OrderedDict()
        """By subject, the order of what was heard last."""
        self._ids: OrderedDict[str, None] = OrderedDict()

    # Alerts -------------------------------------------------------------------------------------

    def hear(self, alert: Alert, now: float) -> Change:
        """An alert came."""
        subject = alert.subject
        if alert.id in self._ids or alert.order < self._orders.get(subject, alert.order):
            return Change.NONE
        _keep(self._ids, alert.id, None)
        _keep(self._orders, subject, alert.order)
        known = self._troubles.get(subject)
        if alert.is_clear:
            if known is None:
                return Change.NONE
            del self._troubles[subject]
            return Change.CLEARED
        if known is not None and known.alert.condition == alert.condition:
            known.alert = alert
            known.times += 1
            return Change.REPEATED
        since = known.since if known is not None else min(alert.at.timestamp(), now)
        _keep(self._troubles, subject, Trouble(alert, since))
        return Change.NEW if known is None else Change.CHANGED

    @property
    def places(self) -> list[Place]:
        """What is the matter, one line for each printer or server; the worst and newest first."""
        by_name: dict[Name, list[Trouble]] = {}
        for trouble in self._troubles.values():
            by_name.setdefault(trouble.alert.name, []).append(trouble)
        found = [_place(name, troubles) for name, troubles in by_name.items()]
        return sorted(found, key=lambda one: (-one.severity, -one.last, one.name))

    def forget(self, name: Name) -> bool:
        """The printer was deleted; whether anything was the matter there."""
        return bool(self._drop(lambda trouble: trouble.alert.name == name))

    def dismiss_news(self) -> int:
        """Take away what nothing will clear; how many that were."""
        return self._drop(lambda trouble: not trouble.alert.holds)

    def _drop(self, is_old: Callable[[Trouble], bool]) -> int:
        gone = [subject for subject, one in self._troubles.items() if is_old(one)]
        for subject in gone:
            del self._troubles[subject]
        return len(gone)

    # Questions ----------------------------------------------------------------------------------

    @property
    def questions(self) -> list[Entry]:
        """What is due first comes first."""
        return sorted(self._questions.values(), key=lambda entry: entry.order)

    @property
    def open(self) -> int:
        """How many questions wait for an answer."""
        return sum(entry.state is not State.OVER for entry in self._questions.values())

    @property
    def entry(self) -> Entry | None:
        """The chosen question."""
        return self._questions.get(self.chosen or "")

    def find(self, id_: str) -> Entry | None:
        """A question that stands here."""
        return self._questions.get(id_)

    def ask(self, id_: str, asked: Asked) -> Entry:
        """A question came, or came again: its listener was registered anew, or its source."""
        known = self._questions.get(id_) or self._former(asked)
        if known is not None:
            del self._questions[known.id]
            if self.chosen == known.id:
                self.chosen = id_
        number = known.number if known is not None else self._free_number()
        entry = self._questions[id_] = Entry(id_, number, asked)
        if len(self._questions) == 1 and known is None:
            self._is_put_down = False
        if self.chosen is None and not self._is_put_down:
            self.chosen = id_
        return entry

    def _former(self, asked: Asked) -> Entry | None:
        """The question that this one asks anew."""
        for entry in self._questions.values():
            is_done = entry.state is State.OVER or (asked.again and entry.state is State.OPEN)
            if asked.key and entry.asked.key == asked.key and is_done:
                return entry
        return None

    def ask_on(self, id_: str, asked: Asked) -> None:
        """The source goes on with a dialog that is ours."""
        entry = self._questions.get(id_)
        if entry is not None:
            entry.asked, entry.state, entry.words, entry.is_ours = asked, State.OPEN, "", True

    def answering(self, id_: str, label: str) -> None:
        """Our answer is on its way."""
        self._stand(id_, State.ANSWERING, f"answering {label} …")

    def reopen(self, id_: str) -> None:
        """Our answer was not taken, and another one may be given."""
        self._stand(id_, State.OPEN, "")

    def answered(self, id_: str, label: str) -> None:
        """Our answer was the first."""
        self._stand(id_, State.OURS, f"you were first: {label}")

    def over(self, id_: str, words: str, now: float) -> bool:
        """It is over; whether that is news. More words about it replace fewer."""
        entry = self._questions.get(id_)
        if entry is None:
            return False
        is_news = entry.state is not State.OVER
        if not is_news:
            if len(words) <= len(entry.words):
                return False
            with contextlib.suppress(ValueError):  # others came since
                self.lately.remove(_answered(entry))
        entry.state, entry.words = State.OVER, words
        entry.over_at = now if is_news else entry.over_at
        self.lately.appendleft(_answered(entry))
        return is_news

    def _stand(self, id_: str, state: State, words: str) -> None:
        entry = self._questions.get(id_)
        if entry is not None and entry.state is not State.OVER:
            entry.state, entry.words = state, words

    def _free_number(self) -> int:
        taken = {entry.number for entry in self._questions.values()}
        return next(number for number in itertools.count(1) if number not in taken)

    # Choosing -----------------------------------------------------------------------------------

    def move(self, by: int) -> None:
        """Choose the question so many lines further down, or up."""
        listed = [entry.id for entry in self.questions]
        if not listed:
            return
        if self.chosen not in listed:
            self._choose(listed[0 if by > 0 else -1])
            return
        here = listed.index(self.chosen)
        self._choose(listed[max(0, min(len(listed) - 1, here + by))])

    def pick(self, number: int) -> bool:
        """Choose the question of this number; whether there is one."""
        for entry in self._questions.values():
            if entry.number == number:
                self._choose(entry.id)
                return True
        return False

    def put_down(self) -> None:
        """Choose none, until one is chosen by a key."""
        self._choose(None)

    def _choose(self, id_: str | None) -> None:
        left, self.chosen = self._questions.get(self.chosen or ""), id_
        self._is_put_down = id_ is None
        if left is not None and left.id != id_ and left.state is State.OVER:
            del self._questions[left.id]

    # Time passes --------------------------------------------------------------------------------

    def tidy(self, now: float) -> None:
        """Take away what is long over, and old news. What is chosen stays for as long as it is."""
        self._drop(
            lambda trouble: (
                not trouble.alert.holds and now - trouble.alert.at.timestamp() >= NEWS_FOR
            )
        )
        for entry in list(self._questions.values()):
            is_old = entry.state is State.OVER and now - entry.over_at >= LINGERS
            if is_old and entry.id != self.chosen:
                del self._questions[entry.id]
        if self.entry is None and not self._is_put_down:
            self.chosen = next((entry.id for entry in self.questions), None)


def _place(name: Name, troubles: Iterable[Trouble]) -> Place:
    each = sorted(troubles, key=lambda one: (-one.alert.severity, one.since))
    return Place(
        name,
        each[0].alert.severity,
        min(one.since for one in each),
        max(one.alert.order for one in each),
        sum(one.times for one in each),
        " · ".join(dict.fromkeys(one.alert.headline for one in each)),
    )


def _answered(entry: Entry) -> Answered:
    return Answered(entry.over_at, entry.asked.name, entry.asked.text, entry.words)


def _keep(memory: OrderedDict[str, V], key: str, value: V) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > MOST:
        memory.popitem(last=False)
