"""Callbacks of unidirectional listeners: a plain function is called as the bell rings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

from broker import Broker, Channel, Registration
from broker.errors import CallAlreadyParked
from tests.conformance.actors import eventually
from tests.farm import PRINTER, TYPE, Farm
from tests.redis.scenes import QUIET

who: ContextVar[str] = ContextVar("who", default="nobody")


class Plain:
    """Calls a function with the text of each notification, and returns what it returns."""

    def __init__(self, take: Callable[[str], object]) -> None:
        self._take = take

    def on_event_notify(self, _channel: Any, notification: Any) -> Any:
        return self._take(notification.text)

    def channel_closed(self, _channel: Any, _reason: Any) -> None:
        raise AssertionError("a unidirectional channel's end is not told")


@pytest.fixture
async def source(real_farm: Farm) -> Channel:
    broker = await real_farm.broker("spooler", **QUIET)
    return await broker.open_channel(PRINTER, TYPE, user="alice")


@pytest.fixture
async def broker(real_farm: Farm) -> Broker:
    return await real_farm.broker("alice", **QUIET)


async def listen(
    broker: Broker, take: Callable[[str], object], **options: Any
) -> Registration[Any]:
    registration = await broker.listen(PRINTER, TYPE, Plain(take), **options)
    await eventually(lambda: registration._hand is not None, "it waits")
    return registration


async def say(source: Channel, *texts: str) -> None:
    for text in texts:
        await source.send(text)


async def test_it_runs_in_the_context_of_who_began_to_listen(
    broker: Broker, source: Channel
) -> None:
    heard: list[tuple[str, str]] = []

    def take(text: str) -> None:
        heard.append((text, who.get()))
        who.set(text)

    who.set("alice")
    await listen(broker, take)
    who.set("bob")
    await say(source, "one", "two")
    await eventually(lambda: len(heard) == 2, "both")
    assert heard == [("one", "alice"), ("two", "one")]
    assert who.get() == "bob"


async def test_what_it_returns_is_awaited_before_the_next_one(
    broker: Broker, source: Channel
) -> None:
    """Also where that is no coroutine function's doing."""
    heard: list[str] = []
    goes_on = asyncio.Event()

    async def slowly(text: str) -> None:
        heard.append(f"begun {text}")
        await goes_on.wait()
        heard.append(f"done {text}")

    registration = await listen(
        broker, lambda text: slowly(text) if text == "one" else heard.append(text)
    )
    await say(source, "one", "two", "three")
    await eventually(lambda: registration.unread == 2, "two wait behind it")
    assert heard == ["begun one"]
    goes_on.set()
    await eventually(lambda: len(heard) == 4, "the rest")
    assert heard == ["begun one", "done one", "two", "three"]


async def test_its_faults_are_logged_and_end_nothing(
    broker: Broker, source: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []

    async def fails() -> None:
        raise RuntimeError("later")

    def take(text: str) -> object:
        heard.append(text)
        if text == "now":
            raise RuntimeError("now")
        return fails() if text == "later" else None

    await listen(broker, take)
    await say(source, "now", "later", "well")
    await eventually(lambda: heard == ["now", "later", "well"], "all three")
    faults = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert [str(fault) for fault in faults] == ["now", "later"]


async def test_nobody_else_fetches_beside_it(broker: Broker) -> None:
    registration = await listen(broker, lambda _: None)
    with pytest.raises(CallAlreadyParked):
        await registration.fetch()


async def test_after_the_end_nothing_is_handed_over(broker: Broker, source: Channel) -> None:
    heard: list[str] = []
    registration = await listen(broker, heard.append)
    await say(source, "one")
    await eventually(lambda: heard == ["one"], "the first")
    await registration.unregister()
    await eventually(lambda: registration.callback_references == 0, "the callback is let go")
    await say(source, "two")
    assert heard == ["one"]


async def test_who_leaves_in_a_callbacks_course_leaves_nothing_unfinished(
    broker: Broker, source: Channel
) -> None:
    is_done = asyncio.Event()

    async def never() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            is_done.set()

    async with await listen(broker, lambda _: never()) as registration:
        await say(source, "one")
        await eventually(lambda: registration._fetcher is None, "it is under way")
    assert is_done.is_set()


async def test_what_fills_half_of_the_buffer_waits_until_redis_knows(
    broker: Broker, source: Channel
) -> None:
    heard: list[str] = []
    await listen(broker, heard.append, buffer=2)
    for i in range(20):
        assert (await source.send(str(i))).name == "S_OK"
        await eventually(partial(heard.__contains__, str(i)), "it was heard")
    assert heard == [str(i) for i in range(20)]
