"""Drain hooks: a handler that waits for something else than its work is told to end."""

from __future__ import annotations

import asyncio

import pytest

from tests.farm import PRINTER, TYPE, Farm
from tests.redis.scenes import BRISK, until
from workers import Outcome, RetryLater, Worker
from workers.runner import Runner


async def test_a_worker_says_that_it_drains(
    real_farm: Farm, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where one of its hooks fails, and long before the drain time is over."""
    worker = Worker("desk", user="desk", timeout=None)
    outcomes: list[Outcome] = []
    waits, ends = asyncio.Event(), asyncio.Event()

    class Witness:
        def delivered(self, *_: object, **__: object) -> None:
            waits.set()

        def handled(self, _: str, __: str, outcome: Outcome, ___: float) -> None:
            outcomes.append(outcome)

    @worker.on_drain
    def fails() -> None:
        raise RuntimeError("no")

    @worker.on_drain
    async def end(mine: Worker) -> None:
        assert mine is worker
        ends.set()

    @worker.listen(PRINTER, TYPE)
    async def handle() -> None:
        await ends.wait()
        raise RetryLater(0)

    broker = await real_farm.broker("desk", **BRISK)
    runner = Runner(worker, broker, poll=0.1, telemetry=Witness())
    await runner.start()
    async with await broker.open_channel(PRINTER, TYPE, user="desk") as channel:
        await channel.send(b"x")
        async with asyncio.timeout(20):
            await waits.wait()
            assert await runner.stop(drain=60) == 0
    assert outcomes == [Outcome.RETRIED]
    assert "drain hook fails failed" in caplog.text

    async def is_back() -> bool:
        (facts,) = await broker.pools.on_server(PRINTER)
        return facts.waiting == 1

    await until(is_back)
    await broker.pools.delete("desk", PRINTER)
