"""A stage: one redis-server, a proxy before it, and behind that a farm and a pool under load.

The farm is that of :mod:`workers.proof.talk`; the pool's replicas are workers as users run them.
Whoever plays a case breaks something between :meth:`Stage.broken` and its end, again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

from tenacity import wait_none

from broker import BIDIRECTIONAL, UNIDIRECTIONAL, Broker, Channel, Notification, Style
from broker.errors import TympanError
from broker.observer import Silent
from broker.replica import Delivery
from tests.conformance.actors import eventually
from tests.failovers import LISTENERS, SOURCES, clean, look
from tests.farm import OTHER_PRINTER, SERVER, TYPE
from tests.faults.case import RECOVERED_WITHIN, Report, chance
from tests.faults.load import Load, Loss, judge, released
from tests.proxy import Proxy
from tests.servers import RedisServer
from workers import Worker
from workers.embedded import HOST
from workers.proof.history import LEFT
from workers.proof.losses import missed, unheard
from workers.proof.patience import AGAIN, REFUSED, done, now, reaches_all
from workers.proof.talk import PATIENCE, Talk, Weather
from workers.runner import Runner

DURABILITY = "memory"
BETWEEN = 6
"""Dialogs that the farm finishes between two faults."""
POOL = "helpdesk"
REPLICAS = 2
LONG_LEASE = 15.0
FOUND = 1.0
"""Seconds after which a replica finds what a lost answer has left in its hands."""
NEXT = 0.02
"""Seconds between two notifications to the pool."""


class Tally(Silent):
    """How calls of a farm ended that were not answered as they wished."""

    def __init__(self) -> None:
        self.words: Counter[str] = Counter()
        self.lapses = 0

    def script_ended(self, script: str, seconds: float, word: str) -> None:  # noqa: ARG002
        self.words[word] += 1

    def lease_lost(self, server: str) -> None:  # noqa: ARG002
        self.lapses += 1


class Desk:
    """A pool's replicas, and a source that gives it notifications and questions all the time."""

    def __init__(self, farm: Talk, deliveries: int) -> None:
        self.sends: dict[int, bool] = {}
        """Notifications that were done; whether the pool had room for them."""
        self.handled: dict[int, list[bool]] = {}
        """How often each was handed to a handler; whether as a repeated delivery."""
        self.answered: Counter[str] = Counter()
        """How the questions ended."""
        self.faults: list[str] = []
        self.left = ""
        """What the pool still has in the end."""
        self.letters: list[str] = []
        """Why something was put aside."""
        self._farm = farm
        self._deliveries = deliveries
        self._asked = 0
        """Questions that handlers have begun with, and are not to answer yet."""
        self._answers = asyncio.Event()
        self._answers.set()
        self._is_over = False

    @contextlib.asynccontextmanager
    async def goes_on(self) -> AsyncIterator[None]:
        """It is given work meanwhile; afterwards all that is left is handled, and the pool ends."""
        async with contextlib.AsyncExitStack() as stack:
            brokers = [broker_of(self._farm, "desk", resync=FOUND) for _ in range(REPLICAS + 1)]
            for broker in brokers:
                await stack.enter_async_context(broker)
            source, *serving = brokers
            runners = [Runner(self._worker(), broker, poll=0.2) for broker in serving]
            for runner in runners:
                await runner.start()
            giving = [
                asyncio.create_task(self._notify_on(source)),
                asyncio.create_task(self._ask_on(source)),
            ]
            try:
                yield
            finally:
                self._is_over = True
                await self._ended(giving)
                await self._emptied(source)
                found = await source.dead_letters.on_server(SERVER, limit=None)
                self.letters = [letter.reason for letter in found]
                for runner in runners:
                    await runner.stop(PATIENCE)
                for facts in await source.pools.on_server(SERVER):
                    await source.pools.delete(facts.pool, SERVER)

    @contextlib.asynccontextmanager
    async def asked(self) -> AsyncIterator[None]:
        """Meanwhile a handler has a question in hand, which it answers afterwards."""
        self._answers.clear()
        try:
            await eventually(lambda: self._asked > 0, "a question to the pool", PATIENCE)
            yield
        finally:
            self._answers.set()

    def _worker(self) -> Worker:
        worker = Worker(POOL, user="desk", retry_wait=wait_none(), max_deliveries=self._deliveries)

        @worker.listen(OTHER_PRINTER, TYPE)
        async def note(notification: Notification[Any], delivery: Delivery[Any]) -> None:
            times = self.handled.setdefault(int(notification.text), [])
            times.append(delivery.redelivered)

        @worker.listen(OTHER_PRINTER, TYPE, style=BIDIRECTIONAL)
        async def answer(notification: Notification[Any]) -> str:
            self._asked += 1
            try:
                await self._answers.wait()
            finally:
                self._asked -= 1
            return f"yes, {notification.text}"

        return worker

    async def _notify_on(self, source: Broker) -> None:
        numbers = itertools.count()
        while not self._is_over:
            try:
                channel = await opened(source, UNIDIRECTIONAL)
                while not self._is_over:
                    number = next(numbers)
                    body = str(number)
                    self.sends[number] = await reaches_all(lambda: channel.send(body))  # noqa: B023
                    await asyncio.sleep(NEXT)
                await done(channel.close)
            except TympanError:
                await asyncio.sleep(AGAIN)

    async def _ask_on(self, source: Broker) -> None:
        for number in itertools.count():
            if self._is_over:
                return
            try:
                self.answered[await self._ask(source, str(number))] += 1
            except TympanError as error:
                self.answered[type(error).__name__] += 1
                await asyncio.sleep(AGAIN)

    async def _ask(self, source: Broker, question: str) -> str:
        """How it ended; raises what ended it otherwise."""
        channel = await opened(source, BIDIRECTIONAL)
        try:
            await done(lambda: channel.send(question))
            response = await channel.response(PATIENCE)
        except TympanError:
            with contextlib.suppress(TympanError):  # as an application would give it up
                await channel.close()
            raise
        if response.text != f"yes, {question}":
            self.faults.append(f"question {question} was answered {response.text!r}")
        await done(channel.close)
        return "answered"

    async def _ended(self, tasks: list[asyncio.Task[None]]) -> None:
        found, left = await asyncio.wait(tasks, timeout=2 * PATIENCE)
        self.faults += [f"{len(left)} of the desk's sources were left hanging"] if left else []
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        self.faults += [f"the desk's source: {e!r}" for task in found if (e := task.exception())]

    async def _emptied(self, source: Broker) -> None:
        async def is_empty() -> bool:
            found = await source.pools.on_server(SERVER)
            return not any(facts.waiting or facts.in_hand for facts in found)

        try:
            await eventually(is_empty, "the pool to handle the rest", PATIENCE)
        except AssertionError:
            found = [
                (str(facts.style), facts.waiting, facts.in_hand, facts.replicas)
                for facts in await source.pools.on_server(SERVER)
            ]
            self.left = f"of the pool there is left (waiting, in hand): {found}"

    @property
    def lost(self) -> set[int]:
        """Notifications that the pool had room for, and that nobody handled."""
        return {number for number, had_room in self.sends.items() if had_room} - self.handled.keys()

    def judge(self, report: Report, *, is_lossy: bool) -> None:
        found = list(self.faults)
        for number, times in self.handled.items():
            if times.count(False) > 1:
                found.append(f"notification {number} was handled {len(times)} times, unmarked")
        if self.answered["ResponseTimeout"]:
            found.append(f"questions to the pool: {dict(self.answered)}")
        if not is_lossy:
            found += [self.left] if self.left else []
            found += [f"the pool lost {sorted(self.lost)}"] if self.lost else []
            found += [f"put aside, refused by no handler: {self.letters}"] if self.letters else []
            others = {how for how in self.answered if how != "answered"}
            found += [f"questions to the pool: {dict(self.answered)}"] if others else []
        report.violations += [f"pool: {fault}" for fault in found]
        report.checked["pooled notifications"] += sum(self.sends.values())
        report.checked["pooled questions"] += self.answered["answered"]
        report.lost.update({"pooled notifications lost": len(self.lost)} if self.lost else {})


async def opened(source: Broker, style: Style) -> Channel:
    """A channel for the pool, as soon as Redis takes one more."""
    while True:
        try:
            return await source.open_channel(OTHER_PRINTER, TYPE, style=style)
        except REFUSED:
            await asyncio.sleep(AGAIN)


class Stage:
    """What a case breaks, and who is told."""

    def __init__(
        self,
        server: RedisServer,
        proxy: Proxy,
        farm: Talk,
        tally: Tally,
        report: Report,
        deliveries: int,
    ) -> None:
        self.server = server
        self.proxy = proxy
        self.farm = farm
        self.tally = tally
        self.desk = Desk(farm, deliveries)
        self.report = report
        self._load = Load([farm], farm.weather, report)

    @contextlib.asynccontextmanager
    async def broken(self, what: str) -> AsyncIterator[None]:
        """Something is broken while this is entered; then it is noted when all consume again."""
        await self._load.calm(BETWEEN)
        yield
        weather, begun = self.farm.weather, now()
        weather.strikes()
        marks = {channel: len(feed.sends) for channel, feed in self.farm.feeds.items()}
        pooled = max(self.desk.sends, default=0)

        def deaf() -> list[str]:
            left = [name for name in self.farm.listeners if not self._hears(name, marks)]
            return (
                left if any(number > pooled + 1 for number in self.desk.handled) else [*left, POOL]
            )

        with contextlib.suppress(AssertionError):  # who does not consume again is told below
            await eventually(lambda: not deaf(), "all", 4 * RECOVERED_WITHIN)
        left = deaf()
        self.report.recovers(math.inf if left else now() - begun, f"{what}: {left or 'all'}")
        self.report.runs += 1
        weather.passes()

    def _hears(self, listener: str, marks: Mapping[str, int]) -> bool:
        """Whether it heard a question, and a notification, that were sent after the fault."""
        return listener in self.farm.weather.heard and any(
            feed.heard.get(listener, [-1])[-1] > marks.get(channel, 0)
            for channel, feed in self.farm.feeds.items()
        )

    async def settle(self, loss: Loss) -> None:
        """Judge all that was said. Where nothing is lost, everything went to its orderly end."""
        farm, report = self.farm, self.report
        left = await clean(farm, lambda: self.server)
        report.violations += [f"{farm.durability}: {fault}" for fault in left]
        await asyncio.to_thread(look, self.server, farm)
        if loss is Loss.ALL:
            # Who was told first has left; a source that gives up then was not left waiting.
            for dialog in farm.dialogs.values():
                dialog.end = "given up" if dialog.end == LEFT else dialog.end
        judge(farm, report, loss)
        self.desk.judge(report, is_lossy=loss is not Loss.NOTHING)
        report.checked += Counter(refusals=sum(self.tally.words[each.__name__] for each in REFUSED))
        if loss is Loss.NOTHING:
            report.violations += self._disorder()

    def _disorder(self) -> list[str]:
        """What did not go to its orderly end although nothing was lost."""
        farm = self.farm
        found = [f"released: {farm.dialogs[channel]}" for channel in released(farm.dialogs)]
        found += [f"a lease ran out {self.tally.lapses} times"] if self.tally.lapses else []
        for channel, dialog in farm.dialogs.items():
            if dialog.end != "closed" or unheard(dialog):
                found.append(f"dialog {channel}: not in order: {unheard(dialog)}, {dialog}")
        for channel, feed in farm.feeds.items():
            if feed.end != "closed" or missed(feed, farm.listeners):
                found.append(f"feed {channel} ended {feed.end}, {missed(feed, farm.listeners)}")
        return found


@contextlib.asynccontextmanager
async def stage(
    report: Report,
    *,
    loss: Loss = Loss.NOTHING,
    server: RedisServer | None = None,
    deliveries: int = 1_000,
    **options: Any,
) -> AsyncIterator[Stage]:
    """A stage that is played on meanwhile; at the end all that was said is judged.

    Args:
        report: what is noted there.
        loss: what it may take away; both ends are told then.
        server: where; None for one of its own. It has to run.
        deliveries: how often the pool gives something to handlers before it puts it aside.
        options: settings of the farm's brokers.
    """
    async with contextlib.AsyncExitStack() as stack:
        if server is None:
            server = stack.enter_context(RedisServer())
        proxy = await stack.enter_async_context(Proxy(HOST, server.port))
        seed = chance("talk").randrange(2**32)
        name = f"fault{chance('namespace').randrange(16**8):08x}"
        tally = Tally()
        connect = partial(Broker.connect, observer=tally)
        if loss is Loss.NOTHING:  # then no lease may run out, on a slow machine neither
            options = {"lease": LONG_LEASE} | options
        farm = Talk(name, proxy.url, DURABILITY, Weather(), seed, tuning=options, connect=connect)
        made = Stage(server, proxy, farm, tally, report, deliveries)
        async with farm.goes_on(SOURCES, LISTENERS), made.desk.goes_on():
            yield made
            await made._load.calm(BETWEEN)
        await made.settle(loss)


def broker_of(farm: Talk, user: str, **options: Any) -> Broker:
    """One more process of somebody's, not entered yet."""
    return farm.connect(farm.url, user=user, **(farm.settings | options))


Strike = Callable[[Stage, int], Any]


async def struck(
    report: Report,
    what: str,
    times: int,
    strike: Strike,
    *,
    loss: Loss = Loss.NOTHING,
    **options: Any,
) -> Report:
    """Strike so many times, each time until all consume again; the report.

    ``strike(stage, number)`` breaks something and ends it again.
    """
    async with stage(report, loss=loss, **options) as made:
        for number in range(times):
            async with made.broken(f"{what}, {number + 1}"):
                await strike(made, number)
    return report
