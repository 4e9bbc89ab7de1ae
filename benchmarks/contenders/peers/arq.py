"""arq: jobs polled from a sorted set every 10 ms, results not kept."""

from __future__ import annotations

import asyncio
from typing import Any

from arq import create_pool, func
from arq.connections import RedisSettings
from arq.worker import Worker

from benchmarks.contenders.program import Listener, Source, main

JOB = "take"
PREFIX = "arq"
"""Of queues in Redis, where others may be named by the same subject."""
POLL_S = 0.01
"""arq's own default is half a second, which would be all that its latency shows."""


class ArqListener(Listener):
    """A worker for each consumer."""

    async def start(self) -> None:
        """Nothing yet: a worker belongs to a subject."""
        self._workers: list[Worker] = []
        self._running: list[asyncio.Task[None]] = []

    async def stop(self) -> None:
        """Stop the workers when their jobs are done."""
        for worker in self._workers:
            await asyncio.gather(*worker.tasks.values())
            await worker.close()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def listen(self, subjects: list[str], each: int, handler: str) -> None:
        """Start the workers; ``handler`` is async in any case, arq knows no other."""
        for subject in subjects * each:
            worker = Worker(
                [func(self._take, name=JOB, keep_result=0)],
                queue_name=f"{PREFIX}:{subject}",
                redis_settings=RedisSettings.from_dsn(self.url),
                poll_delay=POLL_S,
                handle_signals=False,
            )
            self._workers.append(worker)
            self._running.append(asyncio.create_task(worker.async_run()))

    async def _take(self, _context: dict[Any, Any], data: bytes) -> None:
        self.heard.take(data)


class ArqSource(Source):
    """One pool of connections."""

    async def start(self) -> None:
        """Connect."""
        self._pool = await create_pool(RedisSettings.from_dsn(self.url))

    async def stop(self) -> None:
        """Disconnect."""
        await self._pool.aclose()

    async def open(self, subjects: list[str], per_subject: int) -> None:
        """Arq knows no channels."""
        self._queues = [f"{PREFIX}:{subject}" for subject in subjects] * per_subject

    async def send(self, index: int, data: bytes) -> None:
        """Enqueue a job."""
        queue = self._queues[index % len(self._queues)]
        await self._pool.enqueue_job(JOB, data, _queue_name=queue)


if __name__ == "__main__":
    main(source=ArqSource, listener=ArqListener)
