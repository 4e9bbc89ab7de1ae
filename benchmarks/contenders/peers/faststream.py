"""FastStream on Redis.

Forms: ``streams`` (which is meant where none is named) reads a stream through one group that all
listeners share, each entry acknowledged. ``pubsub`` stores nothing, and each listener hears
everything.
"""

from __future__ import annotations

import uuid
from typing import Any

from faststream.redis import RedisBroker, StreamSub

from benchmarks.contenders.program import Answer, Listener, Source, main

POOL = "pool"
CONNECTIONS = 64
"""Sends in flight at the most: each takes a connection of redis-py's, and more make it slower."""
MOST_CONNECTIONS = 4_096
"""Of a broker: each subscriber takes one, and redis-py's own bound is 100."""


def make_broker(url: str) -> RedisBroker:
    """A broker that does not log each message."""
    return RedisBroker(url, max_connections=MOST_CONNECTIONS, logger=None)


def key(subject: str) -> str:
    """Key or channel in Redis, where others may be named by the same subject."""
    return f"faststream:{subject}"


class FastStreamListener(Listener):
    """Subscribers of one broker."""

    async def start(self) -> None:
        """Make the broker; it connects when it knows its subscribers."""
        self._broker = make_broker(self.url)

    async def stop(self) -> None:
        """Stop the subscribers."""
        await self._broker.stop()

    async def listen(self, subjects: list[str], each: int, handler: str) -> None:
        """Subscribe; a plain handler would be run in a thread, so it is async always."""
        for subject in subjects:
            for _ in range(each):
                self._subscriber(subject)(self._hear)
        await self._broker.start()

    def _subscriber(self, subject: str) -> Any:
        if self.form == "pubsub":
            return self._broker.subscriber(key(subject))
        stream = StreamSub(key(subject), group=POOL, consumer=uuid.uuid4().hex)
        return self._broker.subscriber(stream=stream)

    async def _hear(self, data: bytes) -> None:
        self.heard.take(data)


class FastStreamSource(Source):
    """Publishes through one broker."""

    async def start(self) -> None:
        """Connect."""
        self._broker = make_broker(self.url)
        await self._broker.connect()

    async def stop(self) -> None:
        """Disconnect."""
        await self._broker.stop()

    async def open(self, subjects: list[str], per_subject: int) -> None:
        """FastStream knows no channels."""
        self._keys = [key(subject) for subject in subjects] * per_subject

    async def send(self, index: int, data: bytes) -> None:
        """Publish."""
        where = self._keys[index % len(self._keys)]
        if self.form == "pubsub":
            await self._broker.publish(data, where)
        else:
            await self._broker.publish(data, stream=where)

    async def many(self, count: int, size: int, in_flight: int) -> Answer:
        """As many in flight as do it good."""
        return await super().many(count, size, min(in_flight, CONNECTIONS))


if __name__ == "__main__":
    main(source=FastStreamSource, listener=FastStreamListener)
