"""RabbitMQ through aio-pika: confirmed publishes, each message acknowledged.

Messages are transient and so is their queue, as Redis and NATS write nothing to disk here either.
"""

from __future__ import annotations

from typing import Any

import aio_pika
from aio_pika import DeliveryMode, Message

from benchmarks.contenders.program import Listener, Source, main

PREFETCH = 200
"""Messages that a consumer has before it acknowledges them."""


class RabbitListener(Listener):
    """A channel for each consumer, on one connection; consumers of a subject share its queue."""

    async def start(self) -> None:
        """Connect."""
        self._connection = await aio_pika.connect_robust(self.url)

    async def stop(self) -> None:
        """End the consumers with their connection."""
        await self._connection.close()

    async def listen(self, subjects: list[str], each: int, handler: str) -> None:
        """Consume; ``handler`` is async in any case, aio-pika knows no other."""
        for subject in subjects * each:
            channel = await self._connection.channel()
            await channel.set_qos(prefetch_count=PREFETCH)
            queue = await channel.declare_queue(subject, durable=False)
            await queue.consume(self._take)

    async def _take(self, message: Any) -> None:
        self.heard.take(message.body)
        await message.ack()


class RabbitSource(Source):
    """One channel, with publisher confirms."""

    async def start(self) -> None:
        """Connect."""
        self._connection = await aio_pika.connect_robust(self.url)
        self._channel = await self._connection.channel(publisher_confirms=True)

    async def stop(self) -> None:
        """Disconnect."""
        await self._connection.close()

    async def open(self, subjects: list[str], per_subject: int) -> None:
        """Declare the queues."""
        for subject in subjects:
            await self._channel.declare_queue(subject, durable=False)
        self._subjects = subjects * per_subject

    async def send(self, index: int, data: bytes) -> None:
        """Publish, and return when the server confirms it."""
        message = Message(data, delivery_mode=DeliveryMode.NOT_PERSISTENT)
        subject = self._subjects[index % len(self._subjects)]
        await self._channel.default_exchange.publish(message, subject)


if __name__ == "__main__":
    main(source=RabbitSource, listener=RabbitListener)
