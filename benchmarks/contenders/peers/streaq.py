"""streaQ on Redis streams, through coredis: each task acknowledged, results not kept."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import anyio
from streaq import Worker

from benchmarks.contenders.program import Listener, Source, main

TASK = "take"
GRACE_S = 0.3


def make_worker(url: str, subject: str) -> Worker[None]:
    """A worker on the subject's queue; a source sends through one that does not run."""
    return Worker(redis_url=url, queue_name=subject, handle_signals=False)


class StreaqListener(Listener):
    """A worker for each consumer."""

    async def start(self) -> None:
        """Nothing yet: a worker belongs to a subject."""
        self._running = await AsyncExitStack().__aenter__()
        self._tasks = await self._running.enter_async_context(anyio.create_task_group())

    async def stop(self) -> None:
        """Stop the workers; those that are cut off in acknowledging a task would fail."""
        await anyio.sleep(GRACE_S)
        self._tasks.cancel_scope.cancel()
        await self._running.aclose()

    async def listen(self, subjects: list[str], each: int, handler: str) -> None:
        """Start the workers; a plain handler would be run in a thread, so it is async always."""
        for subject in subjects * each:
            worker = make_worker(self.url, subject)
            worker.task(name=TASK, ttl=0)(self._take)
            await self._tasks.start(worker.run_async)

    async def _take(self, data: bytes) -> None:
        self.heard.take(data)


class StreaqSource(Source):
    """A worker for each subject, which sends only."""

    async def start(self) -> None:
        """Nothing yet: a worker belongs to a subject."""
        self._open = await AsyncExitStack().__aenter__()

    async def stop(self) -> None:
        """Disconnect."""
        await self._open.aclose()

    async def open(self, subjects: list[str], per_subject: int) -> None:
        """Connect, a worker each."""
        tasks = []
        for subject in subjects:
            worker = make_worker(self.url, subject)
            tasks.append(worker.task(name=TASK, ttl=0)(_take))
            await self._open.enter_async_context(worker)
        self._tasks: list[Any] = tasks * per_subject

    async def send(self, index: int, data: bytes) -> None:
        """Enqueue a task."""
        await self._tasks[index % len(self._tasks)].enqueue(data)


async def _take(data: bytes) -> None:
    """What a source sends, and a listener does."""


if __name__ == "__main__":
    main(source=StreaqSource, listener=StreaqListener)
