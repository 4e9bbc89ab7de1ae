"""The ledger: every question of this host whose job is not over, in memory and on disk."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from workers.cups.dialogs.answers import Answers, Asked, Decision, JobKey, Key

log = logging.getLogger("tympan.cups")

_STANDS = ("answered", "timed-out")
"""Ends that hold for the job's whole life. What was resolved may come up again."""


class Ledger:
    """What was asked and decided. What the disk does not take, the next bridge asks again."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._asked: dict[int, dict[Key, Asked]] = {}
        """By the job's number."""
        self._writes: set[asyncio.Task[None]] = set()

    async def load(self) -> list[Asked]:
        """All there is, in the order in which it was asked. Raises sqlite3.Error."""
        found = await asyncio.to_thread(self._answers.all)
        for asked in found:
            self._set(asked)
        return found

    @property
    def numbers(self) -> set[int]:
        """Of all jobs that it knows."""
        return set(self._asked)

    def knows(self, number: int) -> bool:
        """Whether it knows a job of that number."""
        return number in self._asked

    def jobs(self, number: int) -> set[JobKey]:
        """Jobs of that number: more than one where a cupsd began to count anew."""
        return {key.job for key in self._asked.get(number, ())}

    def of(self, job: JobKey) -> list[Asked]:
        """About one job."""
        known = self._asked.get(job.number, {})
        return [asked for asked in known.values() if asked.key.job == job]

    def get(self, key: Key) -> Asked | None:
        """One of them."""
        return self._asked.get(key.job.number, {}).get(key)

    def remembered(self, key: Key) -> Decision | None:
        """What is not asked again."""
        asked = self.get(key)
        decision = asked.decision if asked else None
        return decision if decision is not None and decision.why in _STANDS else None

    async def open(self, asked: Asked) -> None:
        """A question stands from now on."""
        self._set(asked)
        await self._keep(self._answers.open, asked)

    async def decide(self, key: Key, decision: Decision) -> None:
        """It was decided."""
        self._change(key, decision=decision, is_obeyed=False, was_held=False)
        await self._keep(self._answers.decide, key, decision)

    async def obey(self, key: Key) -> None:
        """The job does what was decided."""
        self._change(key, is_obeyed=True)
        await self._keep(self._answers.obey, key)

    async def hold(self, key: Key) -> None:
        """The job was seen held, as was decided."""
        self._change(key, was_held=True)
        await self._keep(self._answers.hold, key)

    async def drop(self, key: Key) -> None:
        """It is over undecided, with its job."""
        self._remove(key)
        await self._keep(self._answers.drop, key)

    async def end(self, job: JobKey) -> None:
        """The job is over: what was decided about it counts no more."""
        for asked in self.of(job):
            if asked.decision is not None:
                self._remove(asked.key)
        await self._keep(self._answers.end, job, time.time())

    async def forget(self) -> None:
        """Delete what is kept for nobody."""
        await self._keep(self._answers.forget, time.time())

    async def close(self) -> None:
        """Close the file, with all that it was given."""
        await asyncio.gather(*self._writes, return_exceptions=True)
        await asyncio.to_thread(self._answers.close)

    def _change(self, key: Key, **facts: Any) -> None:
        asked = self.get(key)
        if asked is not None:
            self._set(replace(asked, **facts))

    def _set(self, asked: Asked) -> None:
        self._asked.setdefault(asked.key.job.number, {})[asked.key] = asked

    def _remove(self, key: Key) -> None:
        known = self._asked.get(key.job.number, {})
        known.pop(key, None)
        if not known:
            self._asked.pop(key.job.number, None)

    async def _keep(self, write: Callable[..., None], *what: object) -> None:
        writing = asyncio.create_task(asyncio.to_thread(write, *what))
        self._writes.add(writing)
        writing.add_done_callback(self._writes.discard)
        try:
            await asyncio.shield(writing)  # whoever is cancelled has told the memory already
        except sqlite3.Error as error:
            log.error("questions and answers cannot be kept (%s): %s", write.__name__, error)  # noqa: TRY400
