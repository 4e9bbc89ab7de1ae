"""Processor time that the host took from this machine while a test ran.

Tests with real servers have leases and timeouts of a second or so. On a virtual machine whose host
gives its processors to others (the steal time of proc(5)), a failure may say nothing of the
project. Such a test is played again, with its failure in the report; where the machine had its
processors, a failure is a failure at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path

STAT = Path("/proc/stat")
TICK = 0.25
"""Seconds from one look to the next."""
WINDOW = 1.0
"""Seconds over which the time taken from a processor is summed."""
SHARE = 0.3
"""Of such a time: what is taken beyond it makes a test's failure doubtful."""
REMEMBERED = 600.0
"""Seconds that looks are kept: longer than any test."""
TICKS_A_SECOND = 100
"""The unit of proc(5) on every Linux (USER_HZ)."""


def stolen(stat: str) -> list[float]:
    """Seconds that were taken from each processor since the start, as /proc/stat has them."""
    lines = [line.split() for line in stat.splitlines() if line.startswith("cpu")]
    return [int(words[8]) / TICKS_A_SECOND for words in lines if words[0] != "cpu"]


def worst(looks: list[tuple[float, list[float]]]) -> float:
    """The largest share of some :data:`WINDOW` that was taken from one processor.

    ``looks`` are instants in seconds with :func:`stolen`'s answer, oldest first.
    """
    share, first = 0.0, 0
    for until, (now, taken) in enumerate(looks):
        while first < until and now - looks[first + 1][0] >= WINDOW:
            first += 1
        since, before = looks[first]
        if now - since >= WINDOW:
            lost = max(b - a for a, b in zip(before, taken, strict=True))
            share = max(share, lost / (now - since))
    return share


class Host:
    """Looks at what the host takes, in a thread of its own."""

    def __init__(self, stat: Path = STAT) -> None:
        self._stat = stat
        self._looks: deque[tuple[float, list[float]]] = deque(maxlen=round(REMEMBERED / TICK))
        self._begun = time.monotonic()

    def watch(self) -> None:
        """Look from now on, as long as the process lives; nothing where there is no such file."""
        if self._stat.exists():
            threading.Thread(target=self._keep_looking, name="stolen time", daemon=True).start()

    def begin(self) -> None:
        """A test begins."""
        self._begun = time.monotonic()

    def took_a_processor(self) -> bool:
        """Whether one was taken for so long since the test began that its failure is doubtful."""
        looks = [look for look in list(self._looks) if look[0] >= self._begun - WINDOW]
        return worst(looks) > SHARE

    def _keep_looking(self) -> None:
        while True:
            self._looks.append((time.monotonic(), stolen(self._stat.read_text())))
            time.sleep(TICK)
