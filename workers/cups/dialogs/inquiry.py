"""An inquiry: one question while it stands, and the channels on which it is asked."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import TypeVar

from broker import BIDIRECTIONAL, Broker, Channel, Name
from broker.errors import (
    BodyGone,
    ChannelAlreadyClosed,
    ChannelNotOpened,
    InvalidType,
    NotDurable,
    PayloadInvalid,
    ResponseTimeout,
    TympanError,
)
from broker.notification import Response
from workers.cups.cupsd.names import name_of, owner_of
from workers.cups.dialogs.answers import Asked, Decision
from workers.cups.types import Choice, JobAnswer, JobQuestion, QuestionOver, Why

log = logging.getLogger("tympan.cups")

SECOND_TRY = 60.0
"""Seconds that somebody has whose answer was none; then everybody is asked anew."""
_PAUSES = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_LONGEST_PAUSE = 30.0
_SHOWN = 40
T = TypeVar("T")


def pauses() -> Iterator[float]:
    """Seconds before the next try, and the one after it, and so on."""
    yield from _PAUSES
    while True:
        yield _LONGEST_PAUSE


class Inquiry:
    """Asked on a channel of the job's owner, and again where that ended without an answer.

    Args:
        broker: open; while its Redis is away the question stands, and its time runs.
        server: the print server.
        host: the ServerName of its cupsd.
        asked: the question.
        keep: puts a decision on disk; only then it counts.
        again: whether it was asked before.
    """

    def __init__(
        self,
        broker: Broker,
        server: Name,
        host: str,
        asked: Asked,
        keep: Callable[[Decision], Awaitable[None]],
        *,
        again: bool,
    ) -> None:
        self.asked = asked
        self.decided: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        """The decision, once it is on disk."""
        self.left_at = asked.asked_at
        """When the last run of the job went, in seconds since 1970."""
        self._broker = broker
        self._name = name_of(server, asked.printer)
        self._host = host
        self._keep = keep
        self._again = again
        self._over: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        self._channel: Channel | None = None

    def end(self, why: Why, choice: Choice) -> None:
        """It is over without an answer; ``choice`` is for who waits."""
        if not self._over.done():
            self._over.set_result(Decision(why, choice, at=time.time()))

    async def run(self) -> None:
        """Until it is decided, and who was asked is told."""
        answering = asyncio.create_task(self._answer())
        try:
            decision = await self._decision(answering)
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
        await self._keep(decision)
        self.decided.set_result(decision)
        await self._close(decision)

    async def _decision(self, answering: asyncio.Task[Decision]) -> Decision:
        left = max(0.0, self.asked.until - time.time())
        await asyncio.wait(
            {answering, self._over}, timeout=left, return_when=asyncio.FIRST_COMPLETED
        )
        if answering.done():
            return answering.result()
        if self._over.done():
            return self._over.result()
        return Decision("timed-out", self.asked.otherwise, at=time.time())

    # Asking -------------------------------------------------------------------------------------

    async def _answer(self) -> Decision:
        tries = pauses()
        while True:
            since = time.monotonic()
            try:
                decision = await self._ask()
                if decision is not None:
                    return decision
                log.info("%s: its dialog ended without an answer; it is asked again", self)
            except TympanError as error:
                log.warning("%s cannot be asked now: %s", self, error)
                await self._close(Decision("withdrawn", "continue"))
            self._again = True
            if time.monotonic() - since > _LONGEST_PAUSE:
                tries = pauses()
            await asyncio.sleep(next(tries))

    async def _ask(self) -> Decision | None:
        """The answer; None where the dialog ended without one. Raises TympanError."""
        channel = self._channel = await self._broker.open_channel(
            self._name, JobQuestion, user=owner_of(self.asked.owner), style=BIDIRECTIONAL
        )
        await self._send(channel, self._question(self.asked.text))
        try:
            return await self._hear(channel)
        except ChannelAlreadyClosed:
            return None

    async def _hear(self, channel: Channel) -> Decision | None:
        patience = None
        while True:
            try:
                response = await channel.response(patience)
            except ResponseTimeout:
                await self._finish(channel, QuestionOver(why="withdrawn"))
                return None
            choice, note = _read(response)
            if choice in self.asked.choices:
                return Decision("answered", choice, response.by, note, time.time())
            log.info("%s: %s answered what is no choice: %.*r", self, response.by, _SHOWN, choice)
            if response.is_final:
                return None
            offered = ", ".join(self.asked.choices)
            shown = choice if len(choice) <= _SHOWN else choice[:_SHOWN] + "…"
            await self._send(
                channel,
                self._question(f"“{shown}” is none of: {offered}. {self.asked.text}"),
            )
            patience = SECOND_TRY

    def _question(self, text: str) -> JobQuestion:
        asked = self.asked
        (job, mark), question = asked.key
        return JobQuestion(
            host=self._host,
            event="/".join(filter(None, (self._host, "job", str(job), mark, question))),
            at=_time(asked.asked_at),
            printer=asked.printer,
            job=job,
            title=asked.title,
            owner=asked.owner,
            question=question,
            text=text,
            reasons=list(asked.reasons),
            choices=list(asked.choices),
            until=_time(asked.until),
            otherwise=asked.otherwise,
            again=self._again,
        )

    # Ending -------------------------------------------------------------------------------------

    async def _close(self, decision: Decision) -> None:
        channel = self._channel
        if channel is None or not channel.is_open:
            return
        choice = decision.choice if decision.why in ("answered", "timed-out") else None
        reason = QuestionOver(why=decision.why, choice=choice, by=decision.by)
        await self._finish(channel, reason)

    async def _finish(self, channel: Channel, reason: QuestionOver) -> None:
        try:
            await self._persist(lambda: channel.close(reason))
        except ChannelAlreadyClosed:
            return
        except ChannelNotOpened:
            await self._persist(channel.release)
        except TympanError as error:
            log.warning("%s is over, but cannot be closed: %s", self, error)

    async def _send(self, channel: Channel, question: JobQuestion) -> None:
        await self._persist(lambda: channel.send(question))

    async def _persist(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """The call, as often as it takes. Raises what another try would not mend."""
        for pause in pauses():
            try:
                return await call()
            except NotDurable as error:
                log.warning("%s: %s", self, error)
                return None
            except TympanError as error:
                if not error.retryable:
                    raise
                log.debug("%s: %s", self, error)
            await asyncio.sleep(pause)
        raise AssertionError("it is tried for ever")

    def __str__(self) -> str:
        (job, _), question = self.asked.key
        return f"question {question!r} about job {job} on {self._name}"


def _read(response: Response[JobAnswer]) -> tuple[str, str]:
    """The choice that an answer names, and its note. A bare word is as good."""
    try:
        answer = response.payload
        return answer.choice.strip().casefold(), answer.note
    except (PayloadInvalid, InvalidType, BodyGone):
        return (response.data or b"").decode(errors="replace").strip().strip('"').casefold(), ""


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
