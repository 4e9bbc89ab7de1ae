"""Whose a job is: cupsd's events do not say, so it is asked."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Collection

from workers.cups.cupsd.client import Client, Forbidden, IppError, JobFacts, Unreachable
from workers.cups.cupsd.names import NOBODY, owner_of
from workers.cups.events.levels import Owned

log = logging.getLogger("tympan.cups")

MOST = 20_000
"""Jobs that are remembered."""
TOGETHER = 4
"""Above as many jobs one question asks for all that are between them."""
MOST_TOGETHER = 1000
PATIENCE = 20.0
"""Seconds that a job waits for a cupsd that does not answer; then it is nobody's."""
PAUSE = 0.5


class Owners:
    """Of one cupsd's jobs. Where none is known a job is NOBODY's: only administrators hear it."""

    def __init__(self, cups: Client, *, patience: float = PATIENCE) -> None:
        self._cups = cups
        self._patience = patience
        self._known: OrderedDict[int, Owned] = OrderedDict()
        self._is_away = False
        self.are_hidden = False
        """Whether cupsd keeps owners from this client."""

    def of(self, job: int) -> Owned:
        """What is known of a job."""
        return self._known.get(job, Owned(NOBODY))

    def note(self, job: int, owner: str, title: str = "") -> None:
        """Somebody else knows."""
        self._keep(job, Owned(owner_of(owner), title))

    def forget(self, job: int) -> None:
        """Its number is another job's now."""
        self._known.pop(job, None)

    async def find(self, jobs: Collection[int]) -> None:
        """Ask for those that are not known."""
        unknown = sorted(set(jobs) - self._known.keys())
        loop = asyncio.get_running_loop()
        due = loop.time() + (0 if self._is_away else self._patience)
        while unknown:
            try:
                await self._ask(unknown)
            except Unreachable as error:
                if loop.time() >= due:
                    if not self._is_away:
                        log.warning("jobs are taken to be nobody's: %s", error)
                    self._is_away = True
                    return
                await asyncio.sleep(PAUSE)
            else:
                self._is_away = False
                return
            unknown = [job for job in unknown if job not in self._known]

    async def _ask(self, jobs: list[int]) -> None:
        if len(jobs) > TOGETHER and jobs[-1] - jobs[0] < MOST_TOGETHER:
            for facts in await self._together(jobs):
                if facts.id in jobs:
                    self._learn(facts)
        for job in jobs:
            if job not in self._known:
                await self._ask_one(job)

    async def _together(self, jobs: list[int]) -> list[JobFacts]:
        """Those from the first to the last; none where cupsd answers no such question."""
        try:
            return await self._cups.jobs(jobs[0], jobs[-1] - jobs[0] + 1)
        except Unreachable:
            raise
        except IppError as error:
            log.info("jobs are asked for one by one: %s", error)
            return []

    async def _ask_one(self, job: int) -> None:
        try:
            self._learn(await self._cups.job(job))
        except Unreachable:
            raise
        except IppError as error:
            if isinstance(error, Forbidden):
                self._hidden(str(error))
            self._keep(job, Owned(NOBODY))

    def _learn(self, facts: JobFacts) -> None:
        if not facts.owner:
            self._hidden(f"cupsd does not say whose job {facts.id} is")
        held = facts.hold_until not in ("", "no-hold")
        self._keep(facts.id, Owned(owner_of(facts.owner), facts.title, held))

    def _hidden(self, why: str) -> None:
        if not self.are_hidden:
            log.warning(
                "%s to %s: only administrators hear of jobs; let the bridge be somebody of cupsd's "
                "SystemGroups (user in its settings), or set JobPrivateAccess in cupsd.conf",
                why,
                self._cups.user,
            )
        self.are_hidden = True

    def _keep(self, job: int, owned: Owned) -> None:
        self._known[job] = owned
        self._known.move_to_end(job)
        while len(self._known) > MOST:
            self._known.popitem(last=False)
