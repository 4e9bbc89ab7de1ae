"""Cases: what is shown, and how it came out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.cups.farm.stage import Stage

Play = Callable[[Stage], Awaitable[str]]


@dataclass(frozen=True)
class Case:
    """One of them. Its play returns what was seen, in a line, and raises AssertionError."""

    letter: str
    promise: str
    play: Play
    poll: float = 0
    hosts: int = 3
    needs: int = 1
    """Hosts that the test run gives it."""
    saves_after: int = 0
    """Of the cupsds: with 0 each event waits for the disk."""
    is_short: bool = True
    """Whether the test run plays it."""


@dataclass(frozen=True)
class Outcome:
    """A case that was played."""

    case: Case
    seconds: float
    saw: str = ""
    fault: str = ""

    @property
    def holds(self) -> bool:
        """Whether it held."""
        return not self.fault


@dataclass
class Cases:
    """All of them, in order."""

    all: list[Case] = field(default_factory=list)

    def add(
        self,
        letter: str,
        promise: str,
        *,
        poll: float = 0,
        hosts: int = 3,
        needs: int = 1,
        saves_after: int = 0,
        is_short: bool = True,
    ) -> Callable[[Play], Play]:
        """Declare a function as one."""

        def declare(play: Play) -> Play:
            self.all.append(Case(letter, promise, play, poll, hosts, needs, saves_after, is_short))
            return play

        return declare
