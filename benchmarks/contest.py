"""A contest: every contender asked in turn, round after round; what came of it, and against what.

Absolute figures drift with the machine, so contenders meet within a round, and what counts is the
median over the rounds of the ratio in each.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Literal

from benchmarks.party import ContenderAbsent, ContenderFailed

if TYPE_CHECKING:
    from benchmarks.stage import Stage

log = logging.getLogger(__name__)

Figures = Mapping[str, float]
"""What one contender came to in one round, by name."""
Bout = Callable[[], Awaitable[Figures]]
"""Asks one contender, once. Raises ContenderFailed."""


@dataclass(frozen=True)
class Goal:
    """What a line has to come to."""

    relation: Literal["at most", "at least", "more than"]
    bound: float
    of: Literal["ratio", "figure"] = "ratio"
    """Whether the ratio to the other is bound, or Tympan's figure itself."""
    unit: str = "x"

    def is_met_by(self, value: float) -> bool:
        """Whether the value is within the bound."""
        if self.relation == "at most":
            return value <= self.bound
        if self.relation == "at least":
            return value >= self.bound
        return value > self.bound

    def __str__(self) -> str:
        return f"{self.relation} {self.bound:g} {self.unit}"


def at_most(bound: float) -> Goal:
    """The ratio of Tympan's figure to the other's is at most so much."""
    return Goal("at most", bound)


def at_least(bound: float) -> Goal:
    """The ratio of Tympan's figure to the other's is at least so much."""
    return Goal("at least", bound)


def limit(bound: float, unit: str) -> Goal:
    """Tympan's figure itself is at most so much."""
    return Goal("at most", bound, "figure", unit)


AHEAD = Goal("more than", 1.0)
"""More than the other, where more is better."""
BELOW = Goal("at most", 1.0)
"""No more than the other, where less is better."""


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    what: str
    unit: str
    goal: Goal | None
    """None where nothing is asked for, as of the noise."""
    tympan: float | None
    against: str = ""
    """Name of the floor or peer; empty where the figure stands alone."""
    other: float | None = None
    ratio: float | None = None
    low: float | None = None
    """The least ratio of a round."""
    high: float | None = None
    note: str = ""
    """Why something is missing."""

    @classmethod
    def failed(cls, what: str, error: Exception) -> Line:
        """What is said of a row that could not be run."""
        return cls(what, "", None, None, note=f"failed: {type(error).__name__}: {error}")

    @property
    def is_met(self) -> bool:
        """Whether the goal is met; not where there was nothing to compare with."""
        if self.goal is None:
            return False
        value = self.ratio if self.goal.of == "ratio" else self.tympan
        return not self.note and value is not None and self.goal.is_met_by(value)

    @property
    def verdict(self) -> str:
        """``MET`` or ``MISS``; empty without a goal, unless something is missing."""
        if self.goal is None and not self.note:
            return ""
        return "MET" if self.is_met else "MISS"


@dataclass
class Outcome:
    """What the contenders came to, a round each; and why some did not."""

    rounds: dict[str, list[Figures]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def values(self, who: str, figure: str) -> list[float]:
        """One figure of one contender, by round; none where it is missing."""
        if who in self.missing:
            return []
        return [figures[figure] for figures in self.rounds.get(who, [])]

    def median(self, who: str, figure: str) -> float | None:
        """Its median over the rounds."""
        values = self.values(who, figure)
        return median(values) if values else None

    def ratios(self, who: str, other: str, figure: str) -> list[float]:
        """The one's figure over the other's, by round."""
        pairs = zip(self.values(who, figure), self.values(other, figure), strict=False)
        return [one / against for one, against in pairs]

    def best(self, others: Sequence[str], figure: str) -> str:
        """Which of them has the highest median; the first where all are missing."""
        return max(others, key=lambda other: self.median(other, figure) or 0.0)

    def line(
        self,
        what: str,
        figure: str,
        unit: str,
        goal: Goal | None,
        *,
        tympan: str = "Tympan",
        against: str = "",
    ) -> Line:
        """What the contest says about one goal; ``against``: whom Tympan is compared with."""
        note = self.missing.get(tympan) or self.missing.get(against, "")
        ratios = self.ratios(tympan, against, figure) if against else []
        return Line(
            what,
            unit,
            goal,
            self.median(tympan, figure),
            against,
            self.median(against, figure) if against else None,
            median(ratios) if ratios else None,
            min(ratios, default=None),
            max(ratios, default=None),
            note,
        )


async def hold(bouts: Mapping[str, Bout], rounds: int, *, warm_up: bool = True) -> Outcome:
    """Ask every contender in turn, so many rounds, after one that does not count.

    One that fails is asked no more, and what it came to before does not count.
    """
    outcome = Outcome({who: [] for who in bouts})
    for turn in range(rounds + warm_up):
        for who, bout in bouts.items():
            if who in outcome.missing:
                continue
            try:
                figures = await bout()
            except ContenderFailed as error:
                if not isinstance(error, ContenderAbsent):
                    log.warning("%s is out: %s", who, "\n".join([str(error), *notes(error)]))
                outcome.missing[who] = str(error)
                continue
            log.info("round %d: %s: %s", turn, who, figures)
            if turn >= warm_up:
                outcome.rounds[who].append(figures)
    return outcome


def notes(error: BaseException) -> list[str]:
    """What was added to an error."""
    return list(getattr(error, "__notes__", []))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share (0 to 1) of all do not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, max(0, -int(-share * len(ranked) // 1) - 1))]


@dataclass(frozen=True)
class Terms:
    """Under what terms rows are run."""

    rounds: int = 5
    quick: bool = False


@dataclass(frozen=True)
class Row:
    """One row of the issue's table; it may have several lines.

    A row that lacks a contender says so in the lines that need it, and measures the rest.
    """

    name: str
    """On the command line."""
    run: Callable[[Stage, Terms], Awaitable[list[Line]]]
    needs: frozenset[str] = frozenset({"redis"})
    """Which servers of the stage; see :mod:`benchmarks.stage`."""
    quick: bool = False
    """Whether it belongs to the two minutes of ``--quick``."""
