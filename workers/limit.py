"""Limits: how long a run of a handler may take."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


class Overdue(TimeoutError):
    """It took too long, and was broken off."""


class Limit:
    """So many seconds for each of many tasks.

    They are over in the order in which they began, so one timer looks after all of them.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._ends: dict[asyncio.Task[Any], float] = {}
        self._broken: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def keep(self, task: asyncio.Task[Any], work: Awaitable[T]) -> T:
        """What ``work`` returns, awaited in ``task``, which is the present one. Raises Overdue.

        A cancellation from elsewhere passes, as with :func:`asyncio.timeout`.
        """
        self._ends[task] = end = self._loop.time() + self.seconds
        if self._timer is None:
            self._timer = self._loop.call_at(end, self._look)
        try:
            return await work
        except asyncio.CancelledError:
            if task in self._broken and task.cancelling() <= 1:
                raise Overdue(f"not done in {self.seconds:g} s") from None
            raise
        finally:
            del self._ends[task]
            if task in self._broken:
                self._broken.discard(task)
                task.uncancel()

    def _look(self) -> None:
        """Break off what is due, and look again when the next one is."""
        self._timer = None
        now = self._loop.time()
        for task, end in self._ends.items():
            if end > now:
                self._timer = self._loop.call_at(end, self._look)
                return
            if task not in self._broken:
                self._broken.add(task)
                task.cancel()
