"""Runner: runs a worker's handlers on what its replicas take, never more than so many at once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from broker import Broker
from broker.errors import (
    WRITES_NOTHING,
    NoSuchPool,
    OutcomeUnknown,
    RedisError,
    SessionLapsed,
    TympanError,
)
from broker.pooled_offer import PooledOffer
from broker.replica import Answer, Delivery, Replica, ReplicaListener
from workers.handler import Function, Handler, call, hook_values
from workers.handling import Handling, Item, Run
from workers.health import Liveness, State
from workers.logs import about
from workers.membership import Membership
from workers.verdict import Outcome
from workers.worker import Worker

log = logging.getLogger("tympan")

MOST_AT_ONCE = 64
"""What one call takes at the most."""


class Witness(Protocol):
    """Who is told what handlers do."""

    def delivered(
        self, pool: str, handler: str, *, redelivered: bool, latency: float | None
    ) -> None:
        """A handler begins; ``latency`` in seconds from the send, where it can be told."""

    def handled(self, pool: str, handler: str, outcome: Outcome, seconds: float) -> None:
        """A run of a handler ended."""


class Runner(ReplicaListener):
    """One replica of a worker's pool: this process.

    Args:
        worker: what to run.
        broker: open; the caller closes it.
        concurrency: runs of handlers at the same time.
        poll: seconds between two looks at itself.
        telemetry: who counts.
        liveness: who is told that the loop goes around.
    """

    def __init__(
        self,
        worker: Worker,
        broker: Broker,
        *,
        concurrency: int = 8,
        poll: float = 1.0,
        telemetry: Witness | None = None,
        liveness: Liveness | None = None,
    ) -> None:
        self.worker = worker
        self.broker = broker
        self.concurrency = concurrency
        self.liveness = liveness or Liveness(poll)
        self.telemetry = telemetry
        self.membership = Membership(worker, broker, self, self._changed)
        self._poll = poll
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="tympan-handler")
        self._handling = Handling(
            worker,
            broker,
            self._threads,
            self._again_later,
            self._settles,
            self._finished,
            self._refused,
        )
        self._free = concurrency
        self._runs: set[Run] = set()
        self._given_up = 0
        """Runs of which only a function in a thread goes on."""
        self._hungry: dict[Replica[Any], None] = {}
        """Replicas that may have something to take, in the order of their turns."""
        self._turns: deque[Item] = deque()
        """Dialogs whose sources spoke again, and what is run here again."""
        self._refusals: dict[Item, int] = {}
        """What is in hand, and waits until Redis writes again; how often it did not."""
        self._fetching: set[asyncio.Task[None]] = set()
        self._stirred = asyncio.Event()
        self._idle = asyncio.Event()
        self.is_needless = asyncio.Event()
        """Set when there is nothing to serve any more: its pools were deleted, or refuse it."""
        self.failed_hook = ""
        """Which hook raised, if one did: ``start-up hook connect``."""
        self._pump: asyncio.Task[None] | None = None
        self._is_draining = False

    # Life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Run the start-up hooks, join the pool everywhere, and handle what comes.

        Raises what a hook raises, and what keeps a server that was named from being joined.
        """
        given = {Broker: self.broker, Worker: self.worker}
        for hook in self.worker.startup:
            await self._call("start-up", hook, hook_values(hook, given))
        self._pump = asyncio.create_task(self._go_around(), name="tympan-worker")
        await self.membership.join()
        self.liveness.state = State.READY

    async def stop(self, drain: float = 30.0) -> int:
        """Take nothing new, finish what is in hand within ``drain`` seconds, hand back the rest.

        Returns how many runs were broken off. Functions that go on in threads are not among them;
        what they had is handed out again, too.
        """
        self._is_draining = True
        self.liveness.state = State.DRAINING
        given = {Broker: self.broker, Worker: self.worker}
        await asyncio.gather(*self._fetching, return_exceptions=True)
        try:
            async with asyncio.timeout(drain):
                await self._say_that_it_drains(given)
                await self._until_idle()
        except TimeoutError:
            many = len(self._runs)
            which = "handler is" if many == 1 else "handlers are"
            log.warning("%d %s not done after %g s", many, which, drain)
        broken = {run: run.task for run in self._runs if run.task and not run.task.done()}
        for run in broken:
            self._cancel(run)
        await asyncio.gather(*broken.values(), return_exceptions=True)
        broken_off = sum(not _goes_on(run) for run in broken)
        await self.membership.leave()
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait({self._pump})
        for hook in reversed(self.worker.shutdown):
            await self._call("shut-down", hook, hook_values(hook, given))
        self._threads.shutdown(wait=False, cancel_futures=True)
        return broken_off

    async def _say_that_it_drains(self, given: dict[type, Any]) -> None:
        for hook in self.worker.drain:
            try:
                await call(hook, hook_values(hook, given), self._threads)
            except Exception:  # what is in hand is handed back all the same
                log.exception("drain hook %s failed", getattr(hook, "__name__", hook))

    async def _call(self, kind: str, hook: Function, filled: dict[str, Any]) -> None:
        try:
            await call(hook, filled, self._threads)
        except Exception:
            self.failed_hook = f"{kind} hook {getattr(hook, '__name__', type(hook).__name__)}"
            self._threads.shutdown(wait=False, cancel_futures=True)
            raise

    def describe(self) -> list[str]:
        """What is in hand, and what becomes of it where this process ends at once, in words."""
        return [self._describe(run) for run in self._runs]

    def _describe(self, run: Run) -> str:
        item, name = run.item, run.handler.name
        if _goes_on(run) and run.task is not None and run.task.done():
            return f"handler {name}: its function still runs in a thread; what it had was given up"
        what = "a dialog" if isinstance(item, PooledOffer) else "a notification"
        if isinstance(item, PooledOffer) and not item.is_mine:
            what = "a question"
        notification = item.notification
        return (
            f"handler {name}: {what} of {notification.name} (channel {notification.channel}); "
            f"another replica of pool {self.worker.pool} gets it when this one's lease has ended "
            f"({self.broker.settings.lease:g} s)"
        )

    @property
    def _is_stuck(self) -> bool:
        """Whether every slot is held by a function in a thread that was given up."""
        return self._given_up >= self.concurrency

    def obstacles(self) -> list[str]:
        """What keeps it from serving all that it should, a sentence each. Any thread may ask."""
        found = [
            f"the pool is not joined on {where[1] or 'a server that was named'}: {error}"
            for where, error in list(self.membership.refused.items())
        ]
        now, lease = time.monotonic(), self.broker.settings.lease
        for replica in list(self.membership.replicas.values()):
            silence = now - replica.server.answered
            if not replica.is_joined:
                found.append(f"server {replica.name.server} is being joined again")
            elif silence > lease:
                found.append(
                    f"nothing was heard from Redis for {silence:.0f} s, for server "
                    f"{replica.name.server}"
                )
        return list(dict.fromkeys(found))

    def in_hand_by_pool(self) -> dict[str, int]:
        """How many handlers are under way, also in threads. Any thread may ask."""
        return {self.worker.pool: sum(run.has_slot for run in list(self._runs))}

    async def _until_idle(self) -> None:
        while self._runs:
            self._idle.clear()
            await self._idle.wait()

    # Being told ---------------------------------------------------------------------------------

    def work(self, replica: Replica[Any]) -> None:
        """See :class:`broker.replica.ReplicaListener`."""
        self._hungry[replica] = None
        self._stirred.set()

    def turn(self, offer: PooledOffer[Any]) -> None:
        """See :class:`broker.replica.ReplicaListener`."""
        self._again(offer)

    def over(self, offer: PooledOffer[Any]) -> None:
        """See :class:`broker.replica.ReplicaListener`."""
        for run in list(self._runs):
            if run.item is offer and run.task is not asyncio.current_task():
                self._break_off(run)

    def lapsed(self, replica: Replica[Any]) -> None:
        """See :class:`broker.replica.ReplicaListener`."""
        for run in list(self._runs):
            if run.item.replica is replica:
                self._break_off(run)

    def ended(self, replica: Replica[Any], cause: TympanError) -> None:
        """See :class:`broker.replica.ReplicaListener`."""
        log.error("pool %s: %s is served no more: %s", replica.pool, replica.name, cause)
        self._hungry.pop(replica, None)
        self.membership.forget(replica, cause)

    def _again(self, item: Item) -> None:
        if item not in self._turns:
            self._turns.append(item)
        self._stirred.set()

    def _again_later(self, item: Item, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._again, item)

    def _changed(self) -> None:
        self._stirred.set()

    def _break_off(self, run: Run) -> None:
        """Its answer would be refused. A plain function in a thread cannot be stopped."""
        if not run.threads and not run.is_settling:
            self._cancel(run)

    def _cancel(self, run: Run) -> None:
        if run.task is not None and run.task.cancel() and not run.has_begun:
            run.task.add_done_callback(lambda _: self._ended(run))

    # Going around -------------------------------------------------------------------------------

    async def _go_around(self) -> None:
        while True:
            if not self._is_stuck:
                self.liveness.beat()
            if self.membership.is_refused and self.liveness.state is State.READY:
                self.is_needless.set()
            if not self._is_draining:
                self._take_turns()
                self._take_more()
            try:
                async with asyncio.timeout(self._poll):
                    await self._stirred.wait()
            except TimeoutError:
                continue
            self._stirred.clear()

    def _take_turns(self) -> None:
        while self._turns and self._free:
            item = self._turns.popleft()
            if any(run.item is item for run in self._runs):
                continue
            handler = self.membership.handler_of(item.replica)
            if handler is not None and _begins(item):
                self._free -= 1
                self._begin(handler, item)
            else:
                self._refusals.pop(item, None)

    def _take_more(self) -> None:
        """Share the free slots among the replicas that may have something."""
        able = deque(replica for replica in self._hungry if not self._is_held_up(replica))
        while self._free and able:
            replica = able.popleft()
            del self._hungry[replica]
            share = min(max(1, self._free // (len(able) + 1)), MOST_AT_ONCE)
            self._free -= share
            task = asyncio.create_task(self._fetch(replica, share), name="tympan-fetch")
            self._fetching.add(task)
            task.add_done_callback(self._fetching.discard)

    def _is_held_up(self, replica: Replica[Any]) -> bool:
        """Whether as much of it waits for Redis as may run at once: more would wait, too."""
        waiting = sum(item.replica is replica for item in self._refusals)
        return waiting >= self.concurrency

    async def _fetch(self, replica: Replica[Any], share: int) -> None:
        taken: list[Item] = []
        handler = self.membership.handler_of(replica)
        try:
            if handler is not None and not self._is_draining:
                taken = list(await replica.take(share))
        except NoSuchPool:
            log.info("pool %s: %s is gone", replica.pool, replica.name)
        except (RedisError, OutcomeUnknown, SessionLapsed) as error:  # it looks again by the clock
            log.warning("pool %s: nothing was taken: %s", replica.pool, error)
        finally:
            self._free += share - len(taken)
            if len(taken) < share:
                self._stirred.set()
        if len(taken) == share:
            self.work(replica)
        for item in taken:
            if handler is None or not _begins(item):
                self._release_slot()
            else:
                self._begin(handler, item)

    def _release_slot(self) -> None:
        self._free += 1
        self._stirred.set()

    # Running ------------------------------------------------------------------------------------

    def _begin(self, handler: Handler, item: Item) -> None:
        run = Run(handler, item)
        self._runs.add(run)
        run.task = asyncio.create_task(self._run(run), name=f"tympan-{handler.name}")

    async def _run(self, run: Run) -> None:
        if self.telemetry is not None:
            self._delivered(run, self.telemetry)
        await self._do(run, self._handling.run(run))

    async def _do(self, run: Run, work: Coroutine[Any, Any, Outcome]) -> None:
        """A run is over when this is done, unless it is finished beside."""
        run.has_begun = True
        notification = run.item.notification
        outcome = Outcome.CANCELLED
        try:
            with about(
                pool=self.worker.pool,
                handler=run.handler.name,
                server=notification.name.server,
                registration=run.item.replica.id,
                channel=notification.channel,
            ):
                outcome = await work
        finally:
            if not run.is_finishing:
                self._over(run, outcome)

    def _finished(self, run: Run, answer: Answer) -> None:
        """Redis answered to a run that is finished beside, or could not."""
        item = run.item
        assert isinstance(item, Delivery)
        run.is_finishing = False
        error = item.replica.refusal(item.place, answer)
        if isinstance(error, WRITES_NOTHING):
            item.replica.keep(item)
        if error is None:
            self._over(run, Outcome.DONE)
        elif isinstance(error, Exception):
            run.has_begun = False
            run.task = asyncio.create_task(self._not_finished(run, error))
        else:
            self._over(run, Outcome.CANCELLED)

    async def _not_finished(self, run: Run, error: Exception) -> None:
        await self._do(run, self._handling.not_finished(run, error))

    def _delivered(self, run: Run, witness: Witness) -> None:
        run.began = asyncio.get_running_loop().time()
        item = run.item
        witness.delivered(
            self.worker.pool,
            run.handler.name,
            redelivered=item.redelivered,
            latency=self._latency(item),
        )

    def _refused(self, run: Run) -> int:
        """Redis wrote nothing of what it is about; how often by now.

        It waits without a slot: others may make room in Redis. What is to be put aside does not
        keep its replica from taking more, for the same reason.
        """
        if run.has_slot and not _goes_on(run):
            run.has_slot = False
            self._release_slot()
        if run.is_letter:
            return 1
        self._refusals[run.item] = self._refusals.get(run.item, 0) + 1
        return self._refusals[run.item]

    def _over(self, run: Run, outcome: Outcome) -> None:
        if self.telemetry is not None:
            seconds = asyncio.get_running_loop().time() - run.began
            try:
                self.telemetry.handled(self.worker.pool, run.handler.name, outcome, seconds)
            except Exception:  # whoever counts must not keep a slot, nor others from being told
                log.exception("%s: what became of it is not counted", run.handler.name)
        self._ended(run)

    def _latency(self, item: Item) -> float | None:
        if item.redelivered or not item.notification.at:
            return None
        return max(0.0, time.time() + item.replica.server.ahead - item.notification.at)

    def _settles(self, run: Run) -> None:
        """A handler of a notification is done: the next one may begin while Redis is told so."""
        if isinstance(run.item, Delivery) and not _goes_on(run):
            run.has_slot = False
            self._release_slot()

    def _ended(self, run: Run) -> None:
        """The slot is free when nothing of the run goes on, in a thread neither."""
        going_on = run.threads and _goes_on(run)
        if going_on:
            self._given_up += 1
            going_on[0].add_done_callback(lambda _: self._given_up_ended(run))
            return
        self._runs.discard(run)
        if not run.is_put_off and self._refusals.pop(run.item, 0):
            self._stirred.set()
        self._idle.set()
        if not isinstance(run.item, Delivery) and run.item.waits and run.item.is_mine:
            self.turn(run.item)
        if run.has_slot:
            self._release_slot()

    def _given_up_ended(self, run: Run) -> None:
        self._given_up -= 1
        self._ended(run)


def _goes_on(run: Run) -> list[asyncio.Future[Any]]:
    """What of a run goes on in threads."""
    return [one for one in run.threads if not one.done()]


def _begins(item: Item) -> bool:
    """Whether there is something to run: a dialog that waits for its source is only carried."""
    if isinstance(item, Delivery):
        return item.replica.holds(item)
    return item.closing is None and (item.turn is not None or item.waits)
