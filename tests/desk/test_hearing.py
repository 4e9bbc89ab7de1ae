"""The hearing through an outage: it says so, and an answer that waits is given once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from broker import BIDIRECTIONAL, Broker, Channel, Name
from tests.conformance.actors import eventually
from tests.desk.asking import job_question
from tests.servers import RedisServer
from workers.alert import Alert
from workers.cli.desk_hearing import Hearing, Wish
from workers.cups.types import JobAnswer, JobQuestion
from workers.desk.desk import Change, Desk, State
from workers.desk.hand import Answer
from workers.desk.question import Asked

PRINTER = Name("print01", "laser-3")
WISHES = (Wish(PRINTER, JobQuestion, BIDIRECTIONAL, all_users=False),)
PATIENCE = 30.0


class Notes:
    """A watcher that keeps remarks."""

    def __init__(self) -> None:
        self.remarks: list[str] = []

    def registered(self, wishes: tuple[Wish, ...], reached: tuple[str, ...]) -> None:
        pass

    def alerted(self, alert: Alert, change: Change) -> None:
        pass

    def forgotten(self, name: Name) -> None:
        pass

    def asked(self, id_: str, asked: Asked) -> None:
        pass

    def over(self, id_: str, asked: Asked, words: str) -> None:
        pass

    def remarked(self, text: str) -> None:
        self.remarks.append(text)


class Scene:
    """A desk of alice, and a print host that asks her; Redis is the test's own."""

    def __init__(self, redis: RedisServer, source: Broker, broker: Broker) -> None:
        self.redis = redis
        self.source = source
        self.desk = Desk()
        self.notes = Notes()
        self.hearing = Hearing(broker, self.desk, WISHES, self.notes)

    async def asked(self) -> Channel:
        """A question that stands on the desk."""
        channel = await self.source.open_channel(
            PRINTER, JobQuestion, user="alice", style=BIDIRECTIONAL
        )
        await channel.send(job_question(7))
        await eventually(lambda: self.desk.find(channel.id) is not None, "the question", PATIENCE)
        return channel

    def answer(self, channel: Channel, label: str) -> None:
        self.hearing.answer(Answer(channel.id, label, label, ""))

    @property
    def is_away(self) -> bool:
        return any("Redis has not answered" in one for one in self.hearing.troubles)


@contextlib.asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    with RedisServer() as redis:
        async with (
            Broker.connect(redis.url, user="spooler", lease=60.0) as source,
            Broker.connect(redis.url, user="alice", lease=60.0, operation_timeout=1.0) as broker,
        ):
            made = Scene(redis, source, broker)
            task = asyncio.create_task(made.hearing.until_cancelled())
            try:
                await eventually(lambda: bool(made.hearing.reached), "the registrations", PATIENCE)
                yield made
            finally:
                redis.resume()
                task.cancel()
                await asyncio.wait({task})


async def test_redis_is_frozen_and_an_answer_waits() -> None:
    async with scene() as here:
        channel = await here.asked()
        assert here.hearing.troubles == ()
        here.redis.pause()
        await eventually(lambda: here.is_away, "word that Redis is away", PATIENCE)
        here.answer(channel, "continue")
        entry = here.desk.find(channel.id)
        assert entry is not None
        assert entry.state is State.ANSWERING
        here.redis.resume()
        response = await channel.response(PATIENCE)
        assert response.payload == JobAnswer(choice="continue")
        await eventually(lambda: not here.is_away, "word that it is back", PATIENCE)
        assert "Redis answers again" in here.notes.remarks
        await eventually(lambda: entry.state is State.OURS, "the answer", PATIENCE)
