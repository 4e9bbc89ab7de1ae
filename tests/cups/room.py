"""A bridge's questions without the rest of it: a cupsd that is none, and people who listen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from broker import BIDIRECTIONAL, Broker, Name, Offer, Registration
from tests.farm import PATIENCE, Farm
from workers.cups.cupsd.client import Forbidden, JobFacts, NotFound, Unreachable
from workers.cups.dialogs.answers import Answers
from workers.cups.dialogs.asking import Asking
from workers.cups.dialogs.questions import Job, parse_questions
from workers.cups.types import Choice, JobQuestion, JobState, QuestionOver

SERVER = Name("print01")
PRINTER = r"\\print01\laser-3"
UUID = "urn:uuid:17"
JOB = Job(17, f"{UUID}/1795", "Laser-3", "alice", "report", copies=3)
EMPTY = ("media-empty-error",)
COST: dict[str, Any] = {"name": "cost", "when": "before", "text": "Print “{title}”?"}
PAPER: dict[str, Any] = {
    "name": "paper", "when": "media-empty", "text": "No paper. Go on?", "block_for": 30
}  # fmt: skip
Turn = tuple[Choice, str]


class FakeCups:
    """A cupsd with jobs, and without printers."""

    def __init__(self) -> None:
        self.jobs: dict[int, JobState] = {17: "processing"}
        self.uuid = UUID
        self.done: list[str] = []
        self.is_away = False
        self.answers = asyncio.Event()
        self.answers.set()
        self.forbids = False

    async def job(self, job: int) -> JobFacts:
        await self.answers.wait()
        if self.is_away:
            raise Unreachable("no cupsd")
        if job not in self.jobs:
            raise NotFound("no such job", 0x0406)
        return JobFacts(
            job, "Laser-3", "alice", "report", self.jobs[job], (), "", 0, 12_000, self.uuid
        )

    async def release_job(self, job: int) -> None:
        self._do("release", job, "pending")

    async def cancel_job(self, job: int) -> None:
        self._do("cancel", job, "canceled")

    def _do(self, what: str, job: int, state: JobState) -> None:
        if self.forbids:
            raise Forbidden("not yours", 0x0403)
        self.done.append(f"{what} {job}")
        self.jobs[job] = state


class Room:
    """A bridge's questions, and the people who hear them."""

    def __init__(self, farm: Farm, folder: Path) -> None:
        self.farm = farm
        self.cups = FakeCups()
        self.path = folder / "answers"
        self.tables: list[dict[str, Any]] = [COST, PAPER]
        self.asking: Asking
        self._broker: Broker
        self._tasks: list[asyncio.Task[Any]] = []

    async def open(self) -> None:
        """A bridge starts."""
        self._broker = await self.farm.broker("lp")
        questions = parse_questions(self.tables)
        answers = Answers(self.path, "print01")
        self.asking = Asking(self._broker, SERVER, "print01", answers, questions, self.cups)
        await self.asking.__aenter__()

    async def close(self) -> None:
        """It ends, and its broker with it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.asking.__aexit__()
        await self._broker.close()

    async def restart(self, **changed: Any) -> None:
        """Another bridge, perhaps with questions changed."""
        await self.close()
        self.tables = [table | changed for table in self.tables]
        await self.open()

    def task(self, work: Coroutine[Any, Any, Turn]) -> asyncio.Task[Turn]:
        """Something that goes on meanwhile."""
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task

    def run(self, question: str = "cost", job: Job = JOB) -> asyncio.Task[Turn]:
        """A run of the job's backend that comes to a question."""

        async def attend() -> Turn:
            (found,) = [one for one in self.asking._questions if one.name == question]
            reasons = () if found.is_before else EMPTY
            async with self.asking.attended(job, lambda _: None):
                return await self.asking.choice(job, found, reasons, lambda _: None)

        return self.task(attend())

    async def hears(self, user: str = "alice", **options: Any) -> Registration[JobQuestion]:
        """Somebody listens."""
        broker = await self.farm.broker(user)
        return await broker.register(PRINTER, JobQuestion, style=BIDIRECTIONAL, **options)


async def offered(registration: Registration[JobQuestion]) -> Offer[JobQuestion]:
    """The next question that somebody hears."""
    offer = await registration.fetch(PATIENCE)
    assert isinstance(offer, Offer), "no question came"
    return offer


async def over(offer: Offer[JobQuestion]) -> QuestionOver:
    """What somebody is told at its end."""
    closing = await offer.wait_closed(PATIENCE)
    assert closing is not None, "nobody told it"
    return closing.reason.decode(QuestionOver)


async def result(run: asyncio.Task[Turn]) -> Choice:
    """What a run comes to."""
    return (await asyncio.wait_for(run, PATIENCE))[0]


async def until(holds: Callable[[], Any]) -> None:
    """Return when a condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - nothing rings when it comes to hold
            await asyncio.sleep(0.01)
