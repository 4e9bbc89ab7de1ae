"""A worker whose Redis writes nothing for a while: it waits, and then goes on with what it has.

Nothing of that counts as a delivery: what a handler did not refuse is not put aside.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tenacity import wait_none

from broker import BIDIRECTIONAL, Broker, Channel, Notification
from broker.errors import RedisFull
from broker.observer import Silent
from broker.pooled_offer import PooledOffer
from broker.replica import Delivery
from broker.results import S_OK
from tests.farm import OTHER_PRINTER, PATIENCE, PRINTER, SERVER, TYPE, Farm, RedisBackend
from tests.redis.pooling import end_pools
from tests.redis.scenes import QUIET, until
from tests.redis.test_full_redis import full
from tests.redis.test_worker import Witness
from tests.servers import RedisServer
from workers import CloseDialog, Outcome, PutAside, Worker
from workers.runner import Runner

TRIES = 4
"""Refusals after which it is known that a worker goes on waiting."""
STRICT: dict[str, Any] = {"user": "desk", "retry_wait": wait_none(), "max_deliveries": 1}
"""Puts aside whatever counts as a failed delivery."""


class Refusals(Silent):
    """Notes which calls Redis refused."""

    def __init__(self) -> None:
        self.scripts: list[str] = []

    def script_ended(self, script: str, seconds: float, word: str) -> None:  # noqa: ARG002
        if word in ("RedisFull", "RedisReadOnly"):
            self.scripts.append(script)

    async def of(self, script: str, many: int = TRIES) -> None:
        """Return when so many calls of this script were refused."""

        async def were() -> bool:
            return self.scripts.count(script) >= many

        await until(were)


class Desk:
    """A worker's runner on a Redis that a test fills, and who talks to it."""

    def __init__(self, farm: Farm, server: RedisServer, source: Broker) -> None:
        self.farm = farm
        self.server = server
        self.source = source
        self.refusals = Refusals()
        self.witness = Witness()
        self.go = asyncio.Event()
        """Handlers that wait for it begin."""
        self.runners: list[Runner] = []

    async def runs(self, worker: Worker, concurrency: int = 8) -> Runner:
        broker = await self.farm.broker("desk", observer=self.refusals, **QUIET)
        runner = Runner(
            worker, broker, concurrency=concurrency, poll=PATIENCE, telemetry=self.witness
        )
        await runner.start()
        self.runners.append(runner)
        return runner

    async def begun(self, many: int) -> None:
        """Return when so many handlers have begun."""

        async def have() -> bool:
            return len(self.witness.redelivered) >= many

        await until(have)

    async def asks(self, body: bytes = b"continue?") -> Channel:
        channel = await self.source.open_channel(PRINTER, TYPE, user="desk", style=BIDIRECTIONAL)
        await channel.send(body)
        return channel

    async def tells(self, *bodies: bytes) -> None:
        async with await self.source.open_channel(PRINTER, TYPE, user="desk") as channel:
            for body in bodies:
                assert await channel.send(body) == S_OK

    async def letters(self) -> list[tuple[str, int]]:
        """Reason and number of deliveries of what was put aside."""
        found = await self.source.dead_letters.on_server(SERVER)
        return [(letter.reason, letter.times) for letter in found]

    async def holds(self, style: Any = BIDIRECTIONAL) -> tuple[int, int]:
        """What waits, and what is in hand."""
        (facts,) = [one for one in await self.source.pools.on_server(PRINTER) if one.style is style]
        return facts.waiting, facts.in_hand


@contextmanager
def unwritable(server: RedisServer) -> Iterator[None]:
    """It reads, and writes nothing: it asks for a replica that it has not."""
    server.config("min-replicas-to-write", 1)
    try:
        yield
    finally:
        server.config("min-replicas-to-write", 0)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture
async def desk(server: RedisServer) -> AsyncIterator[Desk]:
    async with Farm(RedisBackend(server)) as farm:
        source = await farm.broker("spooler", **QUIET)
        made = Desk(farm, server, source)
        yield made
        for runner in made.runners:
            await runner.stop(PATIENCE)
        await end_pools(source)
        for name in await farm.keys():
            if name.endswith(":dead"):
                await farm.client.delete(name)


# Answers ----------------------------------------------------------------------------------------


async def test_an_answer_waits_for_room_and_its_handler_has_run_once(desk: Desk) -> None:
    worker = Worker("desk", **STRICT)
    times: list[int] = []

    @worker.listen(PRINTER, TYPE, style=BIDIRECTIONAL)
    async def answer(offer: PooledOffer[Any]) -> bytes:
        times.append(offer.times)
        await desk.go.wait()
        return b"yes"

    await desk.runs(worker)
    channel = await desk.asks()
    await desk.begun(1)
    with full(desk.server):
        desk.go.set()
        await desk.refusals.of("respond")
        assert await desk.holds() == (0, 1), "it stays in hand"
    assert (await channel.response(PATIENCE)).data == b"yes"
    await desk.witness.until(Outcome.RESPONDED)
    assert times == [1]
    assert await desk.letters() == []
    await channel.close()


async def test_a_large_answer_waits_for_room(desk: Desk) -> None:
    worker = Worker("desk", **STRICT)

    @worker.listen(PRINTER, TYPE, style=BIDIRECTIONAL)
    async def answer() -> bytes:
        await desk.go.wait()
        return b"x" * 100_000

    runner = await desk.runs(worker)
    channel = await desk.asks()
    await desk.begun(1)
    with full(desk.server):
        desk.go.set()
        await until(lambda: _is_waiting(runner))
    assert (await channel.response(PATIENCE)).data == b"x" * 100_000
    await channel.close()


async def _is_waiting(runner: Runner) -> bool:
    """Whether Redis refused something a few times that this one waits for."""
    return any(times >= TRIES for times in runner._refusals.values())


async def test_a_source_that_closes_meanwhile_ends_the_wait(desk: Desk) -> None:
    worker = Worker("desk", **STRICT)

    @worker.listen(PRINTER, TYPE, style=BIDIRECTIONAL)
    async def answer() -> bytes:
        await desk.go.wait()
        return b"yes"

    await desk.runs(worker)
    channel = await desk.asks()
    await desk.begun(1)
    with full(desk.server):
        desk.go.set()
        await desk.refusals.of("respond")
        await channel.close()
        await desk.witness.until(Outcome.LOST)
        assert await desk.holds() == (0, 0)


async def test_who_stops_while_it_waits_leaves_the_question_to_others(desk: Desk) -> None:
    worker = Worker("desk", user="desk", retry_wait=wait_none(), max_deliveries=2)

    @worker.listen(PRINTER, TYPE, style=BIDIRECTIONAL)
    async def answer(offer: PooledOffer[Any]) -> bytes:
        await desk.go.wait()
        return b"%d" % offer.times

    first = await desk.runs(worker)
    channel = await desk.asks()
    await desk.begun(1)
    with full(desk.server):
        desk.go.set()
        await desk.refusals.of("respond")
        assert await first.stop(0.01) == 1, "one was broken off"
        assert await desk.holds() == (1, 0)
    await desk.runs(worker)
    assert (await channel.response(PATIENCE)).data == b"2"
    await channel.close()


async def test_as_many_wait_as_may_run_and_the_rest_stays_with_others(desk: Desk) -> None:
    worker = Worker("desk", **STRICT)

    @worker.listen(PRINTER, TYPE, style=BIDIRECTIONAL)
    async def answer(notification: Notification[Any]) -> bytes:
        await desk.go.wait()
        return b"yes, " + notification.body

    await desk.runs(worker, concurrency=2)
    channels = [await desk.asks(b"%d" % number) for number in range(6)]
    await desk.begun(2)
    with full(desk.server):
        desk.go.set()
        await desk.refusals.of("respond", 3 * TRIES)
        waiting, in_hand = await desk.holds()
        assert waiting + in_hand == 6
        assert in_hand <= 4, "no more than may run and may wait"
    for number, channel in enumerate(channels):
        assert (await channel.response(PATIENCE)).data == b"yes, %d" % number
        await channel.close()
    assert await desk.letters() == []


async def test_what_makes_room_is_handled_meanwhile(desk: Desk) -> None:
    """An answer that waits takes nobody's place."""
    worker = Worker("desk", **STRICT)

    @worker.listen(PRINTER, TYPE, style=BIDIRECTIONAL)
    async def answer() -> bytes:
        await desk.go.wait()
        return b"yes"

    heard: list[bytes] = []

    @worker.listen(PRINTER, TYPE)
    async def note(notification: Notification[Any]) -> None:
        heard.append(notification.body)

    await desk.runs(worker, concurrency=1)
    channel = await desk.asks()
    await desk.begun(1)
    await desk.tells(b"1", b"2", b"3")
    with full(desk.server):
        desk.go.set()
        await desk.witness.until(*[Outcome.DONE] * 3)
        await desk.refusals.of("respond")
    assert heard == [b"1", b"2", b"3"]
    assert (await channel.response(PATIENCE)).data == b"yes"
    await channel.close()


# Handlers that Redis refuses --------------------------------------------------------------------


async def test_a_handler_that_redis_refused_is_run_again_and_that_counts_as_no_delivery(
    desk: Desk,
) -> None:
    worker = Worker("desk", **STRICT)
    given: list[tuple[int, bool]] = []
    listener = await desk.farm.broker("carol", **QUIET)
    heard = await listener.register(OTHER_PRINTER, TYPE)

    @worker.listen(PRINTER, TYPE)
    async def forward(delivery: Delivery[Any], broker: Broker) -> None:
        given.append((delivery.times, delivery.redelivered))
        await desk.go.wait()
        async with await broker.open_channel(OTHER_PRINTER, TYPE, user="carol") as channel:
            await channel.send(delivery.notification.body)

    await desk.runs(worker)
    await desk.tells(b"page")
    await desk.begun(1)
    with full(desk.server):
        desk.go.set()
        await desk.refusals.of("open")
    found = await heard.fetch(PATIENCE)
    assert getattr(found, "data", None) == b"page"
    await until(lambda: _is_over(desk))
    assert given[0] == (1, False)
    assert set(given[1:]) == {(1, True)}
    assert desk.witness.outcomes == [*[Outcome.RETRIED] * (len(given) - 1), Outcome.DONE]
    assert await desk.letters() == []


async def _is_over(desk: Desk) -> bool:
    return desk.witness.outcomes[-1:] == [Outcome.DONE]


async def test_a_turn_that_redis_refused_goes_on_from_what_was_said(desk: Desk) -> None:
    worker = Worker("desk", **STRICT)
    runs: list[bool] = []

    @worker.listen(PRINTER, TYPE, style=BIDIRECTIONAL)
    async def answer(offer: PooledOffer[Any]) -> None:
        runs.append(offer.redelivered)
        said = await offer.ask(b"which tray?", PATIENCE)
        await desk.go.wait()
        await offer.respond(b"tray " + said.body)

    await desk.runs(worker)
    channel = await desk.asks()
    assert (await channel.response(PATIENCE)).data == b"which tray?"
    await channel.send(b"two")
    with full(desk.server):
        desk.go.set()
        await desk.refusals.of("respond")
    assert (await channel.response(PATIENCE)).data == b"tray two"
    await desk.witness.until(*[Outcome.RETRIED] * (len(runs) - 1), Outcome.RESPONDED)
    assert runs == [False, *[True] * (len(runs) - 1)]
    assert await desk.letters() == []
    await channel.close()


async def test_a_question_that_is_over_is_not_handled_again(desk: Desk) -> None:
    worker = Worker("desk", **STRICT)

    @worker.listen(PRINTER, TYPE, style=BIDIRECTIONAL)
    async def answer(offer: PooledOffer[Any]) -> None:
        await desk.go.wait()
        await offer.respond(b"yes")

    runner = await desk.runs(worker)
    channel = await desk.asks()
    await desk.begun(1)
    with full(desk.server):
        desk.go.set()
        await desk.refusals.of("respond")
        await channel.close()
        await until(lambda: _has_let_go(runner))
        assert await desk.holds() == (0, 0)
    assert Outcome.RESPONDED not in desk.witness.outcomes


async def _has_let_go(runner: Runner) -> bool:
    return not runner._refusals and not runner._runs


async def test_what_waits_here_when_the_lease_is_lost_is_left_to_others(desk: Desk) -> None:
    worker = Worker("desk", user="desk", retry_wait=wait_none(), max_deliveries=2)
    runs: list[int] = []

    @worker.listen(PRINTER, TYPE)
    async def forward(delivery: Delivery[Any], broker: Broker) -> None:
        runs.append(delivery.times)
        await desk.go.wait()
        if delivery.times == 1:
            await broker.open_channel(OTHER_PRINTER, TYPE, user="carol")

    runner = await desk.runs(worker)
    await desk.tells(b"page")
    await desk.begun(1)
    with full(desk.server):
        desk.go.set()
        await desk.refusals.of("open")
        (replica,) = runner.membership.replicas.values()
        with contextlib.suppress(RedisFull):
            await replica.server.lose()
        await until(lambda: _has_let_go(runner))
        again = len(runs)

    async def is_handed_out() -> bool:
        await desk.source.run_down(PRINTER)
        return await _is_over(desk)

    await until(is_handed_out)
    assert runs[again:] == [2]
    assert await desk.letters() == []


# Letters ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["notification", "question", "dialog"])
async def test_a_letter_waits_for_room_and_has_the_reason(desk: Desk, style: str) -> None:
    worker = Worker("desk", **STRICT)
    runs: list[int] = []

    @worker.listen(PRINTER, TYPE)
    async def note(delivery: Delivery[Any]) -> None:
        runs.append(delivery.times)
        await desk.go.wait()
        raise PutAside("it burns")

    @worker.listen(PRINTER, TYPE, style=BIDIRECTIONAL)
    async def answer(offer: PooledOffer[Any]) -> None:
        runs.append(offer.times)
        if style == "dialog":
            await offer.ask(b"which tray?", PATIENCE)
        await desk.go.wait()
        raise PutAside("it burns")

    await desk.runs(worker)
    channel = None if style == "notification" else await desk.asks()
    if channel is None:
        await desk.tells(b"poison")
    elif style == "dialog":
        await channel.response(PATIENCE)
        await channel.send(b"two")
    await desk.begun(1)
    with full(desk.server):
        desk.go.set()
        await desk.refusals.of("dead_letter")
        assert await desk.letters() == []
    await desk.witness.until(Outcome.DEAD)
    assert await desk.letters() == [("it burns", 1)]
    assert runs == [1]
    if channel is not None and style == "dialog":
        assert await channel.wait_closed(PATIENCE)
    elif channel is not None:
        await channel.close()


async def test_letters_that_wait_keep_nobody_from_making_room(desk: Desk) -> None:
    worker = Worker("desk", **STRICT)
    heard: list[bytes] = []

    @worker.listen(PRINTER, TYPE)
    async def note(notification: Notification[Any]) -> None:
        await desk.go.wait()
        if notification.body == b"poison":
            raise PutAside("it burns")
        heard.append(notification.body)

    await desk.runs(worker, concurrency=1)
    await desk.tells(*[b"poison"] * 3, b"1", b"2")
    await desk.begun(1)
    with full(desk.server):
        desk.go.set()
        await desk.refusals.of("dead_letter", 3 * TRIES)
        await until(lambda: _heard(heard, 2))
    await desk.witness.until(*[Outcome.DONE] * 2, *[Outcome.DEAD] * 3)
    assert heard == [b"1", b"2"]
    assert await desk.letters() == [("it burns", 1)] * 3


async def _heard(heard: list[bytes], many: int) -> bool:
    return len(heard) == many


# A Redis that writes nothing at all -------------------------------------------------------------


async def test_what_is_handled_is_finished_when_redis_writes_again(desk: Desk) -> None:
    worker = Worker("desk", **STRICT)
    given: list[bytes] = []

    @worker.listen(PRINTER, TYPE)
    async def note(notification: Notification[Any]) -> None:
        given.append(notification.body)
        await desk.go.wait()

    await desk.runs(worker)
    await desk.tells(b"1", b"2")
    await desk.begun(2)
    with unwritable(desk.server):
        desk.go.set()
        await desk.refusals.of("finish")
    await desk.witness.until(Outcome.DONE, Outcome.DONE)
    assert sorted(given) == [b"1", b"2"]


@pytest.mark.parametrize(
    ("what", "outcome"),
    [(CloseDialog(b"bye"), Outcome.CLOSED), (ValueError("no"), Outcome.RETRIED)],
    ids=["close", "hand back"],
)
async def test_what_a_handler_wished_is_done_when_redis_writes_again(
    desk: Desk, what: Exception, outcome: Outcome
) -> None:
    worker = Worker("desk", user="desk", retry_wait=wait_none(), max_deliveries=2)
    runs: list[int] = []

    @worker.listen(PRINTER, TYPE, style=BIDIRECTIONAL)
    async def answer(offer: PooledOffer[Any]) -> bytes:
        runs.append(offer.times)
        await desk.go.wait()
        if len(runs) == 1:
            raise what
        return b"yes"

    await desk.runs(worker)
    channel = await desk.asks()
    await desk.begun(1)
    with unwritable(desk.server):
        desk.go.set()
        await desk.refusals.of("listener_close" if outcome is Outcome.CLOSED else "hand_back")
    if outcome is Outcome.CLOSED:
        assert await channel.wait_closed(PATIENCE)
        await desk.witness.until(outcome)
        return
    assert (await channel.response(PATIENCE)).data == b"yes"
    await desk.witness.until(outcome, Outcome.RESPONDED)
    assert runs == [1, 2], "that was a delivery"
    await channel.close()
