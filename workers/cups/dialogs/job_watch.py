"""What cupsd says of jobs that were asked about, and what is done to those that it holds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from workers.cups.cupsd.client import Forbidden, IppError, JobFacts, NotFound
from workers.cups.cupsd.state import OVER
from workers.cups.dialogs.answers import JobKey
from workers.cups.dialogs.inquiry import pauses
from workers.cups.dialogs.ledger import Ledger
from workers.cups.types import Choice

log = logging.getLogger("tympan.cups")

LOOK_EVERY = 30.0
"""Seconds between two looks at jobs of which no event came."""
LOOK_SOON = 1.0
"""The same of one that is about to change."""
FORGET_EVERY = 3600.0
FORBIDDEN = (
    "cupsd lets only a job's owner and its administrators do that, or does not believe that this "
    "is one (the setting `user`): in cupsd.conf, add who runs this to `Require user @OWNER "
    "@SYSTEM` of the <Limit>s that name Release-Job and Cancel-Job, and set `user` to that"
)
"""What to do about a cupsd that does not let the bridge release or cancel jobs."""


class Cups(Protocol):
    """What is needed of cupsd; see :class:`workers.cups.cupsd.client.Client`."""

    async def job(self, job: int) -> JobFacts:
        """A job. Raises NotFound, IppError."""

    async def release_job(self, job: int) -> None:
        """Let a held job print. Raises IppError."""

    async def cancel_job(self, job: int) -> None:
        """Cancel it. Raises IppError."""


class JobWatch:
    """Looks at jobs, when told so, and now and then at all that the ledger knows.

    Args:
        cups: the cupsd.
        ledger: what was asked.
        attends: whether a run of the job's backend is there.
        over: called with a job that is over.
        held: called with one that is held.
    """

    def __init__(
        self,
        cups: Cups,
        ledger: Ledger,
        attends: Callable[[JobKey], bool],
        over: Callable[[JobKey], Awaitable[None]],
        held: Callable[[JobKey], Awaitable[None]],
    ) -> None:
        self._cups = cups
        self._ledger = ledger
        self._attends = attends
        self._over = over
        self._held = held
        self._to_look: set[int] = set()
        self._bell = asyncio.Event()

    def look(self, number: int) -> None:
        """Something became of this job, perhaps."""
        if self._ledger.knows(number):
            self._to_look.add(number)
            self._bell.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        looks = forgets = loop.time()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(looks):
                    await self._bell.wait()
            self._bell.clear()
            numbers, self._to_look = self._to_look, set()
            if loop.time() >= looks:
                looks = loop.time() + LOOK_EVERY
                numbers = self._ledger.numbers
            for number in numbers:
                await self._look_at(number)
            if loop.time() >= forgets:
                forgets = loop.time() + FORGET_EVERY
                await self._ledger.forget()

    async def _look_at(self, number: int) -> None:
        for job in self._ledger.jobs(number):
            try:
                facts = await self.facts(job)
            except IppError as error:
                log.debug("job %d cannot be looked at: %s", number, error)
                self._look_again(number)
                return
            if facts is None:
                await self._over(job)
            elif facts.state == "held":
                await self._held(job)
            elif facts.state == "processing" and not self._attends(job):
                self._look_again(number)

    def _look_again(self, number: int) -> None:
        asyncio.get_running_loop().call_later(LOOK_SOON, self.look, number)

    async def facts(self, job: JobKey) -> JobFacts | None:
        """Of a job; None where it is over, or another one has its number. Raises IppError."""
        try:
            facts = await self._cups.job(job.number)
        except NotFound:
            return None
        is_other = facts.uuid and job.mark and facts.uuid not in job.mark
        return None if is_other or facts.state in OVER else facts

    async def size(self, number: int) -> int | None:
        """Bytes of a job's documents; None where nobody knows."""
        try:
            return (await self._cups.job(number)).kilobytes * 1024
        except IppError as error:
            log.warning("job %d: its size is not known, and taken for small: %s", number, error)
            return None

    async def do(self, job: JobKey, choice: Choice, wants: Callable[[], bool]) -> bool:
        """Do that to a job, once cupsd has it, for as long as it is wanted; whether it was done.

        A held job is released or canceled; one that is pending comes by itself.
        """
        told = ""
        for pause in pauses():
            if not wants():
                return False
            try:
                if await self._try(job, choice):
                    return True
            except IppError as error:
                if str(error) != told:
                    told = str(error)
                    hint = FORBIDDEN if isinstance(error, Forbidden) else "trying again"
                    log.warning("job %d is to %s: %s; %s", job.number, choice, error, hint)
            await asyncio.sleep(pause)
        raise AssertionError("it is tried for ever")

    async def _try(self, job: JobKey, choice: Choice) -> bool:
        facts = await self.facts(job)
        if facts is None:
            return True
        if choice == "cancel":
            await self._cups.cancel_job(job.number)
            return True
        if choice == "continue" and facts.state == "held":
            await self._cups.release_job(job.number)
        return facts.state != "processing"
