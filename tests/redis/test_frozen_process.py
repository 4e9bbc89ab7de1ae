"""A process that slept past its lease was declared dead, and acts no more on what it held.

Its late answer is refused; it finds out by itself, registers again, and hears again.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.farm import PATIENCE, PRINTER, Farm
from tests.redis.scenes import BRISK, is_released, leases_pass
from tests.servers import RedisServer


class Child:
    """A listener in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def said(self, event: str) -> dict[str, Any]:
        """The next thing that it says, which must be this."""
        (said,) = await self.said_each(event)
        return said

    async def said_each(self, *events: str) -> list[dict[str, Any]]:
        """The next things that it says, which must be these, in any order."""
        assert self._process.stdout is not None
        said: dict[str, dict[str, Any]] = {}
        for _ in events:
            line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
            fact: dict[str, Any] = json.loads(line)
            said[fact["event"]] = fact
        assert set(said) == set(events)
        return [said[event] for event in events]

    def told(self, offered: dict[str, Any], body: str) -> None:
        """Have it answer what it was offered."""
        assert self._process.stdin is not None
        line = f"{offered['channel']} {offered['registration']} {body}\n"
        self._process.stdin.write(line.encode())

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def child(farm: Farm, url: str, lease: float) -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.redis.paused_listener",
        url,
        farm.namespace,
        str(lease),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Child(process)
        assert process.stdin is not None
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


LEASE = 1.5


async def test_a_process_that_slept_past_its_lease_finds_its_dialog_over(
    real_farm: Farm, redis_server: RedisServer
) -> None:
    source = await real_farm.broker(**BRISK | {"lease": LEASE})
    async with child(real_farm, redis_server.url, LEASE) as listener:
        registered = await listener.said("registered")
        channel = await real_farm.question(source)
        offered = await listener.said("offered")
        assert offered["channel"] == channel.id
        listener.told(offered, "yes")
        await listener.said("answered")
        assert (await channel.response(PATIENCE)).data == b"yes"
        await channel.send(b"sure?")

        listener.freeze()
        await leases_pass(real_farm.client, 2, LEASE)
        await source.run_down(PRINTER)
        await is_released(channel)
        listener.told(offered, "late")
        listener.thaw()

        refused = await listener.said("refused")
        assert refused["error"] in ("SessionLapsed", "ChannelAlreadyClosed")
        assert refused["lapses"] == 1
        assert [each async for each in channel.responses()] == [], "the late answer came nowhere"

        again = await real_farm.question(source)
        offered = await listener.said("offered")
        assert offered["channel"] == again.id, "it registered again by itself"
        assert offered["registration"] != registered["registration"]
        listener.told(offered, "here")
        await listener.said("answered")
        assert (await again.response(PATIENCE)).data == b"here"


async def test_a_process_that_slept_past_its_lease_does_not_win_a_race(
    real_farm: Farm, redis_server: RedisServer
) -> None:
    """Nobody swept it yet: its lease alone refuses it."""
    source = await real_farm.broker(**BRISK | {"lease": LEASE, "resync": 60.0})
    async with child(real_farm, redis_server.url, LEASE) as listener:
        await listener.said("registered")
        channel = await real_farm.question(source)
        offered = await listener.said("offered")
        listener.freeze()
        await leases_pass(real_farm.client, 2, LEASE)
        listener.told(offered, "late")
        listener.thaw()
        refused, again = await listener.said_each("refused", "offered")
        assert refused["error"] in ("SessionLapsed", "ChannelAlreadyClosed")
        assert refused["lapses"] == 1
        assert again["channel"] == channel.id, "it is still open"
        listener.told(again, "now")
        await listener.said("answered")
        response = await channel.response(PATIENCE)
        assert response.data == b"now"
        await source.run_down(PRINTER)
