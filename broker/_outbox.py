"""The outbox of a unidirectional channel: what is sent while a send is under way travels together.

One call at a time, in order. A send that finds none under way goes at once, alone.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from broker._calls import Stowed
from broker._end import Answer
from broker.errors import BrokerClosed, TympanError

MOST = 64
"""Notifications of one call."""
MOST_ENTRIES = 512
"""Entries that one call may write, should all streams of its channel be listened to."""
MOST_BYTES = 32_768
"""Of their bodies together; one alone may be larger."""


PAUSE = 0.005
LONGEST_PAUSE = 0.5
"""Seconds between looks for room: twice as many each time, at random below that."""


@dataclass(eq=False, slots=True)
class Sending:
    """One notification on its way."""

    data: bytes
    trace: str
    is_large: bool
    """Whether its body is kept under a key of its own; then it travels alone."""
    due: float | None
    """Until when, by the loop's clock, it waits for room everywhere; None sends with what is."""
    stowed: Stowed | None = None
    """Where its body was put, once it was."""

    @property
    def lossless(self) -> bool:
        """Whether nothing is sent while anyone would miss it."""
        return self.due is not None

    def joins(self, other: Sending) -> bool:
        """Whether it can travel with another one."""
        alike = (self.lossless, self.trace) == (other.lossless, other.trace)
        return alike and not self.is_large and not other.is_large


Waiting = tuple[Sending, asyncio.Future[Answer]]


class Outbox:
    """``carry`` makes one call of some sendings, and returns the answer to each."""

    def __init__(
        self,
        carry: Callable[[Sequence[Sending]], Awaitable[Sequence[Answer]]],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None] | None],
        streams: Callable[[], int],
    ) -> None:
        self._carry = carry
        self._streams = streams
        """How many streams its notifications may go to now."""
        self._spawn = spawn
        self._is_busy = False
        self._waiting: deque[Waiting] = deque()

    async def put(self, sending: Sending) -> Answer:
        """Send it, and return its own answer. Raises what the call raises, and BrokerClosed.

        FULL is the answer to a lossless one only when its time is over.
        """
        if self._is_busy:
            future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            self._waiting.append((sending, future))
            return await future
        self._is_busy = True
        try:
            answer = (await self._carry((sending,)))[0]
            if not _waits_on(sending, answer):
                return answer
            future = asyncio.get_running_loop().create_future()
            self._waiting.appendleft((sending, future))
        finally:
            self._go_on()
        return await future

    def _go_on(self) -> None:
        """With what waits; somebody is at it until nothing does."""
        self._is_busy = bool(self._waiting)
        if self._waiting and self._spawn(self._carry_on()) is None:
            self._give_up()

    async def _carry_on(self) -> None:
        pauses = 0
        try:
            while batch := await self._gathered():
                full = await self._carry_some(batch)
                pauses = pauses + 1 if full else 0
                if full:
                    self._waiting.extendleft(reversed(full))
                    await asyncio.sleep(random.uniform(0, min(PAUSE * 2**pauses, LONGEST_PAUSE)))
        finally:
            self._give_up()

    def _give_up(self) -> None:
        """Nothing waits any more, unless the broker was closed meanwhile."""
        self._is_busy = False
        while self._waiting:
            _fail(self._waiting.popleft()[1], BrokerClosed("the broker is closed"))

    async def _gathered(self) -> list[Waiting]:
        """The next batch; whoever was answered just now may have something for it."""
        if len(self._waiting) < MOST:
            await asyncio.sleep(0)
        return self._next()

    def _next(self) -> list[Waiting]:
        """Those that go with the first; whoever was cancelled meanwhile sends nothing."""
        batch: list[Waiting] = []
        size, most = 0, min(MOST, max(1, MOST_ENTRIES // self._streams()))
        while self._waiting and len(batch) < most:
            sending, future = self._waiting[0]
            size += len(sending.data)
            if batch and (size > MOST_BYTES or not sending.joins(batch[0][0])):
                break
            self._waiting.popleft()
            if not future.done():
                batch.append((sending, future))
        return batch

    async def _carry_some(self, batch: list[Waiting]) -> list[Waiting]:
        """Those of them that wait on, for room."""
        try:
            answers = await self._carry([sending for sending, _ in batch])
        except TympanError as error:
            _fail_all(batch, error)
            return []
        except BaseException:
            _fail_all(batch, BrokerClosed("the broker was closed while this was sent"))
            raise
        full: list[Waiting] = []
        for (sending, future), answer in zip(batch, answers, strict=True):
            if _waits_on(sending, answer):
                full.append((sending, future))
            elif not future.done():
                future.set_result(answer)
        return full


def _waits_on(sending: Sending, answer: Answer) -> bool:
    now = asyncio.get_running_loop().time()
    return answer.word == "FULL" and sending.due is not None and now < sending.due


def _fail_all(batch: list[Waiting], error: Exception) -> None:
    for _, future in batch:
        _fail(future, error)


def _fail(future: asyncio.Future[Answer], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
