"""dramatiq on Redis: a worker of eight threads, each message acknowledged, results not kept."""

from __future__ import annotations

import threading
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.contenders.program import Listener, Source, main

ACTOR = "take"


def make_actor(broker: RedisBroker, subject: str, take: Any) -> Any:
    """The actor of a subject's queue."""
    return dramatiq.actor(take, actor_name=f"{ACTOR}-{subject}", queue_name=subject, broker=broker)


class DramatiqListener(Listener):
    """One worker, which is all that a process may have."""

    async def start(self) -> None:
        """Connect."""
        self._broker = RedisBroker(url=self.url)
        self._worker = dramatiq.Worker(self._broker)
        self._one_at_a_time = threading.Lock()

    async def stop(self) -> None:
        """Stop the worker's threads."""
        self._worker.stop()
        self._broker.close()

    async def listen(self, subjects: list[str], each: int, handler: str) -> None:
        """Start the worker; ``handler`` is plain, as an async one costs it a further thread.

        Raises ValueError for more than one listener on a subject.
        """
        if each != 1:
            raise ValueError(f"dramatiq has one worker in a process, not {each}: start more")
        for subject in subjects:
            make_actor(self._broker, subject, self._take)
        self._worker.start()

    def _take(self, data: str) -> None:
        with self._one_at_a_time:
            self.heard.take(data.encode())


class DramatiqSource(Source):
    """Sends from the event loop's thread: dramatiq's calls block, and return when Redis has it."""

    async def start(self) -> None:
        """Connect."""
        self._broker = RedisBroker(url=self.url)

    async def stop(self) -> None:
        """Disconnect."""
        self._broker.close()

    async def open(self, subjects: list[str], per_subject: int) -> None:
        """Declare the actors."""
        actors = [make_actor(self._broker, subject, _take) for subject in subjects]
        self._actors = actors * per_subject

    async def send(self, index: int, data: bytes) -> None:
        """Send a message; its arguments travel as JSON."""
        self._actors[index % len(self._actors)].send(data.decode())


def _take(data: str) -> None:
    """What a source sends, and a listener does."""


if __name__ == "__main__":
    main(source=DramatiqSource, listener=DramatiqListener)
