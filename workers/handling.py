"""Handling: one run of a handler, and what becomes of what it was given."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakSet

from tenacity import RetryCallState, Retrying

from broker import Broker, Notification
from broker.errors import (
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
        later: Callable[[PooledOffer[Any], float], None],
        settles: Callable[[Run], None],
        finished: Callable[[Run, Answer], None],
    ) -> None:
        self._worker = worker
        self._broker = broker
        self._threads = threads
        self._later = later
        """Runs the turn of a dialog that is carried here again, after so many seconds."""
        self._settles = settles
        """Told when a handler is done, and its answer is on the way."""
        self._finished = finished
        """Told what Redis answered to a run that is finished beside."""
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
                outcome = await self._retry(handler, item, _sentence(error), None)
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
            await self._done(item)
            return Outcome.LOST
        except OVER:
            await self._done(item)
            return Outcome.LOST
        except OTHERS as error:
            return _late(handler, error)
        except Decline:
            return await self._declined(handler, item)
        except CloseDialog as verdict:
            return await self._closed(handler, item, verdict)
        except RetryLater as verdict:
            why = f"{verdict.why}, at delivery {item.times} of {self._worker.max_deliveries}"
            return await self._retry(handler, item, why, verdict.after)
        except PutAside as verdict:
            return await self._put_aside(handler, item, verdict.reason)
        except FUTILE as error:
            return await self._put_aside(handler, item, _sentence(error))
        except (RedisError, OutcomeUnknown, BrokerClosed) as error:
            return await self._retry(handler, item, _sentence(error), None)
        except Exception as error:  # somebody else's code may raise anything
            log.warning("%s failed at delivery %d", handler.name, item.times, exc_info=error)
            return await self._retry(handler, item, _sentence(error), None)

    async def not_finished(self, run: Run, error: Exception) -> Outcome:
        """What becomes of a notification that was handled, and could not be finished beside."""
        if isinstance(error, OTHERS):
            return _late(run.handler, error)
        return await self._retry(run.handler, run.item, _sentence(error), None)

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
                await item.done()
            return Outcome.DONE
        if item.closing is not None:
            await item.done()
            return Outcome.CLOSED if item.closing.by == item.replica.id else Outcome.LOST
        handler.check(answer, is_answered=item.is_mine)
        if answer is not None:
            await item.respond(answer, ends_turn=True)
        item.end_turn()
        return Outcome.RESPONDED

    async def _declined(self, handler: Handler, item: Item) -> Outcome:
        if isinstance(item, Delivery):
            fault = f"handler {handler.name} declined a unidirectional notification"
            return await self._put_aside(handler, item, fault)
        if item.is_mine:
            return await self._closed(handler, item, CloseDialog())
        try:
            await item.decline()
        except OVER:
            log.debug("%s: it was over before it was declined", handler.name)
        await self._done(item)
        return Outcome.DECLINED

    async def _closed(self, handler: Handler, item: Item, verdict: CloseDialog) -> Outcome:
        if isinstance(item, Delivery):
            fault = f"handler {handler.name} closed a unidirectional notification's channel"
            return await self._put_aside(handler, item, fault)
        try:
            await item.close(verdict.reason)
        except OVER:
            return Outcome.LOST
        except FUTILE as error:
            return await self._put_aside(handler, item, _sentence(error))
        finally:
            await self._done(item)
        return Outcome.CLOSED

    async def _done(self, item: Item) -> None:
        try:
            await item.done()
        except TympanError as error:
            log.info("%r: %s", item, error)

    async def _retry(self, handler: Handler, item: Item, why: str, after: float | None) -> Outcome:
        """Hand it back for a while; after the last delivery, put it aside."""
        if item.times >= self._worker.max_deliveries:
            return await self._put_aside(handler, item, why)
        pause = self._pause(item.times) if after is None else after
        try:
            if not isinstance(item, Delivery) and item.is_mine:
                item.times += 1
                self._failed.add(item)
                self._later(item, pause)
            else:
                await item.hand_back(pause)
        except OTHERS as error:
            return _late(handler, error)
        except TympanError as error:  # the lease runs out, or the audit finds it
            log.warning("%s: %r is not handed back yet: %s", handler.name, item, error)
        return Outcome.RETRIED

    async def _put_aside(self, handler: Handler, item: Item, reason: str) -> Outcome:
        try:
            letter = await item.bury(reason)
        except OTHERS as error:
            return _late(handler, error)
        except TympanError as error:
            log.warning("%s: %r is not put aside yet: %s", handler.name, item, error)
            return Outcome.RETRIED
        log.error("%s: %r is dead letter %s: %s", handler.name, item, letter, reason)
        return Outcome.DEAD

    def _pause(self, times: int) -> float:
        state = RetryCallState(Retrying(), None, (), {})
        state.attempt_number = times
        return float(self._worker.retry_wait(state))


def _late(handler: Handler, error: Exception) -> Outcome:
    log.warning("%s: late: %s", handler.name, error)
    return Outcome.CANCELLED


def _is_carried(item: Item) -> bool:
    """Whether it is a dialog of the pool's: however old, it may be well."""
    return not isinstance(item, Delivery) and item.is_mine


def _sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
