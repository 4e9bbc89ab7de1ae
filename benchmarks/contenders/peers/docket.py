"""docket on Redis streams: each task acknowledged, executions and results not kept."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import AsyncExitStack
from datetime import timedelta

from docket import Docket, Worker

from benchmarks.contenders.program import Answer, Listener, Source, main

TASK = "take"
CONNECTIONS = 64
"""Sends in flight at the most: each takes a connection of redis-py's, which fails beyond 100."""
CONCURRENCY = 90
"""Slots of a worker, each of which takes such a connection."""
CHECK_S = 0.01
"""When a worker whose slots are all taken looks again: the defaults, 10 slots and 250 ms, would
leave it at 40 tasks a second."""


def make_docket(url: str, subject: str) -> Docket:
    """The docket of a subject."""
    return Docket(name=subject, url=url, execution_ttl=timedelta(0))


class DocketListener(Listener):
    """A worker for each consumer."""

    async def start(self) -> None:
        """Nothing yet: a docket belongs to a subject."""
        self._open = await AsyncExitStack().__aenter__()
        self._running: list[asyncio.Task[None]] = []

    async def stop(self) -> None:
        """Stop the workers, then leave their dockets."""
        for running in self._running:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._open.aclose()

    async def listen(self, subjects: list[str], each: int, handler: str) -> None:
        """Start the workers; ``handler`` is async in any case, docket knows no other."""
        for subject in subjects * each:
            docket = await self._open.enter_async_context(make_docket(self.url, subject))
            docket.register(self._take, names=[TASK])
            worker = Worker(
                docket,
                name=uuid.uuid4().hex,
                concurrency=CONCURRENCY,
                minimum_check_interval=timedelta(seconds=CHECK_S),
            )
            await self._open.enter_async_context(worker)
            self._running.append(asyncio.create_task(worker.run_forever()))

    async def _take(self, data: bytes) -> None:
        self.heard.take(data)


class DocketSource(Source):
    """A docket for each subject."""

    async def start(self) -> None:
        """Nothing yet: a docket belongs to a subject."""
        self._open = await AsyncExitStack().__aenter__()

    async def stop(self) -> None:
        """Leave the dockets."""
        await self._open.aclose()

    async def open(self, subjects: list[str], per_subject: int) -> None:
        """Enter the dockets."""
        dockets = []
        for subject in subjects:
            docket = await self._open.enter_async_context(make_docket(self.url, subject))
            docket.register(_take, names=[TASK])
            dockets.append(docket)
        self._dockets = dockets * per_subject

    async def send(self, index: int, data: bytes) -> None:
        """Add a task that is due at once."""
        await self._dockets[index % len(self._dockets)].add(TASK)(data)

    async def many(self, count: int, size: int, in_flight: int) -> Answer:
        """As many in flight as it can have."""
        return await super().many(count, size, min(in_flight, CONNECTIONS))


async def _take(data: bytes) -> None:
    """What a source sends, and a listener does."""


if __name__ == "__main__":
    main(source=DocketSource, listener=DocketListener)
