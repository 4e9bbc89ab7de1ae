"""Handling: one run of a handler, and what becomes of what it was given."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from weakref import WeakSet

from tenacity import RetryCallState, Retrying, wait_exponential, wait_random
from tenacity.wait import wait_base

from broker import Broker, Notification
from broker.errors import (
    WRITES_NOTHING,
    BodyGone,
    BrokerClosed,
    ChannelAcquired,
    ChannelAlreadyClosed,
    InvalidArgument,
    NotificationError,
    NotInHand,
    NotYours,
    OutcomeUnknown,
    PayloadInvalid,
    RedisError,
    SessionLapsed,
    TympanError,
)
from broker.pooled_offer import PooledOffer
from broker.replica import Answer, Delivery
from workers.handler import Handler, HandlerFault
from workers.limit import Limit, Overdue
from workers.tracing import UNTRACED, Mark, span_for, unmarked
from workers.verdict import CloseDialog, Decline, Outcome, PutAside, RetryLater
from workers.worker import Worker

log = logging.getLogger("tympan")

Item = Delivery[Any] | PooledOffer[Any]
FUTILE = (HandlerFault, PayloadInvalid, BodyGone, InvalidArgument, NotificationError)
"""Faults that another try would meet again."""
OVER = (ChannelAcquired, ChannelAlreadyClosed)
OTHERS = (NotInHand, NotYours, SessionLapsed)
"""It is not in this process's hands any more; whoever has it handles it."""
PAUSES = wait_exponential(multiplier=0.05, max=1.0) + wait_random(0, 0.05)
"""Between two tries of what a Redis refuses that writes nothing now: so soon all goes on later."""
MOST_LETTERS = 64
"""How much waits to be put aside at the same time, beside what is handled and so makes room."""
T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Run:
    """One run of a handler."""

    handler: Handler
    item: Item
    task: asyncio.Task[None] | None = None
    has_begun: bool = False
    """Whether the task did anything yet."""
    began: float = 0.0
    """By the loop's clock, where somebody counts."""
    threads: list[asyncio.Future[Any]] | tuple[()] = ()
    """What goes on in threads, whatever becomes of the run."""
    is_settling: bool = False
    """Whether the handler is done, and its answer is on the way."""
    is_finishing: bool = False
    """Whether it is finished beside, and Redis has not answered yet."""
    has_slot: bool = True
    """Whether it counts among those that may run at the same time."""
    is_put_off: bool = False
    """Whether what it is about stays in hand, and is run here again."""
    is_letter: bool = False
    """Whether it is to be put aside."""
    span: contextlib.ExitStack | None = None
    """Holds the span of the run, where there is one."""
    mark: Mark = unmarked
    """Writes the outcome on that span."""


class Handling:
    """How a worker handles what its replicas take."""

    def __init__(
        self,
        worker: Worker,
        broker: Broker,
        threads: Executor,
        later: Callable[[Item, float], None],
        settles: Callable[[Run], None],
        finished: Callable[[Run, Answer], None],
        refused: Callable[[Run], int],
    ) -> None:
        self._worker = worker
        self._broker = broker
        self._threads = threads
        self._later = later
        """Runs what is in hand, or the turn of a dialog, here again, after so many seconds."""
        self._settles = settles
        """Told when a handler is done, and its answer is on the way."""
        self._finished = finished
        """Told what Redis answered to a run that is finished beside."""
        self._refused = refused
        """Told that Redis wrote nothing of what a run is about; how often that was so."""
        self._letters = 0
        """How many runs wait to be put aside."""
        self._limits: dict[float, Limit] = {}
        self._failed: WeakSet[PooledOffer[Any]] = WeakSet()
        """Dialogs whose turn begins again from what was said so far."""

    async def run(self, run: Run) -> Outcome:
        """Run the handler, and settle what it was given; raises nothing but a cancellation.

        A notification that was handled is mostly finished beside: ``is_finishing`` says so.
        """
        handler, item = run.handler, run.item
        try:
            try:
                outcome = await self._answered(run)
            except Exception as error:  # a fault of ours must not keep what others could handle
                log.exception("%s: %r could not be settled", handler.name, item)
                outcome = await self._retry(run, _sentence(error), None)
            run.mark(outcome)
        finally:
            if run.span is not None:
                run.span.close()
        return outcome

    async def _answered(self, run: Run) -> Outcome:
        handler, item = run.handler, run.item
        try:
            try:
                answer = await self._answer(run)
            finally:
                run.is_settling = True
                self._settles(run)
            return await self._settle(run, answer)
        except asyncio.CancelledError:
            if not isinstance(item, PooledOffer) or item.closing is None:
                raise
            await self._done(run)
            return Outcome.LOST
        except OVER:
            await self._done(run)
            return Outcome.LOST
        except OTHERS as error:
            return _late(handler, error)
        except Decline:
            return await self._declined(run)
        except CloseDialog as verdict:
            return await self._closed(run, verdict)
        except RetryLater as verdict:
            why = f"{verdict.why}, at delivery {item.times} of {self._worker.max_deliveries}"
            return await self._retry(run, why, verdict.after)
        except (PutAside, *FUTILE) as error:
            reason = error.reason if isinstance(error, PutAside) else _sentence(error)
            return await self._put_aside(run, reason)
        except WRITES_NOTHING as error:
            return self._run_again(run, error)
        except (RedisError, OutcomeUnknown, BrokerClosed) as error:
            return await self._retry(run, _sentence(error), None)
        except Exception as error:  # somebody else's code may raise anything
            log.warning("%s failed at delivery %d", handler.name, item.times, exc_info=error)
            return await self._retry(run, _sentence(error), None)

    async def not_finished(self, run: Run, error: Exception) -> Outcome:
        """What becomes of a notification that was handled, and could not be finished beside."""
        if isinstance(error, WRITES_NOTHING):
            try:
                await self._settled(run, run.item.done)
            except TympanError as fault:
                error = fault
            else:
                return Outcome.DONE
        if isinstance(error, OTHERS):
            return _late(run.handler, error)
        return await self._retry(run, _sentence(error), None)

    async def _answer(self, run: Run) -> Any:
        handler, item = run.handler, run.item
        most = self._worker.max_deliveries
        if item.times > most and not _is_carried(item):  # nobody who had it said what became of it
            was = f"handed out {item.times - 1} times, and never finished"
            raise PutAside(f"{was}; max_deliveries is {most}")
        notification: Notification[Any] = item.notification
        if not isinstance(item, Delivery):
            if item in self._failed:
                self._failed.discard(item)
                await item.again()
            notification = item.begin_turn()
        span = span_for(
            notification, handler.name, pool=item.replica.pool, redelivered=item.redelivered
        )
        if span is not UNTRACED:
            run.span = contextlib.ExitStack()
            run.mark = run.span.enter_context(span)
        running = handler.start(item, notification, self._broker, self._threads)
        if isinstance(running, asyncio.Future):
            run.threads = [running]
            running = asyncio.shield(running)
        if handler.timeout is None or run.task is None:
            return await running
        try:
            return await self._limit(handler.timeout).keep(run.task, running)
        except Overdue:
            raise TimeoutError(
                f"handler {handler.name} was not done in {handler.timeout:g} s"
            ) from None

    def _limit(self, seconds: float) -> Limit:
        limit = self._limits.get(seconds)
        if limit is None:
            limit = self._limits[seconds] = Limit(seconds)
        return limit

    # What becomes of it -------------------------------------------------------------------------

    async def _settle(self, run: Run, answer: Any) -> Outcome:
        handler, item = run.handler, run.item
        if isinstance(item, Delivery):
            handler.check(answer, is_answered=False)
            if run.span is None and not item.has_body:
                run.is_finishing = True
                item.replica.finish_beside(item.place, partial(self._finished, run))
            else:
                await self._settled(run, item.done)
            return Outcome.DONE
        if item.closing is not None:
            await self._settled(run, item.done)
            return Outcome.CLOSED if item.closing.by == item.replica.id else Outcome.LOST
        handler.check(answer, is_answered=item.is_mine)
        if answer is not None:
            await self._settled(run, partial(item.respond, answer, ends_turn=True))
        item.end_turn()
        return Outcome.RESPONDED

    async def _settled(self, run: Run, settle: Callable[[], Awaitable[T]]) -> T:
        """Settle it: as often as Redis writes nothing now, once more, with growing pauses.

        The handler has done its part, so that counts as no delivery, nor is it handed out again.
        """
        item = run.item
        tries = 0
        while True:
            try:
                return await settle()
            except WRITES_NOTHING as error:
                item.replica.keep(item)
                self._refused(run)
                tries += 1
                if tries == 1:
                    log.warning("%s: %r waits: %s", run.handler.name, item, error)
            await asyncio.sleep(_pause(PAUSES, tries))

    def _run_again(self, run: Run, error: TympanError) -> Outcome:
        """Redis wrote nothing of what the handler said: it says it again here, a little later.

        It stays in hand, for that was no fault of the handler's, and counts as no delivery.
        """
        item, times = run.item, self._refused(run)
        if times == 1:
            log.warning("%s: %r is handled again later: %s", run.handler.name, item, error)
        item.mark()
        if not isinstance(item, Delivery) and item.is_mine:
            self._failed.add(item)
        run.is_put_off = True
        self._later(item, _pause(PAUSES, times))
        return Outcome.RETRIED

    async def _declined(self, run: Run) -> Outcome:
        handler, item = run.handler, run.item
        if isinstance(item, Delivery):
            fault = f"handler {handler.name} declined a unidirectional notification"
            return await self._put_aside(run, fault)
        if item.is_mine:
            return await self._closed(run, CloseDialog())
        try:
            await self._settled(run, item.decline)
        except OVER:
            log.debug("%s: it was over before it was declined", handler.name)
        await self._done(run)
        return Outcome.DECLINED

    async def _closed(self, run: Run, verdict: CloseDialog) -> Outcome:
        handler, item = run.handler, run.item
        if isinstance(item, Delivery):
            fault = f"handler {handler.name} closed a unidirectional notification's channel"
            return await self._put_aside(run, fault)
        try:
            await self._settled(run, partial(item.close, verdict.reason))
        except OVER:
            return Outcome.LOST
        except FUTILE as error:
            return await self._put_aside(run, _sentence(error))
        finally:
            await self._done(run)
        return Outcome.CLOSED

    async def _done(self, run: Run) -> None:
        try:
            await self._settled(run, run.item.done)
        except TympanError as error:
            log.info("%r: %s", run.item, error)

    async def _retry(self, run: Run, why: str, after: float | None) -> Outcome:
        """Hand it back for a while; after the last delivery, put it aside."""
        handler, item = run.handler, run.item
        if item.times >= self._worker.max_deliveries:
            return await self._put_aside(run, why)
        pause = _pause(self._worker.retry_wait, item.times) if after is None else after
        try:
            if not isinstance(item, Delivery) and item.is_mine:
                item.times += 1
                self._failed.add(item)
                self._later(item, pause)
            else:
                await self._settled(run, partial(item.hand_back, pause))
        except OTHERS as error:
            return _late(handler, error)
        except TympanError as error:  # the lease runs out, or the audit finds it
            log.warning("%s: %r is not handed back yet: %s", handler.name, item, error)
        return Outcome.RETRIED

    async def _put_aside(self, run: Run, reason: str) -> Outcome:
        handler, item = run.handler, run.item
        bury = partial(item.bury, reason)
        run.is_letter = True
        self._letters += 1
        try:
            letter = await (self._settled(run, bury) if self._letters <= MOST_LETTERS else bury())
        except OTHERS as error:
            return _late(handler, error)
        except TympanError as error:
            log.warning("%s: %r is not put aside yet: %s", handler.name, item, error)
            return Outcome.RETRIED
        finally:
            self._letters -= 1
        log.error("%s: %r is dead letter %s: %s", handler.name, item, letter, reason)
        return Outcome.DEAD


def _late(handler: Handler, error: Exception) -> Outcome:
    log.warning("%s: late: %s", handler.name, error)
    return Outcome.CANCELLED


def _is_carried(item: Item) -> bool:
    """Whether it is a dialog of the pool's: however old, it may be well."""
    return not isinstance(item, Delivery) and item.is_mine


def _pause(wait: wait_base, times: int) -> float:
    """Seconds after so many tries."""
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = times
    return float(wait(state))


def _sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
