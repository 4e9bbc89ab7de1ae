"""A bare race: ``SET key value NX`` by everybody, on one connection for each process."""

from __future__ import annotations

import asyncio
import time

from benchmarks.contenders.floor import Connection
from benchmarks.contenders.program import Answer, Side, main


class RaceListener(Side):
    """Racers of one process."""

    operations = frozenset({"ready", "hold", "race"})

    def __init__(self, url: str, form: str) -> None:
        super().__init__(url, form)
        self._connection: Connection | None = None
        self._each = 0
        self._subject = ""
        self._count = 0
        self._round = 0

    async def start(self) -> None:
        """Connect."""
        self._connection = await Connection.open(self.url)

    async def ready(self, subject: str, each: int) -> None:
        """So many racers."""
        self._subject, self._each = subject, each

    async def hold(self, count: int) -> None:
        """The next keys to race for."""
        self._count = count
        self._round += 1

    async def race(self) -> Answer:
        """Every racer sets the keys one after another; which it won, and when."""
        began, cpu = time.monotonic_ns(), time.process_time_ns()
        won = await asyncio.gather(*(self._set_all() for _ in range(self._each)))
        return {
            "began_ns": began,
            "ended_ns": time.monotonic_ns(),
            "cpu_us": (time.process_time_ns() - cpu) / 1e3,
            "won": [key for each in won for key in each],
        }

    async def _set_all(self) -> list[str]:
        assert self._connection is not None
        call = self._connection.call
        return [
            key
            for key in keys(self._subject, self._round, self._count)
            if await call("SET", key, "mine", "NX") is not None
        ]

    async def stop(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()


class RaceSource(Side):
    """Says what is raced for."""

    operations = frozenset({"ask", "answered"})

    def __init__(self, url: str, form: str) -> None:
        super().__init__(url, form)
        self._prizes: list[str] = []
        self._round = 0

    async def ask(self, subject: str, count: int) -> Answer:
        """The keys of the next race."""
        self._round += 1
        self._prizes = keys(subject, self._round, count)
        return {"prizes": self._prizes}

    async def answered(self) -> Answer:
        """All of them."""
        return {"answered": self._prizes}


def keys(subject: str, turn: int, count: int) -> list[str]:
    """What is raced for in one round."""
    return [f"{subject}-{turn}-{i}" for i in range(count)]


if __name__ == "__main__":
    main(source=RaceSource, listener=RaceListener)
