"""Workers on a real Redis: what becomes of what a handler is given, whatever the handler does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tenacity import wait_fixed, wait_none

from broker import BIDIRECTIONAL, Broker, Channel, Name, Notification, Offer, Payload
from broker._server import Server
from broker.errors import ChannelAlreadyClosed, OutcomeUnknown
from broker.notification import Data
from broker.pooled_offer import PooledOffer
from broker.replica import Delivery, Replica
from tests.farm import (
    OTHER_SERVER,
    PATIENCE,
    PRINTER,
    PRINTER_OF_OTHER_SERVER,
    SERVER,
    TYPE,
    Answer,
    Farm,
    OutOfPaper,
)
from tests.redis.pooling import ALERTS, LEASE, Member
from tests.redis.scenes import BRISK, until
from workers import CloseDialog, Decline, Outcome, PutAside, RetryLater, Worker
from workers.runner import Runner
from workers.worker import EVERYWHERE

NOW: dict[str, Any] = {"retry_wait": wait_none()}


class Witness:
    """Notes what handlers do, and wakes who waits for it."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.redelivered: list[bool] = []
        self.latencies: list[float | None] = []

    def delivered(self, _: str, __: str, *, redelivered: bool, latency: float | None) -> None:
        self.redelivered.append(redelivered)
        self.latencies.append(latency)

    def handled(self, _: str, __: str, outcome: Outcome, ___: float) -> None:
        self.outcomes.append(outcome)

    async def until(self, *outcomes: Outcome) -> None:
        """Return when these are the outcomes so far."""

        async def are() -> bool:
            return len(self.outcomes) >= len(outcomes)

        await until(are)
        assert self.outcomes == list(outcomes)


@asynccontextmanager
async def running(
    farm: Farm, worker: Worker, *, concurrency: int = 8, drain: float = PATIENCE, **options: Any
) -> AsyncIterator[tuple[Runner, Witness]]:
    """A replica of the worker's pool."""
    broker = await farm.broker("desk", **{**BRISK, **options})
    witness = Witness()
    runner = Runner(worker, broker, concurrency=concurrency, poll=0.1, telemetry=witness)
    await runner.start()
    try:
        yield runner, witness
    finally:
        await runner.stop(drain)
        await broker.close()


async def notify(farm: Farm, *bodies: bytes, name: str = PRINTER) -> None:
    """Send unidirectional notifications to the desk."""
    source = await farm.broker("spooler")
    async with await source.open_channel(name, TYPE, user="desk") as channel:
        for body in bodies:
            await channel.send(body)


def fail(error: Exception) -> None:
    """Raise it, in a lambda."""
    raise error


async def ask(farm: Farm, body: Any = b"continue?") -> Channel:
    """Ask the desk a question."""
    source = await farm.broker("spooler")
    channel = await source.open_channel(PRINTER, OutOfPaper, user="desk", style=BIDIRECTIONAL)
    await channel.send(body)
    return channel


@pytest.fixture
async def desk(real_farm: Farm) -> AsyncIterator[Farm]:
    """A farm whose pool is deleted in the end, so that the farm's check finds nothing left."""
    yield real_farm
    cleaner = await real_farm.broker("cleaner")
    for server in await cleaner.servers():
        for facts in await cleaner.pools.on_server(Name(server)):
            await cleaner.pools.delete(facts.pool, Name(server))
            assert facts.in_hand == 0, f"{facts} has something in hand"
    for name in await real_farm.keys():
        if name.endswith(":dead"):
            await real_farm.client.delete(name)


# Notifications -----------------------------------------------------------------------------------


async def test_coroutines_and_plain_functions_are_given_what_they_ask_for(desk: Farm) -> None:
    worker = Worker("desk", user="desk")
    given: list[Any] = []

    @worker.listen(PRINTER, OutOfPaper)
    async def in_the_loop(
        paper: OutOfPaper, delivery: Delivery[Any], replica: Replica[Any], broker: Broker
    ) -> None:
        given.append((paper.tray, delivery.times, replica.pool, broker.user))

    @worker.listen(SERVER, TYPE)
    def in_a_thread(notification: Notification[Any], name: Name) -> None:
        given.append((notification.body, str(name), threading.current_thread().name[:14]))

    async with running(desk, worker) as (_, witness):
        await notify(desk, OutOfPaper(tray=2).encode())
        await witness.until(Outcome.DONE)
        await notify(desk, b"plain", name=SERVER)
        await witness.until(Outcome.DONE, Outcome.DONE)
    assert given == [(2, 1, "desk", "desk"), (b"plain", SERVER, "tympan-handler")]
    assert all(latency is not None and latency < PATIENCE for latency in witness.latencies)


async def test_what_fails_is_delivered_again_and_put_aside_at_last(desk: Farm) -> None:
    worker = Worker("desk", user="desk", max_deliveries=3, **NOW)
    times: list[int] = []

    @worker.listen(PRINTER, TYPE)
    async def fails(notification: Notification[Any], delivery: Delivery[Any]) -> None:
        if notification.body == b"poison":
            times.append(delivery.times)
            raise RuntimeError("the paper is sour")

    async with running(desk, worker) as (_, witness):
        await notify(desk, b"poison")
        await witness.until(Outcome.RETRIED, Outcome.RETRIED, Outcome.DEAD)
        await notify(desk, b"good")
        await witness.until(Outcome.RETRIED, Outcome.RETRIED, Outcome.DEAD, Outcome.DONE)
    assert times == [1, 2, 3]
    assert witness.redelivered == [False, True, True, False]
    (letter,) = await (await desk.broker()).dead_letters.on_server(SERVER)
    assert (letter.pool, letter.times, letter.data) == ("desk", 3, b"poison")
    assert letter.reason == "RuntimeError: the paper is sour"


async def test_what_nobody_lives_to_finish_is_put_aside_unread(desk: Farm) -> None:
    """Each of its deliveries may have killed a process; the next one is spared."""
    worker = Worker("desk", user="desk", max_deliveries=2, **NOW)
    bodies: list[bytes] = []

    @worker.listen(PRINTER, TYPE)
    def handle(notification: Notification[Any]) -> None:
        bodies.append(notification.body)

    doomed = await Member.of(await desk.broker("desk", **BRISK), ALERTS, "desk")
    await notify(desk, b"poison")
    for _ in range(2):
        poison = await doomed.delivery()
        assert poison.notification.data == b"poison"
        await poison.hand_back()
    await doomed.replica.leave()
    async with running(desk, worker) as (_, witness):
        await witness.until(Outcome.DEAD)
        await notify(desk, b"good")
        await witness.until(Outcome.DEAD, Outcome.DONE)
    assert bodies == [b"good"]
    (letter,) = await (await desk.broker()).dead_letters.on_server(SERVER)
    assert (letter.data, letter.times) == (b"poison", 3)
    assert letter.reason == "handed out 2 times, and never finished; max_deliveries is 2"


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda: "an answer", "returned str"),
        (lambda: fail(PutAside("no use")), "no use"),
        (lambda: fail(Decline()), "declined"),
        (lambda: fail(CloseDialog()), "closed"),
    ],
    ids=["returns", "puts aside", "declines", "closes"],
)
async def test_what_another_try_would_not_mend_is_put_aside_at_once(
    desk: Farm, function: Callable[..., Any], reason: str
) -> None:
    worker = Worker("desk", user="desk")
    worker.listen(PRINTER, OutOfPaper)(function)
    async with running(desk, worker) as (_, witness):
        await notify(desk, OutOfPaper(tray=1).encode())
        await witness.until(Outcome.DEAD)
    (letter,) = await (await desk.broker()).dead_letters.on_server(SERVER)
    assert reason in letter.reason


async def test_a_payload_that_its_schema_refuses_is_put_aside_and_its_neighbours_go_on(
    desk: Farm,
) -> None:
    worker = Worker("desk", user="desk")
    trays: list[int] = []

    @worker.listen(PRINTER, OutOfPaper)
    async def handle(paper: OutOfPaper) -> None:
        trays.append(paper.tray)

    async with running(desk, worker) as (_, witness):
        await notify(desk, b"{", b'{"tray": "two"}', OutOfPaper(tray=3).encode())
        await until(lambda: _is(len(witness.outcomes), 3))
    assert sorted(witness.outcomes) == [Outcome.DEAD, Outcome.DEAD, Outcome.DONE]
    assert trays == [3]


async def test_a_handler_says_when_it_wants_to_be_asked_again(desk: Farm) -> None:
    worker = Worker("desk", user="desk", retry_wait=wait_fixed(3600))
    times: list[int] = []

    @worker.listen(PRINTER, TYPE)
    async def handle(delivery: Delivery[Any]) -> None:
        times.append(delivery.times)
        if delivery.times == 1:
            raise RetryLater(0.2)

    async with running(desk, worker) as (_, witness):
        await notify(desk, b"later")
        await witness.until(Outcome.RETRIED, Outcome.DONE)
    assert times == [1, 2]


async def test_a_handler_that_hangs_is_broken_off(desk: Farm) -> None:
    worker = Worker("desk", user="desk", timeout=0.1, max_deliveries=2, **NOW)
    broken: list[bool] = []

    @worker.listen(PRINTER, TYPE)
    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            broken.append(True)

    async with running(desk, worker) as (_, witness):
        await notify(desk, b"x")
        await witness.until(Outcome.RETRIED, Outcome.DEAD)
    assert broken == [True, True]
    (letter,) = await (await desk.broker()).dead_letters.on_server(SERVER)
    assert "hangs was not done in 0.1 s" in letter.reason


async def test_a_plain_function_that_hangs_keeps_its_slot_until_it_ends(desk: Farm) -> None:
    worker = Worker("desk", user="desk", timeout=0.1, max_deliveries=1)
    go_on = threading.Event()

    @worker.listen(PRINTER, TYPE)
    def hangs(notification: Notification[Any]) -> None:
        if notification.body == b"hang":
            go_on.wait(PATIENCE)

    async with running(desk, worker, concurrency=1) as (runner, witness):
        await notify(desk, b"hang", b"next")
        await witness.until(Outcome.DEAD)
        await until(lambda: _is(runner.liveness.fault is not None, True))
        assert witness.outcomes == [Outcome.DEAD], "its only slot is taken"
        go_on.set()
        await witness.until(Outcome.DEAD, Outcome.DONE)
        await until(lambda: _is(runner.liveness.fault, None))


async def test_a_full_worker_leaves_the_rest_to_its_siblings(desk: Farm) -> None:
    gate = asyncio.Event()
    held: list[bytes] = []
    others: list[bytes] = []

    def make(taken: list[bytes], *, waits: bool) -> Worker:
        worker = Worker("desk", user="desk")

        @worker.listen(PRINTER, TYPE)
        async def handle(notification: Notification[Any]) -> None:
            taken.append(notification.body)
            if waits:
                await gate.wait()

        return worker

    async with running(desk, make(held, waits=True), concurrency=2) as (full, _):
        await notify(desk, *(b"%d" % i for i in range(6)))
        await until(lambda: _is(len(held), 2))
        async with running(desk, make(others, waits=False)) as (_, witness):
            await until(lambda: _is(len(others), 4))
            assert len(held) == 2
            assert sum(full.in_hand_by_pool().values()) == 2
            assert set(held) | set(others) == {b"%d" % i for i in range(6)}
            gate.set()
            await until(lambda: _is(len(witness.outcomes), 4))


def finishing_after(told: asyncio.Event) -> Callable[[Replica[Any]], Awaitable[None]]:
    """Redis is told of what is done, though not before that."""
    finish = Replica._finish

    async def late(replica: Replica[Any]) -> None:
        await told.wait()
        await finish(replica)

    return late


async def test_the_next_one_begins_while_redis_is_told_of_the_last(
    desk: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker("desk", user="desk")
    begun: list[bytes] = []
    second, told = asyncio.Event(), asyncio.Event()

    @worker.listen(PRINTER, TYPE)
    async def handle(notification: Notification[Any]) -> None:
        begun.append(notification.body)
        if notification.body == b"2":
            second.set()

    monkeypatch.setattr(Replica, "_finish", finishing_after(told))
    async with running(desk, worker, concurrency=1) as (_, witness):
        await notify(desk, b"1", b"2")
        async with asyncio.timeout(PATIENCE):
            await second.wait()
        assert begun == [b"1", b"2"]
        assert witness.outcomes == []
        told.set()
        await witness.until(Outcome.DONE, Outcome.DONE)


async def test_what_another_was_given_meanwhile_is_not_done_here(
    desk: Farm, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker("desk", user="desk")

    @worker.listen(PRINTER, TYPE)
    async def handle(delivery: Delivery[Any]) -> None:
        if delivery.times == 1:
            await delivery.hand_back()

    async with running(desk, worker) as (_, witness):
        await notify(desk, b"x")
        await until(lambda: _is(sorted(witness.outcomes), [Outcome.CANCELLED, Outcome.DONE]))
    assert "handle: late: " in caplog.text


async def test_what_redis_did_not_hear_of_is_tried_again(
    desk: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker("desk", user="desk", **NOW)
    times: list[int] = []

    @worker.listen(PRINTER, TYPE)
    async def handle(delivery: Delivery[Any]) -> None:
        times.append(delivery.times)

    asked = Server.ask

    async def unheard(server: Server, make: Any) -> Any:
        if make().script.name == "finish":
            monkeypatch.setattr(Server, "ask", asked)
            raise OutcomeUnknown("nobody answered")
        return await asked(server, make)

    monkeypatch.setattr(Server, "ask", unheard)
    async with running(desk, worker) as (_, witness):
        await notify(desk, b"x")
        await witness.until(Outcome.RETRIED, Outcome.DONE)
    assert times == [1, 2]


async def test_a_worker_that_stops_waits_until_redis_heard_of_what_is_done(
    desk: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker("desk", user="desk")
    handled, told = asyncio.Event(), asyncio.Event()

    @worker.listen(PRINTER, TYPE)
    async def handle() -> None:
        handled.set()

    monkeypatch.setattr(Replica, "_finish", finishing_after(told))
    async with running(desk, worker) as (runner, witness):
        await notify(desk, b"x")
        await handled.wait()
        stopping = asyncio.create_task(runner.stop(PATIENCE))
        await asyncio.sleep(0.05)
        (said,) = runner.describe()
        assert said.startswith("handler handle: a notification of ")
        told.set()
        assert await stopping == 0
        assert witness.outcomes == [Outcome.DONE]


async def test_what_is_in_hand_is_finished_before_a_worker_stops(desk: Farm) -> None:
    worker = Worker("desk", user="desk")
    began, done = asyncio.Event(), []

    @worker.listen(PRINTER, TYPE)
    async def slow(notification: Notification[Any]) -> None:
        began.set()
        await asyncio.sleep(2 * LEASE)  # it is renewed meanwhile
        done.append(notification.body)

    async with running(desk, worker, concurrency=1, lease=LEASE) as (runner, witness):
        await notify(desk, b"first", b"second")
        await began.wait()
        assert await runner.stop(PATIENCE) == 0
        assert witness.outcomes == [Outcome.DONE]
    assert done == [b"first"]
    (facts,) = await (await desk.broker()).pools.on_server(SERVER)
    assert (facts.waiting, facts.in_hand, facts.replicas) == (1, 0, ())


async def test_what_is_not_finished_in_time_is_handed_back(desk: Farm) -> None:
    began = asyncio.Event()
    worker = Worker("desk", user="desk", timeout=None)

    @worker.listen(PRINTER, TYPE)
    async def endless() -> None:
        began.set()
        await asyncio.Event().wait()

    async with running(desk, worker) as (runner, witness):
        await notify(desk, b"x")
        await began.wait()
        assert await runner.stop(0.05) == 1
        assert witness.outcomes == [Outcome.CANCELLED]
    times: list[int] = []
    heir = Worker("desk", user="desk")

    @heir.listen(PRINTER, TYPE)
    async def handle(delivery: Delivery[Any]) -> None:
        times.append(delivery.times)

    async with running(desk, heir) as (_, witness):
        await witness.until(Outcome.DONE)
    assert times == [2], "the delivery that was broken off counts"


async def test_a_lost_lease_cancels_what_runs_and_the_worker_goes_on(desk: Farm) -> None:
    worker = Worker("desk", user="desk", **NOW)
    began: list[int] = []

    @worker.listen(PRINTER, TYPE)
    async def handle(delivery: Delivery[Any]) -> None:
        began.append(delivery.times)
        if delivery.times == 1:
            await asyncio.Event().wait()

    async with running(desk, worker) as (runner, witness):
        await notify(desk, b"x")
        await until(lambda: _is(began, [1]))
        server = await runner.broker.server(PRINTER)
        await desk.client.zadd(server.keys.leases, {server.session: 0})
        await until(lambda: _is(began, [1, 2]))
        await until(lambda: _is(sorted(witness.outcomes), [Outcome.CANCELLED, Outcome.DONE]))


async def test_hooks_run_around_everything(desk: Farm) -> None:
    worker = Worker("desk", user="desk")
    said: list[str] = []

    @worker.on_startup
    async def opens(broker: Broker, mine: Worker) -> None:
        mine.state["who"] = broker.user
        said.append("opened")

    @worker.on_shutdown
    def closes_first() -> None:
        said.append("first closed")

    @worker.on_shutdown
    def closes(mine: Worker) -> None:
        said.append(f"closed for {mine.state['who']}")

    @worker.listen(PRINTER, TYPE)
    async def handle() -> None:
        said.append("handled")

    async with running(desk, worker) as (_, witness):
        await notify(desk, b"x")
        await witness.until(Outcome.DONE)
    assert said == ["opened", "handled", "closed for desk", "first closed"]


async def test_servers_that_are_added_later_are_served(desk: Farm) -> None:
    worker = Worker("desk", user="desk")
    heard: list[str] = []

    @worker.listen(EVERYWHERE, TYPE, printers=True)
    async def handle(name: Name) -> None:
        heard.append(str(name))

    source = await desk.broker("spooler")
    await source.server(SERVER)
    async with running(desk, worker) as (runner, _):
        await notify(desk, b"x")
        await until(lambda: _is(heard, [PRINTER]))
        await source.server(OTHER_SERVER)
        await until(lambda: _is(len(runner.membership.replicas), 2))
        await notify(desk, b"y", name=PRINTER_OF_OTHER_SERVER)
        await until(lambda: _is(heard, [PRINTER, PRINTER_OF_OTHER_SERVER]))


async def test_a_worker_whose_pool_is_deleted_has_nothing_to_do(desk: Farm) -> None:
    worker = Worker("desk", user="desk")

    @worker.listen(PRINTER, TYPE)
    async def handle() -> None: ...

    async with running(desk, worker) as (runner, _):
        operator = await desk.broker("operator")
        assert runner.obstacles() == []
        await operator.pools.delete("desk", PRINTER)
        async with asyncio.timeout(PATIENCE):
            await runner.is_needless.wait()
        assert "deleted" in runner.obstacles()[0]


# Questions ---------------------------------------------------------------------------------------


def answering(function: Callable[..., Any], **options: Any) -> Worker:
    """A worker that answers questions."""
    worker = Worker("desk", user="desk", **{**NOW, **options})
    worker.listen(PRINTER, OutOfPaper, style=BIDIRECTIONAL)(function)
    return worker


async def test_what_a_handler_returns_is_the_response(desk: Farm) -> None:
    async def handle(paper: OutOfPaper) -> Answer:
        return Answer(proceed=paper.tray == 2)

    async with running(desk, answering(handle)) as (_, witness):
        channel = await ask(desk, OutOfPaper(tray=2))
        assert (await channel.response(PATIENCE)).payload == Answer(proceed=True)
        await channel.close()
        await witness.until(Outcome.RESPONDED)


async def test_each_notification_of_a_dialog_is_a_turn(desk: Farm) -> None:
    trays: list[int] = []

    def handle(paper: OutOfPaper) -> bytes:
        trays.append(paper.tray)
        return b"%d" % paper.tray

    async with running(desk, answering(handle)) as (_, witness):
        channel = await ask(desk, OutOfPaper(tray=1))
        assert (await channel.response(PATIENCE)).data == b"1"
        await channel.send(OutOfPaper(tray=2))
        assert (await channel.response(PATIENCE)).data == b"2"
        await witness.until(Outcome.RESPONDED, Outcome.RESPONDED)
    assert trays == [1, 2]


async def test_a_handler_may_speak_several_times_in_one_turn(desk: Farm) -> None:
    async def handle(offer: PooledOffer[OutOfPaper]) -> bytes:
        first = await offer.ask(b"which paper?", PATIENCE)
        return b"take " + first.body

    async with running(desk, answering(handle)) as (_, witness):
        channel = await ask(desk)
        assert (await channel.response(PATIENCE)).data == b"which paper?"
        await channel.send(b"A3")
        assert (await channel.response(PATIENCE)).data == b"take A3"
        await witness.until(Outcome.RESPONDED)


async def test_a_question_that_is_declined_stays_open_for_others(desk: Farm) -> None:
    async def handle() -> None:
        raise Decline

    other = await (await desk.broker("desk")).register(PRINTER, TYPE, style=BIDIRECTIONAL)
    async with running(desk, answering(handle)) as (_, witness):
        channel = await ask(desk)
        await witness.until(Outcome.DECLINED)
        await (await desk.offered(other)).respond(b"I do")
        assert (await channel.response(PATIENCE)).data == b"I do"


async def test_a_handler_closes_with_a_reason(desk: Farm) -> None:
    async def handle() -> None:
        raise CloseDialog(Data(TYPE, b"closed for today"))

    async with running(desk, answering(handle)) as (_, witness):
        channel = await ask(desk)
        closing = await channel.wait_closed(PATIENCE)
        assert closing is not None
        assert closing.reason.data == b"closed for today"
        await witness.until(Outcome.CLOSED)


async def test_a_question_that_somebody_else_answers_is_broken_off(desk: Farm) -> None:
    began, broken = asyncio.Event(), asyncio.Event()

    async def handle() -> Answer:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            broken.set()
        return Answer(proceed=True)

    other = await (await desk.broker("desk")).register(PRINTER, TYPE, style=BIDIRECTIONAL)
    async with running(desk, answering(handle)) as (_, witness):
        channel = await ask(desk)
        await began.wait()
        await (await desk.offered(other)).respond(b"I do")
        await broken.wait()
        await witness.until(Outcome.LOST)
        assert (await channel.response(PATIENCE)).data == b"I do"


async def test_a_late_answer_is_refused_and_the_worker_told(desk: Farm) -> None:
    began, go_on = threading.Event(), threading.Event()

    def handle() -> bytes:
        began.set()
        go_on.wait(PATIENCE)
        return b"late"

    other = await (await desk.broker("desk")).register(PRINTER, TYPE, style=BIDIRECTIONAL)
    async with running(desk, answering(handle)) as (_, witness):
        channel = await ask(desk)
        await asyncio.to_thread(began.wait, PATIENCE)
        await (await desk.offered(other)).respond(b"I do")
        assert (await channel.response(PATIENCE)).data == b"I do"
        go_on.set()
        await witness.until(Outcome.LOST)


@pytest.mark.parametrize("answer", [None, 7, Payload])
async def test_what_is_no_answer_is_put_aside_and_the_question_stays_open(
    desk: Farm, answer: Any
) -> None:
    async with running(desk, answering(lambda: answer)) as (_, witness):
        channel = await ask(desk, OutOfPaper(tray=1))
        await witness.until(Outcome.DEAD)
        assert channel.closing is None


async def test_a_dialog_whose_handler_fails_goes_on_from_what_was_said(desk: Farm) -> None:
    runs: list[bytes] = []

    async def handle(offer: PooledOffer[Any]) -> bytes:
        told = await offer.ask(b"which paper?", PATIENCE)
        runs.append(told.body)
        if len(runs) == 1:
            raise RuntimeError("a hiccup")
        return b"done"

    async with running(desk, answering(handle)) as (_, witness):
        channel = await ask(desk)
        assert (await channel.response(PATIENCE)).data == b"which paper?"
        await channel.send(b"A3")
        assert (await channel.response(PATIENCE)).data == b"done"
        await witness.until(Outcome.RETRIED, Outcome.RESPONDED)
    assert runs == [b"A3", b"A3"], "the question was asked once, and its answer heard twice"


async def test_a_dialog_that_cannot_be_handled_is_closed_with_a_letter(desk: Farm) -> None:
    async def handle(offer: Offer[Any]) -> bytes:
        await offer.respond(b"which paper?")
        raise RuntimeError("no idea")

    async with running(desk, answering(handle, max_deliveries=2)) as (_, witness):
        channel = await ask(desk)
        assert (await channel.response(PATIENCE)).data == b"which paper?"
        with pytest.raises(ChannelAlreadyClosed):
            await channel.response(PATIENCE)
        await witness.until(Outcome.RETRIED, Outcome.DEAD)
    (letter,) = await (await desk.broker()).dead_letters.on_server(SERVER)
    assert letter.reason == "RuntimeError: no idea"


async def _is(value: Any, wanted: Any) -> bool:
    return bool(value == wanted)
