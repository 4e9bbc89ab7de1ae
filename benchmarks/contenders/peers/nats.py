"""NATS through nats-py.

Forms: ``core`` stores nothing, and each listener hears everything. ``jetstream`` stores in the
server's memory and ``jetstream-file`` in its files: a publish is acknowledged when it is stored,
and the listeners of all processes share one durable consumer, each message acknowledged.
Questions are core NATS requests in every form.
"""

from __future__ import annotations

import asyncio
from typing import Any

import nats
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StorageType, StreamConfig

from benchmarks.contenders.program import Answer, Listener, Source, Stopwatch, body, main

POOL = "pool"
PATIENCE_S = 30.0


def stored(form: str) -> bool:
    """Whether messages of this form are stored."""
    return form.startswith("jetstream")


async def make_stream(js: JetStreamContext, subject: str, form: str) -> None:
    """Make the subject's stream; nothing where it is there."""
    storage = StorageType.FILE if form == "jetstream-file" else StorageType.MEMORY
    await js.add_stream(StreamConfig(name=subject, subjects=[subject], storage=storage))


class NatsListener(Listener):
    """Subscriptions with callbacks, on one connection."""

    async def start(self) -> None:
        """Connect."""
        self._client = await nats.connect(self.url)
        self._js = self._client.jetstream()

    async def stop(self) -> None:
        """End the subscriptions with their connection."""
        await self._client.close()

    async def listen(self, subjects: list[str], each: int, handler: str) -> None:
        """Subscribe; ``handler`` is a coroutine function in any case, nats-py knows no other."""
        for subject in subjects:
            if stored(self.form):
                await self._share(subject, each)
            else:
                for _ in range(each):
                    await self._client.subscribe(subject, cb=self._take)
        await self._client.flush()

    async def answer(self, subjects: list[str]) -> None:
        """Respond to requests."""
        for subject in subjects:
            await self._client.subscribe(subject, cb=self._respond)
        await self._client.flush()

    async def _share(self, subject: str, each: int) -> None:
        await make_stream(self._js, subject, self.form)
        config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, deliver_policy=DeliverPolicy.NEW)
        for _ in range(each):
            await self._js.subscribe(
                subject, queue=POOL, cb=self._take_and_ack, manual_ack=True, config=config
            )

    async def _take(self, message: Any) -> None:
        self.heard.take(message.data)

    async def _take_and_ack(self, message: Any) -> None:
        self.heard.take(message.data)
        await message.ack()

    async def _respond(self, message: Any) -> None:
        await message.respond(message.data)


class NatsSource(Source):
    """Publishes on one connection."""

    async def start(self) -> None:
        """Connect."""
        self._client = await nats.connect(self.url)
        self._subjects: list[str] = []
        self._windows: dict[int, JetStreamContext] = {}
        self._js = self._client.jetstream()

    async def stop(self) -> None:
        """Disconnect."""
        await self._client.close()

    async def open(self, subjects: list[str], per_subject: int) -> None:
        """Make the streams, where there are any; NATS knows no channels."""
        self._subjects = subjects * per_subject
        if stored(self.form):
            for subject in subjects:
                await make_stream(self._js, subject, self.form)

    async def close(self) -> None:
        """Delete the streams."""
        if stored(self.form):
            for subject in set(self._subjects):
                await self._js.delete_stream(subject)
        self._subjects = []

    async def send(self, index: int, data: bytes) -> None:
        """Publish; where it is stored, return when the server says so."""
        subject = self._subjects[index % len(self._subjects)]
        if stored(self.form):
            await self._js.publish(subject, data)
        else:
            await self._client.publish(subject, data)

    async def many(self, count: int, size: int, in_flight: int) -> Answer:
        """Publish so many at a time.

        Core NATS acknowledges nothing: what it has is a flush, which returns when the server has
        read all that was sent before.
        """
        if stored(self.form):
            return await self._many_acknowledged(count, size, in_flight)
        watch = Stopwatch()
        for first in range(0, count, in_flight):
            for index in range(first, min(first + in_flight, count)):
                await self.send(index, body(size))
            await self._client.flush(PATIENCE_S)
        return watch.answer()

    async def _many_acknowledged(self, count: int, size: int, in_flight: int) -> Answer:
        js = self._windows.get(in_flight)
        if js is None:
            js = self._client.jetstream(publish_async_max_pending=in_flight)
            self._windows[in_flight] = js
        subjects, known = self._subjects, len(self._subjects)
        watch = Stopwatch()
        acknowledgements = [
            await js.publish_async(subjects[index % known], body(size)) for index in range(count)
        ]
        await asyncio.gather(*acknowledgements)
        return watch.answer()

    async def dialog(self, subject: str, data: bytes) -> None:
        """Request and response."""
        await self._client.request(subject, data, timeout=PATIENCE_S)


if __name__ == "__main__":
    main(source=NatsSource, listener=NatsListener)
