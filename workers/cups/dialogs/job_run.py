"""A run of a job's backend, as the bridge follows it: what it is told, and what it tells."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workers.cups.dialogs.answers import Decision
from workers.cups.dialogs.asking import Asking
from workers.cups.dialogs.options import parse_options
from workers.cups.dialogs.questions import Job, Question
from workers.cups.printing import slip
from workers.cups.types import Choice

SETTLES = 2.0
"""Seconds for which a state reason stands before it is asked about."""
STILL_EVERY = 15.0
"""Seconds between two signs of life: well below what a backend takes for silence."""
_MOST_REASONS = 64
_LONGEST_REASON = 256


class Hello(BaseModel):
    """A backend's first line."""

    model_config = ConfigDict(frozen=True)

    version: int
    job: int = Field(ge=1)
    printer: str = Field(min_length=1, max_length=slip.LONGEST_WORD)
    owner: str = Field(max_length=slip.LONGEST_WORD)
    mark: str = Field(default="", max_length=slip.LONGEST_WORD)
    title: str = Field(default="", max_length=slip.LONGEST_WORD)
    copies: int = 1
    options: str = Field(default="", max_length=slip.LONGEST_OPTIONS)
    size: int | None = None
    printing: bool = False

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self:
        """From a line. Raises Misspoken, which says what is wrong with it."""
        if said["say"] != "job":
            raise slip.Misspoken(f"the first word is 'job', not {said['say']!r}")
        if said.get("version") != slip.VERSION:
            raise slip.Misspoken(
                f"the backend speaks version {said.get('version')!r}, this bridge {slip.VERSION}: "
                "run `tympan cups install` again, and restart the bridge"
            )
        try:
            return cls.model_validate(said)
        except ValidationError as error:
            where = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors())
            raise slip.Misspoken(f"what it says of its job is no good: {where}") from None

    @property
    def facts(self) -> Job:
        """The job."""
        return Job(
            self.job,
            self.mark,
            self.printer,
            self.owner,
            self.title,
            self.copies,
            parse_options(self.options),
            self.size,
        )


class JobRun:
    """One of them.

    Args:
        asking: where questions stand.
        hello: what it said first.
        say: tells it a word, with a text for people.
        settles: seconds for which a state reason stands before it is asked about.
    """

    def __init__(
        self,
        asking: Asking,
        hello: Hello,
        say: Callable[[str, str], None],
        settles: float = SETTLES,
    ) -> None:
        self.job = hello.facts
        self._asking = asking
        self._is_printing = hello.printing
        self._say = say
        self._settles = settles
        self._gone: dict[str, asyncio.Event] = {}
        """For each question that the printer's state has brought up: that this is over."""
        self._is_told = False

    async def follow(self, lines: AsyncIterator[Mapping[str, Any]]) -> None:
        """Until it says that it is over, or its lines end.

        Raises an ExceptionGroup of what went wrong, Misspoken among it.
        """
        self._say("heard", "")
        attended = self._asking.attended(self.job, self._end)
        tasks: set[asyncio.Task[None]] = set()
        async with attended, asyncio.TaskGroup() as group:

            def begin(work: Coroutine[Any, Any, None]) -> None:
                task = group.create_task(work)
                tasks.add(task)
                task.add_done_callback(tasks.discard)

            begin(self._live())
            if not self._is_printing:
                begin(self._begin())
            async for said in lines:
                match said["say"]:
                    case "reasons":
                        for work in self._judged(_words(said.get("reasons"))):
                            begin(work)
                    case "stopped" | "over":
                        break
            for task in tasks:
                task.cancel()

    async def _live(self) -> None:
        while True:
            await asyncio.sleep(STILL_EVERY)
            self._say("still", "")

    def _end(self, decision: Decision) -> None:
        """It is to be canceled, or held."""
        self._tell(decision.choice, decision.words)

    def _tell(self, choice: Choice, why: str) -> None:
        """What becomes of the job; once."""
        if not self._is_told and choice != "continue":
            self._is_told = True
            self._say(choice, why)

    async def _begin(self) -> None:
        """Ask what comes before, one after the other; then it may print."""
        verdict = self._asking.verdict(self.job)
        if verdict is not None:
            self._end(verdict)
            return
        for question in await self._asking.before(self.job):
            choice, why = await self._asking.choice(self.job, question, (), self._waits)
            if choice != "continue":
                self._tell(choice, why)
                return
        self._say("print", "")

    def _waits(self, text: str) -> None:
        self._say("wait", text)

    def _judged(self, reasons: list[str]) -> list[Coroutine[Any, Any, None]]:
        """What there is to do because these reasons are in force now, and no others."""
        found: list[Coroutine[Any, Any, None]] = []
        for question in self._asking.during(self.job):
            raised = question.raised_by(reasons)
            if raised and question.name not in self._gone:
                gone = self._gone[question.name] = asyncio.Event()
                found.append(self._ask(question, raised, gone))
            elif not raised and question.name in self._gone:
                self._gone.pop(question.name).set()
            elif not raised and self._asking.stands(self.job, question):
                found.append(self._resolve_later(question))
        return found

    async def _ask(self, question: Question, reasons: tuple[str, ...], gone: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settles):
                await gone.wait()
                return
        resolving = asyncio.create_task(self._resolve(question, gone))
        try:
            choice, why = await self._asking.choice(self.job, question, reasons, lambda _: None)
        finally:
            resolving.cancel()
        self._tell(choice, why)

    async def _resolve_later(self, question: Question) -> None:
        """An earlier run asked; this one's printer has yet to say whether that is over."""
        await asyncio.sleep(self._settles)
        if question.name not in self._gone:
            await self._asking.resolve(self.job, question)

    async def _resolve(self, question: Question, gone: asyncio.Event) -> None:
        await gone.wait()
        await self._asking.resolve(self.job, question)


def _words(reasons: object) -> list[str]:
    """State reasons, as far as they are some."""
    if not isinstance(reasons, list):
        raise slip.Misspoken("reasons are a list of words")
    words = [one for one in reasons if isinstance(one, str) and len(one) <= _LONGEST_REASON]
    return words[:_MOST_REASONS]
