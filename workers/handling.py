"""Handling: one run of a handler, and what becomes of what it was given."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
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
from broker.replica import Delivery
from workers.handler import Handler, HandlerFault
from workers.tracing import Mark, span_for, unmarked
from workers.verdict import CloseDialog, Decline, Outcome, PutAside, RetryLater
from workers.worker import Worker

log = logging.getLogger("tympan")

Item = Delivery[Any] | PooledOffer[Any]
FUTILE = (HandlerFault, PayloadInvalid, BodyGone, InvalidArgument, NotificationError)
"""Faults that another try would meet again."""
OVER = (ChannelAcquired, ChannelAlreadyClosed)
OTHERS = (NotInHand, NotYours, SessionLapsed)
"""It is not in this process's hands any more; whoever has it handles it."""


@dataclass(eq=False)
class Run:
    """One run of a handler."""

    handler: Handler
    item: Item
    task: asyncio.Task[None] | None = None
    threads: list[asyncio.Future[Any]] = field(default_factory=list)
    """What goes on in threads, whatever becomes of the run."""
    is_settling: bool = False
    """Whether the handler is done, and its answer is on the way."""
    has_slot: bool = True
    """Whether it counts among those that may run at the same time."""
    on_settling: Callable[[], None] = lambda: None
    """Called then."""
    span: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """Holds the span of the run, once it is known what it continues."""
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
    ) -> None:
        self._worker = worker
        self._broker = broker
        self._threads = threads
        self._later = later
        """Runs the turn of a dialog that is carried here again, after so many seconds."""
        self._failed: WeakSet[PooledOffer[Any]] = WeakSet()
        """Dialogs whose turn begins again from what was said so far."""

    async def run(self, run: Run) -> Outcome:
        """Run the handler, and settle what it was given; raises nothing but a cancellation."""
        handler, item = run.handler, run.item
        with run.span:
            try:
                outcome = await self._run(run)
            except Exception as error:  # a fault of ours must not keep what others could handle
                log.exception("%s: %r could not be settled", handler.name, item)
                outcome = await self._retry(handler, item, _sentence(error), None)
            run.mark(outcome)
        return outcome

    async def _run(self, run: Run) -> Outcome:
        handler, item = run.handler, run.item
        try:
            try:
                answer = await self._answer(run)
            finally:
                run.is_settling = True
                run.on_settling()
            return await self._settle(handler, item, answer)
        except asyncio.CancelledError:
            if not isinstance(item, PooledOffer) or item.closing is None:
                raise
            await self._done(item)
            return Outcome.LOST
        except OVER:
            await self._done(item)
            return Outcome.LOST
        except OTHERS as error:
            log.warning("%s: late: %s", handler.name, error)
            return Outcome.CANCELLED
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

    async def _answer(self, run: Run) -> Any:
        handler, item = run.handler, run.item
        most = self._worker.max_deliveries
        is_carried = isinstance(item, PooledOffer) and item.is_mine  # however old, it may be well
        if item.times > most and not is_carried:  # nobody who had it said what became of it
            was = f"handed out {item.times - 1} times, and never finished"
            raise PutAside(f"{was}; max_deliveries is {most}")
        notification: Notification[Any] = item.notification
        if isinstance(item, PooledOffer):
            if item in self._failed:
                self._failed.discard(item)
                await item.again()
            notification = item.begin_turn()
        run.mark = run.span.enter_context(
            span_for(
                notification, handler.name, pool=item.replica.pool, redelivered=item.redelivered
            )
        )
        try:
            async with asyncio.timeout(handler.timeout):
                running = handler.start(item, notification, self._broker, self._threads)
                if isinstance(running, asyncio.Future):
                    run.threads.append(running)
                    return await asyncio.shield(running)
                return await running
        except TimeoutError:
            raise TimeoutError(
                f"handler {handler.name} was not done in {handler.timeout:g} s"
            ) from None

    # What becomes of it -------------------------------------------------------------------------

    async def _settle(self, handler: Handler, item: Item, answer: Any) -> Outcome:
        if isinstance(item, Delivery):
            handler.check(answer, is_answered=False)
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
            if isinstance(item, PooledOffer) and item.is_mine:
                item.times += 1
                self._failed.add(item)
                self._later(item, pause)
            else:
                await item.hand_back(pause)
        except OTHERS as error:
            log.warning("%s: late: %s", handler.name, error)
            return Outcome.CANCELLED
        except TympanError as error:  # the lease runs out, or the audit finds it
            log.warning("%s: %r is not handed back yet: %s", handler.name, item, error)
        return Outcome.RETRIED

    async def _put_aside(self, handler: Handler, item: Item, reason: str) -> Outcome:
        try:
            letter = await item.bury(reason)
        except OTHERS as error:
            log.warning("%s: late: %s", handler.name, error)
            return Outcome.CANCELLED
        except TympanError as error:
            log.warning("%s: %r is not put aside yet: %s", handler.name, item, error)
            return Outcome.RETRIED
        log.error("%s: %r is dead letter %s: %s", handler.name, item, letter, reason)
        return Outcome.DEAD

    def _pause(self, times: int) -> float:
        state = RetryCallState(Retrying(), None, (), {})
        state.attempt_number = times
        return float(self._worker.retry_wait(state))


def _sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
