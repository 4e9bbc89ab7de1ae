"""A shift: replicas of a pool, each a process, of which one is killed now and then."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

from broker import Broker
from broker.names import Name
from workers.proof.child import Child
from workers.proof.history import History, Work
from workers.proof.patience import done, now
from workers.proof.talk import PRINTER, TYPE

POOL = "prove"
PATIENCE = 30.0
PAUSE = 0.005
"""Seconds between two notifications."""


class Shift:
    """A pool's replicas, one of which is killed now and then, and what they said."""

    def __init__(
        self, history: History, replica: Callable[[Callable[[dict[str, Any]], None]], Child]
    ) -> None:
        self.is_over = False
        self._history = history
        self._work = history.works.setdefault(POOL, Work())
        self._replica = replica
        self._serving: dict[str, Child] = {}
        self._ready: dict[str, asyncio.Event] = {}
        self._numbers = itertools.count(1)
        self._given: dict[str, list[float]] = {}
        """For each text, when each of the replicas was given it."""
        self._killed: dict[str, float] = {}

    async def begin(self) -> None:
        """One more replica; it serves when this returns."""
        name = f"replica {next(self._numbers)}"
        ready = self._ready[name] = asyncio.Event()
        child = self._serving[name] = self._replica(partial(self._told, name))
        await child.start()
        async with asyncio.timeout(PATIENCE):
            await ready.wait()

    def _told(self, name: str, line: dict[str, Any]) -> None:
        if "handled" in line:
            self._work.handled.setdefault(line["handled"], []).append(name)
            self._given.setdefault(line["handled"], []).append(now())
        elif "finished" in line:
            self._work.finished.setdefault(line["finished"], []).append(name)
        elif "ready" in line:
            self._ready[name].set()

    async def send_on(self, broker: Broker) -> None:
        """Send without losing anything, until it is over."""
        channel = await broker.open_channel(PRINTER, TYPE, user=POOL)
        self._work.channels.add(channel.id)
        for number in itertools.count():
            if self.is_over:
                break
            text = f"work {number}"
            self._work.sends[text] = await done(partial(channel.send, text, lossless=True))
            await asyncio.sleep(PAUSE)
        await done(channel.close)

    async def kill_one(self) -> None:
        """Kill the oldest, and begin another."""
        name = next(iter(self._serving))
        self._work.died.add(name)
        self._killed[name] = now()
        await self._serving.pop(name).kill()
        await self.begin()

    @property
    def recovered(self) -> list[float]:
        """For each kill, seconds until others had been given the last that the dead had in hand.

        One that had finished all has none.
        """
        latest: dict[str, float] = {}
        for text, replicas in self._work.handled.items():
            times = self._given[text]
            for (name, _), (_, at) in itertools.pairwise(zip(replicas, times, strict=True)):
                if name in self._killed:
                    latest[name] = max(latest.get(name, 0.0), at - self._killed[name])
        return list(latest.values())

    async def settle(self, broker: Broker) -> None:
        """Wait until nothing is left, for as long as what the dead held may take."""
        due = now() + 2 * broker.settings.lease + PATIENCE
        while now() < due:
            self._work.left = sum(
                facts.backlog
                for facts in await broker.pools.on_server(Name.parse(PRINTER).of_server)
            )
            if not self._work.left:
                return
            await asyncio.sleep(0.05)
        self._history.faults.append(
            f"pool {POOL}: {self._work.left} notifications were left, with replicas there"
        )

    async def end(self) -> None:
        """No replica more: they leave in order."""
        serving, self._serving = list(self._serving.values()), {}
        await asyncio.gather(*(child.leave(PATIENCE) for child in serving))
