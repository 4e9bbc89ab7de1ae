"""Cases: what is broken, how often, and what was seen.

A case is an asynchronous function of its extent, made known by :func:`case`. It sets its own stage
(servers, proxies, processes), breaks something again and again, and reports.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum

from tests.stolen import Machine

MACHINE = Machine()
"""Whose time is looked at while a case is played."""
LATE = "recoveries late for want of a processor"
RECOVERED_WITHIN = 5.0
"""Seconds from the end of a fault until everybody consumes again, without a restart."""


class Extent(Enum):
    """How much is run: in the test run, by ``make faults``, by ``make faults-long``."""

    SHORT = 0
    USUAL = 1
    LONG = 2

    def of(self, short: int, usual: int, long: int) -> int:
        """Which of the three numbers holds."""
        return (short, usual, long)[self.value]


@dataclass
class Report:
    """What one case saw."""

    runs: int = 0
    """How often something was broken."""
    checked: Counter[str] = field(default_factory=Counter)
    """What was checked, in the plural, and how many of it: dialogs, notifications, keys."""
    violations: list[str] = field(default_factory=list)
    """Broken promises, each with all that is needed to understand it."""
    recovered: list[float] = field(default_factory=list)
    """Seconds from the end of a fault until everybody consumed again, one a fault."""
    lost: Counter[str] = field(default_factory=Counter)
    """What was lost where no promise covers it, by kind."""

    def recovers(self, seconds: float, what: str, within: float = RECOVERED_WITHIN) -> None:
        """Note a recovery that is just over; one that took longer than ``within`` breaks a promise.

        Not so where it is the time that the host took from a processor: that is counted, and shown.
        """
        self.recovered.append(seconds)
        if seconds <= within:
            return
        if math.isfinite(seconds) and seconds - MACHINE.lost(seconds) <= within:
            self.lost[LATE] += 1
        else:
            self.violations.append(
                f"{what}: consumed again after {seconds:.1f} s, not {within:.1f}"
            )


Play = Callable[[Extent], Awaitable[Report]]


@dataclass(frozen=True)
class Case:
    """One kind of fault."""

    name: str
    """As the table shows it: what is broken."""
    promise: str
    """What must hold all the same, in one line."""
    play: Play
    is_short: bool
    """Whether the test run plays it, too."""
    is_alone: bool = False
    """Whether no other case is played beside it: it measures what needs all processors."""


CASES: dict[str, Case] = {}
_seeds = [0]


def sow(seed: int) -> None:
    """What cases draw from here on follows from this number."""
    _seeds[0] = seed


def chance(what: str) -> random.Random:
    """Draws that are the same in each run with the same ``--seed``."""
    return random.Random(f"{_seeds[0]}:{what}")


def case(
    name: str, promise: str, *, is_short: bool = False, is_alone: bool = False
) -> Callable[[Play], Play]:
    """Make a function known as a case."""

    def known(play: Play) -> Play:
        assert name not in CASES, name
        CASES[name] = Case(name, promise, play, is_short, is_alone)
        return play

    return known
