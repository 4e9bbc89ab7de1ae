"""Asking: the questions that stand on a print host, who waits for them, and what they come to.

A question is asked once for each (host, job, question), however often the job's backend comes and
goes: each run of it waits for the same inquiry, or has the answer at once. What was decided while
nobody waited is done to the job that cupsd holds: it is released, or canceled.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from broker import Broker, Name
from workers.cups.cupsd.client import IppError
from workers.cups.cupsd.event import Event
from workers.cups.cupsd.state import stem
from workers.cups.dialogs.answers import Answers, Asked, Decision, JobKey, Key
from workers.cups.dialogs.inquiry import Inquiry
from workers.cups.dialogs.job_watch import Cups, JobWatch
from workers.cups.dialogs.ledger import Ledger
from workers.cups.dialogs.questions import Job, Question
from workers.cups.types import Choice

log = logging.getLogger("tympan.cups")

CLEARS_WITHIN = 5.0
"""Seconds after a backend's end in which cupsd takes back some of what that said of its printer."""


def key_of(job: Job) -> JobKey:
    """What a job is remembered by."""
    return JobKey(job.number, job.mark)


class Asking:
    """All of it. It is entered once, and left with the bridge; what stands then is on disk.

    Args:
        broker: open.
        server: the print server.
        host: the ServerName of its cupsd.
        answers: on disk.
        questions: of the settings.
        cups: the cupsd.
    """

    def __init__(
        self,
        broker: Broker,
        server: Name,
        host: str,
        answers: Answers,
        questions: Sequence[Question],
        cups: Cups,
    ) -> None:
        self._broker = broker
        self._server = server
        self._host = host
        self._ledger = Ledger(answers)
        self._questions = tuple(questions)
        self._inquiries: dict[Key, Inquiry] = {}
        self._opening = asyncio.Lock()
        self._waiting: Counter[Key] = Counter()
        """How many runs wait for an inquiry."""
        self._runs: dict[JobKey, list[Callable[[Decision], None]]] = {}
        """For each job that a run of its backend is there for: who is told what is decided."""
        self._watch = JobWatch(
            cups, self._ledger, self._runs.__contains__, self._job_over, self._was_held
        )
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Asking:
        for asked in await self._ledger.load():
            if asked.decision is None:
                self._spawn(self._restore(asked))
            elif not asked.is_obeyed:
                self._spawn(self._obey(asked.key))
            self._watch.look(asked.key.job.number)
        self._spawn(self._watch.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._ledger.close()

    # Runs of backends ---------------------------------------------------------------------------

    async def before(self, job: Job) -> list[Question]:
        """The questions that come before a job is printed."""
        found = [question for question in self._questions if question.is_before]
        if job.size is None and any(question.size_over is not None for question in found):
            job = replace(job, size=await self._watch.size(job.number))
        return [question for question in found if question.concerns(job)]

    def during(self, job: Job) -> list[Question]:
        """Those that state reasons of its printer may bring up."""
        return [one for one in self._questions if not one.is_before and one.concerns(job)]

    @asynccontextmanager
    async def attended(self, job: Job, tell: Callable[[Decision], None]) -> AsyncIterator[None]:
        """While a run of the job is there. It is told what ends the job, whoever waited for it."""
        key = key_of(job)
        runs = self._runs.setdefault(key, [])
        runs.append(tell)
        try:
            for asked in self._ledger.of(key):
                if asked.decision is not None and asked.decision.choice == "continue":
                    await self._ledger.obey(asked.key)  # it runs again, whoever had it do so
            yield
        finally:
            runs.remove(tell)
            for asked_about, inquiry in self._inquiries.items():
                if asked_about.job == key:
                    inquiry.left_at = time.time()
            if not runs and self._runs.get(key) is runs:
                del self._runs[key]
            self._watch.look(job.number)

    def verdict(self, job: Job) -> Decision | None:
        """What was decided about the job and not done: it is to be canceled, or held."""
        for asked in self._ledger.of(key_of(job)):
            found = self._ledger.remembered(asked.key)
            is_released = found is not None and found.choice == "hold" and asked.was_held
            if found is not None and found.choice != "continue" and not is_released:
                return found
        return None

    def stands(self, job: Job, question: Question) -> bool:
        """Whether it is asked now."""
        return Key(key_of(job), question.name) in self._inquiries

    async def choice(
        self,
        job: Job,
        question: Question,
        reasons: Iterable[str],
        waits: Callable[[str], None],
    ) -> tuple[Choice, str]:
        """What becomes of the job by this question, and why, in words.

        Asks it where nobody did, and waits as long as the queue may: then it is ``hold``, and the
        question stands. ``waits`` is called with what is waited for.
        """
        key = Key(key_of(job), question.name)
        remembered = self._ledger.remembered(key)
        if remembered is not None:
            return await self._remembered(key, remembered)
        async with self._opening:
            asked = self._ledger.get(key)
            inquiry = self._inquiries.get(key)
            if inquiry is None and asked is not None and asked.decision is None:
                inquiry = self._inquire(asked, again=True)
            if inquiry is None:
                inquiry = await self._ask(job, question, tuple(reasons))
        waits(f"Waiting for an answer: {inquiry.asked.text}")
        self._waiting[key] += 1
        try:
            async with asyncio.timeout(question.blocks_for):
                decision = await asyncio.shield(inquiry.decided)
        except TimeoutError:
            if not inquiry.decided.done():
                return "hold", f"Held until somebody answers: {inquiry.asked.text}"
            decision = inquiry.decided.result()
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]
        return decision.choice, decision.words

    async def resolve(self, job: Job, question: Question) -> None:
        """What brought the question up is over."""
        async with self._opening:
            inquiry = self._inquiries.get(Key(key_of(job), question.name))
        if inquiry is not None:
            inquiry.end("resolved", "continue")

    async def _remembered(self, key: Key, decision: Decision) -> tuple[Choice, str]:
        asked = self._ledger.get(key)
        if decision.choice == "hold" and asked is not None and asked.was_held:
            decision = replace(decision, choice="continue", note="released by hand", at=time.time())
            await self._ledger.decide(key, decision)
            await self._ledger.obey(key)
        return decision.choice, decision.words

    async def _ask(self, job: Job, question: Question, reasons: tuple[str, ...]) -> Inquiry:
        now = time.time()
        asked = Asked(
            Key(key_of(job), question.name),
            *(job.printer, job.owner, job.title, question.text_for(job, reasons), reasons),
            *(question.choices, question.otherwise, now, now + question.time_out),
        )
        await self._ledger.open(asked)
        return self._inquire(asked, again=False)

    # Inquiries ----------------------------------------------------------------------------------

    async def _restore(self, asked: Asked) -> None:
        """Ask again what stood when the bridge before this one ended, unless its job is over."""
        with contextlib.suppress(IppError):  # nobody knows
            if await self._watch.facts(asked.key.job) is None:
                await self._ledger.drop(asked.key)
                return
        async with self._opening:
            if asked.key not in self._inquiries and self._ledger.get(asked.key) == asked:
                self._inquire(asked, again=True)

    def _inquire(self, asked: Asked, *, again: bool) -> Inquiry:
        key = asked.key

        async def keep(decision: Decision) -> None:
            if decision.why == "job-over":
                await self._ledger.drop(key)
            else:
                await self._ledger.decide(key, decision)

        inquiry = Inquiry(self._broker, self._server, self._host, asked, keep, again=again)
        self._inquiries[key] = inquiry
        inquiry.decided.add_done_callback(lambda _: self._ended(inquiry))
        self._spawn(inquiry.run())
        return inquiry

    def _ended(self, inquiry: Inquiry) -> None:
        key = inquiry.asked.key
        del self._inquiries[key]
        decision = inquiry.decided.result()
        log.info("%s: %s %s %s", inquiry, decision.why, decision.choice, decision.by)
        if decision.choice != "continue":
            for tell in self._runs.get(key.job, ()):
                tell(decision)
        if decision.why == "job-over":
            return
        if self._waiting[key]:
            self._spawn(self._ledger.obey(key))
        else:
            self._spawn(self._obey(key))

    async def _obey(self, key: Key) -> None:
        """Nobody waited for what was decided: do it to the job, when cupsd holds it."""
        decided = self._ledger.get(key)
        if decided is None or decided.decision is None:
            return

        def wants() -> bool:
            now = self._ledger.get(key)
            return now is not None and now.decision == decided.decision and not now.is_obeyed

        if await self._watch.do(key.job, decided.decision.choice, wants):
            await self._ledger.obey(key)
            self._watch.look(key.job.number)

    # Jobs ---------------------------------------------------------------------------------------

    async def let_go(self, job: JobKey) -> None:
        """Release a job that was held because no bridge answered: it comes, and is asked about."""
        await self._watch.do(job, "continue", lambda: True)

    def hear(self, event: Event) -> None:
        """An event of cupsd."""
        if event.job:
            self._watch.look(event.job)
        if event.printer and event.printer_state:
            self.printer_changed(event.printer, event.printer_reasons, event.seconds)

    def printer_changed(self, printer: str, reasons: Iterable[str], at: float) -> None:
        """The state reasons of a printer at that time, in seconds since 1970.

        Where nobody prints who would know better, this resolves what they brought up; but not what
        cupsd clears because a job's backend went.
        """
        stems = {stem(reason) for reason in reasons}
        for key, inquiry in self._inquiries.items():
            asked = inquiry.asked
            is_news = at > inquiry.left_at + CLEARS_WITHIN
            is_here = asked.printer.casefold() == printer.casefold() and is_news
            is_gone = asked.reasons and stems.isdisjoint(map(stem, asked.reasons))
            if is_here and is_gone and key.job not in self._runs:
                inquiry.end("resolved", "continue")

    async def _was_held(self, job: JobKey) -> None:
        for asked in self._ledger.of(job):
            decision = asked.decision
            is_held = decision is not None and decision.choice == "hold"
            if is_held and not asked.was_held and job not in self._runs:
                await self._ledger.hold(asked.key)

    async def _job_over(self, job: JobKey) -> None:
        for key, inquiry in self._inquiries.items():
            if key.job == job:
                inquiry.end("job-over", "cancel")
        await self._ledger.end(job)

    # Tasks --------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a question goes no further: a fault of Tympan's", exc_info=task.exception())
