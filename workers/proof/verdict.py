"""The verdict on a play: each invariant with what was checked and what was found. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from workers.proof.history import History
from workers.proof.invariants import INVARIANTS, Invariant, Violation


@dataclass(frozen=True)
class Line:
    """One invariant, judged."""

    invariant: Invariant
    checked: int
    violations: Sequence[Violation]

    @property
    def row(self) -> tuple[str, str, str, str]:
        """For the table."""
        checked = f"{self.checked:,} {self.invariant.counted}"
        return self.invariant.name, checked, f"{len(self.violations):,}", self.invariant.rules

    def record(self) -> dict[str, Any]:
        """For programs."""
        return {
            "invariant": self.invariant.name,
            "rules": self.invariant.rules,
            "checked": self.checked,
            "counted": self.invariant.counted,
            "violations": [{"where": one.where, "what": one.what} for one in self.violations],
        }


HEADINGS = ("INVARIANT", "CHECKED", "VIOLATIONS", "RULES")


@dataclass(frozen=True)
class Verdict:
    """All invariants, judged."""

    lines: Sequence[Line]

    @classmethod
    def on(cls, history: History) -> Verdict:
        """Judge a history."""
        return cls([Line(one, one.count(history), one.violations(history)) for one in INVARIANTS])

    @property
    def violations(self) -> list[Violation]:
        """All broken promises."""
        return [one for line in self.lines for one in line.violations]

    @property
    def unchecked(self) -> list[str]:
        """Invariants of which the history has nothing to judge them by: they prove nothing."""
        return [line.invariant.name for line in self.lines if not line.checked]

    @property
    def holds(self) -> bool:
        """Whether every invariant was checked, and none broken."""
        return not self.violations and not self.unchecked

    @property
    def sentence(self) -> str:
        """In one line."""
        if self.violations:
            broken = [line.invariant.name for line in self.lines if line.violations]
            many = len(self.violations)
            plural = "" if many == 1 else "s"
            return f"BROKEN: {many:,} violation{plural}, of: {'; '.join(broken)}"
        if self.unchecked:
            return f"NOT PROVED: nothing was seen to judge by, of: {'; '.join(self.unchecked)}"
        checks = sum(line.checked for line in self.lines)
        return f"Holds: {len(self.lines)} invariants, {checks:,} checks, no violation"


def recovery(seconds: Sequence[float]) -> str:
    """How long it took until all went on, for people; empty where nothing was broken."""
    if not seconds:
        return ""
    return f"{median(seconds):.2f} s (median), {max(seconds):.2f} s (worst)"


def recovery_record(seconds: Sequence[float]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "count": len(seconds),
        "median": median(seconds) if seconds else None,
        "worst": max(seconds, default=None),
    }
