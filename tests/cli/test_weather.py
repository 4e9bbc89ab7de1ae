"""A command that begins in the midst of a failover waits for its end, and tells who waits for it.

The process that is away is the one that comes back here, so that no clock decides when.
"""

from __future__ import annotations

import asyncio

from tests.cli.commands import TYPE, Place, Tympan
from tests.cluster import RedisCluster
from tests.sentinels import Sentinels
from workers.embedded import HOST

PATIENT = "waiting for up to 30 s: no connection to"
NEVER = 600.0
"""Seconds of silence after which somebody else takes over."""


async def test_a_send_behind_sentinel(place: Place) -> None:
    with Sentinels(replicas=0, down_after=NEVER) as farm:
        tympan = Tympan(farm.url)
        primary = await asyncio.to_thread(farm.kill_master)
        words = ("--type", TYPE, "--user", "alice", "--text", "x")
        send = await tympan.start("send", place.printer, *words)
        await send.note(f"tympan: {PATIENT} the primary {HOST}:{primary.port} of mymaster")
        await asyncio.to_thread(primary.restart)
        assert await send.ended() == 0
        assert send.lines[0].startswith("NO_LISTENERS")
        assert send.notes.count("waiting") == 1
        await tympan.clean_up()


async def test_a_listener_in_a_cluster(place: Place) -> None:
    key = f"{{{place.server.strip(chr(92))}}}"
    with RedisCluster(node_timeout=NEVER) as farm:
        tympan = Tympan(farm.url)
        master = await asyncio.to_thread(farm.kill_master, key)
        listen = await tympan.start("listen", place.printer, "--type", TYPE, "--as", "a", "--json")
        await listen.note(f"tympan: {PATIENT} {HOST}:{master.port}")
        await asyncio.to_thread(master.restart)
        assert (await listen.event("registered"))["name"] == place.printer
        await tympan.clean_up()
