"""taskiq on Redis streams, through taskiq-redis: each task acknowledged, results not kept."""

from __future__ import annotations

import asyncio
from typing import Any

from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

from benchmarks.contenders.program import Listener, Source, main

TASK = "take"
PREFIX = "taskiq"
"""Of keys in Redis, where others may be named by the same subject."""


def make_broker(url: str, subject: str) -> RedisStreamBroker:
    """The broker of a subject's stream."""
    return RedisStreamBroker(url, queue_name=f"{PREFIX}:{subject}")


class TaskiqListener(Listener):
    """A receiver for each consumer, as ``taskiq worker`` runs it."""

    async def start(self) -> None:
        """Nothing yet: a broker belongs to a subject."""
        self._brokers: list[RedisStreamBroker] = []
        self._receivers: list[asyncio.Task[None]] = []

    async def stop(self) -> None:
        """Stop receivers and brokers."""
        for receiver in self._receivers:
            receiver.cancel()
        # A read may miss that it is cancelled; it ends with its connection.
        for broker in self._brokers:
            await broker.shutdown()
        await asyncio.gather(*self._receivers, return_exceptions=True)

    async def listen(self, subjects: list[str], each: int, handler: str) -> None:
        """Start the receivers; a plain handler would be run in a thread, so it is async always."""

        async def take(data: str) -> None:
            self.heard.take(data.encode())

        for subject in subjects * each:
            broker = make_broker(self.url, subject)
            broker.register_task(take, task_name=TASK)
            broker.is_worker_process = True
            await broker.startup()
            self._brokers.append(broker)
            self._receivers.append(asyncio.create_task(run_receiver_task(broker)))


class TaskiqSource(Source):
    """A broker for each subject."""

    async def start(self) -> None:
        """Nothing yet: a broker belongs to a subject."""
        self._brokers: list[RedisStreamBroker] = []

    async def stop(self) -> None:
        """Disconnect."""
        for broker in self._brokers:
            await broker.shutdown()

    async def open(self, subjects: list[str], per_subject: int) -> None:
        """Make the brokers and what sends by them."""
        tasks = []
        for subject in subjects:
            broker = make_broker(self.url, subject)
            await broker.startup()
            self._brokers.append(broker)
            tasks.append(broker.register_task(_task, task_name=TASK))
        self._tasks: list[Any] = tasks * per_subject

    async def send(self, index: int, data: bytes) -> None:
        """Send a task; its arguments travel as JSON."""
        await self._tasks[index % len(self._tasks)].kiq(data.decode())


async def _task(data: str) -> None:
    """What a source sends, and a listener does."""


if __name__ == "__main__":
    main(source=TaskiqSource, listener=TaskiqListener)
