"""A Redis that takes no more, throws away what it has, or is not the one to write to."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import ExitStack
from typing import Any

from tests.faults.case import Extent, Report, case
from tests.faults.load import Loss
from tests.faults.stage import Stage, stage, struck
from tests.servers import RedisServer
from workers.proof.talk import SETTINGS

FULL = 1.0
"""Seconds for which Redis is full, read-only or under pressure."""
DELIVERIES = 2
"""A refusal by Redis is none."""
CAREFUL: dict[str, Any] = {"resync": 2.0}
"""What was thrown away is missed by the clock, where nothing else tells of it."""
EVICTED = 60
"""Keys that are thrown away in one turn, the farm's and others."""
FILLING = b"x" * 4096


@case(
    "memory full",
    "what is refused is refused whole; leases hold, dialogs go on, nothing is put aside",
    is_short=True,
)
async def memory_full(extent: Extent) -> Report:
    async def fill(stage: Stage, number: int) -> None:
        """While the pool has a question in hand; every other time for longer than a lease."""
        async with stage.desk.asked():
            stage.server.config("maxmemory", 1)
        await asyncio.sleep(SETTINGS["lease"] + 1 if number % 2 else FULL)
        stage.server.config("maxmemory", 0)

    times = extent.of(1, 2, 20)
    report = await struck(
        Report(), "memory full", times, fill, lease=SETTINGS["lease"], deliveries=DELIVERIES
    )
    if not report.checked["refusals"]:
        report.violations.append("nothing was refused: Redis was not full")
    return report


@case("a read-only replica answers", "what is refused is refused whole; then all goes on")
async def read_only(extent: Extent) -> Report:
    report = Report()
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer())
        replica = stack.enter_context(server.replica())
        async with stage(report, server=server) as made:
            for number in range(extent.of(1, 2, 20)):
                async with made.broken(f"read-only, {number + 1}"):
                    made.proxy.target = made.proxy.target[0], replica.port
                    made.proxy.cut()
                    await asyncio.sleep(FULL)
                    made.proxy.target = made.proxy.target[0], server.port
                    made.proxy.cut()
    if not report.checked["refusals"]:
        report.violations.append("nothing was refused: the replica was not asked")
    return report


@case("an evicting policy", "what is thrown away is told; one owner, and nobody waits for ever")
async def evicting(extent: Extent) -> Report:
    policies = itertools.cycle(["allkeys-lru", "allkeys-random"])

    async def evict(stage: Stage, number: int) -> None:
        server, policy = stage.server, next(policies)
        server.config("maxmemory-policy", policy)
        server.config("maxmemory", server.cli("INFO", "memory")["used_memory"])
        before = evicted(server)
        for filled in itertools.count():
            server.cli("SET", f"filling:{number}:{filled}", FILLING)
            if evicted(server) >= before + EVICTED:
                break
            await asyncio.sleep(0)
        server.config("maxmemory", 0)
        server.config("maxmemory-policy", "noeviction")
        left = server.cli("KEYS", "filling:*")
        ours = evicted(server) - before - (filled + 1 - len(left))
        stage.report.checked["keys thrown away"] += ours
        if left:
            server.cli("UNLINK", *left)

    report = await struck(
        Report(), "eviction", extent.of(1, 4, 40), evict, loss=Loss.ALL, **CAREFUL
    )
    # Who held what was thrown away, too: what nobody knows any more to be his stays.
    for left in [each for each in report.violations if "keys without an owner" in each]:
        report.violations.remove(left)
        report.lost["keys left behind"] += left.count("{print01}")
    if not report.checked["keys thrown away"]:
        report.violations.append("none of the farm's keys was thrown away")
    return report


def evicted(server: RedisServer) -> int:
    return int(server.cli("INFO", "stats")["evicted_keys"])
