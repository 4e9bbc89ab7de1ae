"""A redis-server is killed, and started again with what its append-only file holds."""

from __future__ import annotations

import asyncio

from tests.faults.case import Extent, Report, case
from tests.faults.load import Loss, talking
from tests.servers import RedisServer


@case(
    "Redis killed and restarted, appendfsync always",
    "no success is forgotten, dialogs go on, and listeners hear again by themselves",
    is_short=True,
)
async def with_each_write_on_disk(extent: Extent) -> Report:
    return await restarted(extent.of(2, 10, 200), "always", "fsync")


@case(
    "Redis killed and restarted, appendfsync everysec",
    "what it forgot is counted; both ends of such a dialog are told NOTIFICATION_RELEASE",
)
async def with_the_disk_once_a_second(extent: Extent) -> Report:
    return await restarted(extent.of(2, 10, 200), "everysec", "memory")


async def restarted(times: int, appendfsync: str, durability: str) -> Report:
    """Kill it so often, under load at that durability."""
    report = Report()
    with RedisServer(appendonly=True, config={"appendfsync": appendfsync}) as server:
        async with talking(server.url, [durability], report) as load:
            for _ in range(times):
                await load.calm()
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.restart)
                await load.recovers("restarted")
        await load.settle(lambda: server, {"fsync": Loss.NOTHING})
    return report
