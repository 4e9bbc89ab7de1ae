"""Processor time that was taken from the tests while one of them ran.

Tests with real servers have leases and timeouts of a second or so. On a virtual machine whose host
gives its processors to others (the steal time of proc(5)), or on one that is so busy that a thread
which is due does not run, a failure may say nothing of the project. Such a test is played again,
with its failure in the report; elsewhere a failure is a failure at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

STAT = Path("/proc/stat")
TICK = 0.25
"""Seconds from one look to the next."""
WINDOW = 1.0
"""Seconds over which the time taken from a processor is summed."""
SHARE = 0.3
"""Of such a time: what is taken beyond it makes a test's failure doubtful."""
CALM = 3.0
"""Seconds without such a loss after which the next is not to be expected."""
REMEMBERED = 600.0
"""Seconds that looks are kept: longer than any test."""
WATCHER = "watcher of stolen time"
"""What the thread is called."""
TICKS_A_SECOND = 100
"""The unit of proc(5) on every Linux (USER_HZ)."""


def stolen(stat: str) -> list[float]:
    """Seconds that were taken from each processor since the start, as /proc/stat has them."""
    lines = [line.split() for line in stat.splitlines() if line.startswith("cpu")]
    return [int(words[8]) / TICKS_A_SECOND for words in lines if words[0] != "cpu"]


def worst(looks: list[tuple[float, list[float]]]) -> float:
    """The largest share of some :data:`WINDOW` that was taken from one processor, or from us.

    ``looks`` are instants in seconds, oldest first, each with the seconds that were taken until
    then: from each processor, and from whoever looks.
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


class Machine:
    """Looks at what is taken, in a thread of its own."""

    def __init__(
        self,
        stat: Path = STAT,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        processor_time: Callable[[], float] = time.process_time,
    ) -> None:
        self._stat = stat
        self._clock = clock
        self._sleep = sleep
        self._processor_time = processor_time
        self._looks: deque[tuple[float, list[float]]] = deque(maxlen=round(REMEMBERED / TICK))
        self._late, self._used = 0.0, 0.0
        self._begun = clock()

    def watch(self) -> None:
        """Look from now on, as long as the process lives; nothing where there is no such file."""
        if self._stat.exists():
            threading.Thread(target=self._keep_looking, name=WATCHER, daemon=True).start()

    def begin(self) -> None:
        """A test begins."""
        self._begun = self._clock()

    def lacked_time(self) -> bool:
        """Whether so much was taken since the test began that its failure is doubtful."""
        looks = [look for look in list(self._looks) if look[0] >= self._begun - WINDOW]
        return worst(looks) > SHARE

    def lost(self, seconds: float) -> float:
        """How many of the last so many seconds the host took from the processor that lost most."""
        since = self._clock() - seconds
        looks = [taken[:-1] for at, taken in list(self._looks) if at >= since - TICK]
        return max(b - a for a, b in zip(looks[0], looks[-1], strict=True)) if looks else 0.0

    def wait(self, seconds: float) -> None:
        """Wait until nothing was taken for :data:`CALM`, for so many seconds at the most."""
        due = self._clock() + seconds
        self.begin()
        while self._clock() < min(due, self._begun + CALM):
            self._sleep(TICK)
            if self.lacked_time():
                self.begin()

    def look(self, due: float) -> None:
        """Look once; it should have been at that instant.

        A thread also waits for its own process's others; that is not taken from anybody.
        """
        now, used = self._clock(), self._processor_time()
        self._late += max(0.0, now - due - (used - self._used))
        self._used = used
        self._looks.append((now, [*stolen(self._stat.read_text()), self._late]))

    def _keep_looking(self) -> None:
        due = self._clock()
        while True:
            self.look(due)
            due = self._clock() + TICK
            self._sleep(TICK)
