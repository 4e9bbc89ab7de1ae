"""Time limits: what takes too long is broken off, each in its time, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from workers.limit import Limit, Overdue

Work = Callable[[], Awaitable[Any]]


def begin(limit: Limit, work: Work) -> asyncio.Task[Any]:
    """A task that does this within the limit."""

    async def run() -> Any:
        task = asyncio.current_task()
        assert task is not None
        return await limit.keep(task, work())

    return asyncio.create_task(run())


async def forever() -> None:
    await asyncio.Event().wait()


async def test_what_is_done_in_time_is_returned() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert await begin(Limit(60), work) == 7


async def test_what_takes_too_long_is_broken_off() -> None:
    broken: list[int] = []

    async def work() -> None:
        try:
            await forever()
        finally:
            task = asyncio.current_task()
            assert task is not None
            broken.append(task.cancelling())

    task = begin(Limit(0.01), work)
    with pytest.raises(Overdue, match=r"0\.01 s"):
        await task
    assert broken == [1]
    assert task.cancelling() == 0, "nobody else cancelled it"


async def test_each_is_broken_off_in_its_time() -> None:
    limit = Limit(0.2)
    loop = asyncio.get_running_loop()
    began = loop.time()
    first = begin(limit, forever)
    await asyncio.sleep(0.1)
    second = begin(limit, forever)
    with pytest.raises(Overdue):
        await first
    assert loop.time() - began >= 0.2
    assert not second.done()
    with pytest.raises(Overdue):
        await second
    assert loop.time() - began >= 0.3


async def test_what_was_done_does_not_hurry_the_next() -> None:
    limit = Limit(0.2)
    loop = asyncio.get_running_loop()
    await begin(limit, lambda: asyncio.sleep(0))
    await asyncio.sleep(0.1)
    began = loop.time()
    with pytest.raises(Overdue):
        await begin(limit, forever)
    assert loop.time() - began >= 0.2


async def test_all_that_are_due_together_are_broken_off() -> None:
    limit = Limit(0.01)
    tasks = [begin(limit, forever) for _ in range(3)]
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in found] == [Overdue] * 3


async def test_a_cancellation_from_elsewhere_passes() -> None:
    task = begin(Limit(60), forever)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_from_elsewhere_counts_more_than_the_limit() -> None:
    broken = asyncio.Event()

    async def work() -> None:
        try:
            await forever()
        finally:
            broken.set()
            await asyncio.sleep(0.01)

    task = begin(Limit(0.01), work)
    await broken.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_does_not_let_itself_be_broken_off_goes_on() -> None:
    async def work() -> str:
        try:
            await forever()
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
        return "done"

    limit = Limit(0.01)
    stubborn, other = begin(limit, work), begin(limit, forever)
    with pytest.raises(Overdue):
        await other
    assert await stubborn == "done"
    assert stubborn.cancelling() == 0


async def test_what_it_raises_is_its_own() -> None:
    async def work() -> None:
        raise TimeoutError("somebody else's")

    with pytest.raises(TimeoutError, match="somebody else's") as raised:
        await begin(Limit(60), work)
    assert not isinstance(raised.value, Overdue)
