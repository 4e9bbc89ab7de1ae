"""Answering: what a listener at the command line does with a question."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import threading
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, Protocol, TypeVar

from rich.panel import Panel
from rich.text import Text

from broker import Notification, Offer
from broker.errors import OutcomeUnknown, RedisError
from broker.notification_type import describe_type
from workers.cli.output import Output, printable
from workers.cli.payloads import payload_shown
from workers.cli.replies import choices

T = TypeVar("T")

AGAIN = 1.0
"""Seconds before what Redis did not answer is asked again."""
_CHUNK = 65_536


class Silence(Enum):
    """What is not an answer."""

    DECLINE = "decline"
    """Leave the question to the others; in a dialog that is ours, close it."""
    LEAVE = "leave"
    """Do nothing: the question stays open, or is over."""


class Answering(Protocol):
    """How questions are answered."""

    @property
    def shows_questions(self) -> bool:
        """Whether people see a question through this."""

    @property
    def can_think_again(self) -> bool:
        """Whether another answer may come where one does not fit."""

    async def answer(self, offer: Offer[Any], question: Notification[Any]) -> str | Silence:
        """The answer to an offer's notification, the initial one or a later one."""


class Always:
    """Every question gets the same answer, or none."""

    shows_questions = False
    can_think_again = False

    def __init__(self, answer: str | Silence) -> None:
        self._answer = answer

    async def answer(self, offer: Offer[Any], question: Notification[Any]) -> str | Silence:  # noqa: ARG002
        """That answer."""
        return self._answer


class Ask:
    """A person answers, or a program that writes lines to our standard input.

    One question at a time; one that is over meanwhile is withdrawn at once.
    """

    can_think_again = True

    def __init__(self, output: Output, user: str) -> None:
        self._output = output
        self._user = user
        self._turn = asyncio.Lock()
        self._lines: Lines | None = None

    @property
    def shows_questions(self) -> bool:
        """On a terminal, in a panel above the prompt."""
        return self._output.errors.is_terminal and not self._output.as_json

    async def answer(self, offer: Offer[Any], question: Notification[Any]) -> str | Silence:
        """Ask, unless the question is over before its turn, or before its answer, comes."""
        asked = asyncio.create_task(self._asked(offer, question))
        over = asyncio.create_task(offer.wait_closed())
        try:
            await asyncio.wait((asked, over), return_when=asyncio.FIRST_COMPLETED)
            return asked.result() if asked.done() else Silence.LEAVE
        finally:
            asked.cancel()
            over.cancel()
            await asyncio.gather(asked, over, return_exceptions=True)

    async def _asked(self, offer: Offer[Any], question: Notification[Any]) -> str | Silence:
        async with self._turn:
            if self._lines is None:
                self._lines = Lines()
            self._lines.drop_typed()
            self._show(offer, question)
            line: str | None = None
            try:
                line = await self._lines.next()
            finally:
                if line is None and self._lines.is_terminal:
                    self._output.errors.print()  # the cursor still stands behind the prompt
                    self._lines.drop_typed()
        if line is None:
            self._output.note("standard input has ended: questions are only shown from here on")
            return Silence.LEAVE
        return line or Silence.DECLINE

    def _show(self, offer: Offer[Any], question: Notification[Any]) -> None:
        errors = self._output.errors
        if self.shows_questions:
            whom = "all users" if question.user is None else question.user
            title = f"{question.name} asks {whom} ({describe_type(question.type)})"
            errors.print(
                Panel(
                    Text(payload_shown(question.data, question.type, question.model)),
                    title=Text(printable(title)),
                    title_align="left",
                    border_style="cyan",
                )
            )
        verb = "closes the dialog" if offer.is_mine else "declines"
        listed = choices(question)
        prompt = f"answer as {self._user}{listed and f', {listed}'} (an empty line {verb}): "
        errors.print(Text(printable(prompt), "bold"), end="" if errors.is_terminal else "\n")
        errors.file.flush()


class Lines:
    """Lines of standard input, read by a thread.

    The thread reads the descriptor itself: one that sits inside Python's buffered reader would
    hold its lock when the interpreter ends.
    """

    def __init__(self) -> None:
        self._fd = sys.stdin.fileno() if sys.stdin is not None else -1
        self.is_terminal = self._fd >= 0 and os.isatty(self._fd)
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._has_ended = False
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, name="tympan-stdin", daemon=True).start()

    async def next(self) -> str | None:
        """The next line, without its end; None where no more can come."""
        line = None if self._has_ended else await self._queue.get()
        self._has_ended = line is None
        return line

    def drop_typed(self) -> None:
        """On a terminal, what was typed for one question never answers another."""
        if not self.is_terminal:
            return
        termios.tcflush(self._fd, termios.TCIFLUSH)
        while not self._queue.empty():
            self._has_ended |= self._queue.get_nowait() is None

    def _read(self) -> None:
        rest = b""
        with contextlib.suppress(RuntimeError):  # the event loop has ended: nobody reads on
            while chunk := self._chunk():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._hand_over(line)
            if rest:
                self._hand_over(rest)
            self._loop.call_soon_threadsafe(self._queue.put_nowait, None)

    def _chunk(self) -> bytes:
        try:
            return os.read(self._fd, _CHUNK)
        except OSError:  # closed, or the terminal is gone
            return b""

    def _hand_over(self, line: bytes) -> None:
        text = line.removesuffix(b"\r").decode(errors="surrogateescape")
        self._loop.call_soon_threadsafe(self._queue.put_nowait, text)


async def settled(call: Callable[[], Awaitable[T]], tell: Callable[[str], object]) -> T:
    """Ask again through an outage, which ``tell`` is told: the same call gets the first answer."""
    while True:
        try:
            return await call()
        except (RedisError, OutcomeUnknown) as error:
            if not error.retryable:
                raise
            tell(f"{error}; trying again")
        await asyncio.sleep(AGAIN)
