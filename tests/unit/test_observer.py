"""An observer counts what happens and disturbs nothing; nobody pays for one that is not there."""

from __future__ import annotations

import gc
import logging
import sys

import pytest

from broker import BIDIRECTIONAL, UNIDIRECTIONAL, Broker, Observer, Offer, sync
from broker.memory import MemoryRedis
from broker.observer import SILENT, Silent, guarded
from tests.farm import PATIENCE, PRINTER, TYPE
from tests.recorder import Recorder


class Faulty:
    """Fails whatever it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> object:
        def fail(*_: object, **__: object) -> None:
            self.calls.append(name)
            raise ZeroDivisionError(name)

        return fail


@pytest.fixture
async def memory() -> MemoryRedis:
    return MemoryRedis()


async def talk(memory: MemoryRedis, observer: Observer | None) -> None:
    """A notification, and a question with its answer, between two brokers that it watches."""
    async with (
        memory.broker(user="alice", observer=observer) as source,
        memory.broker(user="alice", observer=observer) as listener,
        await listener.register(PRINTER, TYPE) as notifications,
        await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL) as questions,
    ):
        async with await source.open_channel(PRINTER, TYPE) as channel:
            await channel.send(b"empty")
            assert await notifications.fetch(PATIENCE) is not None
        async with await source.open_channel(PRINTER, TYPE, style=BIDIRECTIONAL) as channel:
            await channel.send(b"go on?")
            offer = await questions.fetch(PATIENCE)
            assert isinstance(offer, Offer)
            await offer.respond(b"yes")
            assert (await channel.response(PATIENCE)).data == b"yes"


async def test_the_double_tells_an_observer_as_a_real_redis_does(memory: MemoryRedis) -> None:
    recorder = Recorder()
    await talk(memory, recorder)
    assert recorder.of("sent") == [(UNIDIRECTIONAL, "OK"), (BIDIRECTIONAL, "OK")]
    assert recorder.of("acquisition") == [(True,)]
    assert recorder.of("responded") == [()]
    assert ("respond", "OK") in recorder.of("script")
    assert recorder.of("resync") == recorder.of("lease") == []
    assert all(0 <= seconds < PATIENCE for seconds in recorder.seconds)


async def test_an_observer_that_raises_harms_nobody_and_is_logged_once(
    memory: MemoryRedis, caplog: pytest.LogCaptureFixture
) -> None:
    faulty = Faulty()
    with caplog.at_level(logging.ERROR):
        await talk(memory, guarded(faulty))  # type: ignore[arg-type]
    assert {"script_ended", "sent", "responded", "acquisition_ended"} <= set(faulty.calls)
    logged = [record for record in caplog.records if "observer" in record.message]
    assert len(logged) == 1
    assert logged[0].exc_info is not None
    assert logged[0].exc_info[0] is ZeroDivisionError


def test_a_cancellation_is_not_swallowed() -> None:
    class Stopped(Silent):
        def responded(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guarded(Stopped()).responded()


def test_an_observer_may_look_at_a_part_only() -> None:
    class Losses(Silent):
        def __init__(self) -> None:
            self.servers: list[str] = []

        def lease_lost(self, server: str) -> None:
            self.servers.append(server)

    losses = Losses()
    observer = guarded(losses)
    observer.sent(UNIDIRECTIONAL, "OK")
    observer.lease_lost("print01")
    assert losses.servers == ["print01"]


def test_without_an_observer_there_is_the_silent_one() -> None:
    assert guarded(None) is SILENT
    assert Broker.connect("redis://127.0.0.1:1")._observer is SILENT


def test_the_facade_takes_one_too() -> None:
    broker = sync.Broker.connect("redis://127.0.0.1:1", observer=Recorder())
    assert broker._broker._observer is not SILENT


def test_the_silent_one_allocates_nothing() -> None:
    def tell() -> None:
        for _ in range(10_000):
            SILENT.script_ended("uni_send", 0.001, "OK")
            SILENT.sent(UNIDIRECTIONAL, "OK")
            SILENT.responded()

    tell()
    gc.collect()
    before = sys.getallocatedblocks()
    tell()
    assert sys.getallocatedblocks() - before < 100
