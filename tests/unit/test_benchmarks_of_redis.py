"""The benchmarks of pools, races and of what Redis does: tiny rounds on a real server."""

from __future__ import annotations

from benchmarks.caller import Caller
from benchmarks.contestants import POOL, POOL_FLOOR, RACE, RACE_FLOOR, RAW_COPIES, TYMPAN
from benchmarks.lifetimes import Lifetimes
from benchmarks.racing import Racing
from benchmarks.script_time import flatness
from benchmarks.sharing import Sharing
from benchmarks.stage import Stage
from benchmarks.start_up import share_of
from benchmarks.telling import Telling

REPORT = """\
import time: self [us] | cumulative | imported package
import time:        10 |         10 |     asyncio
import time:        20 |         20 |       redis.client
import time:        30 |         30 |       ssl
import time:        40 |         90 |     redis
import time:        50 |         50 |     redistribution
import time:        50 |        200 |   broker.broker
import time:         0 |        200 | broker
"""


def test_what_redis_imports_first_is_its_share() -> None:
    assert share_of(REPORT, ("redis", "pydantic")) == 90 / 200


async def test_replicas_share_what_is_sent() -> None:
    async with Stage() as stage:
        for contender in (POOL, POOL_FLOOR):
            sharing = Sharing(stage, contender, contender.program, replicas=2, seconds=0.01)
            figures = await sharing.rate(16, channels=4)
            assert figures["deliveries"] > 0
            await sharing.leave()


async def test_each_race_has_one_winner() -> None:
    async with Stage() as stage:
        for contender in (RACE, RACE_FLOOR):
            racing = Racing(stage, contender, "race", responders=4, processes=2)
            assert [(await racing.rate(5))["decisions"] > 0 for _ in range(2)] == [True, True]


async def test_large_bodies_reach_everybody() -> None:
    async with Stage() as stage:
        for contender in (TYMPAN, RAW_COPIES):
            telling = Telling(stage, contender, "large", listeners=2, processes=2)
            assert (await telling.latency(1, 0, size=100_000))["median"] > 0


async def test_redis_says_what_a_send_takes() -> None:
    async with Stage() as stage, Caller((await stage.server()).url) as caller:
        took = await flatness(caller, (0, 3), calls=20)
    assert [(one.calls, one.median > 0) for one in took.values()] == [(20, True)] * 2


async def test_nothing_is_left_of_what_is_gone() -> None:
    async with Stage() as stage:
        lifetimes = Lifetimes((await stage.server()).url, "short")
        await lifetimes.start()
        figures = await lifetimes.turn(3)
        await lifetimes.stop()
        assert (figures["us"] > 0, await lifetimes.left()) == (True, [])
