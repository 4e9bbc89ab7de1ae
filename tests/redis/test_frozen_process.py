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
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        said: dict[str, Any] = json.loads(line)
        assert said["event"] == event, said
        return said

    def told(self, channel: str, body: str) -> None:
        """Have it answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{channel} {body}\n".encode())

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


LEASE = 0.5


async def test_a_process_that_slept_past_its_lease_finds_its_dialog_over(
    real_farm: Farm, redis_server: RedisServer
) -> None:
    source = await real_farm.broker(**BRISK | {"lease": LEASE})
    async with child(real_farm, redis_server.url, LEASE) as listener:
        registered = await listener.said("registered")
        channel = await real_farm.question(source)
        assert (await listener.said("offered"))["channel"] == channel.id
        listener.told(channel.id, "yes")
        await listener.said("answered")
        assert (await channel.response(PATIENCE)).data == b"yes"
        await channel.send(b"sure?")

        listener.freeze()
        await leases_pass(real_farm.client, 2, LEASE)
        await source.run_down(PRINTER)
        await is_released(channel)
        listener.told(channel.id, "late")
        listener.thaw()

        refused = await listener.said("refused")
        assert refused["error"] in ("SessionLapsed", "ChannelAlreadyClosed")
        assert refused["lapses"] == 1
        assert [each async for each in channel.responses()] == [], "the late answer came nowhere"

        again = await real_farm.question(source)
        offered = await listener.said("offered")
        assert offered["channel"] == again.id, "it registered again by itself"
        assert offered["registration"] != registered["registration"]
        listener.told(again.id, "here")
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
        await listener.said("offered")
        listener.freeze()
        await leases_pass(real_farm.client, 2, LEASE)
        listener.told(channel.id, "late")
        listener.thaw()
        refused = await listener.said("refused")
        assert refused["error"] in ("SessionLapsed", "ChannelAlreadyClosed")
        assert refused["lapses"] == 1
        assert (await listener.said("offered"))["channel"] == channel.id, "it is still open"
        listener.told(channel.id, "now")
        await listener.said("answered")
        response = await channel.response(PATIENCE)
        assert response.data == b"now"
        await source.run_down(PRINTER)
